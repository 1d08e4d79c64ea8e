//! Hashes, and their keys.

use crate::privacy::{EMAIL, KEY, USER, USER_HASH, Work, both, conversation, hashed, sent};
use crate::support::{alone, values};
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, Tracer, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use tracing::info_span;
use tracing_session::{
    Dialect, Privacy, Session, SessionPropagator, SessionTracerProvider, export::IdPolicy, user,
};

fn hash_of(key: impl AsRef<[u8]>, id: &str) -> String {
    let exporter = InMemorySpanExporter::default();
    let sdk = SdkTracerProvider::builder().with_simple_exporter(exporter.clone());
    let privacy = Privacy::new().with_session_ids(IdPolicy::hashed(key).unwrap());
    let provider = SessionTracerProvider::new(sdk.build()).with_privacy(privacy);
    let tracer = provider.tracer("app");
    Session::new(id)
        .unwrap()
        .in_scope(|| tracer.start("span").end());
    let spans = exporter.get_finished_spans().unwrap();
    values(&spans[0], "session.id").concat()
}

#[test]
fn hash_is_hmac_sha_256() {
    // RFC 4231, of which the other cases have shorter keys, or texts that are no UTF-8.
    for (key, text, expected) in [
        (
            vec![0x0b; 20],
            "Hi There",
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            vec![0xaa; 131],
            "Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            vec![0xaa; 131],
            "This is a test using a larger than block-size key and a larger than block-size data. \
             The key needs to be hashed before being used by the HMAC algorithm.",
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
        ),
    ] {
        assert_eq!(hash_of(key, text), expected);
    }
    let truncated = hash_of([0x0c; 20], "Test With Truncation");
    assert!(truncated.starts_with("a3b6167473100ee06e0c796c2955552b"));
    // openssl
    for (key, text, expected) in [
        (
            KEY.to_owned(),
            "u-7",
            "a491520f7c729e01a167b008a61adfa98983d3d626147f1e2a17ea19237d7096",
        ),
        (
            KEY.to_owned(),
            "é😀",
            "004fbbd046d426d3e3d965b8b1ae54a246081519dd4abd7c099323c1f1c2b6c6",
        ),
        (
            "k".repeat(200),
            "é😀",
            "8d189926f34957deb70f1249d87863d037557b8dffad06de7478e4f01b60b9bf",
        ),
    ] {
        assert_eq!(hash_of(key, text), expected);
    }
}

#[test]
fn every_way_to_set_an_id_has_the_same_hash() {
    let ways: &[&Work<'_>] = &[
        &|_| user!(USER).in_scope(|| {}),
        &|_| drop(info_span!("request", user.id = ?USER)),
        &|_| drop(info_span!("request", user.id = ?Some(USER))),
        &|_| drop(info_span!("request", user.id = %format!(" {USER} "))),
        &|_| drop(info_span!("request", user.id = %format!("\u{feff}{USER}\u{200e}"))),
        &|provider| {
            let mut span = provider.tracer("library").start("library");
            let option = Some(format!("\u{feff}{USER} "));
            span.set_attribute(KeyValue::new("user.id", format!("{option:?}")));
            span.end();
        },
        &|provider| {
            let mut span = provider.tracer("library").start("library");
            span.set_attribute(KeyValue::new("user.id", format!("{USER} ")));
            span.end();
        },
    ];
    for work in ways {
        let sent = sent(both(hashed()), Dialect::OPENINFERENCE, |it| it, *work);
        assert_eq!(sent.texts("user.hash"), [USER_HASH]);
    }
}

#[test]
fn short_key_is_an_error_that_does_not_contain_it() {
    for key in ["", "fifteen-letters"] {
        let error = IdPolicy::hashed(key).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the key is too short: use at least 16 random bytes"
        );
        assert!(!error.is_invalid_id());
    }
    assert!(IdPolicy::hashed("sixteen-letters!").is_ok());
}

