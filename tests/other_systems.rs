//! What other systems do with sessions, and what this crate does: the samples of their documentation, their own test
//! cases, and what they were seen to do. Where this crate differs on purpose, the test says the reason.
//!
//! | system | module |
//! | --- | --- |
//! | OpenInference and Arize | `openinference` |
//! | Mirascope 2.8.2 | `mirascope` |
//! | TraceCtrl 0.3.2 | `tracectrl`, and between services `services` |
//! | Tracia | `tracia` |
//! | OpenTelemetry's baggage processors, Logfire, Langfuse | `attributes` |

mod attributes;
mod mirascope;
mod openinference;
#[cfg(all(feature = "reqwest", feature = "tower"))]
mod services;
mod tracectrl;
mod tracia;

use opentelemetry::propagation::TextMapCompositePropagator;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use std::collections::HashMap;
use tracing::{Instrument, info_span, instrument};
use tracing_session::{
    InSession, Session, SessionPropagator,
    propagation::{SESSION_HEADER_NAME, inject_context},
    session,
};

type Headers = HashMap<String, String>;

fn headers(lines: &[(&str, &str)]) -> Headers {
    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    lines.iter().map(owned).collect()
}

/// Sets a global propagator that writes W3C baggage and Mirascope's header beside the trace.
fn propagate() {
    let session = SessionPropagator::new();
    crate::support::propagate(TextMapCompositePropagator::new(vec![
        Box::new(TraceContextPropagator::new()),
        Box::new(session.with_header(SESSION_HEADER_NAME).unwrap()),
    ]));
}

/// The headers of a request that is sent here.
fn injected() -> Headers {
    let mut headers = Headers::new();
    inject_context(&mut headers);
    headers
}

/// An application calls a model with a library, which knows nothing of sessions.
fn call_model() {
    info_span!("call").in_scope(|| info_span!("http").in_scope(|| {}));
}

/// The same in asynchronous code.
async fn call_model_async() {
    let call = async {
        tokio::task::yield_now().await;
        info_span!("http").in_scope(|| {});
    };
    call.instrument(info_span!("call")).await;
}

/// Polls a future to its end, on this thread.
fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

/// Runs its argument in a session.
type Way = fn(&Session, &mut dyn FnMut());

/// The ways to put a session in force for a piece of work: what Python's context managers and decorators are here.
const WAYS: [(&str, Way); 5] = [
    ("in_scope", |session, work| session.in_scope(work)),
    ("attach", |session, work| {
        let _guard = session.attach();
        work();
    }),
    ("session!", |session, work| {
        session!(session).in_scope(work);
    }),
    ("in_session", |session, work| {
        let mut future = std::pin::pin!(
            async {
                tokio::task::yield_now().await;
                work();
            }
            .in_session(session.clone())
        );
        // Not `run`: one of these is inside another.
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        while future.as_mut().poll(&mut cx).is_pending() {}
    }),
    ("#[instrument]", |session, work| {
        #[instrument(skip_all)]
        fn decorated(work: &mut dyn FnMut()) {
            work();
        }
        session.in_scope(|| decorated(work));
    }),
];
