//! What happens when the crate is misused, or used without OpenTelemetry (D).

mod standard_error;

use crate::support::{self, Diagnostics};
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Instrument, dispatcher, info_span, instrument};
use tracing_session::{
    Conversation, InSession, Session, SessionLayer, SessionTracerProvider, current_session,
    current_session_id, layer::SessionExtension, mark_trace, propagation::InboundPolicy, session,
    set_session_id, set_user_id, user,
};
use tracing_subscriber::Layer;
use tracing_subscriber::prelude::*;
use tracing_subscriber::registry::LookupSpan;

/// A subscriber of any layer, as the default of this thread.
fn install(
    layer: impl Layer<support::Base> + Send + Sync,
) -> (Dispatch, Diagnostics, DefaultGuard) {
    let diagnostics = Diagnostics::default();
    let base = tracing_subscriber::registry().with(diagnostics.clone());
    let dispatch = Dispatch::new(base.with(layer));
    let default = dispatcher::set_default(&dispatch);
    (dispatch, diagnostics, default)
}

fn plain_provider() -> (SdkTracerProvider, InMemorySpanExporter) {
    let exporter = InMemorySpanExporter::default();
    (
        SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .build(),
        exporter,
    )
}

// D1

const NO_PROVIDER: &str = "spans are exported without their session because the OpenTelemetry layer's tracer does not \
    come from a `SessionTracerProvider`: use `SessionTracerProvider::new(provider).tracer(\"..\")`";
const BESIDE: &str = "spans are exported without their session because the `SessionLayer` is beside the OpenTelemetry \
    layer, not around it: use `SessionLayer::new().wrap(otel_layer)` in place of both";

#[test]
fn without_the_provider_one_diagnostic_tells_the_fix() {
    let (provider, exporter) = plain_provider();
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let (_, diagnostics, _default) = install(SessionLayer::new().wrap(otel));
    for _ in 0..3 {
        session!("secret-42").in_scope(|| info_span!("below").in_scope(|| {}));
    }
    assert_eq!(diagnostics.messages(), [NO_PROVIDER]);
    let spans = exporter.get_finished_spans().unwrap();
    assert_eq!(spans.len(), 6);
    let keys = spans
        .iter()
        .flat_map(|span| span.attributes.iter().map(|a| a.key.as_str()));
    assert!(
        keys.into_iter()
            .all(|key| !key.starts_with("tracing_session"))
    );
}

#[test]
fn setting_a_value_without_the_provider_is_an_error_without_effect() {
    let (provider, exporter) = plain_provider();
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let (_, _, _default) = install(SessionLayer::new().wrap(otel));
    info_span!("handler").in_scope(|| {
        let error = set_session_id("secret-42").unwrap_err();
        assert!(error.is_no_span());
        assert!(
            error
                .to_string()
                .contains("SessionTracerProvider::new(provider)"),
            "{error}"
        );
    });
    let span = format!("{:?}", exporter.get_finished_spans().unwrap());
    assert!(
        !span.contains("secret-42") && !span.contains("tracing_session"),
        "{span}"
    );
}

#[test]
fn layer_beside_the_opentelemetry_layer_is_reported_once() {
    for (session_layer_first, in_vec) in
        [(true, false), (false, false), (true, true), (false, true)]
    {
        let (provider, _exporter) = plain_provider();
        let provider = SessionTracerProvider::new(provider);
        let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
        let ours = SessionLayer::new();
        let (_, diagnostics, _default) = match (session_layer_first, in_vec) {
            (true, false) => install(ours.and_then(otel)),
            (false, false) => install(otel.and_then(ours)),
            (true, true) => install(vec![ours.boxed(), otel.boxed()]),
            (false, true) => install(vec![otel.boxed(), ours.boxed()]),
        };
        for _ in 0..3 {
            session!("secret-42").in_scope(|| info_span!("below").in_scope(|| {}));
        }
        assert_eq!(diagnostics.messages(), [BESIDE]);
    }
}

/// `Vec` doesn't tell its layers the dispatcher.
#[test]
fn without_the_provider_a_layer_in_a_vec_emits_the_diagnostic_too() {
    let (provider, _exporter) = plain_provider();
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let layers = vec![
        SessionLayer::new().wrap(otel).boxed(),
        LevelFilter::INFO.boxed(),
    ];
    let (_, diagnostics, _default) = install(layers);
    for _ in 0..3 {
        session!("secret-42").in_scope(|| info_span!("below").in_scope(|| {}));
    }
    assert_eq!(diagnostics.messages(), [NO_PROVIDER]);
}

