//! What no list of items says: which of them may be sent to other threads, and shared. A guard is the one thing that
//! stays on its thread, and `SessionGuard` says so itself.

use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracer, SdkTracerProvider, Span};
use tracing_session::{
    Conversation, Dialect, Error, Privacy, Session, SessionExporter, SessionLayer,
    SessionPropagator, SessionSampler, SessionTracerProvider,
    conversation::{ConversationState, Turn},
    current::WithSession,
    export::IdPolicy,
    layer::{SessionExtension, WrappedLayer},
    otlp,
    processors::{SessionLogProcessor, SessionSpanProcessor},
    propagation::{InboundPolicy, PropagatedContext, TraceHeaders, reqwest_client, tower_layers},
    tracer::{SessionSpan, SessionTracer},
};
use tracing_subscriber::layer::Identity;

#[test]
fn what_is_public_may_be_sent_and_shared() {
    fn may<T: Send + Sync + Unpin + 'static>() {}
    may::<Session>();
    may::<(Conversation, ConversationState, Turn)>();
    may::<(SessionLayer, WrappedLayer<Identity>)>();
    may::<SessionTracerProvider<SdkTracerProvider>>();
    may::<(SessionTracer<SdkTracer>, SessionSpan<Span>)>();
    may::<(SessionSpanProcessor, SessionLogProcessor, SessionSampler)>();
    may::<SessionExporter<InMemorySpanExporter>>();
    may::<(SessionPropagator, PropagatedContext, TraceHeaders)>();
    may::<(Dialect, Privacy, IdPolicy, InboundPolicy)>();
    may::<(SessionExtension, WithSession<()>, Error)>();
    may::<(otlp::Pipeline, otlp::Telemetry)>();
    may::<(reqwest_client::SessionMiddleware, tower_layers::ServerLayer)>();
    may::<(
        tower_layers::ClientLayer,
        tower_layers::Server<()>,
        tower_layers::Client<()>,
    )>();
}

/// A glob import of a module that has the name of a crate would hide the crate.
mod glob_imports {
    #[allow(unused_imports)]
    use tracing_session::propagation::*;
    #[allow(unused_imports)]
    use tracing_session::*;

    #[test]
    fn hide_no_crate() {
        let _tower = tower::ServiceBuilder::new().layer(tower_layers::client());
        let _reqwest: Option<reqwest::Client> = None;
        let _middleware: Option<reqwest_middleware::ClientWithMiddleware> = None;
        let _http: Option<http::HeaderMap> = None;
    }
}
