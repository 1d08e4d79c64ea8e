//! What an id is, and attributes that stand in its way (C6 to C8).

use crate::support::{App, values};
use crate::values::ignored;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, Tracer, TracerProvider};
use tracing::field::{Empty, debug, display};
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{Session, SessionTracerProvider, session};
use uuid::Uuid;

// C6

#[test]
fn every_type_of_an_id_has_the_same_text() {
    let uuid = Uuid::from_u128(0x0193_8c1e_6b1f_7c7a_9c7e_0f4f_3b8e_2a11);
    let text = "a \"b\" \\ é \u{1F600}";
    let app = App::new();
    let opened = |span: Span| {
        span.in_scope(|| info_span!("below").in_scope(|| {}));
        drop(span);
        let spans = app.spans();
        app.exporter.reset();
        assert_eq!(spans.len(), 2);
        let ids: Vec<_> = spans
            .iter()
            .flat_map(|span| values(span, "session.id"))
            .collect();
        assert_eq!(ids.len(), 2, "{ids:?}");
        assert_eq!(ids[0], ids[1]);
        ids[0].clone()
    };
    macro_rules! each {
        (@late % $value:expr) => { display(&$value) };
        (@late ? $value:expr) => { debug(&$value) };
        (@late $value:expr) => { $value };
        ($($value:tt)+) => {{
            let late = info_span!("late", session.id = Empty);
            late.in_scope(|| {});
            late.record("session.id", each!(@late $($value)+));
            [
                opened(info_span!("session", id = $($value)+)),
                opened(info_span!("request", session.id = $($value)+)),
                opened(late),
            ]
        }};
    }
    assert_eq!(each!(text), [text; 3]);
    assert_eq!(each!(%text), [text; 3]);
    assert_eq!(each!(?text), [text; 3]);
    assert_eq!(each!(String::from(text).as_str()), [text; 3]);
    assert_eq!(
        each!(%uuid),
        [uuid.to_string(), uuid.to_string(), uuid.to_string()]
    );
    assert_eq!(
        each!(?uuid),
        [uuid.to_string(), uuid.to_string(), uuid.to_string()]
    );
    assert_eq!(each!(42_u8), ["42"; 3]);
    assert_eq!(each!(42_u16), ["42"; 3]);
    assert_eq!(each!(42_u32), ["42"; 3]);
    assert_eq!(each!(u64::MAX), ["18446744073709551615"; 3]);
    assert_eq!(
        each!(u128::MAX),
        ["340282366920938463463374607431768211455"; 3]
    );
    assert_eq!(each!(42_usize), ["42"; 3]);
    assert_eq!(each!(-42_i8), ["-42"; 3]);
    assert_eq!(each!(-42_i16), ["-42"; 3]);
    assert_eq!(each!(-42_i32), ["-42"; 3]);
    assert_eq!(each!(i64::MIN), ["-9223372036854775808"; 3]);
    assert_eq!(
        each!(i128::MIN),
        ["-170141183460469231731687303715884105728"; 3]
    );
    assert_eq!(each!(-42_isize), ["-42"; 3]);
    // In quotes only because they are part of it.
    assert_eq!(each!("\"quoted\""), ["\"quoted\""; 3]);
    assert_eq!(opened(session!("\"quoted\"")), "\"quoted\"");
    assert_eq!(opened(session!(text)), text);
    assert_eq!(opened(session!(uuid)), uuid.to_string());
    assert_eq!(opened(session!(&42_i128)), "42");
    assert_eq!(Session::new(text).unwrap().id(), Some(text));
    assert_eq!(
        Session::new(uuid).unwrap().id(),
        Some(uuid.to_string().as_str())
    );
    assert_eq!(app.diagnostics.messages(), [""; 0]);
}

// C7

#[test]
fn ids_are_trimmed() {
    let app = App::new();
    info_span!("session", id = " \t chat-42\n").in_scope(|| {});
    info_span!("request", user.id = %"\u{a0}u-7 ").in_scope(|| {});
    app.exports(
        "
        session session.id=chat-42
        request user.id=u-7
        ",
    );
}

/// Bidirectional control characters and byte-order marks: they are invisible, and change how the text around them looks.
const INVISIBLE: [char; 13] = [
    '\u{61c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}',
    '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}', '\u{feff}',
];