#[test]
fn without_the_provider_filtered_out_spans_do_not_delay_the_diagnostic() {
    let (provider, _exporter) = plain_provider();
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let otel = otel.with_filter(LevelFilter::INFO);
    let (_, diagnostics, _default) = install(SessionLayer::new().wrap(otel));
    for _ in 0..3 {
        tracing::debug_span!("session", id = "hidden").in_scope(|| {});
    }
    assert_eq!(diagnostics.messages(), [""; 0]);
    session!("chat-42").in_scope(|| {});
    assert_eq!(diagnostics.messages(), [NO_PROVIDER]);
}

/// Any span tells who makes it, and a session may be a value. Of spans that nobody exports, some are
/// looked at.
#[test]
fn without_the_provider_the_setup_check_of_filtered_out_spans_ends() {
    let value = || {
        let session = Session::new("chat-42").unwrap();
        session.in_scope(|| info_span!("in a value").in_scope(|| {}));
    };
    for (hidden, is_told) in [(0, true), (150, true), (250, false)] {
        let (provider, _exporter) = plain_provider();
        let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
        let otel = otel.with_filter(LevelFilter::INFO);
        let (_, diagnostics, _default) = install(SessionLayer::new().wrap(otel));
        for _ in 0..hidden {
            tracing::debug_span!("hidden").in_scope(|| {});
        }
        assert_eq!(diagnostics.messages(), [""; 0]);
        value();
        let expected = if is_told { &[NO_PROVIDER][..] } else { &[] };
        assert_eq!(diagnostics.messages(), expected, "{hidden}");
        session!("chat-42").in_scope(|| {});
        assert_eq!(diagnostics.messages(), [NO_PROVIDER], "{hidden}");
    }
}

#[test]
fn invalid_field_is_reported_while_the_span_is_open() {
    fn messages_while_open(layer: impl Layer<support::Base> + Send + Sync) {
        let (_, diagnostics, _default) = install(layer);
        let span = info_span!("session", id = " ");
        span.in_scope(|| assert_eq!(diagnostics.messages().len(), 1));
        let span = info_span!("user", user.id = tracing::field::Empty);
        span.record("user.id", " ");
        assert_eq!(diagnostics.messages().len(), 2);
        drop(info_span!("session", id = " "));
        assert_eq!(diagnostics.messages().len(), 3, "not entered");
    }
    let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    messages_while_open(SessionLayer::new().wrap(otel));
    messages_while_open(SessionLayer::new());
}

#[test]
fn correct_setup_gets_no_diagnostic() {
    let (provider, _exporter) = plain_provider();
    let provider = SessionTracerProvider::new(provider);
    let otel = || tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let work = |diagnostics: Diagnostics| {
        for _ in 0..20 {
            info_span!("outside").in_scope(|| info_span!("below").in_scope(|| {}));
            Session::new("chat-41")
                .unwrap()
                .in_scope(|| info_span!("in a value").in_scope(|| {}));
            session!("chat-42").in_scope(|| user!("u-7").in_scope(|| {}));
            tracing::debug_span!("session", id = "hidden").in_scope(|| {});
            info_span!("late", user.id = tracing::field::Empty).in_scope(|| {});
            let _suppressed = opentelemetry::Context::enter_telemetry_suppressed_scope();
            session!("chat-43").in_scope(|| {});
        }
        assert_eq!(diagnostics.messages(), [""; 0]);
    };
    let (_, diagnostics, _default) = install(SessionLayer::new().wrap(otel()));
    work(diagnostics);
    let filtered = otel().with_filter(LevelFilter::INFO);
    let (_, diagnostics, _default) = install(SessionLayer::new().wrap(filtered));
    work(diagnostics);
    let filtered = SessionLayer::new().wrap_filtered(otel(), LevelFilter::INFO);
    let (_, diagnostics, _default) = install(filtered);
    work(diagnostics);
    let (_, diagnostics, _default) = install(SessionLayer::new());
    work(diagnostics);
}

