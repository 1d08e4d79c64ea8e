//! What the processor writes, and what it leaves out.

use crate::support::{self, Base, Diagnostics, remote};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracer, SdkTracerProvider};
use std::collections::HashMap;
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, debug_span, dispatcher, info_span};
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
use tracing_session::{
    Conversation, Dialect, Session, SessionLayer, SessionPropagator, SessionTracerProvider,
    mark_trace, new_session, processors::SessionSpanProcessor, session, set_session_id,
    set_user_id, user,
};
use tracing_subscriber::Layer;
use tracing_subscriber::prelude::*;

type Otel = OpenTelemetryLayer<Base, SdkTracer>;

/// An application whose provider is the SDK's, with the processor.
struct App {
    provider: SdkTracerProvider,
    exporter: InMemorySpanExporter,
    diagnostics: Diagnostics,
    _default: DefaultGuard,
}

impl App {
    /// With the `SessionLayer` around the OpenTelemetry layer.
    fn new() -> Self {
        Self::with(|otel| SessionLayer::new().wrap(otel))
    }

    fn with<L: Layer<Base> + Send + Sync>(make: impl FnOnce(Otel) -> L) -> Self {
        let (provider, exporter) = provider();
        let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
        let diagnostics = Diagnostics::default();
        let base = tracing_subscriber::registry().with(diagnostics.clone());
        Self {
            provider,
            exporter,
            diagnostics,
            _default: dispatcher::set_default(&Dispatch::new(base.with(make(otel)))),
        }
    }

    /// Asserts what was exported since the last time, and that nobody was told of a mistake.
    #[track_caller]
    fn exports(&self, expected: &[&str]) {
        let spans = self.exporter.get_finished_spans().unwrap();
        let tree = support::tree(&spans);
        assert_eq!(tree.lines().collect::<Vec<_>>(), expected);
        assert_eq!(self.diagnostics.messages(), [""; 0]);
        self.exporter.reset();
    }
}

fn provider() -> (SdkTracerProvider, InMemorySpanExporter) {
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .with_span_processor(SessionSpanProcessor::new())
        .build();
    (provider, exporter)
}

/// A span, and one below it.
fn work() {
    info_span!("work").in_scope(|| info_span!("step").in_scope(|| {}));
}

#[test]
fn session_values_need_nothing_but_the_processor() {
    let app = App::with(|otel| otel);
    let session = Session::new("chat-42").unwrap().with_user("u-7").unwrap();
    session.in_scope(work);
    app.exports(&[
        "work session.id=chat-42 user.id=u-7",
        "  step session.id=chat-42 user.id=u-7",
    ]);
    let tracer = app.provider.tracer("library");
    session.in_scope(|| tracer.in_span("made without tracing", |_| {}));
    app.exports(&["made without tracing session.id=chat-42 user.id=u-7"]);
    work();
    app.exports(&["work", "  step"]);
}

#[test]
fn extracted_session_is_written() {
    let app = App::with(|otel| otel);
    let headers = HashMap::from([("baggage".to_owned(), "session.id=chat-42".to_owned())]);
    let context = SessionPropagator::new().extract_with_context(&Context::new(), &headers);
    let attached = context.attach();
    work();
    drop(attached);
    app.exports(&["work session.id=chat-42", "  step session.id=chat-42"]);
}

#[test]
fn values_of_openers_reach_their_descendants() {
    let app = App::new();
    user!("u-7").in_scope(|| session!("chat-42").in_scope(work));
    app.exports(&[
        "user user.id=u-7",
        "  session session.id=chat-42 user.id=u-7",
        "    work session.id=chat-42 user.id=u-7",
        "      step session.id=chat-42 user.id=u-7",
    ]);
    session!("outer").in_scope(|| {
        info_span!("request", session.id = "inner").in_scope(work);
        work();
    });
    app.exports(&[
        "session session.id=outer",
        "  request session.id=inner",
        "    work session.id=inner",
        "      step session.id=inner",
        "  work session.id=outer",
        "    step session.id=outer",
    ]);
}

#[test]
fn other_values_of_a_session_are_written_unless_the_span_sets_them() {
    let app = App::new();
    let session = Session::new("chat-42").unwrap();
    let session = session.with_prompt_template_version("v2");
    let session = session.with_metadata("tier", "gold").unwrap();
    session.in_scope(|| {
        info_span!("work").in_scope(|| {});
        info_span!("own", metadata = "{}").in_scope(|| {});
    });
    app.exports(&[
        r#"work session.id=chat-42 metadata={"tier":"gold"} llm.prompt_template.version=v2"#,
        r#"own metadata={} session.id=chat-42 llm.prompt_template.version=v2"#,
    ]);
    session!("chat-42", metadata.tier = "gold").in_scope(|| info_span!("below").in_scope(|| {}));
    app.exports(&[
        r#"session session.id=chat-42 metadata.tier=gold metadata={"tier":"gold"}"#,
        r#"  below session.id=chat-42 metadata={"tier":"gold"}"#,
    ]);
}

