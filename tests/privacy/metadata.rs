//! Metadata, on spans.

use crate::privacy::{
    CHAT, EMAIL, EMAIL_HASH, NUMBER, NUMBER_HASH, Work, below, both, conversation, hashed, mark,
    sent,
};
use opentelemetry::trace::{Span as _, Tracer, TracerProvider};
use opentelemetry::{Array, KeyValue, Value};
use tracing::field::Empty;
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{Dialect, Privacy, Session, export::IdPolicy, session};

#[test]
fn private_metadata_is_not_sent() {
    let ways: &[(&str, &Work<'_>)] = &[
        ("value", &|_| {
            let session = conversation().with_metadata("email", EMAIL).unwrap();
            session.in_scope(below);
            session!(session).in_scope(below);
        }),
        ("field", &|_| {
            session!(CHAT, metadata.email = EMAIL).in_scope(below);
            session!(CHAT, metadata.email = ?EMAIL).in_scope(below);
            session!(CHAT, metadata.email = Empty)
                .record("metadata.email", EMAIL)
                .in_scope(below);
        }),
        ("own", &|provider| {
            for session in [Session::default(), conversation()] {
                session.in_scope(|| {
                    info_span!("span", metadata.email = EMAIL).in_scope(|| {});
                    let mut span = provider.tracer("library").start("library");
                    let json = format!(r#"{{"email":"{EMAIL}","plan":"pro"}}"#);
                    span.set_attribute(KeyValue::new("metadata", json));
                    span.end();
                });
            }
        }),
        ("marked", &|_| {
            let session = conversation().with_metadata("email", EMAIL).unwrap();
            info_span!("request")
                .in_scope(|| session.in_scope(|| info_span!("handler").in_scope(mark)));
        }),
    ];
    let dialects = [
        Dialect::OPENINFERENCE,
        Dialect::LANGFUSE,
        Dialect::MIRASCOPE.and(Dialect::WEAVE),
        Dialect::OPENINFERENCE.and(Dialect::TRACELOOP),
    ];
    for (name, work) in ways {
        for dialect in &dialects {
            let omitted = sent(both(IdPolicy::omitted()), dialect.clone(), |it| it, *work);
            assert!(!omitted.has(EMAIL), "{name}: {:?}", omitted.attributes());
            let hashes = sent(both(hashed()), dialect.clone(), |it| it, *work);
            assert!(!hashes.has(EMAIL), "{name}: {:?}", hashes.attributes());
            assert!(hashes.has(EMAIL_HASH), "{name}: {:?}", hashes.attributes());
        }
    }
}

#[test]
fn private_metadata_that_a_library_sets_in_another_form_is_not_sent() {
    let ways: &[(&str, &Work<'_>)] = &[
        ("list", &|_| {
            let span = info_span!("span");
            let list = Value::Array(Array::String(vec![EMAIL.into()]));
            span.set_attribute("metadata.email", list);
        }),
        ("dialect", &|_| {
            let span = info_span!("span");
            span.set_attribute("langfuse.trace.metadata.email", EMAIL);
        }),
        ("dialect, one object", &|_| {
            let span = info_span!("span");
            let json = format!(r#"{{"email":"{EMAIL}"}}"#);
            span.set_attribute("mirascope.ops.session.attributes", json);
        }),
    ];
    let dialects = [
        Dialect::LANGFUSE.and(Dialect::MIRASCOPE),
        Dialect::OPENINFERENCE,
    ];
    let mut leaking = Vec::new();
    for (name, work) in ways {
        for policy in [IdPolicy::omitted(), hashed()] {
            let metadata_alone = Privacy::new().with_metadata(["email"], policy.clone());
            for privacy in [both(policy), metadata_alone] {
                for dialect in &dialects {
                    let sent = sent(privacy.clone(), dialect.clone(), |it| it, *work);
                    if sent.has(EMAIL) {
                        leaking.push(format!("{name}, {privacy:?}, {dialect:?}"));
                    }
                }
            }
        }
    }
    assert_eq!(leaking, [""; 0]);
}

#[test]
fn object_of_a_library_keeps_its_other_entries() {
    const KEY: &str = "mirascope.ops.session.attributes";
    let work: &Work<'_> = &|_| {
        let json = format!(r#"{{"email":"{EMAIL}","plan":"pro"}}"#);
        info_span!("span").set_attribute(KEY, json);
    };
    let privacy = Privacy::new().with_metadata(["email"], IdPolicy::omitted());
    let sent = sent(privacy, Dialect::OPENINFERENCE, |it| it, work);
    assert_eq!(sent.texts(KEY), [r#"{"plan":"pro"}"#]);
}

#[test]
fn private_metadata_of_any_type_is_hashed_as_its_json() {
    let work: &Work<'_> = &|_| {
        let session = conversation().with_metadata("number", NUMBER).unwrap();
        session
            .with_metadata("plan", "pro")
            .unwrap()
            .in_scope(below);
    };
    let sent = sent(both(hashed()), Dialect::OPENINFERENCE, |it| it, work);
    let expected = format!(r#"{{"number":"{NUMBER_HASH}","plan":"pro"}}"#);
    assert_eq!(sent.texts("metadata"), [expected]);
}

#[test]
fn last_policy_for_a_key_wins() {
    let work: &Work<'_> = &|_| {
        let session = conversation().with_metadata("email", EMAIL).unwrap();
        session.in_scope(below);
    };
    let last = |first, last| {
        let privacy = Privacy::new().with_metadata(["email"], first);
        let privacy = privacy.with_metadata(["email"], last);
        sent(privacy, Dialect::OPENINFERENCE, |it| it, work).texts("metadata")
    };
    assert_eq!(last(IdPolicy::plain(), IdPolicy::omitted()), [""; 0]);
    let hashed_last = last(IdPolicy::omitted(), hashed());
    assert_eq!(hashed_last, [format!(r#"{{"email":"{EMAIL_HASH}"}}"#)]);
}
