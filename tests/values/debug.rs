//! Fields that are recorded with `?`: an `Option` sets what is inside it, and a type of your own is reported.

use crate::support::{App, values};
use crate::values::ignored;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, Tracer, TracerProvider};
use tracing::field::{Empty, debug};
use tracing::{Span, info_span};
use tracing_session::{SessionLayer, current_session, session};

const PLACEHOLDER: &str = "id is a placeholder such as None or null: set the value when it is known (declare the \
    field Empty, and record it later)";

fn configured(layer: SessionLayer) -> SessionLayer {
    layer.with_session_field("conversation")
}

/// Every field that sets a session, with the value when the span is created, before it starts, and later.
macro_rules! each_way {
    ($value:expr) => {{
        let before = info_span!("before", session.id = Empty);
        before.record("session.id", debug($value));
        let later = info_span!("later", session.id = Empty);
        later.in_scope(|| {});
        later.record("session.id", debug($value));
        let id_later = info_span!("session", id = Empty);
        id_later.in_scope(|| {});
        id_later.record("id", debug($value));
        [
            info_span!("request", session.id = ?$value),
            info_span!("session", id = ?$value),
            info_span!("request", conversation = ?$value),
            before,
            later,
            id_later,
        ]
    }};
}

/// The session ids of each span and of a child of it.
#[track_caller]
fn ids(app: &App, spans: impl IntoIterator<Item = Span>) -> Vec<[Vec<String>; 2]> {
    let pair = |span: Span| {
        span.in_scope(|| info_span!("below").in_scope(|| {}));
        drop(span);
        let mut spans = app.spans();
        app.exporter.reset();
        let below = spans.iter().position(|it| it.name == "below").unwrap();
        let below = spans.remove(below);
        assert_eq!(spans.len(), 1);
        for key in ["id", "metadata", "tag.tags"] {
            assert_eq!(values(&spans[0], key), [""; 0]);
        }
        [&spans[0], &below].map(|span| values(span, "session.id"))
    };
    spans.into_iter().map(pair).collect()
}

#[test]
fn some_sets_its_value() {
    let app = App::with(configured);
    let inside = [
        (each_way!(Some("chat-42")), "chat-42"),
        (
            each_way!(Some(String::from("a \"b\" \\ é"))),
            "a \"b\" \\ é",
        ),
        (each_way!(Some(42)), "42"),
        (each_way!(Some(Some("chat-42"))), "chat-42"),
        (
            each_way!(Some(uuid::Uuid::nil())),
            "00000000-0000-0000-0000-000000000000",
        ),
        (each_way!(Some(" chat-42 ")), "chat-42"),
        // In quotes, or in the form of an `Option`, because they are part of the text.
        (each_way!("Some(1)"), "Some(1)"),
        (each_way!(Some("Some(1)")), "Some(1)"),
        (each_way!(Some("\"quoted\"")), "\"quoted\""),
    ];
    for (spans, id) in inside {
        for found in ids(&app, spans) {
            assert_eq!(found, [[id], [id]]);
        }
    }
    assert_eq!(app.diagnostics.messages(), [""; 0]);
}

#[test]
fn none_sets_nothing() {
    let app = App::with(configured);
    let none = None::<&str>;
    for spans in [
        each_way!(none),
        each_way!(Some(none)),
        each_way!(Some(Some(none))),
    ] {
        for found in ids(&app, spans) {
            assert_eq!(found, [[""; 0]; 2]);
        }
    }
    // The name `session` sets nothing inside an explicit session.
    info_span!("session", id = "outer").in_scope(|| {
        for spans in [each_way!(none), each_way!(Some(none))] {
            for found in ids(&app, spans) {
                assert_eq!(found, [["outer"], ["outer"]]);
            }
        }
    });
    assert_eq!(app.diagnostics.messages(), [""; 0]);
}

#[test]
fn text_of_a_placeholder_is_reported_and_sets_nothing() {
    let app = App::new();
    let line = line!() + 2;
    session!("outer").in_scope(|| {
        drop(info_span!("one", session.id = ?"None"));
        drop(info_span!("two", session.id = ?Some("null")));
        drop(info_span!("three", session.id = "None"));
    });
    for span in app.spans() {
        assert_eq!(values(&span, "session.id"), ["outer"], "{}", span.name);
    }
    let reported = ["one", "two", "three"];
    let reported = reported.iter().zip(line..);
    let reported: Vec<_> = reported
        .map(|(span, line)| ignored("session.id", span, line, PLACEHOLDER))
        .collect();
    assert_eq!(app.diagnostics.messages(), reported);
}