#[test]
fn other_keys_are_written_on_demand() {
    let exporter = InMemorySpanExporter::default();
    let processor = SessionSpanProcessor::new().with_dialect(Dialect::GEN_AI);
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .with_span_processor(processor)
        .build();
    let tracer = provider.tracer("library");
    let session = Session::new("chat-42").unwrap();
    session.in_scope(|| tracer.in_span("library", |_| {}));
    let tree = support::tree(&exporter.get_finished_spans().unwrap());
    assert_eq!(tree, "library gen_ai.conversation.id=chat-42\n");
}

#[test]
fn own_attribute_is_not_doubled() {
    let app = App::new();
    let tracer = app.provider.tracer("library");
    let own = tracer
        .span_builder("own")
        .with_attributes([KeyValue::new("session.id", "its own")]);
    Session::new("chat-42").unwrap().in_scope(|| {
        info_span!("field", session.id = "its own").in_scope(|| {});
        tracer.build(own).end();
    });
    app.exports(&["field session.id=its own", "own session.id=its own"]);
}

#[test]
fn value_set_after_an_inherited_one_is_added() {
    let app = App::new();
    let tracer = app.provider.tracer("library");
    Session::new("chat-42").unwrap().in_scope(|| {
        let late = info_span!("late", session.id = Empty);
        late.in_scope(|| {
            late.record("session.id", "later");
            work();
        });
        let mut own = tracer.start("own");
        own.set_attribute(KeyValue::new("session.id", "its own"));
    });
    app.exports(&[
        "late session.id=chat-42 session.id=later",
        "  work session.id=later",
        "    step session.id=later",
        "own session.id=chat-42 session.id=its own",
    ]);
}

#[test]
fn value_recorded_later_reaches_the_spans_that_start_afterwards() {
    let app = App::new();
    let request = info_span!("request", user.id = Empty);
    request.in_scope(|| {
        let before = info_span!("before").entered();
        request.record("user.id", "u-7");
        drop(before);
        work();
    });
    drop(request);
    app.exports(&[
        "request user.id=u-7",
        "  before",
        "  work user.id=u-7",
        "    step user.id=u-7",
    ]);
}

#[test]
fn fields_and_attributes_are_exported_as_they_were_written() {
    let app = App::new();
    info_span!("session", id = "chat-42").in_scope(|| {});
    app.exports(&["session id=chat-42 session.id=chat-42"]);
    info_span!("request", session.id = ?"chat-42", session = "plain").in_scope(work);
    app.exports(&[
        "request session.id=\"chat-42\" session=plain",
        "  work session.id=chat-42",
        "    step session.id=chat-42",
    ]);
}

#[test]
fn opener_under_set_parent_sets_the_session_for_itself_alone() {
    let app = App::new();
    let request = session!("chat-42");
    request.set_parent(remote()).unwrap();
    request.in_scope(work);
    drop(request);
    app.exports(&["session session.id=chat-42", "  work", "    step"]);
    // An explicit parent is as good as any other.
    let root = info_span!("root");
    session!(parent: &root, "chat-42").in_scope(work);
    drop(root);
    app.exports(&[
        "root",
        "  session session.id=chat-42",
        "    work session.id=chat-42",
        "      step session.id=chat-42",
    ]);
}

#[test]
fn span_inherits_from_the_parent_that_it_names() {
    let app = App::new();
    let inside = session!("chat-42").in_scope(|| info_span!("inside"));
    info_span!(parent: &inside, "below").in_scope(work);
    Session::new("chat-43")
        .unwrap()
        .in_scope(|| info_span!(parent: None, "root").in_scope(work));
    drop(inside);
    app.exports(&[
        "session session.id=chat-42",
        "  inside session.id=chat-42",
        "    below session.id=chat-42",
        "      work session.id=chat-42",
        "        step session.id=chat-42",
        "root",
        "  work",
        "    step",
    ]);
}

#[test]
fn nothing_can_be_set_on_a_span_that_has_started() {
    let app = App::new();
    info_span!("handler").in_scope(|| {
        for error in [
            set_session_id("chat-42").unwrap_err(),
            set_user_id("u-7").unwrap_err(),
            new_session().unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(
                text.contains("SessionTracerProvider::new(provider)"),
                "{text}"
            );
        }
        session!("chat-42").in_scope(|| {
            let _marks_nothing = mark_trace();
        });
    });
    app.exports(&["handler", "  session session.id=chat-42"]);
}

