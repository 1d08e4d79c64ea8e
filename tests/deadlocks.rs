//! Nothing of this crate waits for itself: foreign code that runs inside a span's making, its starting, its
//! ending or its recording may use `tracing` and this crate, and threads may meet in the same spans.
//!
//! Each test is a process of its own, with a subscriber for all its threads (under one that is the default of
//! a thread `tracing` keeps foreign code from finding it), and is aborted when it hangs.

use crate::support;
use opentelemetry::logs::{Logger, LoggerProvider};
use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, Tracer, TracerProvider};
use opentelemetry::{Context, InstrumentationScope, KeyValue, global};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord, SdkLoggerProvider};
use opentelemetry_sdk::trace::{
    Sampler, SamplingResult, SdkTracerProvider, ShouldSample, Span as SdkSpan, SpanData,
    SpanExporter, SpanProcessor,
};
use serde::{Serialize, Serializer};
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::Empty;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Span, Subscriber, info, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::fmt::with_session;
use tracing_session::{
    Conversation, Session, SessionLayer, SessionPropagator, SessionSampler, SessionTracerProvider,
    current_session, current_session_id,
    layer::SessionExtension,
    mark_trace, new_session,
    processors::SessionLogProcessor,
    propagation::{InboundPolicy, inject_context, propagated_context},
    session, set_session_id, set_user_id, user,
};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Context as LayerContext;
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

/// Runs `act` in a process of its own, which is aborted if that takes for ever.
fn comes_to_an_end(test: &'static str, act: impl FnOnce()) {
    if support::alone(test, &[]) {
        let (running, watched) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if watched.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{test} hangs: a thread waits for a lock that it holds itself");
                std::process::abort();
            }
        });
        act();
        drop(running);
    }
}

/// Runs foreign code, not inside itself: a sampler that makes spans would never end.
fn once(act: impl FnOnce()) {
    thread_local! {
        static INSIDE: Cell<bool> = const { Cell::new(false) };
    }
    if !INSIDE.replace(true) {
        act();
        INSIDE.set(false);
    }
}

/// What foreign code may do wherever it runs.
fn use_tracing() {
    info!("an event");
    info_span!("made inside").in_scope(|| info!("an event inside"));
    session!("inner").in_scope(|| {
        user!("inner").in_scope(|| {
            info!(current = current_session_id(), "an event in a session");
        });
        set_user_id("set inside").unwrap_or_default();
    });
    let late = info_span!("late", session.id = Empty, tags = Empty);
    late.record("session.id", "recorded inside");
    late.record("tags", "one,two");
    info_span!(parent: &late, "explicit").in_scope(|| {});
    info_span!("not one", session.id = " ").in_scope(|| {});
    Session::new("a value").unwrap().in_scope(|| {
        info!("an event in a value");
        let mut headers: HashMap<String, String> = HashMap::new();
        inject_context(&mut headers);
        propagated_context(&headers).in_scope(|| drop(current_session()));
    });
    Conversation::new(Session::generate())
        .turn("a turn inside")
        .finish();
    global::tracer("library").in_span("plain", |_| {});
}

/// And what sets something on the span that it runs in. Whether it can, is not the question here.
fn use_everything() {
    use_tracing();
    let _asked = (set_session_id("set"), set_user_id("set"));
    let _asked = (new_session(), mark_trace());
}

/// The spans of an application, made and started and ended in every way.
fn work() {
    session!("chat-42", metadata.plan = "pro").in_scope(|| {
        info_span!("child").in_scope(|| info!("an event"));
        let parent = info_span!("started by its child", user.id = Empty);
        let child = info_span!(parent: &parent, "explicit");
        parent.record("user.id", "u-7");
        child.in_scope(|| drop(info_span!("never entered")));
        set_user_id("u-8").unwrap();
        mark_trace().unwrap();
    });
    let continued = session!("chat-43");
    continued.set_parent(support::remote()).unwrap();
    continued.in_scope(|| info_span!("below").in_scope(|| {}));
    info_span!("follows").follows_from(continued.id());
    info_span!("handler").in_scope(|| set_session_id("chat-44").unwrap());
    Session::new("chat-45").unwrap().in_scope(|| {
        info_span!("in a value").in_scope(|| {});
        // By `in_span`, OpenTelemetry borrows the current `Context` meanwhile, and foreign code that enters a
        // span panics.
        let tracer = global::tracer("library");
        let plain = tracer.start_with_context("plain", &Context::current());
        let _attached = Context::current_with_span(plain).attach();
        info_span!("in a plain one").in_scope(|| {});
    });
    let mut chat = Conversation::new(Session::generate());
    let turn = chat.turn("weather");
    turn.span().in_scope(|| info!("an event in a turn"));
    turn.finish();
    chat.turn(|| info_span!("tomorrow")).finish();
}

