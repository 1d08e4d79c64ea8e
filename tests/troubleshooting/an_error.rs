use crate::support::App;
use crate::troubleshooting::{Mistaken, NOTHING};
use opentelemetry::trace::{Link, SpanKind, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tracing::info_span;
use tracing::level_filters::LevelFilter;
use tracing_session::{
    Session, SessionLayer,
    conversation::{ConversationState, link_context},
    export::IdPolicy,
    mark_trace, set_session_id,
};
use tracing_subscriber::{Layer, reload};

fn chat() -> Session {
    Session::new("chat-42").unwrap()
}

fn error_in(app: &Mistaken) -> String {
    let error = info_span!("handler").in_scope(|| set_session_id("chat-42").unwrap_err());
    assert_eq!(app.session_of("handler"), None);
    error.to_string()
}

/// A sampler that sets the session.
#[derive(Clone, Debug, Default)]
struct Sets(Arc<Mutex<Vec<String>>>);

impl ShouldSample for Sets {
    fn should_sample(
        &self,
        _: Option<&Context>,
        _: TraceId,
        _: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let error = set_session_id("chat-42").unwrap_err().to_string();
        self.0.lock().unwrap().push(error);
        SamplingResult {
            decision: SamplingDecision::RecordAndSample,
            attributes: Vec::new(),
            trace_state: TraceState::NONE,
        }
    }
}

rows! {
    there_is_no_span: here "there is no current span to set the session or user on" => |row| {
        row.says(&set_session_id("chat-42").unwrap_err().to_string());
        let _app = App::new();
        row.says(&set_session_id("chat-42").unwrap_err().to_string());
        info_span!("handler").in_scope(|| set_session_id("chat-42").unwrap());
    };

    span_cannot_be_reached: here "the current span does not reach the OpenTelemetry layer" => |row| {
        let app = Mistaken::wrapped(|otel| {
            let (layer, handle) = reload::Layer::new(SessionLayer::new().wrap(otel));
            std::mem::forget(handle);
            layer
        });
        row.says(&error_in(&app));
        drop(app);
        let app = Mistaken::wrapped(|otel| {
            SessionLayer::new().wrap(otel.with_filter(LevelFilter::WARN))
        });
        let error = info_span!("handler").in_scope(|| set_session_id("chat-42").unwrap_err());
        row.says(&error.to_string());
        assert_eq!(app.messages(), NOTHING);
    };

    span_is_not_ours: here "the current span's tracer does not come" => |row| {
        let app = Mistaken::unwrapped(|otel| SessionLayer::new().wrap(otel));
        row.says(&error_in(&app));
    };

    session_is_attached_inside: here "a Session or another OpenTelemetry Context is attached inside" => |row| {
        let _app = App::new();
        info_span!("handler").in_scope(|| {
            let error = chat().in_scope(|| set_session_id("chat-43").unwrap_err());
            row.says(&error.to_string());
            let _attached = opentelemetry::Context::new().attach();
            row.says(&set_session_id("chat-43").unwrap_err().to_string());
        });
    };

    default_session_is_set_twice: alone "the process has a default session already" => |row| {
        chat().set_global_default().unwrap();
        row.says(&chat().set_global_default().unwrap_err().to_string());
        let app = App::new();
        info_span!("root").in_scope(|| {});
        app.exports("root session.id=chat-42");
    };

    session_is_missing: here "there is no current session or user to mark the trace with" => |row| {
        let _app = App::new();
        info_span!("handler").in_scope(|| {
            row.says(&mark_trace().unwrap_err().to_string());
            set_session_id("chat-42").unwrap();
            mark_trace().unwrap();
        });
    };

    id_is_none: here "id is blank" => |row| {
        for id in [" ", "\n", "two\nlines", &"x".repeat(1025)] {
            row.says(&Session::new(id).unwrap_err().to_string());
        }
    };

    span_is_being_started: here "a sampler or span processor called this" => |row| {
        let sets = Sets::default();
        let asked = sets.clone();
        let _app = App::with_provider(
            |builder| builder.with_sampler(sets),
            |otel| SessionLayer::new().wrap(otel),
        );
        info_span!("outer").in_scope(|| info_span!("inner").in_scope(|| {}));
        let errors = asked.0.lock().unwrap();
        row.says_all(&errors);
    };

    state_is_malformed: here "the text is not a trace id" => |row| {
        row.says(&link_context("tr_0123", "sp_0123456789abcdef").unwrap_err().to_string());
        let trace = "0123456789abcdef0123456789abcdef";
        row.says(&link_context(trace, "0").unwrap_err().to_string());
        for state in [r#"{"version":2}"#, r#"{"version":1}"#] {
            let error = serde_json::from_str::<ConversationState>(state).unwrap_err();
            row.says(&error.to_string());
        }
    };

    value_is_no_json: here "the value cannot be serialised as JSON" => |row| {
        let error = chat().with_metadata("by pair", HashMap::from([((1, 2), 3)])).unwrap_err();
        row.says(&error.to_string());
        row.says(&chat().with_prompt_template_variables(["Oslo"]).unwrap_err().to_string());
    };

    key_is_reserved: here "the key is reserved" => |row| {
        row.says(&chat().with_attribute("session.id", "chat-43").unwrap_err().to_string());
    };

    session_is_full: here "the session is full" => |row| {
        let tags = (0..200).map(|n| n.to_string());
        row.says(&chat().with_tags(tags).unwrap_err().to_string());
    };

    key_is_missing: here "the key is too short" => |row| {
        row.says(&IdPolicy::hashed("short").unwrap_err().to_string());
        row.says(&IdPolicy::hashed_from_env("NOBODY_SETS_THIS").unwrap_err().to_string());
    };
}
