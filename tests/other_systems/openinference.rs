//! OpenInference 0.1.72 and Arize: the samples of the documentation, and the test suites of Python, JavaScript, Go and Java
//! and of the instrumentors. Suites test the same things, so a table asks them once:
//!
//! | case there | test here |
//! | --- | --- |
//! | `using_session`, `using_user`, `using_metadata`, `using_tags`, `using_prompt_template`, `using_attributes`, as context managers and as decorators; "should set", "should delete"; `ApplyContextAttributes`; `onEnterPropagates..FromContext`; Arize's samples; `*_context_attributes*` of `haystack`, `dspy`, `anthropic`, `cohere`, `litellm`, `ollama`, `together`, `ag2` | `values_are_exported_inside_and_can_be_read_and_cleared`; in tasks and streams `details::inherits::tasks_polls_and_streams_keep_the_details` |
//! | "should get all attributes off of the context", `get_attributes_from_context` | `attributes_of_nested_sessions_can_be_read` |
//! | `suppress_tracing`, `Suppression`, `Middleware_SuppressedContextEmitsNoSpan`, `onEnterReturnsNullWhenSuppressedViaContext`, `background_run_respects_suppress_tracing` | `suppressed_telemetry_exports_nothing` |
//! | `StringHelpers_EmptyValueIsNoOp`, "session and user are never empty strings" | `empty_value_is_an_error` |
//! | `WithTags_VariadicAndEmpty`, `WithTags_DefensiveCopy` | `tags_may_be_none_and_are_copied` |
//! | `safe_json_dumps_encodes_non_serializable_objects` | `details::types::value_that_is_not_json_is_an_error_without_the_value` |
//! | `safe_json_dumps_encodes_non_ascii_characters_without_escaping` | the metadata of the first test |
//! | `sampler_receives_all_attributes`, `sampler_receives_masked_attributes`, `attribute_priority` | the same names in `spans` |
//! | `startSpan` "should add OpenInference context attributes to spans" | `attributes_of_the_context_come_after_the_spans_own` in `spans` |
//! | "should properly nest spans" | `mirascope::spans_that_carry_the_session` |
//! | `no_traces_are_produced_when_otel_sdk_disabled` | `otlp::environment::disabled_sdk_creates_no_spans_and_propagates_the_session` |
//! | `claude-agent-sdk`, `openai-agents`, `google-adk`, `langchain`, `crewai`, `agno` | `instrumentors` |
//! | `openinference-vercel` | `vercel`, in `tests/processor/` |
//! | Phoenix, `test_ProjectSession` | `tests/backends/phoenix.py` |
//!
//! These cases have no meaning here: masking and tracing of content (nothing is instrumented), limits of the provider (the
//! application's), `capture_span_context`, projects, attributes that are no primitive (the types exclude them), queries of
//! Phoenix's server.

mod instrumentors;
mod spans;

