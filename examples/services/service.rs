//! The parts that a separate process would have.

use crate::backend::Backend;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::thread::{self, JoinHandle};
use tokio::runtime;
use tokio::sync::watch;
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, dispatcher};
use tracing_session::{SessionLayer, SessionTracerProvider};
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// The provider and the subscriber of a service.
fn set_up(
    name: &'static str,
    backend: Backend,
) -> (SessionTracerProvider<SdkTracerProvider>, Dispatch) {
    let provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name(name).build())
        .with_batch_exporter(backend)
        .build();
    let provider = SessionTracerProvider::new(provider);
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer(name));
    let subscriber = tracing_subscriber::registry()
        .with(LevelFilter::INFO)
        // Prints the warnings about mistakes in the setup.
        .with(fmt::layer().with_writer(io::stderr))
        .with(SessionLayer::new().wrap(otel));
    (provider, Dispatch::new(subscriber))
}

/// Runs a service on a thread instead of in a process.
pub(crate) fn start(
    name: &'static str,
    backend: &Backend,
    service: impl Future<Output = Outcome> + Send + 'static,
) -> JoinHandle<Outcome> {
    let (provider, dispatch) = set_up(name, backend.clone());
    thread::spawn(move || {
        // A process would call `init`.
        let _default = dispatcher::set_default(&dispatch);
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let outcome = runtime.block_on(service);
        provider.shutdown()?;
        outcome
    })
}

/// A free port.
pub(crate) fn listen() -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Waits until `main` stops the services.
pub(crate) async fn stopped(mut until: watch::Receiver<()>) {
    let _is_dropped = until.changed().await;
}