#[test]
fn invisible_characters_are_trimmed_at_both_ends_and_refused_inside() {
    let app = App::new();
    let refused = "contains a control or invisible character: remove it";
    for c in INVISIBLE {
        let around = format!("{c} {c}\u{e9}-42{c}\n");
        assert_eq!(Session::new(&around).unwrap().id(), Some("\u{e9}-42"));
        let inside = format!("chat{c}42");
        let error = |error: tracing_session::Error| error.to_string();
        assert_eq!(
            Session::new(&inside).map_err(error),
            Err(format!("id {refused}"))
        );
        let user = Session::default().with_user(&inside);
        assert_eq!(user.map_err(error), Err(format!("id {refused}")));
        let tag = Session::default().with_tags([&inside]);
        assert_eq!(tag.map_err(error), Err(format!("tag {refused}")));
        let key = Session::default().with_metadata(&inside, 1);
        assert_eq!(key.map_err(error), Err(format!("metadata key {refused}")));
        let blank = Session::new(format!("{c} {c}")).map_err(error);
        assert_eq!(
            blank,
            Err("id is blank: set a value, or leave it out".to_owned())
        );
        // An attribute with such an id is no id.
        session!("outer").in_scope(|| {
            let span = info_span!("own");
            span.set_attribute("session.id", inside);
            span.in_scope(|| {});
        });
        // Characters that are visible, join letters, or are parts of emoji.
        for text in [
            "\u{5d0}\u{5d1}",
            "a\u{200d}b",
            "a\u{200c}b",
            "a\u{ad}b",
            "\u{2764}\u{fe0f}",
        ] {
            assert_eq!(Session::new(text).unwrap().id(), Some(text));
        }
    }
    let owns = app.spans().into_iter().filter(|it| it.name == "own");
    for own in owns {
        assert_eq!(values(&own, "session.id"), ["outer"]);
    }
    drop(info_span!("placeholder", session.id = "\u{feff}None"));
    assert_eq!(values(&app.span("placeholder"), "session.id"), [""; 0]);
}

#[test]
fn invalid_id_is_ignored_and_the_outer_one_still_applies() {
    let long = "x".repeat(1025);
    let longest = "é".repeat(512);
    let app = App::new();
    let mut line = 0;
    // A session that the name `session` may replace.
    info_span!("session", id = "outer").in_scope(|| {
        for bad in ["", "  ", long.as_str(), "two\nlines", "\u{7f}x", "x\u{85}y"] {
            line = line!() + 1;
            info_span!("session", id = bad).in_scope(|| info_span!("below").in_scope(|| {}));
        }
        info_span!("session", id = longest.as_str()).in_scope(|| {});
    });
    let spans = app.spans();
    assert_eq!(spans.len(), 14);
    for (n, span) in spans.iter().enumerate() {
        let expected = if n == 12 { longest.as_str() } else { "outer" };
        assert_eq!(values(span, "session.id"), [expected]);
        assert_eq!(values(span, "id"), [""; 0]);
    }
    assert_eq!(
        app.diagnostics.messages(),
        [
            "id is blank: set a value, or leave it out",
            "id is longer than 1024 bytes: shorten it, or use a hash of it",
            "id contains a control or invisible character: remove it"
        ]
        .map(|why| ignored("id", "session", line, why))
    );
}

