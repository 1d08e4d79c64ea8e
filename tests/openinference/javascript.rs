//! `js/packages/openinference-core/test/trace`.

use crate::openinference::{session, shown, work};
use crate::support::App;
use opentelemetry::Value;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use tracing::info_span;
use tracing_session::{Part, Session, current_session};

fn world() -> Session {
    Session::default()
        .with_prompt_template("hello {name}")
        .with_prompt_template_version("V1.0")
        .with_prompt_template_variables(BTreeMap::from([("name", "world")]))
        .unwrap()
}

/// As `getAttributesFromContext` gives it.
fn attributes_from_context() -> BTreeMap<String, String> {
    let attributes = current_session().into_iter().flat_map(|it| it.attributes());
    attributes
        .map(|it| (it.key.to_string(), it.value.to_string()))
        .collect()
}

/// Each is said, read back by its getter, exported, and then cleared inside.
mod context_attributes {
    use super::*;

    /// What `read` reads inside is `said`, and nothing where `part` is cleared.
    #[track_caller]
    fn set_and_deleted<T: PartialEq + std::fmt::Debug>(
        session: &Session,
        part: Part,
        read: impl Fn(&Session) -> T,
        said: T,
        nothing: T,
        exported: &[&str],
    ) {
        let app = App::new();
        let here = || read(&current_session().unwrap_or_default());
        session.in_scope(|| {
            assert_eq!(here(), said);
            info_span!("inside").in_scope(|| {});
            let cleared = Session::default().without(part);
            cleared.in_scope(|| {
                assert_eq!(here(), nothing);
                info_span!("cleared").in_scope(|| {});
            });
            // Where the context was cleared, and nowhere else.
            assert_eq!(here(), said);
        });
        assert_eq!(shown(&app.span("inside")), exported);
        assert_eq!(shown(&app.span("cleared")), [""; 0]);
    }

    #[test]
    fn prompt_template() {
        let read = |session: &Session| {
            (
                session.prompt_template().map(str::to_owned),
                session.prompt_template_version().map(str::to_owned),
                session.prompt_template_variables().cloned(),
            )
        };
        set_and_deleted(
            &world(),
            Part::PromptTemplate,
            read,
            (
                Some("hello {name}".to_owned()),
                Some("V1.0".to_owned()),
                Some(json!({"name": "world"})),
            ),
            (None, None, None),
            &[
                "llm.prompt_template.template=hello {name}",
                "llm.prompt_template.version=V1.0",
                r#"llm.prompt_template.variables={"name":"world"}"#,
            ],
        );
    }

    #[test]
    fn session_id() {
        set_and_deleted(
            &session("session-id"),
            Part::Session,
            |session| session.id().map(str::to_owned),
            Some("session-id".to_owned()),
            None,
            &["session.id=session-id"],
        );
    }

