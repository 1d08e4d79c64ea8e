//! What the fields of a span say.

use crate::details::{exports, full, list, span};
use crate::support::{App, values};
use opentelemetry::{Array, StringValue, Value};
use tracing::field::{debug, display};
use tracing::{info_span, instrument};
use tracing_session::{session, user};

#[test]
fn metadata_fields_keep_their_types() {
    let app = App::new();
    let plan = String::from("pro");
    drop(session!(
        "chat-42",
        metadata.int = -3_i64,
        metadata.most = u64::MAX,
        metadata.float = 1.5,
        metadata.nan = f64::NAN,
        metadata.yes = true,
        metadata.text = "a \"b\"",
        metadata.display = %plan,
        metadata.debug = ?plan,
        metadata.some = Some(7),
        metadata.none = None::<i64>,
        metadata.long = u128::MAX,
        metadata.step.name = "dotted",
    ));
    exports(
        &app,
        &[concat!(
            r#"session metadata={"int":-3,"most":18446744073709551615,"float":1.5,"nan":null,"yes":true,"#,
            r#""text":"a \"b\"","display":"pro","debug":"pro","some":7,"#,
            r#""long":"340282366920938463463374607431768211455","step.name":"dotted"} session.id=chat-42"#
        )],
    );
}

#[test]
fn fields_of_every_opener_set_metadata_and_tags() {
    #[instrument(fields(session.id = %id, metadata.plan = "pro", tags = "a"))]
    fn chat(id: &str) {
        span("inside");
    }
    let app = App::new();
    chat("chat-42");
    user!("u-7", metadata.plan = "pro", tags = "a").in_scope(|| span("inside"));
    info_span!("session", id = 42, metadata.plan = "pro", tags = "a").in_scope(|| span("inside"));
    info_span!(
        "request",
        user.id = "u-7",
        metadata.plan = "pro",
        tags = "a"
    )
    .in_scope(|| span("inside"));
    let says = r#" metadata={"plan":"pro"}"#;
    let tags = r#" tag.tags=["a"]"#;
    exports(
        &app,
        &[
            &format!("chat id=chat-42{says} session.id=chat-42{tags}"),
            &format!("inside{says} session.id=chat-42{tags}"),
            &format!("user{says}{tags} user.id=u-7"),
            &format!("inside{says}{tags} user.id=u-7"),
            &format!("session{says} session.id=42{tags}"),
            &format!("inside{says} session.id=42{tags}"),
            &format!("request{says}{tags} user.id=u-7"),
            &format!("inside{says}{tags} user.id=u-7"),
        ],
    );
}

#[test]
fn the_same_fields_on_other_spans_are_plain_attributes() {
    let app = App::new();
    info_span!("plain", metadata.plan = "pro", tags = "a,b").in_scope(|| span("inside"));
    exports(&app, &["plain metadata.plan=pro tags=a,b", "inside"]);
}

#[test]
fn tags_are_parsed_from_every_form_of_a_list() {
    let session = |tags: &dyn tracing::Value| drop(session!("chat-42", tags = tags));
    let forms: [(&str, &dyn Fn()); 12] = [
        (r#"["a","b"]"#, &|| session(&"a,b")),
        (r#"["a","b"]"#, &|| session(&" a , b ")),
        (r#"["a","b"]"#, &|| session(&debug(["a", "b"]))),
        (r#"["a","b"]"#, &|| session(&debug(vec!["a", "b"]))),
        (r#"["a","b"]"#, &|| session(&r#"["a", "b"]"#)),
        (r#"["a","b"]"#, &|| session(&display("[a, b]"))),
        (r#"["a","b"]"#, &|| session(&debug("a,b"))),
        (r#"["a,b","c"]"#, &|| session(&debug(["a,b", "c"]))),
        (r#"["say \"x\", y","]"]"#, &|| {
            session(&debug(["say \"x\", y", "]"]));
        }),
        (r#"["é/","\\"]"#, &|| session(&r#"["\u00e9\/","\\"]"#)),
        (r#"["7"]"#, &|| session(&7)),
        (r#"["a"]"#, &|| session(&"a,a, a")),
    ];
    for (expected, say) in forms {
        let app = App::new();
        say();
        let expected: Vec<String> = serde_json::from_str(expected).unwrap();
        let span = app.span("session");
        let tags = span
            .attributes
            .iter()
            .find(|it| it.key.as_str() == "tag.tags");
        let expected: Vec<StringValue> = expected.into_iter().map(Into::into).collect();
        assert_eq!(tags.unwrap().value, Value::Array(Array::String(expected)));
        assert_eq!(values(&span, "tags"), [""; 0]);
        assert_eq!(app.diagnostics.messages(), [""; 0]);
    }
}

#[test]
fn empty_lists_set_no_tags() {
    let app = App::new();
    drop(session!("chat-42", tags = ?[""; 0]));
    drop(session!("chat-42", tags = None::<&str>));
    exports(&app, &["session session.id=chat-42"; 2]);
}

#[test]
fn invalid_tags_are_ignored_with_a_warning() {
    let app = App::new();
    full().in_scope(|| {
        drop(session!("chat-42", tags = "fine, "));
        drop(session!("chat-42", tags = " "));
    });
    for span in app.spans() {
        assert_eq!(values(&span, "tag.tags"), [r#"["beta"]"#]);
    }
    let said = app.diagnostics.messages();
    assert_eq!(said.len(), 2, "{said:?}");
    for said in said {
        assert!(
            said.contains("field `tags` of span `session`")
                && said.ends_with("tag is blank: set a value, or leave it out"),
            "{said}"
        );
    }
}

#[test]
fn quote_inside_a_tag_does_not_end_it() {
    let app = App::new();
    drop(session!("chat-42", tags = ?["a\", b", "c"]));
    let span = app.span("session");
    let mut attributes = span.attributes.iter();
    let tags = attributes.find(|it| it.key.as_str() == "tag.tags");
    assert_eq!(tags.unwrap().value, list(["a\", b", "c"]));
}
