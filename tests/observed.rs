//! What other systems were seen to do with what is in force and with what a span says itself, and
//! what is done here. A rule stands where we do something else. Mirascope's is in `mirascope.rs`.

use crate::support::{self, App, values};
use opentelemetry::trace::{Link, Span, SpanKind, TraceId, TraceState, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};
use std::sync::{Arc, Mutex};
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Dialect, Session, SessionLayer, current_session, current_session_id, new_session,
    set_session_id,
};

fn session(id: &str) -> Session {
    Session::new(id).unwrap()
}

/// The values that a span of that name has for each key.
fn of<const LEN: usize>(app: &App, name: &str, keys: [&str; LEN]) -> [Vec<String>; LEN] {
    let span = app.span(name);
    keys.map(|key| values(&span, key))
}

/// A span of OpenTelemetry's own, with these attributes from its start.
fn plain(app: &App, name: &'static str, own: &[(&'static str, &'static str)]) {
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

/// There, the inner metadata and tags take the place of the outer ones. Here they are merged.
#[test]
fn openinference_metadata_and_tags() {
    let app = App::new();
    let outer = Session::default().with_metadata("a", 1).unwrap();
    let outer = outer
        .with_metadata("b", "x")
        .unwrap()
        .with_tags(["t"])
        .unwrap();
    let inner = Session::default().with_metadata("b", "é").unwrap();
    let inner = inner.with_tags(["z"]).unwrap();
    outer.in_scope(|| inner.in_scope(|| info_span!("metadata-tags").in_scope(|| {})));
    let [metadata, tags] = of(&app, "metadata-tags", ["metadata", "tag.tags"]);
    assert_eq!(metadata, [r#"{"a":1,"b":"é"}"#]);
    assert_eq!(tags, [r#"["t","z"]"#]);
}

/// Remembers what it saw of each span.
#[derive(Clone, Debug, Default)]
struct Sampler(Arc<Mutex<Vec<Seen>>>);

/// The name of a span, and the session in its `Context`.
type Seen = (String, Option<String>);

impl ShouldSample for Sampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        _: TraceId,
        name: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let _attached = parent.unwrap().clone().attach();
        let seen = (name.to_owned(), current_session_id());
        self.0.lock().unwrap().push(seen);
        SamplingResult {
            decision: SamplingDecision::RecordAndSample,
            attributes: Vec::new(),
            trace_state: TraceState::NONE,
        }
    }
}

/// OpenInference's sampler sees the session among the attributes, that of the baggage processors
/// sees none. Here it is in the `Context`, whatever the span says itself.
#[test]
fn what_samplers_see() {
    let sampler = Sampler::default();
    let app = App::with_provider(
        |builder| builder.with_sampler(sampler.clone()),
        |otel| SessionLayer::new().around(otel),
    );
    session("S").in_scope(|| {
        info_span!("child").in_scope(|| {});
        plain(&app, "own-at-start", &[("session.id", "own")]);
    });
    let seen = sampler.0.lock().unwrap();
    let in_session = |name: &str| (name.to_owned(), Some("S".to_owned()));
    assert_eq!(*seen, [in_session("child"), in_session("own-at-start")]);
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

/// TraceCtrl 0.3.2. There, the session that is set lasts for the thread; here for the span.
mod tracectrl {
    use super::*;

    const ID: &str = "tracectrl.session_id";

    fn app() -> App {
        App::with_dialect(Dialect::TRACECTRL)
    }

    #[test]
    fn every_span_has_the_session_that_is_current_when_it_starts() {
        let app = app();
        info_span!("root").in_scope(|| {
            set_session_id("A").unwrap();
            info_span!("first").in_scope(|| {});
            info_span!("child").in_scope(|| {
                set_session_id("B").unwrap();
                plain(&app, "below", &[]);
            });
        });
        app.exports(&format!(
            "
            root {ID}=A
              first {ID}=A
              child {ID}=B
                below {ID}=B
            "
        ));
    }

    /// There, what is in force takes the place of the span's own. Here the span's own stands (C2), once.
    #[test]
    fn own_session_of_a_span_stands() {
        let app = app();
        session("B").in_scope(|| plain(&app, "own", &[(ID, "explicit")]));
        assert_eq!(of(&app, "own", [ID]), [["explicit"]]);
    }

    /// There, both keys stand on the span, and its server prefers its own. Here a span has one
    /// session, under the keys that are asked for.
    #[test]
    fn session_of_an_instrumentor_is_the_spans() {
        for (dialect, keys) in [
            (Dialect::TRACECTRL, &[ID][..]),
            (
                Dialect::TRACECTRL.and(Dialect::OPENINFERENCE),
                &[ID, "session.id"],
            ),
        ] {
            let app = App::with_dialect(dialect);
            session("B").in_scope(|| plain(&app, "own", &[("session.id", "agno")]));
            plain(&app, "fallback", &[("session.id", "agno")]);
            for name in ["own", "fallback"] {
                let span = app.span(name);
                for key in keys {
                    assert_eq!(values(&span, key), ["agno"], "{name} {key}");
                }
                assert_eq!(span.attributes.len(), keys.len(), "{name}");
            }
        }
    }

    #[test]
    fn empty_session_is_not_written() {
        let app = app();
        info_span!("empty-session").in_scope(|| assert!(set_session_id("").is_err()));
        app.exports("empty-session");
    }

    /// There, a child counts as the entry too.
    #[test]
    fn nothing_else_is_written() {
        let app = app();
        session("A").in_scope(|| info_span!("root").in_scope(|| {}));
        app.exports(&format!("root {ID}=A"));
    }

    #[test]
    fn new_session_is_another_each_time() {
        if !support::alone(test_name!(), &[]) {
            return;
        }
        let app = app();
        let ids = info_span!("agent").in_scope(|| {
            [(); 2].map(|()| {
                let session = new_session().unwrap();
                plain(&app, "call", &[]);
                session.id().unwrap().to_owned()
            })
        });
        assert_ne!(ids[0], ids[1]);
        assert!(ids.iter().all(|id| id.len() == 36));
        let spans = app.spans();
        let calls = spans.iter().filter(|span| span.name == "call");
        let exported: Vec<_> = calls.flat_map(|span| values(span, ID)).collect();
        assert_eq!(exported, ids);
        assert_eq!(values(&app.span("agent"), ID), [&*ids[1]]);
        assert_eq!(current_session(), None);
    }

    #[test]
    fn id_of_the_environment_is_taken_as_it_is_but_not_blank() {
        let test = test_name!();
        // There, two spaces are an id.
        for variable in ["env-sid", "", "  "] {
            if support::alone(test, &[("TRACECTRL_SESSION_ID", variable)]) {
                let variable = std::env::var("TRACECTRL_SESSION_ID").unwrap();
                let app = app();
                info_span!("agent").in_scope(|| {
                    let session = new_session().unwrap();
                    match variable.trim() {
                        "" => assert_eq!(session.id().unwrap().len(), 36),
                        id => assert_eq!(session.id(), Some(id)),
                    }
                    set_session_id("explicit").unwrap();
                });
                return app.exports(&format!("agent {ID}=explicit"));
            }
        }
    }
}