/// The sampler, the processor and the exporter of a provider use everything.
#[derive(Clone, Debug)]
struct Foreign(fn());

impl ShouldSample for Foreign {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        once(self.0);
        Sampler::AlwaysOn.should_sample(parent, trace, name, kind, attributes, links)
    }
}

impl SpanProcessor for Foreign {
    fn on_start(&self, _: &mut SdkSpan, cx: &Context) {
        once(self.0);
        once(|| drop(Session::of(cx)));
    }

    fn on_end(&self, _: SpanData) {
        once(self.0);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

impl SpanExporter for Foreign {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        once(self.0);
        Ok(())
    }
}

impl LogProcessor for Foreign {
    fn emit(&self, _: &mut SdkLogRecord, _: &InstrumentationScope) {
        once(self.0);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// A layer that reads and writes the extensions of every span it hears of, and logs. It is no `fmt` layer:
/// that one holds them while it prints what is recorded.
struct Reads;

struct Read(usize);

impl Reads {
    fn look<S>(id: &Id, ctx: &LayerContext<'_, S>)
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        let span = ctx.span(id).unwrap();
        let mut seen = 0;
        for span in span.scope() {
            if let Some(opened) = span.extensions().get::<SessionExtension>() {
                seen += usize::from(opened.session().id().is_some());
            }
            span.extensions_mut().replace(Read(seen));
        }
        if let Some(read) = span.extensions().get::<Read>() {
            seen += read.0;
        }
        drop(span);
        once(|| info!(seen, current = current_session_id(), "looked"));
    }
}

impl<S> Layer<S> for Reads
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, ctx: LayerContext<'_, S>) {
        Self::look(id, &ctx);
    }

    fn on_record(&self, id: &Id, _: &Record<'_>, ctx: LayerContext<'_, S>) {
        Self::look(id, &ctx);
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, ctx: LayerContext<'_, S>) {
        Self::look(id, &ctx);
        Self::look(follows, &ctx);
    }

    fn on_event(&self, event: &Event<'_>, ctx: LayerContext<'_, S>) {
        if let Some(span) = ctx.event_span(event) {
            Self::look(&span.id(), &ctx);
        }
    }

    fn on_enter(&self, id: &Id, ctx: LayerContext<'_, S>) {
        Self::look(id, &ctx);
    }

    fn on_exit(&self, id: &Id, ctx: LayerContext<'_, S>) {
        Self::look(id, &ctx);
    }

