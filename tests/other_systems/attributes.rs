//! What OpenInference, the baggage processors of OpenTelemetry, Logfire and Langfuse were seen to do with the attributes in
//! force and with those that a span has itself. A row says the reason where we do something else.

use crate::support::{App, session, values};
use opentelemetry::trace::{Span, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{Dialect, Session};

/// The values that a span of that name has for each key.
pub(super) fn of<const LEN: usize>(app: &App, name: &str, keys: [&str; LEN]) -> [Vec<String>; LEN] {
    let span = app.span(name);
    keys.map(|key| values(&span, key))
}

/// A span of OpenTelemetry's own, with these attributes from its start.
pub(super) fn plain(app: &App, name: &'static str, own: &[(&'static str, &'static str)]) {
    let tracer = app.provider.tracer("lib");
    let own = own.iter().map(|&(key, value)| KeyValue::new(key, value));
    let builder = tracer.span_builder(name).with_attributes(own);
    builder
        .start_with_context(&tracer, &Context::current())
        .end();
}

/// One thing that was tried: what it is, and what came of it as session and user.
type Row = (
    &'static str,
    [Option<&'static str>; 2],
    [Option<&'static str>; 2],
    &'static str,
);

/// Each row's spans were made, and are as the row says.
#[track_caller]
fn compare(app: &App, rows: &[Row]) {
    for (name, theirs, ours, rule) in rows {
        let found = of(app, name, ["session.id", "user.id"]);
        let expected = ours.map(|id| id.map(str::to_owned).into_iter().collect::<Vec<_>>());
        assert_eq!(found, expected, "{name}");
        assert_eq!(theirs == ours, rule.is_empty(), "{name}");
    }
}

const OWN: &str = "a span's own attribute wins (C2)";
const PLAIN: &str = "spans of OpenTelemetry's own are marked too (B9)";
const BLANK: &str = "blank is nothing, and the outer value stays (C7)";

/// OpenInference 0.1.72, `using_session` and `using_user`.
#[test]
fn openinference() {
    let app = App::new();
    let outer = session("S").with_user("U").unwrap();
    info_span!("open-before").in_scope(|| {
        outer.in_scope(|| {
            info_span!("child").in_scope(|| {});
            plain(&app, "own-at-start", &[("session.id", "own")]);
            let later = info_span!("own-later");
            later.in_scope(|| {});
            later.set_attribute("session.id", "later");
            plain(&app, "plain-otel", &[]);
            session("INNER").in_scope(|| info_span!("inner").in_scope(|| {}));
            assert!(Session::new("").is_err());
            info_span!("empty-keeps-outer").in_scope(|| {});
            assert!(Session::new("  ").is_err());
            info_span!("whitespace").in_scope(|| {});
        });
    });
    let both = [Some("S"), Some("U")];
    compare(
        &app,
        &[
            ("child", both, both, ""),
            ("own-at-start", both, [Some("own"), Some("U")], OWN),
            (
                "own-later",
                [Some("later"), Some("U")],
                [Some("later"), Some("U")],
                "",
            ),
            ("plain-otel", [None; 2], both, PLAIN),
            (
                "inner",
                [Some("INNER"), Some("U")],
                [Some("INNER"), Some("U")],
                "",
            ),
            ("empty-keeps-outer", both, both, ""),
            ("whitespace", [Some("  "), Some("U")], both, BLANK),
            ("open-before", [None; 2], [None; 2], ""),
        ],
    );
}

/// OpenTelemetry's baggage processors (0.66b1), and Logfire 5.2.0, which has baggage as attributes too.
#[test]
fn baggage_processors() {
    let app = App::new();
    info_span!("open-before").in_scope(|| {
        session("S").in_scope(|| {
            info_span!("child").in_scope(|| {});
            plain(&app, "own-at-start", &[("session.id", "own")]);
            plain(&app, "own-equal", &[("session.id", "S")]);
        });
    });
    let (s, own, none) = ([Some("S"), None], [Some("own"), None], [None; 2]);
    // The processors': their value stands before the span's own.
    compare(
        &app,
        &[
            ("child", s, s, ""),
            ("own-at-start", s, own, OWN),
            ("open-before", none, none, ""),
        ],
    );
    // Logfire's: the span's own stands, and the other one under a key for conflicts.
    compare(
        &app,
        &[
            ("child", s, s, ""),
            ("own-at-start", own, own, ""),
            ("own-equal", s, s, ""),
            ("open-before", none, none, ""),
        ],
    );
    let conflicts = app.spans().into_iter().any(|span| {
        let mut keys = span.attributes.iter().map(|it| it.key.as_str());
        keys.any(|key| key.contains("conflict"))
    });
    assert!(!conflicts);
}

/// Langfuse drops an id of more than 200 characters, Logfire cuts one of more than 1,000. Here 1,024
/// bytes are the limit, and nothing is dropped in silence or cut.
#[test]
fn long_ids() {
    let app = App::new();
    for length in [200, 201, 1024] {
        let id = "x".repeat(length);
        session(&id).in_scope(|| info_span!("long").in_scope(|| {}));
        assert_eq!(of(&app, "long", ["session.id"]), [[id]]);
        app.exporter.reset();
    }
    assert!(Session::new("x".repeat(1025)).unwrap_err().is_invalid_id());
}

/// Langfuse 5.0.4, `propagate_attributes`. Metadata are strings there, with what is no string as JSON;
/// here each keeps its type.
#[test]
fn langfuse() {
    let app = App::with_dialect(Dialect::LANGFUSE);
    let outer = session("S").with_user("U").unwrap();
    let outer = outer.with_metadata("a", 1).unwrap();
    let outer = outer.with_metadata("b", "x").unwrap();
    let outer = outer.with_tags(["t1"]).unwrap();
    let inner = Session::default().with_metadata("b", "y").unwrap();
    let inner = inner.with_metadata("c", "z").unwrap();
    let inner = inner.with_tags(["t1", "t2"]).unwrap();
    info_span!("open-before").in_scope(|| {
        outer.in_scope(|| {
            info_span!("child").in_scope(|| {});
            plain(&app, "own-at-start", &[("langfuse.session.id", "own")]);
            inner.in_scope(|| info_span!("nested-merge").in_scope(|| {}));
            session("séance").in_scope(|| info_span!("non-ascii").in_scope(|| {}));
        });
    });
    let keys = [
        "langfuse.session.id",
        "langfuse.user.id",
        "langfuse.trace.metadata.a",
        "langfuse.trace.metadata.b",
        "langfuse.trace.metadata.c",
        "langfuse.trace.tags",
    ];
    let carries = |name, expected: [&str; 6]| {
        let said = expected.map(|it| Some(it).filter(|it| !it.is_empty()));
        let expected = said.map(|it| it.map(str::to_owned).into_iter().collect::<Vec<_>>());
        assert_eq!(of(&app, name, keys), expected, "{name}");
    };
    carries("child", ["S", "U", "1", "x", "", r#"["t1"]"#]);
    // There the value in force stands before the span's own.
    carries("own-at-start", ["own", "U", "1", "x", "", r#"["t1"]"#]);
    carries("nested-merge", ["S", "U", "1", "y", "z", r#"["t1","t2"]"#]);
    carries("non-ascii", ["séance", "U", "1", "x", "", r#"["t1"]"#]);
    // There, the span that is open is marked too. Here `set_session_id` is for that.
    carries("open-before", [""; 6]);
    let child = app.span("child");
    let a = child
        .attributes
        .iter()
        .find(|it| it.key.as_str() == keys[2]);
    assert_eq!(a.unwrap().value, opentelemetry::Value::I64(1));
}