#[test]
fn no_value_of_an_id_is_in_a_diagnostic_an_error_or_a_debug_output() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let secret = "secret-42";
    let too_long = secret.repeat(200);
    let session = Session::new(secret).unwrap().with_user(secret).unwrap();
    // Without an exporter: what was exported is not for us to hide.
    let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    session.set_global_default().unwrap();
    let layer = SessionLayer::new();
    let debug = format!("{layer:?}");
    let (dispatch, diagnostics, _default) = install(layer.wrap(otel));
    info_span!("session", id = too_long.as_str()).in_scope(|| {});
    info_span!("login", user.id = %format!("{secret}\u{7}")).in_scope(|| {});
    let guard = session.attach();
    let in_extensions = session!(secret).with_subscriber(|(id, dispatch)| {
        let registry: &tracing_subscriber::Registry = dispatch.downcast_ref().unwrap();
        let span = registry.span(id).unwrap();
        let shown = format!("{:?}", span.extensions().get::<SessionExtension>().unwrap());
        assert!(shown.starts_with("SessionExtension(Session { id: Some(<hidden>)"));
        shown
    });
    let in_extensions = in_extensions.unwrap();
    let span = provider.tracer("library").start("plain");
    let outputs = [
        debug,
        format!(
            "{session:?} {guard:?} {span:?} {provider:?} {:?}",
            provider.tracer("x")
        ),
        format!("{:?}", std::future::ready(()).in_session(session.clone())),
        format!("{:?}", Session::new(&too_long).unwrap_err()),
        in_extensions,
        format!("{:?} {:?}", opentelemetry::Context::current(), dispatch),
        diagnostics.messages().join("\n"),
    ];
    assert_eq!(diagnostics.messages().len(), 2);
    assert!(outputs[1].starts_with("Session { id: Some(<hidden>), user_id: Some(<hidden>)"));
    for output in outputs {
        assert!(!output.contains("secret"), "{output}");
    }
}

#[test]
fn attribute_with_an_internal_name_belongs_to_its_author() {
    let (provider, exporter) = plain_provider();
    let tracer = SessionTracerProvider::new(provider).tracer("library");
    let name = String::from("tracing_session.handover");
    let builder = tracer.span_builder("plain");
    let attributes = [opentelemetry::KeyValue::new(name, 1)];
    drop(builder.with_attributes(attributes).start(&tracer));
    let spans = exporter.get_finished_spans().unwrap();
    assert_eq!(
        support::tree(&spans),
        "plain tracing_session.handover=I64(1)\n"
    );
}

// D2

#[test]
fn without_a_subscriber_nothing_breaks_and_session_values_still_apply() {
    let (provider, exporter) = plain_provider();
    let tracer = SessionTracerProvider::new(provider).tracer("library");
    session!("nobody listens").in_scope(|| assert_eq!(current_session(), None));
    assert!(set_session_id("chat-41").unwrap_err().is_no_span());
    let session = Session::new("chat-42").unwrap();
    session.in_scope(|| {
        assert_eq!(current_session_id().as_deref(), Some("chat-42"));
        tracer.in_span("plain", |cx| {
            assert!(cx.span().span_context().is_valid());
            set_user_id("u-7").unwrap();
        });
    });
    assert_eq!(current_session(), None);
    let spans = exporter.get_finished_spans().unwrap();
    assert_eq!(
        support::tree(&spans),
        "plain session.id=chat-42 user.id=u-7\n"
    );
}