    fn on_close(&self, id: Id, ctx: LayerContext<'_, S>) {
        Self::look(&id, &ctx);
    }
}

type Provider = SessionTracerProvider<SdkTracerProvider>;

fn provider(foreign: impl FnOnce(Builder) -> Builder) -> Provider {
    let provider = SessionTracerProvider::new(foreign(SdkTracerProvider::builder()).build());
    global::set_tracer_provider(provider.clone());
    global::set_text_map_propagator(SessionPropagator::new());
    provider
}

type Builder = opentelemetry_sdk::trace::TracerProviderBuilder;
type Inner = tracing_subscriber::layer::Layered<Reads, Registry>;
type Otel<S> = tracing_opentelemetry::OpenTelemetryLayer<
    S,
    tracing_session::tracer::SessionTracer<opentelemetry_sdk::trace::SdkTracer>,
>;

/// The subscriber of all threads: what `make` makes of the OpenTelemetry layer, with layers that read the
/// extensions on both sides of it. It counts the events in a session.
fn install<L: Layer<Inner> + Send + Sync>(
    provider: &Provider,
    make: impl FnOnce(Otel<Inner>) -> L,
) -> InSessions {
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let in_sessions = InSessions::default();
    let subscriber = tracing_subscriber::registry().with(Reads).with(make(otel));
    let subscriber = subscriber.with(Reads).with(in_sessions.clone());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    in_sessions
}

#[derive(Clone, Default)]
struct InSessions(Arc<AtomicUsize>);

impl InSessions {
    /// That foreign code has run, and was listened to.
    #[track_caller]
    fn are_at_least(&self, events: usize) {
        let seen = self.0.load(Ordering::Relaxed);
        assert!(seen >= events, "{seen} events in a session");
    }
}

impl<S: Subscriber> Layer<S> for InSessions {
    fn on_event(&self, _: &Event<'_>, _: LayerContext<'_, S>) {
        let in_session = current_session_id().is_some();
        self.0.fetch_add(in_session.into(), Ordering::Relaxed);
    }
}

#[test]
fn sampler_that_uses_everything() {
    comes_to_an_end(test_name!(), || {
        let provider = provider(|builder| builder.with_sampler(Foreign(use_everything)));
        let in_sessions = install(&provider, |otel| SessionLayer::new().wrap(otel));
        work();
        in_sessions.are_at_least(10);
    });
}

#[test]
fn span_processor_that_uses_everything() {
    comes_to_an_end(test_name!(), || {
        let foreign = Foreign(use_everything);
        let provider = provider(|builder| builder.with_span_processor(foreign));
        let in_sessions = install(&provider, |otel| SessionLayer::new().wrap(otel));
        work();
        in_sessions.are_at_least(10);
    });
}

#[test]
fn span_processor_that_uses_everything_beside_hidden_spans_and_a_default_session() {
    let test = test_name!();
    comes_to_an_end(test, || {
        let foreign = Foreign(use_everything);
        let provider = provider(|builder| builder.with_span_processor(foreign));
        Session::generate().set_global_default().unwrap();
        install(&provider, |otel| {
            let layer = SessionLayer::new().with_root_turns();
            let hides = |metadata: &Metadata<'_>| metadata.name() != "user";
            layer.wrap_filtered(otel, filter_fn(hides))
        });
        work();
    });
}

#[test]
fn exporter_that_uses_everything() {
    comes_to_an_end(test_name!(), || {
        let foreign = Foreign(use_everything);
        // A simple exporter would wait for the lock of its processor, which is the SDK's own.
        let provider = provider(|builder| builder.with_batch_exporter(foreign));
        let in_sessions = install(&provider, |otel| SessionLayer::new().wrap(otel));
        work();
        provider.force_flush().unwrap();
        in_sessions.are_at_least(10);
    });
}

#[test]
fn log_processor_that_logs() {
    comes_to_an_end(test_name!(), || {
        let logs = SdkLoggerProvider::builder()
            .with_log_processor(SessionLogProcessor::new())
            .with_log_processor(Foreign(use_everything))
            .build();
        let bridge = OpenTelemetryTracingBridge::new(&logs);
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(std::io::sink)
            .map_event_format(with_session);
        let provider = provider(|builder| builder);
        let in_sessions = install(&provider, |otel| {
            SessionLayer::new()
                .wrap(otel)
                .and_then(bridge)
                .and_then(lines)
        });
        work();
        let logger = logs.logger("app");
        session!("chat-42").in_scope(|| logger.emit(logger.create_log_record()));
        in_sessions.are_at_least(10);
    });
}

/// It would wait for the lock of the span that is being started.
#[test]
fn setting_a_value_while_a_span_starts_is_an_error() {
    comes_to_an_end(test_name!(), || {
        static ERRORS: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let sets = Foreign(|| {
            let asked = [
                set_session_id("secret"),
                set_user_id("secret"),
                new_session().map(drop),
                Session::new("secret").unwrap().in_scope(mark_trace),
            ];
            for error in asked.into_iter().filter_map(Result::err) {
                assert!(error.is_no_span());
                ERRORS.lock().unwrap().push(error.to_string());
            }
        });
        let provider = provider(|builder| builder.with_sampler(sets));
        install(&provider, |otel| SessionLayer::new().wrap(otel));
        info_span!("handler").in_scope(|| {
            set_session_id("chat-42").unwrap();
            mark_trace().unwrap();
        });
        let errors = ERRORS.lock().unwrap();
        assert_eq!(errors.len(), 4);
        for error in errors.iter() {
            assert!(
                error.starts_with("a sampler or span processor called this"),
                "{error}"
            );
        }
    });
}

/// Whatever it is asked for, by `Debug`, `Display` or as JSON, it uses everything.
struct Value(&'static str);

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        once(use_everything);
        f.write_str(self.0)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        once(use_everything);
        serializer.serialize_str(self.0)
    }
}

#[test]
fn values_that_use_everything_when_they_are_read() {
    comes_to_an_end(test_name!(), || {
        let provider = provider(|builder| builder);
        let in_sessions = install(&provider, |otel| SessionLayer::new().wrap(otel));
        info_span!("outer", session.id = "outer", user.id = Empty).in_scope(|| {
            let span = info_span!("session", id = ?Value("chat-42"), other = %Value("other"));
            span.in_scope(|| info!(field = ?Value("field"), "an event with a field"));
            let late = info_span!(
                "late",
                session.id = Empty,
                metadata.plan = Empty,
                tags = Empty
            );
            late.record("session.id", tracing::field::debug(Value("chat-43")));
            late.record("metadata.plan", tracing::field::display(Value("pro")));
            late.record("tags", tracing::field::debug(Value("one,two")));
            // It records the session of the span that is around the one that is made.
            Span::current().record("user.id", tracing::field::display(Value("u-7")));
            session!(Value("chat-44"), metadata.plan = ?Value("pro")).in_scope(|| {
                set_session_id(Value("chat-45")).unwrap();
            });
            let session = Session::new(Value("chat-46")).unwrap();
            let session = session.with_metadata("plan", Value("pro")).unwrap();
            session.in_scope(|| info!("in a value"));
        });
        in_sessions.are_at_least(10);
    });
}

