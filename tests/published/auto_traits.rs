//! What no list of items says: which of them may be sent to other threads, and shared. A guard is the one thing that
//! stays on its thread, and `SessionGuard` says so itself.

use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracer, SdkTracerProvider, Span};
use tracing::level_filters::LevelFilter;
use tracing_session::{
    AroundLayer, Conversation, ConversationState, Dialect, Error, FilteredSessionLayer, IdPolicy,
    InboundPolicy, Privacy, PropagatedContext, Session, SessionExporter, SessionLayer,
    SessionLogProcessor, SessionPropagator, SessionSampler, SessionSpan, SessionSpanProcessor,
    SessionTracer, SessionTracerProvider, SpanSession, TraceHeaders, Turn, WithSession, otlp,
    reqwest, tower,
};
use tracing_subscriber::layer::Identity;

#[test]
fn what_is_public_may_be_sent_and_shared() {
    fn may<T: Send + Sync + Unpin + 'static>() {}
    may::<Session>();
    may::<(Conversation, ConversationState, Turn)>();
    may::<(SessionLayer, AroundLayer<Identity>)>();
    may::<FilteredSessionLayer<LevelFilter>>();
    may::<SessionTracerProvider<SdkTracerProvider>>();
    may::<(SessionTracer<SdkTracer>, SessionSpan<Span>)>();
    may::<(SessionSpanProcessor, SessionLogProcessor, SessionSampler)>();
    may::<SessionExporter<InMemorySpanExporter>>();
    may::<(SessionPropagator, PropagatedContext, TraceHeaders)>();
    may::<(Dialect, Privacy, IdPolicy, InboundPolicy)>();
    may::<(SpanSession, WithSession<()>, Error)>();
    may::<(otlp::Pipeline, otlp::Telemetry)>();
    may::<(reqwest::SessionMiddleware, tower::ServerLayer)>();
    may::<(tower::ClientLayer, tower::Server<()>, tower::Client<()>)>();
}
