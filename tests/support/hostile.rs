//! What has to hold whatever the headers of a call say. `tests/hostile.rs` asks it of what is kept,
//! `fuzz/` of what a fuzzer comes up with.
#![allow(dead_code, reason = "each of them uses a part of it")]

#[path = "carrier.rs"]
mod carrier;

use carrier::As;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::TraceContextExt;
use std::collections::HashMap;
use std::sync::LazyLock;
use tracing_session::{
    Carrier, SESSION_HEADER_NAME, Session, SessionPropagator, current_session, extract_session_id,
    propagator_from_env,
};

/// The variable that has to say so before the first check.
pub(crate) const ENVIRONMENT: (&str, &str) =
    ("OTEL_PROPAGATORS", "tracecontext,baggage,b3,b3multi,jaeger");

type Header<'a> = (&'a [u8], &'a [u8]);

/// As they stand in a file: `name:value`, with a byte 255 between two of them.
pub(crate) fn parsed<'a>(file: &'a [u8]) -> Vec<Header<'a>> {
    let header = |header: &'a [u8]| {
        let colon = header.iter().position(|byte| *byte == b':')?;
        Some((&header[..colon], &header[colon + 1..]))
    };
    file.split(|byte| *byte == 255).filter_map(header).collect()
}

/// Panics where something does not hold.
pub(crate) fn check(headers: &[Header<'_>]) {
    check_in::<HashMap<String, String>>(headers);
    check_in::<HashMap<String, Vec<String>>>(headers);
    check_in::<HeaderMap>(headers);
}

/// A carrier that can be filled with anything that it holds at all.
trait Fill: Carrier + Default {
    fn add(&mut self, header: Header<'_>);
}

impl Fill for HashMap<String, String> {
    fn add(&mut self, (name, value): Header<'_>) {
        self.insert(lossy(name), lossy(value));
    }
}

impl Fill for HashMap<String, Vec<String>> {
    fn add(&mut self, (name, value): Header<'_>) {
        self.entry(lossy(name)).or_default().push(lossy(value));
    }
}

impl Fill for HeaderMap {
    fn add(&mut self, (name, value): Header<'_>) {
        let name = HeaderName::from_bytes(name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            // An error means that it is full.
            let _full = self.try_append(name, value);
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A propagator, and what is to be known of it.
struct Setting {
    propagator: Box<dyn TextMapPropagator + Send + Sync>,
    /// Every id that it reads can be sent again.
    sends_all: bool,
    user: bool,
}

static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
    let ours = |propagator: SessionPropagator, sends_all, user| Setting {
        propagator: Box::new(propagator),
        sends_all,
        user,
    };
    let of_mirascope = || SessionPropagator::new().with_header(SESSION_HEADER_NAME);
    let all = || of_mirascope().unwrap().with_header("x-session").unwrap();
    vec![
        Setting {
            propagator: Box::new(propagator_from_env().unwrap()),
            sends_all: true,
            user: false,
        },
        ours(all().with_user(true), true, true),
        ours(all().with_percent_encoded_headers(true), true, false),
        ours(all().with_baggage(false), false, false),
        ours(
            all().with_baggage(false).with_percent_encoded_headers(true),
            true,
            false,
        ),
    ]
});

fn check_in<C: Fill>(headers: &[Header<'_>]) {
    let mut carrier = C::default();
    headers.iter().for_each(|header| carrier.add(*header));
    if let Some(id) = extract_session_id(&carrier) {
        assert!(is_id(&id), "{id:?}");
    }
    for setting in &*SETTINGS {
        let first = read(setting, &carrier);
        let session = session_of(&first);
        for id in [session.id(), session.user_id()].into_iter().flatten() {
            assert!(is_id(id), "{id:?}");
        }
        assert!(setting.user || session.user_id().is_none());

        send_on(setting, &first);
        // Where a header holds the most: one is enough, as it takes its time.
        if setting.user {
            send_on(setting, &in_a_session(&first));
        }
    }
}

/// Panics where something does not hold of what is sent from there.
pub(crate) fn check_sending(cx: &Context) {
    for setting in &*SETTINGS {
        send_on(setting, &in_a_session(cx));
    }
}

/// The longest that there is.
fn in_a_session(cx: &Context) -> Context {
    let _attached = cx.clone().attach();
    let session = Session::new("é".repeat(512)).unwrap();
    session.in_scope(Context::current)
}

fn send_on(setting: &Setting, first: &Context) {
    let sent = write::<HashMap<String, String>>(setting, first);
    for (name, value) in &sent {
        check_header(name, value);
    }
    again(setting, first, &sent);
    let sent_by_http = write::<HeaderMap>(setting, first);
    for name in sent.keys().filter(|name| is_ours(name)) {
        assert!(sent_by_http.contains_key(name), "{name} is no header");
    }
    again(setting, first, &sent_by_http);
}

/// What was sent is read again, by the next service.
fn again(setting: &Setting, first: &Context, sent: &impl Carrier) {
    let second = read(setting, sent);
    let (session, sent_on) = (session_of(first), session_of(&second));
    let is_ascii = session.id().is_none_or(str::is_ascii);
    if setting.sends_all || is_ascii {
        assert_eq!(
            (session.id(), session.user_id()),
            (sent_on.id(), sent_on.user_id())
        );
    } else {
        assert_eq!(sent_on.id(), None);
    }
    for (key, (value, _)) in second.baggage() {
        assert_eq!(first.baggage().get(key.as_str()), Some(value), "{key}");
    }
    let (first, second) = (first.span(), second.span());
    let (first, second) = (first.span_context(), second.span_context());
    assert_eq!(first.trace_id(), second.trace_id());
    assert_eq!(first.span_id(), second.span_id());
}

/// The others' headers are for others to check: they do not look at what a `tracestate` holds.
fn is_ours(name: &str) -> bool {
    let ours = ["baggage", "x-session", "uber-trace-id", SESSION_HEADER_NAME];
    ours.iter().any(|ours| ours.eq_ignore_ascii_case(name))
}

fn check_header(name: &str, value: &str) {
    if is_ours(name) {
        let is_sent = |byte: u8| matches!(byte, b'\t' | b' '..=b'~');
        assert!(value.bytes().all(is_sent), "{name}: {value:?}");
        assert!(
            !value.is_empty() && value.trim() == value,
            "{name}: {value:?}"
        );
    }
    if name == "baggage" {
        assert!(value.len() <= 8192, "{} bytes", value.len());
        let members: Vec<_> = value.split(',').collect();
        assert!(members.len() <= 64, "{} members", members.len());
        for member in members {
            let (pair, _) = member.split_once(';').unwrap_or((member, ""));
            let key = pair.split_once('=').map(|(key, _)| key);
            assert!(key.is_some_and(is_token), "{member:?}");
        }
    }
}

fn is_token(key: &str) -> bool {
    let is_octet = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !key.is_empty() && key.bytes().all(is_octet)
}

/// The rule, in the words of the README.
fn is_id(id: &str) -> bool {
    (1..=1024).contains(&id.len()) && id.trim() == id && !id.chars().any(char::is_control)
}

fn read(setting: &Setting, carrier: &impl Carrier) -> Context {
    let extractor = As(carrier);
    setting
        .propagator
        .extract_with_context(&Context::new(), &extractor)
}

fn write<C: Carrier + Default>(setting: &Setting, cx: &Context) -> C {
    let mut carrier = C::default();
    setting.propagator.inject_context(cx, &mut As(&mut carrier));
    carrier
}

fn session_of(cx: &Context) -> Session {
    let _attached = cx.clone().attach();
    current_session().unwrap_or_default()
}
