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
    propagation::{InboundPolicy, PropagatedContext, TraceHeaders, reqwest, tower},
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
    may::<(reqwest::SessionMiddleware, tower::ServerLayer)>();
    may::<(tower::ClientLayer, tower::Server<()>, tower::Client<()>)>();
}

/// A glob import of the crate root leaves the crates `tower` and `reqwest` reachable.
mod root {
    #[allow(unused_imports)]
    use tracing_session::*;

    #[test]
    fn hides_no_crate() {
        let _tower = tower::ServiceBuilder::new();
        let _reqwest: Option<reqwest::Client> = None;
    }
}