/// Every row of the table holds where there is no OpenTelemetry layer.
fn logs_only(layer: impl Layer<support::Base> + Send + Sync) {
    let (dispatch, diagnostics, _default) = install(layer);
    let id = || current_session_id();
    let is = |expected: Option<&str>| assert_eq!(current_session_id().as_deref(), expected);
    let on_thread = |f: &(dyn Fn() + Sync)| {
        std::thread::scope(|scope| {
            scope
                .spawn(|| dispatcher::with_default(&dispatch, f))
                .join()
                .unwrap();
        });
    };

    let session = session!("chat-42");
    let child = session.in_scope(|| {
        is(Some("chat-42"));
        info_span!("child")
    });
    is(None);
    child.in_scope(|| is(Some("chat-42")));
    let explicit = info_span!(parent: &child, "explicit");
    explicit.in_scope(|| is(Some("chat-42")));
    info_span!(parent: None, "root").in_scope(|| is(None));
    session.in_scope(|| {
        info_span!(parent: None, "root").in_scope(|| is(None));
        info_span!(parent: None, "root").in_scope(|| info_span!("below").in_scope(|| is(None)));
    });
    on_thread(&|| {
        is(None);
        explicit.in_scope(|| is(Some("chat-42")));
        is(None);
    });
    session.in_scope(|| {
        user!("u-7").in_scope(|| {
            let both = current_session().unwrap();
            assert_eq!((both.id(), both.user_id()), (Some("chat-42"), Some("u-7")));
            session!("chat-43").in_scope(|| is(Some("chat-43")));
            Session::new("chat-44")
                .unwrap()
                .in_scope(|| is(Some("chat-44")));
        });
        is(Some("chat-42"));
    });
    let of_value = Session::new("chat-45")
        .unwrap()
        .in_scope(|| info_span!("of a value"));
    on_thread(&|| of_value.in_scope(|| is(Some("chat-45"))));
    Session::new("outer")
        .unwrap()
        .in_scope(|| session.in_scope(|| is(Some("chat-42"))));

    #[instrument(fields(session.id))]
    fn handle() -> Option<String> {
        tracing::Span::current().record("session.id", "late");
        current_session_id()
    }
    assert_eq!(handle().as_deref(), Some("late"));

    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let handler = async {
        set_session_id("chat-46").unwrap();
        mark_trace().unwrap();
        tokio::task::yield_now().await;
        info_span!("below").in_scope(id)
    };
    let inside = runtime.block_on(handler.instrument(info_span!("handler")));
    assert_eq!(inside.as_deref(), Some("chat-46"));
    assert!(set_session_id("chat-47").unwrap_err().is_no_span());
    is(None);
    assert_eq!(diagnostics.messages(), [""; 0]);
}

#[test]
fn current_session_works_on_every_thread_without_an_opentelemetry_layer() {
    logs_only(SessionLayer::new());
}

#[test]
fn current_session_works_on_every_thread_around_a_layer_that_is_none() {
    logs_only(SessionLayer::new().wrap(None::<support::Otel>));
}

#[test]
fn setting_a_value_in_a_span_that_the_session_layers_filter_disables_is_an_error() {
    let (_, _, _default) = install(Layer::with_filter(SessionLayer::new(), LevelFilter::INFO));
    info_span!("root").in_scope(|| {
        let _hidden = tracing::debug_span!("task").entered();
        assert!(set_user_id("u-7").unwrap_err().is_no_span());
    });
    assert_eq!(current_session(), None);
}

/// What the public types print: enough to tell what they are, and no id.
#[test]
fn debug_shows_which_ids_are_set_and_no_values() {
    let provider = SessionTracerProvider::new(plain_provider().0);
    let session = Session::new("secret-1")
        .unwrap()
        .with_user("secret-2")
        .unwrap();
    let layer = SessionLayer::new().with_session_field("conversation_id");
    let span = session.in_scope(|| provider.tracer("app").start("span"));
    let state = Conversation::new(session.clone()).state();
    let printed = [
        (format!("{session:?}"), "Session { id: Some("),
        (
            format!("{layer:?}"),
            "fields: [(\"conversation_id\", Session)]",
        ),
        (
            format!("{:?}", InboundPolicy::<()>::accept()),
            "InboundPolicy::accept()",
        ),
        (
            format!("{:?}", InboundPolicy::<()>::ignore()),
            "InboundPolicy::ignore()",
        ),
        (
            format!("{:?}", InboundPolicy::<()>::verify(|_, _| true)),
            "InboundPolicy::verify(",
        ),
        (format!("{span:?}"), "SessionSpan"),
        (format!("{state:?}"), "ConversationState"),
    ];
    #[cfg(feature = "otlp")]
    let printed = printed.into_iter().chain([(
        format!(
            "{:?}",
            tracing_session::otlp::pipeline("my-app").with_header("x-key", "secret")
        ),
        "Pipeline { service_name: \"my-app\"",
    )]);
    for (printed, expected) in printed {
        assert!(printed.contains(expected), "{printed}");
        assert!(!printed.contains("secret"), "{printed}");
    }
}