#[test]
fn option_of_a_user_sets_the_user() {
    let app = App::new();
    let session = session!("chat-42", user.id = Empty).entered();
    info_span!("some", user.id = ?Some("u-7"))
        .in_scope(|| info_span!("below some").in_scope(|| {}));
    session.record("user.id", debug(None::<&str>));
    info_span!("none", user.id = ?None::<u64>)
        .in_scope(|| info_span!("below none").in_scope(|| {}));
    session.record("user.id", debug(Some("u-8")));
    drop(session);
    app.exports(
        "
        session session.id=chat-42 user.id=u-8
          some user.id=u-7 session.id=chat-42
            below some session.id=chat-42 user.id=u-7
          none session.id=chat-42
            below none session.id=chat-42
        ",
    );
}

#[test]
fn option_in_a_field_of_tags_or_metadata_sets_its_value() {
    let app = App::new();
    let none = None::<Vec<&str>>;
    session!(
        "chat-42",
        tags = ?Some(["a", "b, c"]),
        metadata.plan = ?Some("pro"),
        metadata.none = ?none,
        metadata.list = ?["Some(1)"],
    )
    .in_scope(|| {
        drop(info_span!("none", user.id = "u-7", tags = ?none, metadata.plan = ?none));
        drop(info_span!("some", user.id = "u-7", tags = ?[Some("d"), None]));
        let session = current_session().unwrap();
        assert!(session.tags().eq(["a", "b, c"]));
        assert_eq!(session.metadata("plan").unwrap(), "pro");
        assert_eq!(session.metadata("none"), None);
        assert_eq!(session.metadata("list").unwrap(), r#"["Some(1)"]"#);
    });
    assert_eq!(values(&app.span("none"), "tag.tags"), [r#"["a","b, c"]"#]);
    assert_eq!(
        values(&app.span("some"), "tag.tags"),
        [r#"["a","b, c","d"]"#]
    );
    assert_eq!(app.diagnostics.messages(), [""; 0]);
}

#[test]
fn own_attribute_in_the_form_of_an_option_counts_as_its_value() {
    let app = App::new();
    let tracer = app.provider.tracer("library");
    session!("chat-42").in_scope(|| {
        for text in ["Some(\"mine\")", "Some(None)", "Some(\" \")"] {
            let mut span = tracer.start("library");
            span.set_attribute(KeyValue::new("session.id", text));
            span.end();
        }
    });
    let spans = app.spans();
    let ids = spans.iter().map(|it| values(it, "session.id").concat());
    assert!(ids.eq(["Some(\"mine\")", "chat-42", "chat-42", "chat-42"]));
}

#[derive(Debug)]
struct SessionId(#[allow(dead_code, reason = "for Debug")] &'static str);

#[derive(Debug)]
struct UserId {
    #[allow(dead_code, reason = "for Debug")]
    id: u64,
}

#[test]
fn type_of_your_own_is_kept_as_written_and_reported_once() {
    let app = App::new();
    let line = line!() + 3;
    for _ in 0..2 {
        let span =
            info_span!("request", session.id = ?SessionId("x"), user.id = ?Some(UserId { id: 7 }));
        span.record("session.id", debug(SessionId("y")));
    }
    let said = ["session.id", "user.id"].map(|field| {
        format!(
            "field `{field}` of span `request` at {}:{line} contains the name of a type because `?` records a value \
             with Debug, and the id is exported like that: use `%`, which records the value with Display",
            file!()
        )
    });
    app.exports_with_diagnostics(
        r#"
        request session.id=SessionId("y") user.id=UserId { id: 7 }
        request session.id=SessionId("y") user.id=UserId { id: 7 }
        "#,
        &said,
    );
}

#[test]
fn text_that_only_looks_like_a_type_is_not_reported() {
    let app = App::new();
    for id in [
        "chat(42)",
        "Chat 42",
        "Chat(42",
        "Chat (42)",
        "A-b(c)",
        "Chat{42}",
        "(42)",
        "{}",
    ] {
        drop(info_span!("display", session.id = %id));
    }
    drop(info_span!("debug", session.id = ?"SessionId(1)"));
    drop(info_span!("debug", session.id = ?Some("SessionId(1)")));
    drop(info_span!("text", session.id = "SessionId(1)"));
    assert_eq!(app.diagnostics.messages(), [""; 0]);
}
