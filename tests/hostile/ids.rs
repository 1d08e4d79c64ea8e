//! What has to hold whatever comes in as an id, a key, or a value by itself.

#[path = "rule.rs"]
mod rule;
#[path = "sampling.rs"]
mod sampling;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanId, TraceContextExt, TraceId, TraceState};
use opentelemetry::{Context, Value};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use tracing_session::{
    Conversation, Error, Privacy, Session, SessionPropagator,
    conversation::{link_context, parent_context},
    export::IdPolicy,
};

/// Panics where something does not hold.
pub(crate) fn check(file: &[u8]) {
    let texts: Vec<_> = rule::texts(file)
        .chain([const { String::new() }; 6])
        .collect();
    let [id, trace, span, key, json, ratio, ..] = &texts[..] else {
        unreachable!()
    };
    let bytes = rule::parts(file).nth(3).unwrap_or_default();
    check_rule(id);
    check_link(trace, span);
    check_key(key, json);
    check_hashed(bytes, id);
    if let Ok(id) = rule::id(id) {
        let mut first = [0; 8];
        ratio
            .bytes()
            .zip(&mut first)
            .for_each(|(byte, to)| *to = byte);
        let ratio = u64::from_le_bytes(first);
        sampling::check(
            &TraceState::NONE,
            id,
            ratio as f64 / u64::MAX as f64,
            ratio % 7 == 1,
        );
    }
}

/// An error says no more than which rule was broken.
fn agree<T>(ours: Result<T, Error>, noun: &str, rule: Result<&str, &str>) -> Option<(T, String)> {
    match (ours, rule) {
        (Ok(taken), Ok(text)) => Some((taken, text.to_owned())),
        (Err(error), Err(broken)) => {
            assert_eq!(error.to_string(), format!("{noun} {broken}"));
            assert_eq!(
                format!("{error:?}"),
                format!("Error({:?})", error.to_string())
            );
            assert!(error.is_invalid_id());
            None
        }
        (Ok(_), Err(broken)) => panic!("taken, though it {broken}"),
        (Err(error), Ok(_)) => panic!("{error}"),
    }
}

fn check_rule(text: &str) {
    let rule = rule::id(text);
    if let Some((session, id)) = agree(Session::new(text), "id", rule) {
        assert_eq!(session.id(), Some(&*id));
        assert_eq!(
            format!("{session:?}"),
            "Session { id: Some(<hidden>), user_id: None, .. }"
        );
        let here = session.in_scope(tracing_session::current_session_id);
        assert_eq!(here, Some(id));
    }
    if let Some((user, id)) = agree(Session::default().with_user(text), "id", rule) {
        assert_eq!((user.id(), user.user_id()), (None, Some(&*id)));
        let attributes: Vec<_> = user.attributes().collect();
        assert_eq!(attributes[0].value, Value::from(id));
    }
    let tags = [text, "beta", text];
    if let Some((session, tag)) = agree(Session::default().with_tags(tags), "tag", rule) {
        let tags: Vec<_> = session.tags().collect();
        assert!(tags == [&tag, "beta"] || tags == ["beta"] && tag == "beta");
    }
}

fn check_key(key: &str, json: &str) {
    let rule = rule::id(key);
    // A text that is no JSON is a text.
    let value = serde_json::from_str(json).unwrap_or_else(|_| Json::from(json));
    let said = Session::default().with_metadata(key, &value);
    if let Some((session, key)) = agree(said, "metadata key", rule) {
        assert_eq!(session.metadata(&key), Some(&value));
        let exported: Vec<_> = session.attributes().collect();
        assert_eq!(exported.len(), 1);
        assert_eq!(exported[0].key.as_str(), "metadata");
        let expected = format!("{{{}:{value}}}", Json::from(key));
        assert_eq!(exported[0].value.as_str(), expected);
    }
    let said = Session::default().with_prompt_template_variables(&value);
    assert_eq!(said.is_ok(), value.is_object());

    let said = Session::default().with_attribute(key, json.to_owned());
    match (said, rule) {
        (Err(error), Ok(key)) => {
            assert!(is_reserved(key), "{error}");
        }
        (said, rule) => {
            if let Some((session, key)) = agree(said, "attribute key", rule) {
                assert!(!is_reserved(&key), "{key}");
                assert_eq!(session.attribute(&key), Some(&json.to_owned().into()));
            }
        }
    }
}

