//! `python/openinference-instrumentation/tests`.

use crate::openinference::{EVERYTHING, everything, session, work};
use crate::support::App;
use opentelemetry::Context;
use tracing::info_span;
use tracing_session::{InSession, Session, current_session};

/// All attributes of the session in force here, as `key=value`.
fn in_force() -> Vec<String> {
    let attributes = current_session().into_iter().flat_map(|it| it.attributes());
    attributes
        .map(|attribute| format!("{}={}", attribute.key, attribute.value))
        .collect()
}

mod test_context_managers {
    use super::*;

    #[test]
    fn suppress_tracing() {
        let app = App::new();
        let suppressed = Context::enter_telemetry_suppressed_scope();
        assert!(Context::is_current_telemetry_suppressed());
        session("test-session").in_scope(work);
        drop(suppressed);
        assert!(!Context::is_current_telemetry_suppressed());
        session("test-session").in_scope(|| info_span!("after").in_scope(|| {}));
        app.exports("after session.id=test-session");
    }

    /// One for each of `using_session`, `using_user`, `using_metadata`, `using_tags`,
    /// `using_prompt_template` and `using_attributes`: the session, and what is in force inside it.
    fn managers() -> [(Session, Vec<&'static str>); 6] {
        let nothing = Session::default;
        let user = nothing().with_user("test-user").unwrap();
        let metadata = nothing().with_metadata("key-int", 1).unwrap();
        let metadata = metadata.with_metadata("key-str", "2").unwrap();
        let metadata = metadata.with_metadata("key-list", [1, 2, 3]).unwrap();
        let template = nothing()
            .with_prompt_template("Say {var_str}")
            .with_prompt_template_version("v1.0")
            .with_prompt_template_variables([("var_str", "2")].into_iter().collect::<Variables>())
            .unwrap();
        let texts = EVERYTHING.iter().map(|(key, value)| [*key, "=", *value]);
        let all: Vec<_> = texts.map(|text| &*text.concat().leak()).collect();
        [
            (session("test-session"), vec!["session.id=test-session"]),
            (user, vec!["user.id=test-user"]),
            (
                metadata,
                vec![r#"metadata={"key-int":1,"key-str":"2","key-list":[1,2,3]}"#],
            ),
            (
                nothing().with_tags(["tag_1", "tag_2"]).unwrap(),
                vec![r#"tag.tags=["tag_1","tag_2"]"#],
            ),
            (
                template,
                vec![
                    "llm.prompt_template.template=Say {var_str}",
                    "llm.prompt_template.version=v1.0",
                    r#"llm.prompt_template.variables={"var_str":"2"}"#,
                ],
            ),
            (everything(), all),
        ]
    }

    type Variables = std::collections::BTreeMap<&'static str, &'static str>;

    /// As `with` does it in Python. The spans inside carry what is in force, those after do not.
    fn holds_in_a_block(index: usize) {
        let app = App::new();
        let (session, expected) = managers().into_iter().nth(index).unwrap();
        {
            let _guard = session.attach();
            assert_eq!(in_force(), expected);
            info_span!("inside").in_scope(|| {});
        }
        assert_eq!(current_session(), None);
        info_span!("after").in_scope(|| {});
        let tree = app.tree();
        let inside = tree.lines().next().unwrap();
        assert_eq!(
            crate::openinference::shown(&app.span("inside")),
            expected,
            "{inside}"
        );
        assert_eq!(
            crate::openinference::shown(&app.span("after")),
            [""; 0],
            "{tree}"
        );
        assert_eq!(app.diagnostics.said(), [""; 0]);
    }

    /// As a decorator does it: around a function, and around an asynchronous one.
    fn holds_around_a_function(index: usize) {
        let app = App::new();
        let (session, expected) = managers().into_iter().nth(index).unwrap();
        let function = || {
            info_span!("function").in_scope(|| {});
            in_force()
        };
        let decorated = || session.in_scope(function);
        assert_eq!(decorated(), expected);
        let asynchronous = || {
            let function = async {
                tokio::task::yield_now().await;
                info_span!("asynchronous").in_scope(|| {});
                in_force()
            };
            function.in_session(session.clone())
        };
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        assert_eq!(runtime.block_on(asynchronous()), expected);
        assert_eq!(current_session(), None);
        for name in ["function", "asynchronous"] {
            assert_eq!(
                crate::openinference::shown(&app.span(name)),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn using_session() {
        holds_in_a_block(0);
    }

    #[test]
    fn using_user() {
        holds_in_a_block(1);
    }

    /// There, commas and colons have a space behind them.
    #[test]
    fn using_metadata() {
        holds_in_a_block(2);
    }

    #[test]
    fn using_tags() {
        holds_in_a_block(3);
    }

    #[test]
    fn using_prompt_template() {
        holds_in_a_block(4);
    }

    #[test]
    fn using_attributes() {
        holds_in_a_block(5);
    }

    #[test]
    fn using_session_decorator() {
        holds_around_a_function(0);
    }

    #[test]
    fn using_user_decorator() {
        holds_around_a_function(1);
    }

    #[test]
    fn using_metadata_decorator() {
        holds_around_a_function(2);
    }

    #[test]
    fn using_tags_decorator() {
        holds_around_a_function(3);
    }

    #[test]
    fn using_prompt_template_decorator() {
        holds_around_a_function(4);
    }

    #[test]
    fn using_attributes_decorator() {
        holds_around_a_function(5);
    }

    /// Exactly what was said, and nothing outside.
    #[test]
    fn get_attributes_from_context() {
        let expected = EVERYTHING.map(|(key, value)| format!("{key}={value}"));
        everything().in_scope(|| assert_eq!(in_force(), expected));
        assert_eq!(in_force(), [""; 0]);
    }

    /// There, it becomes the text that Python shows of it. Here it is an error, which does not quote
    /// it, and the session that was to have it is not made.
    #[test]
    fn safe_json_dumps_encodes_non_serializable_objects() {
        struct Unserialisable;
        impl serde::Serialize for Unserialisable {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("a secret of u-7"))
            }
        }
        let error = session("test-session")
            .with_metadata("key", Unserialisable)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`key`: the value cannot be serialised as JSON"
        );
        let error = Session::default()
            .with_prompt_template_variables(Unserialisable)
            .unwrap_err();
        assert_eq!(error.to_string(), "the value cannot be serialised as JSON");
    }

    #[test]
    fn safe_json_dumps_encodes_non_ascii_characters_without_escaping() {
        let app = App::new();
        let text = "안녕하세요";
        let metadata = Session::default().with_metadata("naïve façade café", text);
        metadata.unwrap().in_scope(work);
        let json = format!("metadata={{\"naïve façade café\":\"{text}\"}}");
        app.exports(&format!("work {json}\n  step {json}"));
    }
}

#[path = "python_spans.rs"]
mod test_manual_instrumentation;