#[test]
fn default_session_applies_outside_any_other() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let default = Session::new("chat-1").unwrap();
    default.set_global_default().unwrap();
    let app = App::with(|otel| SessionLayer::new().wrap(otel));
    work();
    app.provider.tracer("library").in_span("library", |_| {});
    Session::new("chat-42").unwrap().in_scope(work);
    app.exports(&[
        "work session.id=chat-1",
        "  step session.id=chat-1",
        "library session.id=chat-1",
        "work session.id=chat-42",
        "  step session.id=chat-42",
    ]);
}

#[test]
fn filtered_out_span_still_sets_its_session() {
    let app = App::with(|otel| {
        SessionLayer::new()
            .with_opener_level(tracing::Level::DEBUG)
            .wrap_filtered(otel, LevelFilter::INFO)
    });
    debug_span!("session", id = "chat-42").in_scope(work);
    app.exports(&["work session.id=chat-42", "  step session.id=chat-42"]);
}

/// No tracer proves that the OpenTelemetry layer has received a span.
#[test]
fn first_spans_of_a_foreign_tracer_do_not_count_as_filtered_out() {
    for is_filtered in [false, true] {
        let app = match is_filtered {
            false => App::new(),
            true => App::with(|otel| SessionLayer::new().wrap_filtered(otel, LevelFilter::INFO)),
        };
        let value = Session::new("chat-42").unwrap();
        let handler = value.in_scope(|| info_span!("handler"));
        let other = value.in_scope(|| info_span!("other"));
        let opener = value.in_scope(|| session!("chat-43"));
        for span in [&handler, &other, &opener] {
            span.set_parent(remote()).unwrap();
        }
        handler.in_scope(work);
        info_span!(parent: &other, "explicit").in_scope(work);
        opener.in_scope(|| info_span!(parent: &opener, "explicit").in_scope(work));
        drop((handler, other, opener));
        let spans = app.exporter.get_finished_spans().unwrap();
        let tree = support::tree(&spans);
        // `set_parent` has replaced the session.
        assert!(tree.contains("step") && !tree.contains("chat-42"), "{tree}");
    }
}

#[test]
fn layer_after_the_opentelemetry_layer_works_too() {
    let app = App::with(|otel| otel.and_then(SessionLayer::new()));
    for _ in 0..3 {
        let request = session!("chat-42");
        request.set_parent(remote()).unwrap();
        request.in_scope(work);
    }
    let said = [
        "session session.id=chat-42",
        "  work session.id=chat-42",
        "    step session.id=chat-42",
    ];
    app.exports(&[said, said, said].concat());
    info_span!("session", id = "chat-42").in_scope(work);
    app.exports(&[
        "session id=chat-42",
        "  work session.id=chat-42",
        "    step session.id=chat-42",
    ]);
}

#[test]
fn layer_before_the_opentelemetry_layer_is_reported() {
    let app = App::with(|otel| SessionLayer::new().and_then(otel));
    for _ in 0..3 {
        session!("chat-42").in_scope(work);
    }
    let said = app.diagnostics.messages();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("the `SessionLayer` is beside"), "{said:?}");
}

#[test]
fn in_a_wrapped_provider_the_wrapper_writes() {
    let (provider, exporter) = provider();
    let wrapped = SessionTracerProvider::new(provider.clone());
    let otel = tracing_opentelemetry::layer().with_tracer(wrapped.tracer("app"));
    let subscriber = tracing_subscriber::registry().with(SessionLayer::new().wrap(otel));
    let _default = tracing::subscriber::set_default(subscriber);
    session!("chat-42").in_scope(|| {
        let late = info_span!("late", session.id = Empty);
        late.in_scope(|| late.record("session.id", "later"));
        // One of the same provider that nobody has wrapped.
        provider.tracer("library").in_span("library", |_| {});
    });
    let tree = support::tree(&exporter.get_finished_spans().unwrap());
    assert_eq!(
        tree.lines().collect::<Vec<_>>(),
        [
            "session session.id=chat-42",
            "  late session.id=later",
            "  library session.id=chat-42",
        ]
    );
}

#[test]
fn turns_inside_another_span_begin_no_trace() {
    let app = App::with(|otel| SessionLayer::new().with_root_turns().wrap(otel));
    let mut chat = Conversation::new(Session::new("chat-42").unwrap());
    info_span!("http").in_scope(|| {
        chat.turn(|| info_span!("one")).finish();
        Session::new("chat-43").unwrap().in_scope(|| {
            session!("chat-44", otel.name = "two").in_scope(|| info_span!("model").in_scope(|| {}));
        });
    });
    chat.turn("three").finish();
    app.exports(&[
        "http",
        "  one session.id=chat-42",
        "  two session.id=chat-44",
        "    model session.id=chat-44",
        "three session.id=chat-42",
    ]);
}