#[test]
fn functions_that_the_crate_is_given_use_everything() {
    comes_to_an_end(test_name!(), || {
        let keeps = |_: &Session| {
            once(use_everything);
            true
        };
        let sampler = Sampler::parent_based(SessionSampler::new(0.5).always_keep(keeps));
        let provider = provider(|builder| builder.with_sampler(sampler));
        let verify = |id: &str, _: &()| {
            once(use_everything);
            id.starts_with("chat")
        };
        let inbound = InboundPolicy::verify(verify);
        global::set_text_map_propagator(SessionPropagator::new().with_inbound(inbound));
        let in_sessions = install(&provider, |otel| {
            let filter = filter_fn(|metadata| {
                // Not while a span is being made: there `tracing` itself decides on the span around.
                once(|| drop(current_session()));
                metadata.name() != "hidden"
            });
            SessionLayer::new().wrap_filtered(otel, filter)
        });
        work();
        let headers = HashMap::from([("baggage".to_owned(), "session.id=chat-42".to_owned())]);
        propagated_context(&headers).in_scope(|| {
            assert_eq!(current_session_id().as_deref(), Some("chat-42"));
        });
        let mut chat = Conversation::new(Session::generate());
        let turn = chat.turn(|| {
            once(use_tracing);
            info_span!("turn")
        });
        turn.finish();
        in_sessions.are_at_least(3);
    });
}

/// An event while the extensions of the current span are locked: the OpenTelemetry layer would wait, and
/// so that layer is not there.
#[test]
fn event_under_the_lock_of_a_span() {
    struct Logs;

    impl<S> Layer<S> for Logs
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
    {
        fn on_enter(&self, id: &Id, ctx: LayerContext<'_, S>) {
            let span = ctx.span(id).unwrap();
            let extensions = span.extensions_mut();
            once(|| info!(current = current_session_id(), "an event"));
            drop(extensions);
        }
    }

    comes_to_an_end(test_name!(), || {
        let subscriber = tracing_subscriber::registry().with(SessionLayer::new());
        tracing::subscriber::set_global_default(subscriber.with(Logs)).unwrap();
        session!("chat-42").in_scope(|| info_span!("child").in_scope(|| {}));
        info_span!("session", id = " ").in_scope(|| info_span!("child").in_scope(|| {}));
    });
}

#[test]
fn threads_that_meet_in_the_same_spans() {
    comes_to_an_end(test_name!(), || {
        let foreign = Foreign(use_everything);
        let provider = provider(|builder| builder.with_span_processor(foreign));
        install(&provider, |otel| SessionLayer::new().wrap(otel));
        let outer = info_span!("outer", session.id = Empty, user.id = Empty, tags = Empty);
        let inner = info_span!(parent: &outer, "inner", session.id = "inner", user.id = Empty);
        let spans = Arc::new([outer, inner]);
        let acts: [fn(&Span, &Span); 8] = [
            |span, _| {
                span.record("session.id", "recorded");
            },
            |span, _| {
                span.record("user.id", tracing::field::debug(Value("u-7")));
            },
            |span, _| span.in_scope(|| set_session_id("set").unwrap()),
            |span, _| span.in_scope(|| drop(mark_trace())),
            |span, other| span.in_scope(|| other.in_scope(|| drop(current_session()))),
            |span, _| info_span!(parent: span, "explicit").in_scope(|| {}),
            |_, _| {
                info_span!("follows").follows_from(Span::current());
            },
            |span, _| {
                let cx = span.context();
                cx.span().set_attribute(KeyValue::new("tags", "x"));
            },
        ];
        let run = |first: usize| {
            let spans = spans.clone();
            std::thread::spawn(move || {
                for turn in 0..400 {
                    let act = acts[(first * 3 + turn) % acts.len()];
                    act(&spans[turn % 2], &spans[(turn + first) % 2]);
                }
            })
        };
        let threads: Vec<_> = (0..4).map(run).collect();
        threads.into_iter().for_each(|it| it.join().unwrap());
    });
}