use super::WAYS;
use crate::support::{App, session, shown};
use opentelemetry::trace::{FutureExt, Span, SpanKind, Tracer, TracerProvider};
use opentelemetry::{Array, Context, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use tracing::{info_span, instrument};
use tracing_session::{InSession, Session, current_session, session::Part};

/// The seven that `using_attributes` takes, as OpenInference's tests set them.
fn everything() -> Session {
    session("test-session")
        .with_user("test-user")
        .and_then(|it| it.with_metadata("key-int", 1))
        .and_then(|it| it.with_metadata("key-str", "2"))
        .and_then(|it| it.with_metadata("key-list", [1, 2, 3]))
        .and_then(|it| it.with_tags(["tag_1", "tag_2"]))
        .map(|it| it.with_prompt_template("Say {var_str}"))
        .map(|it| it.with_prompt_template_version("v1.0"))
        .and_then(|it| it.with_prompt_template_variables(BTreeMap::from([("var_str", "2")])))
        .unwrap()
}

/// And as every span exports them.
const EVERYTHING: [(&str, &str); 7] = [
    ("session.id", "test-session"),
    ("user.id", "test-user"),
    (
        "metadata",
        r#"{"key-int":1,"key-str":"2","key-list":[1,2,3]}"#,
    ),
    ("tag.tags", r#"["tag_1","tag_2"]"#),
    ("llm.prompt_template.template", "Say {var_str}"),
    ("llm.prompt_template.version", "v1.0"),
    ("llm.prompt_template.variables", r#"{"var_str":"2"}"#),
];

/// A span, and one below it.
fn work() {
    info_span!("work").in_scope(|| info_span!("step").in_scope(|| {}));
}

/// All attributes of the session in force here, as `key=value`.
fn in_force() -> Vec<String> {
    let attributes = current_session().into_iter().flat_map(|it| it.attributes());
    attributes
        .map(|attribute| format!("{}={}", attribute.key, attribute.value))
        .collect()
}

/// A session, the part that clears all of it, and the attributes that it exports.
type Row = (Session, &'static [Part], Vec<String>);

fn rows() -> Vec<Row> {
    let nothing = Session::default;
    let metadata = nothing()
        .with_metadata("key-int", 1)
        .and_then(|it| it.with_metadata("key-list", ["hello", "bye"]))
        .and_then(|it| it.with_metadata("naïve façade café", "안녕하세요"));
    let template = nothing()
        .with_prompt_template("hello {name}")
        .with_prompt_template_version("V1.0")
        .with_prompt_template_variables(BTreeMap::from([("name", "world")]));
    let attributes = nothing()
        .with_attribute("hello", "world")
        .and_then(|it| it.with_attribute("test", 7));
    let all: &[Part] = &[
        Part::Session,
        Part::User,
        Part::Metadata,
        Part::Tags,
        Part::PromptTemplate,
    ];
    let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
    vec![
        (nothing(), &[], vec![]),
        (
            session("session-id"),
            &[Part::Session],
            texts(&["session.id=session-id"]),
        ),
        (
            nothing().with_user("user-id").unwrap(),
            &[Part::User],
            texts(&["user.id=user-id"]),
        ),
        // Python writes a space behind commas and colons.
        (
            metadata.unwrap(),
            &[Part::Metadata],
            texts(&[
                r#"metadata={"key-int":1,"key-list":["hello","bye"],"naïve façade café":"안녕하세요"}"#,
            ]),
        ),
        // JavaScript exports one string. The specification has a list.
        (
            nothing().with_tags(["tag-1", "tag-2"]).unwrap(),
            &[Part::Tags],
            texts(&[r#"tag.tags=["tag-1","tag-2"]"#]),
        ),
        (
            template.unwrap(),
            &[Part::PromptTemplate],
            texts(&[
                "llm.prompt_template.template=hello {name}",
                "llm.prompt_template.version=V1.0",
                r#"llm.prompt_template.variables={"name":"world"}"#,
            ]),
        ),
        (
            attributes.unwrap(),
            &[Part::Attributes],
            texts(&["hello=world", "test=7"]),
        ),
        (
            everything(),
            all,
            EVERYTHING
                .map(|(key, value)| format!("{key}={value}"))
                .into(),
        ),
    ]
}

/// Instrumentors mark their own spans there. Here every span is marked, whoever made it.
#[test]
fn values_are_exported_inside_and_can_be_read_and_cleared() {
    for (way, run) in WAYS {
        for (session, parts, expected) in rows() {
            let app = App::new();
            run(&session, &mut || {
                assert_eq!(in_force(), expected, "{way}");
                info_span!("inside").in_scope(work);
                app.provider.tracer("lib").in_span("plain", |_| {});
                let cleared = Session::default();
                let cleared = parts.iter().fold(cleared, |it, part| it.without(*part));
                cleared.in_scope(|| {
                    assert_eq!(
                        in_force().is_empty(),
                        !parts.is_empty() || expected.is_empty()
                    );
                    info_span!("cleared").in_scope(|| {});
                });
                // Where the context was cleared, and nowhere else.
                assert_eq!(in_force(), expected, "{way}");
            });
            assert_eq!(current_session(), None, "{way}");
            info_span!("after").in_scope(|| {});
            for name in ["inside", "work", "step", "plain"] {
                assert_eq!(shown(&app.span(name)), expected, "{way} {name}");
            }
            for name in ["cleared", "after"] {
                assert_eq!(shown(&app.span(name)), [""; 0], "{way} {name}");
            }
            assert_eq!(app.diagnostics.messages(), [""; 0]);
        }
    }
}

#[test]
fn attributes_of_nested_sessions_can_be_read() {
    let app = App::new();
    let template = Session::default()
        .with_prompt_template("hello {name}")
        .with_prompt_template_version("V1.0")
        .with_prompt_template_variables(BTreeMap::from([("name", "world")]))
        .unwrap();
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
    .map(|(key, value)| format!("{key}={value}"));
    template.in_scope(|| {
        said.in_scope(|| {
            let read: BTreeSet<_> = in_force().into_iter().collect();
            assert_eq!(read, BTreeSet::from(expected.clone()));
            info_span!("span").in_scope(|| {});
        });
    });
    let span = app.span("span");
    let exported = shown(&span).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(exported, BTreeSet::from(expected));
}

/// A `Context` is a value there and here: the one that suppresses is another one.
#[test]
fn suppressed_telemetry_exports_nothing() {
    #[instrument]
    fn decorated() {}
    let app = App::new();
    let tracer = app.provider.tracer("lib");
    let background = session("background");
    session("session-id").in_scope(|| {
        let cx = Context::current();
        let suppressed = cx.with_telemetry_suppressed();
        assert!(suppressed.is_telemetry_suppressed() && !cx.is_telemetry_suppressed());
        tracer.start_with_context("explicit", &suppressed).end();
        // A task that goes on in the background, in a session of its own.
        let task = async { info_span!("task").in_scope(|| info_span!("step").in_scope(|| {})) };
        super::run(task.in_session(background).with_context(suppressed));

        let scope = Context::enter_telemetry_suppressed_scope();
        info_span!("span").in_scope(decorated);
        session("inner").in_scope(work);
        tracer.in_span("plain", |_| {});
        // A client's middleware.
        let request = tracer.span_builder("request").with_kind(SpanKind::Client);
        request
            .start_with_context(&tracer, &Context::current())
            .end();
        let panics = || info_span!("raises").in_scope(|| panic!("on purpose"));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        drop(scope);

        info_span!("after").in_scope(|| {});
        tracer.start_with_context("after", &cx).end();
    });
    app.exports(&"after session.id=session-id\n".repeat(2));
}

#[test]
fn tags_may_be_none_and_are_copied() {
    let none = Session::default().with_tags([""; 0]).unwrap();
    assert_eq!(none, Session::default());
    none.in_scope(|| assert_eq!(current_session(), None));

    let app = App::new();
    let mut tags = vec!["prod".to_owned(), "canary".to_owned()];
    let session = Session::default().with_tags(&tags).unwrap();
    tags[0] = "MUTATED".to_owned();
    session.in_scope(|| {
        // A clone is changed, and not the session that is in force.
        let changed = session.clone().with_tags(&tags).unwrap();
        assert_eq!(changed.tags().count(), 3);
        info_span!("test").in_scope(|| {});
    });
    let span = app.span("test");
    let tags = Array::String(vec!["prod".into(), "canary".into()]);
    assert_eq!(span.attributes.last().unwrap().value, Value::Array(tags));
    assert_eq!(shown(&span), [r#"tag.tags=["prod","canary"]"#]);
}

/// There, an empty value changes nothing, in silence. Here it is an error of whoever makes the
/// `Session`, and the one in force stays. The keys of metadata may not be empty; its values may.
#[test]
fn empty_value_is_an_error() {
    session("outer").in_scope(|| {
        assert!(Session::new("").unwrap_err().is_invalid_id());
        let nothing = Session::default;
        assert!(nothing().with_user("").unwrap_err().is_invalid_id());
        let error = nothing().with_metadata("", "value").unwrap_err();
        assert_eq!(
            error.to_string(),
            "metadata key is blank: set a value, or leave it out"
        );
        let error = nothing().with_tags([""]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tag is blank: set a value, or leave it out"
        );
        assert_eq!(current_session(), Some(session("outer")));
    });
    let empty = Session::default().with_metadata("key", "").unwrap();
    let app = App::new();
    empty.in_scope(|| info_span!("test").in_scope(|| {}));
    app.exports(r#"test metadata={"key":""}"#);
}