#[test]
fn debug_output_has_no_key() {
    let privacy = both(hashed());
    let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    let provider = provider.with_privacy(privacy.clone());
    let propagator = SessionPropagator::new().with_privacy(privacy.clone());
    let bytes = format!("{:?}", KEY.as_bytes());
    let bytes = bytes.trim_matches(['[', ']']);
    let tracer = provider.tracer("app");
    for shown in [
        format!("{:?}", hashed()),
        format!("{privacy:?} {privacy:#?}"),
        format!("{provider:?}"),
        format!("{propagator:?}"),
        format!("{tracer:?}"),
    ] {
        assert!(!shown.contains(KEY) && !shown.contains(bytes), "{shown}");
    }
    let each = [IdPolicy::plain(), IdPolicy::omitted(), hashed()];
    assert_eq!(format!("{each:?}"), "[plain, omitted, hashed]");
}

#[test]
fn key_comes_from_the_environment() {
    let variables = [("USER_ID_KEY", KEY), ("SHORT_KEY", "short")];
    if !alone(test_name!(), &variables) {
        return;
    }
    let privacy = Privacy::new().with_user_ids(IdPolicy::hashed_from_env("USER_ID_KEY").unwrap());
    let work: &Work<'_> = &|_| user!(USER).in_scope(|| {});
    let sent = sent(privacy, Dialect::OPENINFERENCE, |it| it, work);
    assert_eq!(sent.texts("user.hash"), [USER_HASH]);
    let error = IdPolicy::hashed_from_env("SHORT_KEY").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`SHORT_KEY`: the key is too short: use at least 16 random bytes"
    );
    let error = IdPolicy::hashed_from_env("NO_SUCH_KEY").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`NO_SUCH_KEY`: the environment variable is not set"
    );
}

#[test]
fn providers_redact_with_separate_policies() {
    let provider = |privacy: Option<Privacy>| {
        let exporter = InMemorySpanExporter::default();
        let sdk = SdkTracerProvider::builder().with_simple_exporter(exporter.clone());
        let provider = SessionTracerProvider::new(sdk.build());
        let provider = match privacy {
            Some(privacy) => provider.with_privacy(privacy),
            None => provider,
        };
        (provider, exporter)
    };
    let other_key = IdPolicy::hashed("another key, as long as that").unwrap();
    let providers = [
        (provider(None), ["user.id"].as_slice()),
        (provider(Some(both(hashed()))), &["user.hash"]),
        (provider(Some(both(other_key))), &["user.hash"]),
        (provider(Some(both(IdPolicy::omitted()))), &[]),
    ];
    let session = conversation().with_metadata("email", EMAIL).unwrap();
    session.in_scope(|| {
        for _ in 0..2 {
            for ((provider, _), _) in &providers {
                provider.tracer("library").start("span").end();
            }
        }
    });
    let mut seen = Vec::new();
    for ((_, exporter), keys) in &providers {
        let spans = exporter.get_finished_spans().unwrap();
        assert_eq!(spans.len(), 2);
        for key in ["user.id", "user.hash"] {
            let values = values(&spans[1], key);
            assert_eq!(values.len(), usize::from(keys.contains(&key)), "{key}");
            seen.extend(values);
        }
        let plain = spans.iter().any(|span| format!("{span:?}").contains(EMAIL));
        assert_eq!(plain, *keys == ["user.id"]);
    }
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[..2], [USER, USER_HASH]);
    assert_ne!(seen[2], USER_HASH);
}

#[test]
fn hash_is_the_same_on_all_threads() {
    let exporter = InMemorySpanExporter::default();
    let sdk = SdkTracerProvider::builder().with_simple_exporter(exporter.clone());
    let provider = SessionTracerProvider::new(sdk.build()).with_privacy(both(hashed()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let tracer = provider.tracer("library");
                // One after the other, so that what is remembered is of the other one.
                for turn in 0..50 {
                    let user = if turn % 2 == 0 { USER } else { "another" };
                    let session = conversation().with_user(user).unwrap();
                    session.in_scope(|| tracer.start(user).end());
                }
            });
        }
    });
    let spans = exporter.get_finished_spans().unwrap();
    assert_eq!(spans.len(), 400);
    for span in spans {
        let is_user = values(&span, "user.hash") == [USER_HASH];
        assert_eq!(is_user, span.name == USER);
    }
}
