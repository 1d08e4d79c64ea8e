//! What Mirascope 2.8.2 was seen to do with the attributes of a session, which are metadata here.

use super::{injected, set_propagator};
use crate::support::{App, session, values};
use opentelemetry::trace::{Span, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use serde::Serialize;
use std::collections::BTreeMap;
use tracing::{field, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Dialect, Session, current_session,
    propagation::{SESSION_HEADER_NAME, propagated_context},
};

const ID: &str = "mirascope.ops.session.id";
const ATTRIBUTES: &str = "mirascope.ops.session.attributes";

/// An application whose spans are for Mirascope.
fn app() -> App {
    App::with_dialect(Dialect::MIRASCOPE)
}

/// What is exported of a session with this metadata.
fn exported(session: &Session) -> Vec<String> {
    let app = app();
    session.in_scope(|| info_span!("span").in_scope(|| {}));
    values(&app.span("span"), ATTRIBUTES)
}

/// The JSON of one value, or why there is none.
fn json(value: impl Serialize) -> Result<String, String> {
    let session = Session::default().with_metadata("v", value);
    let session = session.map_err(|error| error.to_string())?;
    let mut exported = exported(&session);
    assert_eq!(exported.len(), 1);
    exported.pop().ok_or_else(String::new)
}

#[test]
fn json_of_the_attributes() {
    let refused = "`v`: the value cannot be serialised as JSON: check its `Serialize`, and that map keys are strings";
    let date = "2024-01-02T03:04:05+00:00";
    let uuid = uuid::Uuid::from_u128(1).to_string();
    let too_large = u128::from(u64::MAX) + 1;
    for (value, expected) in [
        (json(f64::NAN), Ok(r#"{"v":null}"#)),
        (json(f64::INFINITY), Ok(r#"{"v":null}"#)),
        (
            json(9_223_372_036_854_775_808_u64),
            Ok(r#"{"v":9223372036854775808}"#),
        ),
        (json(u64::MAX), Ok(r#"{"v":18446744073709551615}"#)),
        (json(i64::MIN), Ok(r#"{"v":-9223372036854775808}"#)),
        (json(too_large), Err(refused)),
        // A type of the application's says itself how it is serialised.
        (json(date), Ok(r#"{"v":"2024-01-02T03:04:05+00:00"}"#)),
        (
            json(uuid),
            Ok(r#"{"v":"00000000-0000-0000-0000-000000000001"}"#),
        ),
        (json(BTreeMap::from([(1, "a")])), Ok(r#"{"v":{"1":"a"}}"#)),
        (json((1, 2)), Ok(r#"{"v":[1,2]}"#)),
        (json("</a>& "), Ok(r#"{"v":"</a>& "}"#)),
        (json("a\n\t\u{1}"), Ok(r#"{"v":"a\n\t\u0001"}"#)),
        (json("😀"), Ok(r#"{"v":"😀"}"#)),
        (json("é"), Ok(r#"{"v":"é"}"#)),
        (json(1.5), Ok(r#"{"v":1.5}"#)),
        (json(true), Ok(r#"{"v":true}"#)),
        (json(None::<u8>), Ok(r#"{"v":null}"#)),
        // There, bytes are refused. Here they are a list of numbers, as serde has it.
        (json(b"abc"), Ok(r#"{"v":[97,98,99]}"#)),
    ] {
        assert_eq!(value.as_deref().map_err(String::as_str), expected);
    }
}

/// Whatever the letters. A key that is said again keeps its place.
#[test]
fn attributes_keep_their_order() {
    let session = Session::default()
        .with_metadata("b", 1)
        .and_then(|it| it.with_metadata("a", 2))
        .and_then(|it| it.with_metadata("c", 3))
        .and_then(|it| it.with_metadata("b", 4))
        .unwrap();
    assert_eq!(exported(&session), [r#"{"b":4,"a":2,"c":3}"#]);
}

/// The keys inside one value are another matter: they have an order, and not the one in which they
/// were written.
#[test]
fn value_has_the_same_json_for_any_order_of_its_keys() {
    #[derive(Serialize)]
    struct Written {
        b: u8,
        a: u8,
    }
    let written = json(Written { b: 1, a: 2 });
    assert_eq!(written.as_deref(), Ok(r#"{"v":{"a":2,"b":1}}"#));
}

/// What it has no attributes for, it writes none of; there, an empty map is written as `{}`.
#[test]
fn session_without_attributes_has_none() {
    assert_eq!(exported(&session("E")), [""; 0]);
    let tagged = session("E").with_tags(["beta"]).unwrap();
    assert_eq!(exported(&tagged), [""; 0]);
    assert_eq!(exported(&Session::default()), [""; 0]);
}

/// There, a span that is open already carries nothing and nor does one of OpenTelemetry's own. Here
/// the latter does.
#[test]
fn spans_that_carry_the_attributes() {
    let app = app();
    let said = session("S")
        .with_metadata("user", "alice")
        .and_then(|it| it.with_metadata("n", 1))
        .and_then(|it| it.with_metadata("f", 1.5))
        .and_then(|it| it.with_metadata("b", true))
        .and_then(|it| it.with_metadata("z", None::<u8>))
        .and_then(|it| it.with_metadata("list", (1, "a")))
        .and_then(|it| it.with_metadata("nest", BTreeMap::from([("k", "é")])))
        .unwrap();
    info_span!("before").in_scope(|| {
        said.in_scope(|| {
            info_span!("child", key = "v").in_scope(|| {});
            let tracer = app.provider.tracer("lib");
            tracer
                .start_with_context("plain", &Context::current())
                .end();
        });
        info_span!("after-session").in_scope(|| {});
    });
    let carried = format!(
        r#"{ID}=S {ATTRIBUTES}={{"user":"alice","n":1,"f":1.5,"b":true,"z":null,"list":[1,"a"],"nest":{{"k":"é"}}}}"#
    );
    app.exports(&format!(
        "
        before
          child key=v {carried}
          plain {carried}
          after-session
        "
    ));
}

/// There, the inner session has its own attributes or none. Here they are merged by key.
#[test]
fn attributes_of_nested_sessions() {
    let app = app();
    let outer = session("outer")
        .with_metadata("k1", 1)
        .and_then(|it| it.with_metadata("k2", "outer"))
        .unwrap();
    let inner = session("inner-with").with_metadata("k2", 1).unwrap();
    outer.in_scope(|| {
        session("inner").in_scope(|| info_span!("inner-no-attrs").in_scope(|| {}));
        inner.in_scope(|| info_span!("inner-attrs").in_scope(|| {}));
        // As it is there, where somebody wants it.
        let alone = inner
            .clone()
            .without(tracing_session::session::Part::Metadata);
        let alone = alone.with_metadata("k2", 1).unwrap();
        alone.in_scope(|| info_span!("inner-alone").in_scope(|| {}));
    });
    app.exports(&format!(
        r#"
        inner-no-attrs {ID}=inner {ATTRIBUTES}={{"k1":1,"k2":"outer"}}
        inner-attrs {ID}=inner-with {ATTRIBUTES}={{"k1":1,"k2":1}}
        inner-alone {ID}=inner-with {ATTRIBUTES}={{"k2":1}}
        "#
    ));
}

/// As there: whatever a span says itself, it says alone.
#[test]
fn own_attribute_of_the_dialect_wins() {
    let app = app();
    let session = session("S").with_metadata("user", "alice").unwrap();
    session.in_scope(|| {
        let span = info_span!("own-attr-wins", mirascope.ops.session.id = "explicit");
        span.in_scope(|| {});
        span.set_attribute(ATTRIBUTES, "{}");
        let tracer = app.provider.tracer("lib");
        let own = [KeyValue::new(ID, "explicit")];
        let builder = tracer.span_builder("plain").with_attributes(own);
        builder
            .start_with_context(&tracer, &Context::current())
            .end();
    });
    let span = app.span("own-attr-wins");
    assert_eq!(values(&span, ID), ["explicit"]);
    assert_eq!(values(&span, ATTRIBUTES), ["{}"]);
    let plain = app.span("plain");
    assert_eq!(values(&plain, ID), ["explicit"]);
    assert_eq!(values(&plain, ATTRIBUTES), [r#"{"user":"alice"}"#]);
}

/// There, the decorator's `metadata` writes `session.id`, `user.id`, `metadata.<key>` and `tags` beside
/// the session's own id, which may be another. Here such fields say the session, and there is one.
#[test]
fn metadata_of_a_traced_function() {
    let traced = || {
        let span = info_span!(
            "g",
            session.id = "meta-s",
            user.id = "meta-u",
            metadata.topic = "t",
            tags = ?["a", "b"]
        );
        span.in_scope(|| info_span!("below").in_scope(|| {}));
    };
    let both = Dialect::OPENINFERENCE.and(Dialect::MIRASCOPE);
    let app = App::with_dialect(both);
    session("T").in_scope(traced);
    for name in ["g", "below"] {
        let span = app.span(name);
        for (key, value) in [
            ("session.id", "meta-s"),
            (ID, "meta-s"),
            ("user.id", "meta-u"),
            ("metadata", r#"{"topic":"t"}"#),
            (ATTRIBUTES, r#"{"topic":"t"}"#),
            ("tag.tags", r#"["a","b"]"#),
            ("mirascope.trace.tags", r#"["a","b"]"#),
        ] {
            assert_eq!(values(&span, key), [value], "{name} {key}");
        }
        for key in ["metadata.topic", "tags", "id"] {
            assert_eq!(values(&span, key), [""; 0], "{name} {key}");
        }
    }
    assert_eq!(app.diagnostics.messages(), [""; 0]);
}

/// Only the id travels, there and here. What is in force where it arrives stays, there with none of
/// the attributes.
#[test]
fn attributes_stay_in_the_process() {
    set_propagator();
    let app = app();
    let ours = session("sid").with_metadata("user", "alice").unwrap();
    let ours = ours.with_tags(["beta"]).unwrap();
    let sent = ours.in_scope(|| info_span!("client").in_scope(injected));
    assert_eq!(sent[SESSION_HEADER_NAME], "sid");
    assert!(sent.values().all(|value| !value.contains("alice")));
    assert!(sent.values().all(|value| !value.contains("beta")));
    propagated_context(&sent).in_scope(|| {
        let here = current_session().unwrap();
        assert_eq!(here.id(), Some("sid"));
        assert_eq!(here.all_metadata().count(), 0);
        info_span!("server").in_scope(|| {});
    });
    let server = app.span("server");
    assert_eq!(values(&server, ID), ["sid"]);
    assert_eq!(values(&server, ATTRIBUTES), [""; 0]);
}

/// As there: with another session, none of what was said with the one outside is in force.
#[test]
fn attributes_with_a_header_of_another_session() {
    set_propagator();
    let ambient = session("ambient").with_metadata("user", "alice").unwrap();
    let inside = |lines: &[(&str, &str)]| {
        let propagated = || propagated_context(&super::headers(lines)).in_scope(current_session);
        let here = ambient.in_scope(propagated);
        let here = here.unwrap();
        let user = here.metadata("user").cloned();
        (here.id().map(str::to_owned), user)
    };
    let remote = inside(&[(SESSION_HEADER_NAME, "remote")]);
    assert_eq!(remote, (Some("remote".to_owned()), None));
    let stays = (Some("ambient".to_owned()), Some("alice".into()));
    assert_eq!(inside(&[]), stays);
    assert_eq!(inside(&[("traceparent", super::TRACEPARENT)]), stays);
}

/// A field that is recorded late, on the span and on those below that are open.
#[test]
fn attribute_recorded_later() {
    let app = app();
    let span = info_span!("session", id = "S", metadata.user = field::Empty);
    span.in_scope(|| {
        info_span!("ended").in_scope(|| {});
        let open = info_span!("open").entered();
        span.record("metadata.user", "alice");
        drop(open);
    });
    drop(span);
    app.exports(&format!(
        r#"
        session {ID}=S {ATTRIBUTES}={{"user":"alice"}}
          ended {ID}=S
          open {ID}=S {ATTRIBUTES}={{"user":"alice"}}
        "#
    ));
}