/// What this crate writes itself.
fn is_reserved(key: &str) -> bool {
    let ours = [
        "session.id",
        "user.id",
        "session",
        "user",
        "metadata",
        "tag.tags",
        "llm.prompt_template.template",
        "llm.prompt_template.version",
        "llm.prompt_template.variables",
    ];
    ours.contains(&key) || key.starts_with("metadata.")
}

/// The number that hexadecimal digits are, of which there are so many.
fn number(text: &str, lengths: &[usize]) -> Option<u128> {
    let digits = match text.get(..3).map(str::to_ascii_lowercase).as_deref() {
        Some("tr_" | "sp_") => text.get(3..).filter(|digits| digits.len() == 16)?,
        _ => text,
    };
    let number = digits.chars().try_fold(0, |number: u128, digit| {
        Some(number.checked_mul(16)? + u128::from(digit.to_digit(16)?))
    });
    number.filter(|number| *number > 0 && lengths.contains(&digits.len()))
}

fn check_link(trace: &str, span: &str) {
    let trace_id = number(trace, &[16, 32]).map(TraceId::from);
    let span_id = number(span, &[16]).map(|id| SpanId::from(id as u64));
    let refused = match (trace_id, span_id) {
        (None, _) => {
            "the text is not a trace id: use 32 hexadecimal digits, or `tr_` and 16 digits (the tracing service Tracia)"
        }
        (_, None) => {
            "the text is not a span id: use 16 hexadecimal digits, or `sp_` and 16 digits (the tracing service Tracia)"
        }
        _ => "",
    };
    let chat = || Conversation::new(Session::generate()).resume_trace(trace, Some(span));
    match (
        link_context(trace, span),
        parent_context(trace, span),
        chat(),
    ) {
        (Ok(link), Ok(parent), Ok(chat)) => {
            assert_eq!(
                (Some(link.trace_id()), Some(link.span_id())),
                (trace_id, span_id)
            );
            assert!(link.is_valid() && link.is_remote() && link.is_sampled());
            assert_eq!(parent.span().span_context(), &link);
            assert_eq!((chat.trace_id(), chat.last_span_id()), (trace_id, span_id));
            let (trace, span) = (link.trace_id().to_string(), link.span_id().to_string());
            assert_eq!(link_context(&trace, &span).unwrap(), link);
        }
        (Err(link), Err(parent), Err(chat)) => {
            for error in [link, parent, chat] {
                assert_eq!(error.to_string(), refused);
                assert!(error.is_invalid_state());
            }
        }
        _ => panic!("they differ"),
    }
}

/// A hash is HMAC-SHA-256, and goes in the place of the id.
fn check_hashed(key: &[u8], id: &str) {
    let policy = match IdPolicy::hashed(key) {
        Ok(policy) => policy,
        Err(error) => {
            assert!(key.len() < 16);
            return assert_eq!(
                error.to_string(),
                "the key is too short: use at least 16 random bytes"
            );
        }
    };
    assert!(key.len() >= 16);
    assert_eq!(format!("{policy:?}"), "hashed");
    let Ok(id) = rule::id(id) else { return };
    let session = Session::new(id).unwrap().with_user(id).unwrap();
    let sent = |policy: IdPolicy| {
        let privacy = Privacy::new()
            .with_session_ids(policy.clone())
            .with_user_ids(policy);
        let propagator = SessionPropagator::new().with_user().with_privacy(privacy);
        let mut headers: HashMap<String, String> = HashMap::new();
        session.in_scope(|| propagator.inject_context(&Context::current(), &mut headers));
        headers.remove("baggage")
    };
    let hash = hmac(key, id.as_bytes());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        sent(policy),
        Some(format!("session.id={hash},user.hash={hash}"))
    );
    assert_eq!(sent(IdPolicy::omitted()), None);
}

/// RFC 2104.
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    match key.len() {
        ..=64 => block[..key.len()].copy_from_slice(key),
        _ => block[..32].copy_from_slice(&Sha256::digest(key)),
    }
    let keyed = |pad: u8| Sha256::new_with_prefix(block.map(|byte| byte ^ pad));
    let inner = keyed(0x36).chain_update(text).finalize();
    keyed(0x5c).chain_update(inner).finalize().into()
}
