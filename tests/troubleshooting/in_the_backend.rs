use crate::support::{App, values};
use crate::troubleshooting::{NOTHING, one_value, session_of, some};
use opentelemetry::trace::SpanId;
use opentelemetry_sdk::trace::SpanData;
use std::collections::HashSet;
use tracing::level_filters::LevelFilter;
use tracing::{Level, info_span};
use tracing_session::openinference::{OpenInferenceSpanExt, SpanKind};
use tracing_session::{Conversation, Dialect, Session, SessionLayer, session};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;

fn chat() -> Session {
    Session::new("chat-42").unwrap()
}

fn roots(spans: &[SpanData]) -> Vec<&str> {
    let roots = spans
        .iter()
        .filter(|it| it.parent_span_id == SpanId::INVALID);
    roots.map(|it| &*it.name).collect()
}

rows! {
    roots_are_those_of_the_server: here "Phoenix has the session, but no turns" => |_| {
        let request = |app: &App| {
            info_span!("POST /chat").in_scope(|| {
                session!("chat-42").in_scope(|| info_span!("answer").in_scope(|| {}));
            });
            let spans = app.spans();
            let roots: Vec<_> = roots(&spans).iter().map(|it| (*it).to_owned()).collect();
            assert_eq!(app.diagnostics.messages(), NOTHING);
            roots
        };
        assert_eq!(request(&App::new()), ["POST /chat"]);
        assert_eq!(request(&App::with(SessionLayer::with_root_turns)), ["session", "POST /chat"]);
    };

    attributes_are_missing: here "Phoenix shows no input and output" => |_| {
        let app = App::new();
        info_span!("tokens").in_scope(|| tracing::Span::current().set_token_counts(12, 6));
        let span = info_span!("whole");
        span.set_span_kind(SpanKind::Llm);
        span.set_input("question");
        span.set_output("answer");
        drop(span);
        let spans = app.spans();
        assert_eq!(one_value(&spans, "tokens", "openinference.span.kind"), None);
        assert_eq!(one_value(&spans, "whole", "openinference.span.kind"), some("LLM"));
        assert_eq!(one_value(&spans, "whole", "input.value"), some("question"));
        assert_eq!(one_value(&spans, "whole", "output.value"), some("answer"));
    };

    id_is_not_unique: here "Phoenix shows spans in another project" => |_| {
        let ids = (0..1_000).map(|_| Session::generate().id().unwrap().to_owned());
        assert_eq!(ids.collect::<HashSet<_>>().len(), 1_000);
    };

    conversation_is_one_span: here "a conversation arrives only when it is over" => |_| {
        let app = App::new();
        let turn = || info_span!("turn").in_scope(|| {});
        let conversation = session!("chat-42");
        conversation.in_scope(turn);
        conversation.in_scope(turn);
        assert_eq!(roots(&app.spans()), NOTHING);
        drop(conversation);
        assert_eq!(roots(&app.spans()), ["session"]);
        app.exporter.reset();
        chat().in_scope(turn);
        assert_eq!(roots(&app.spans()), ["turn"]);
        chat().in_scope(turn);
        assert_eq!(roots(&app.spans()), ["turn", "turn"]);
    };

    turns_are_disabled: alone "the turns of a `Conversation` are not exported" => |row| {
        let app = App::with_layer(|otel| {
            let levels = Targets::new().with_target("my_app", Level::DEBUG);
            let levels = levels.with_target("tracing_session", Level::WARN);
            SessionLayer::new().wrap(otel).and_then(levels)
        });
        Conversation::new(chat()).turn("weather").finish();
        row.says_all(&app.diagnostics.messages());
    };

    attribute_is_renamed: here "an attribute `session` is called `session.name`" => |_| {
        let app = App::new();
        chat().in_scope(|| info_span!("answer", session = "weather").in_scope(|| {}));
        app.exports("answer session.name=weather session.id=chat-42");
        drop(app);
        let app = App::with_format(|provider| provider.without_renaming_plain_attributes());
        chat().in_scope(|| info_span!("answer", session = "weather").in_scope(|| {}));
        assert_eq!(one_value(&app.spans(), "answer", "session"), some("weather"));
    };

    own_metadata_wins: here "a span has its own metadata, but not the session's" => |_| {
        let app = App::new();
        let session = chat().with_metadata("plan", "pro").unwrap();
        session.in_scope(|| {
            info_span!("own", metadata = r#"{"step":2}"#).in_scope(|| info_span!("below").in_scope(|| {}));
            info_span!("chat", session.id = "chat-42", metadata.step = 2).in_scope(|| {});
        });
        let spans = app.spans();
        assert_eq!(one_value(&spans, "own", "metadata"), some(r#"{"step":2}"#));
        assert_eq!(one_value(&spans, "below", "metadata"), some(r#"{"plan":"pro"}"#));
        assert_eq!(one_value(&spans, "chat", "metadata"), some(r#"{"plan":"pro","step":2}"#));
        assert_eq!(app.diagnostics.messages(), NOTHING);
    };

    id_is_too_long: alone "an id in `..` has more than .. characters" => |row| {
        let said = |dialect: Dialect, id: &str, user: &str| {
            let app = App::with_dialect(dialect);
            let session = Session::new(id).unwrap().with_user(user).unwrap();
            (0..2).for_each(|_| session.in_scope(|| info_span!("answer").in_scope(|| {})));
            app.diagnostics.messages()
        };
        let [longest, too_long] = [200, 201].map(|length| "x".repeat(length));
        assert_eq!(said(Dialect::OPENINFERENCE, &too_long, &too_long), NOTHING);
        assert_eq!(said(Dialect::LANGFUSE, &longest, &longest), NOTHING);
        // 400 bytes.
        assert_eq!(said(Dialect::LANGFUSE, &"é".repeat(200), "u-7"), NOTHING);
        let warnings = said(Dialect::OPENINFERENCE.and(Dialect::LANGFUSE), &too_long, &too_long);
        let cure = "use shorter ids, or export hashes of them with `IdPolicy::hashed`";
        let of = |key| format!("an id in `{key}` has more than 200 characters, so Langfuse drops it: {cure}");
        assert_eq!(warnings, [of("langfuse.session.id"), of("langfuse.user.id")]);
        row.says_all(&warnings);
        assert_eq!(said(Dialect::LANGFUSE, &too_long, &too_long), NOTHING);
        let [longest, too_long] = [250, 251].map(|length| "x".repeat(length));
        assert_eq!(said(Dialect::MLFLOW, &longest, "u-7"), NOTHING);
        let warnings = said(Dialect::OPENINFERENCE.and(Dialect::MLFLOW), &too_long, "u-7");
        let drops = "MLflow drops each span that has it";
        assert_eq!(warnings, [format!("an id in `session.id` has more than 250 characters, so {drops}: {cure}")]);
        row.says_all(&warnings);
    };

    langfuse_has_keys_of_its_own: here "Langfuse has the session, but no metadata or tags" => |_| {
        let keys = |dialect: Dialect| {
            let app = App::with_dialect(dialect);
            let session = chat().with_metadata("plan", "pro").unwrap().with_tags(["web"]).unwrap();
            session.in_scope(|| info_span!("answer").in_scope(|| {}));
            let spans = app.spans();
            let has = |key| !values(&spans[0], key).is_empty();
            ["session.id", "langfuse.trace.metadata.plan", "langfuse.trace.tags"].map(has)
        };
        assert_eq!(keys(Dialect::OPENINFERENCE), [true, false, false]);
        assert_eq!(keys(Dialect::OPENINFERENCE.and(Dialect::LANGFUSE)), [true, true, true]);
    };

    // tests/backends/jaeger.py asks a real one.
    jaeger_looks_at_tags: here "Jaeger finds nothing" => |_| {
        let app = App::with_layer(|otel| SessionLayer::new().wrap(otel).with_filter(LevelFilter::INFO));
        chat().in_scope(|| info_span!("root").in_scope(|| info_span!("below").in_scope(|| {})));
        let of = |name| session_of(&app.spans(), name);
        assert_eq!((of("root"), of("below")), (some("chat-42"), some("chat-42")));
    };

    attribute_is_set_twice: here "a span has an attribute twice" => |_| {
        let app = App::new();
        let span = info_span!("answer");
        span.set_input("first");
        span.set_input("second");
        drop(span);
        assert_eq!(values(&app.span("answer"), "input.value"), ["first", "second"]);
    };
}