/// In quotes it would be one.
#[test]
fn invalid_id_is_not_exported_in_its_quotes() {
    let app = App::new();
    session!("outer").in_scope(|| {
        for bad in ["", " ", "two\nlines"] {
            info_span!("given", session.id = ?bad, user.id = ?bad).in_scope(|| {});
            let late = info_span!("late", session.id = Empty, user.id = "u-7");
            late.record("session.id", debug(bad));
            late.record("user.id", debug(bad));
        }
    });
    for span in app.spans() {
        assert_eq!(values(&span, "session.id"), ["outer"], "{}", span.name);
    }
    // A blank user says nothing. Another invalid one is exported as it was written, where the span has no user.
    let of = |name: &str, nth: usize| {
        let spans = app.spans().into_iter().filter(|span| span.name == name);
        values(&spans.collect::<Vec<_>>()[nth], "user.id")
    };
    assert_eq!([0, 1].map(|nth| of("given", nth)), [[""; 0]; 2]);
    assert_eq!(of("given", 2), [r#""two\nlines""#]);
    assert_eq!([0, 1, 2].map(|nth| of("late", nth)), [["u-7"]; 3]);
}

#[test]
fn each_field_with_an_invalid_id_gets_a_diagnostic() {
    let app = App::with(|layer| {
        let layer = layer.with_session_field("conversation");
        layer.with_user_field("customer")
    });
    let line = line!() + 2;
    for _ in 0..2 {
        info_span!("request", conversation = " ", customer = " ").in_scope(|| {});
    }
    let said = ["conversation", "customer"].map(|field| {
        ignored(
            field,
            "request",
            line,
            "id is blank: set a value, or leave it out",
        )
    });
    assert_eq!(app.diagnostics.messages(), said);
}

#[test]
fn mistake_in_a_field_is_reported_once() {
    let app = App::new();
    let line = line!() + 1;
    info_span!("request", session.id = " ", user.id = "x\ny").in_scope(|| {});
    app.exports_with_diagnostics(
        "request user.id=x\ny",
        &[
            &ignored(
                "session.id",
                "request",
                line,
                "id is blank: set a value, or leave it out",
            ),
            &ignored(
                "user.id",
                "request",
                line,
                "id contains a control or invisible character: remove it",
            ),
        ],
    );
}

#[test]
fn invalid_own_attribute_is_replaced_by_an_inherited_value_and_kept_without_one() {
    // What is said of attributes is said once in the process.
    if !crate::support::alone(test_name!(), &[]) {
        return;
    }
    let app = App::new();
    let tracer = app.provider.tracer("library");
    session!("chat-42").in_scope(|| {
        for bad in ["", "two\u{7f}lines"] {
            let mut span = tracer.start("plain");
            span.set_attribute(KeyValue::new("session.id", bad));
            span.set_attribute(KeyValue::new("user.id", bad));
            span.end();
        }
    });
    app.exports_with_diagnostics(
        "
        session session.id=chat-42
          plain user.id= session.id=chat-42
          plain user.id=twolines session.id=chat-42
        ",
        &[
            "an attribute `session.id` set on a span is ignored: id is blank: set a value, or leave it out",
            "an attribute `session.id` set on a span is ignored: id contains a control or invisible character: remove it",
        ],
    );
}

#[test]
fn invalid_own_attribute_does_not_replace_the_previous_one() {
    let app = App::new();
    session!("chat-42").in_scope(|| {
        let mut span = app.provider.tracer("library").start("plain");
        for value in ["own".to_owned(), "x".repeat(1025)] {
            span.set_attribute(KeyValue::new("session.id", value.clone()));
            span.set_attribute(KeyValue::new("user.id", value));
        }
        span.end();
    });
    let span = app.span("plain");
    assert_eq!(values(&span, "session.id"), ["own"]);
    // No user is inherited, so both stay.
    assert_eq!(
        values(&span, "user.id"),
        ["own".to_owned(), "x".repeat(1025)]
    );
}

#[test]
fn session_with_an_invalid_id_is_an_error_with_the_reason() {
    let error = |id: &str| Session::new(id).unwrap_err().to_string();
    assert_eq!(error(" "), "id is blank: set a value, or leave it out");
    assert_eq!(
        error(&"x".repeat(1025)),
        "id is longer than 1024 bytes: shorten it, or use a hash of it"
    );
    assert_eq!(
        error(&"é".repeat(513)),
        "id is longer than 1024 bytes: shorten it, or use a hash of it"
    );
    assert_eq!(
        error("secret\u{1b}"),
        "id contains a control or invisible character: remove it"
    );
    assert_eq!(
        Session::new("x".repeat(1024)).unwrap().id().unwrap().len(),
        1024
    );
    let error = Session::default().with_user("\u{0}").unwrap_err();
    assert!(error.is_invalid_id() && !error.is_no_span());
}

// C8

#[test]
fn plain_session_and_user_attributes_are_renamed_in_a_scope() {
    let app = App::new();
    let work = || {
        let span = info_span!("work", session = "tls", user = "root");
        span.in_scope(|| span.set_attribute("session", "resumed"));
    };
    work();
    session!("chat-42").in_scope(work);
    let span = info_span!("own", user = 7);
    span.set_attribute("user.id", "u-7");
    drop(span);
    app.exports(
        "
        work session=tls user=root session=resumed
        session session.id=chat-42
          work session.name=tls user.name=root session.name=resumed session.id=chat-42
        own user=I64(7) user.id=u-7
        ",
    );
}

#[test]
fn plain_session_and_user_attributes_are_renamed_on_the_opener() {
    let app = App::new();
    let fields = info_span!("fields", session.id = "chat-42", session = "tls", user = 7);
    fields.in_scope(|| {});
    drop(fields);
    session!("chat-43", user = "root").in_scope(|| {});
    app.exports(
        "
        fields session.id=chat-42 session.name=tls user.name=I64(7)
        session session.id=chat-43 user.name=root
        ",
    );
}

#[test]
fn plain_session_and_user_attributes_are_kept_without_renaming() {
    use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
    use tracing_subscriber::prelude::*;
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let provider = SessionTracerProvider::new(provider).without_renaming_plain_attributes();
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
    let layer = tracing_session::SessionLayer::new().wrap(otel);
    let _default = tracing_subscriber::registry().with(layer).set_default();
    session!("chat-42", session = "tls", user = "root").in_scope(|| {
        let mut work = provider.tracer("library").start("work");
        work.set_attribute(KeyValue::new("session", "tls"));
        work.set_attribute(KeyValue::new("user", "root"));
    });
    assert_eq!(
        crate::support::tree(&exporter.get_finished_spans().unwrap()),
        "session session.id=chat-42 session=tls user=root\n  work session=tls user=root \
         session.id=chat-42\n"
    );
}

#[test]
fn id_that_is_a_bool_or_a_float_is_its_text() {
    let app = App::new();
    info_span!("session", id = true).in_scope(|| {});
    info_span!("request", session.id = 1.5, user.id = false).in_scope(|| {});
    app.exports(
        "
        session session.id=true
        request session.id=1.5 user.id=false
        ",
    );
}