    #[test]
    fn metadata() {
        let said = Session::default()
            .with_metadata("key", "value")
            .and_then(|it| it.with_metadata("numeric", 1))
            .and_then(|it| it.with_metadata("list", ["hello", "bye"]))
            .unwrap();
        let read = |session: &Session| {
            let metadata = session.all_metadata();
            metadata
                .map(|(key, value)| (key.to_owned(), value.clone()))
                .collect::<Vec<_>>()
        };
        set_and_deleted(
            &said,
            Part::Metadata,
            read,
            vec![
                ("key".to_owned(), json!("value")),
                ("numeric".to_owned(), json!(1)),
                ("list".to_owned(), json!(["hello", "bye"])),
            ],
            vec![],
            &[r#"metadata={"key":"value","numeric":1,"list":["hello","bye"]}"#],
        );
    }

    #[test]
    fn user() {
        set_and_deleted(
            &Session::default().with_user("user-id").unwrap(),
            Part::User,
            |session| session.user_id().map(str::to_owned),
            Some("user-id".to_owned()),
            None,
            &["user.id=user-id"],
        );
    }

    /// There, they are exported as one string. Here they are a list, as the specification has it.
    #[test]
    fn tags() {
        let tags = || ["tag1", "tag2"].map(str::to_owned).to_vec();
        set_and_deleted(
            &Session::default().with_tags(tags()).unwrap(),
            Part::Tags,
            |session| session.tags().map(str::to_owned).collect(),
            tags(),
            vec![],
            &[r#"tag.tags=["tag1","tag2"]"#],
        );
    }

    #[test]
    fn attributes() {
        let said = Session::default()
            .with_attribute("hello", "world")
            .and_then(|it| it.with_attribute("test", "test"))
            .unwrap();
        let read = |session: &Session| {
            let read = |key| session.attribute(key).map(Value::to_string);
            (read("hello"), read("test"))
        };
        set_and_deleted(
            &said,
            Part::Attributes,
            read,
            (Some("world".to_owned()), Some("test".to_owned())),
            (None, None),
            &["hello=world", "test=test"],
        );
    }

    #[test]
    fn set_multiple_attributes_on_the_context() {
        let app = App::new();
        world().in_scope(|| {
            session("session-id").in_scope(|| {
                let here = current_session().unwrap();
                assert_eq!(here.id(), Some("session-id"));
                assert_eq!(here.prompt_template(), Some("hello {name}"));
                assert_eq!(here.prompt_template_version(), Some("V1.0"));
                let variables = here.prompt_template_variables();
                assert_eq!(variables, Some(&json!({"name": "world"})));
                info_span!("span").in_scope(|| {});
            });
        });
        assert_eq!(
            shown(&app.span("span")),
            [
                "session.id=session-id",
                "llm.prompt_template.template=hello {name}",
                "llm.prompt_template.version=V1.0",
                r#"llm.prompt_template.variables={"name":"world"}"#,
            ]
        );
    }

    #[test]
    fn get_all_attributes_off_of_the_context() {
        let app = App::new();
        let said = session("session-id")
            .with_metadata("key", "value")
            .and_then(|it| it.with_attribute("test", "attribute"))
            .and_then(|it| it.with_attribute("test2", "attribute2"))
            .unwrap();
        let expected = [
            ("llm.prompt_template.template", "hello {name}"),
            ("llm.prompt_template.variables", r#"{"name":"world"}"#),
            ("llm.prompt_template.version", "V1.0"),
            ("metadata", r#"{"key":"value"}"#),
            ("session.id", "session-id"),
            ("test", "attribute"),
            ("test2", "attribute2"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()));
        world().in_scope(|| {
            said.in_scope(|| {
                assert_eq!(attributes_from_context(), BTreeMap::from(expected.clone()));
                info_span!("span").in_scope(|| {});
            });
        });
        let span = app.span("span");
        let exported = shown(&span).into_iter().collect::<BTreeSet<_>>();
        let expected = expected.map(|(key, value)| format!("{key}={value}"));
        assert_eq!(exported, BTreeSet::from(expected));
    }

    #[test]
    fn attributes_unset_outside_of_the_scope() {
        let app = App::new();
        world().in_scope(|| {
            session("session-id").in_scope(|| assert_eq!(attributes_from_context().len(), 4));
        });
        assert_eq!(attributes_from_context(), BTreeMap::new());
        work();
        app.exports("work\n  step");
    }
}

mod oi_tracer {
    use super::*;
    use opentelemetry::trace::{Span, TraceContextExt, Tracer, TracerProvider};
    use opentelemetry::{Context, KeyValue};
    use tracing_session::{IdPolicy, Privacy};

    fn masked() -> App {
        let privacy = Privacy::new()
            .with_user_ids(IdPolicy::omitted())
            .with_metadata(["secret"], IdPolicy::omitted());
        App::with_format(|provider| provider.with_privacy(privacy))
    }

    fn said() -> Session {
        session("session-id")
            .with_user("user-id")
            .and_then(|it| it.with_metadata("key", "value"))
            .and_then(|it| it.with_metadata("secret", "value"))
            .unwrap()
    }

    /// Redaction leaves the span's own attributes in their place, before the session's.
    const EXPORTED: [&str; 3] = [
        "own=attribute",
        "session.id=session-id",
        r#"metadata={"key":"value"}"#,
    ];

    /// Beside the span's own, and with what is hidden left out.
    #[test]
    fn start_span_adds_context_attributes() {
        let app = masked();
        said().in_scope(|| {
            let tracer = app.provider.tracer("lib");
            let own = [
                KeyValue::new("own", "attribute"),
                KeyValue::new("user.id", "user-id"),
            ];
            let builder = tracer.span_builder("span").with_attributes(own);
            builder.start(&tracer).end();
            info_span!("tracing", own = "attribute").in_scope(|| {});
        });
        assert_eq!(shown(&app.span("span")), EXPORTED);
        assert_eq!(shown(&app.span("tracing")), EXPORTED);
    }

    #[test]
    fn start_active_span_adds_context_attributes() {
        let app = masked();
        said().in_scope(|| {
            let tracer = app.provider.tracer("lib");
            tracer.in_span("span", |cx| {
                cx.span().set_attribute(KeyValue::new("own", "attribute"));
                tracer.start("child").end();
            });
        });
        assert_eq!(shown(&app.span("span")), EXPORTED);
        assert_eq!(shown(&app.span("child")), EXPORTED[1..]);
    }

    /// A session is no span and makes none: whether one is said or not, traces are the same.
    #[test]
    fn spans_are_properly_nested() {
        let app = App::new();
        let tracer = app.provider.tracer("lib");
        session("session-id").in_scope(|| {
            tracer.in_span("parent", |_| {
                session("inner").in_scope(|| info_span!("child").in_scope(|| {}));
                tracer
                    .start_with_context("sibling", &Context::current())
                    .end();
            });
            tracer.in_span("next", |_| {});
        });
        app.exports(
            "
            parent session.id=session-id
              child session.id=inner
              sibling session.id=session-id
            next session.id=session-id
            ",
        );
        let trace = |name: &str| app.span(name).span_context.trace_id();
        assert_eq!(trace("parent"), trace("child"));
        assert_eq!(trace("parent"), trace("sibling"));
        assert_ne!(trace("parent"), trace("next"));
    }
}
