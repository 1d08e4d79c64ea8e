//! What has to hold whatever the headers of a call say.
#![allow(dead_code, reason = "each of them uses a part of it")]

#[path = "../support/carrier.rs"]
mod carrier;
#[path = "rule.rs"]
mod rule;
#[path = "sampling.rs"]
mod sampling;

use carrier::As;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use percent_encoding::percent_decode;
use std::collections::HashMap;
use std::sync::{LazyLock, Once};
use tracing_session::{
    Session, SessionPropagator, current_session,
    propagation::{
        Carrier, InboundPolicy, SESSION_HEADER_NAME, extract_context, extract_session_id,
    },
    propagator_from_env,
};

/// The variable that has to say so before the first check.
pub(crate) const ENVIRONMENT: (&str, &str) =
    ("OTEL_PROPAGATORS", "tracecontext,baggage,b3,b3multi,jaeger");

type Header<'a> = (&'a [u8], &'a [u8]);

/// As they stand in a file: `name:value`, with a byte 255 between two of them.
pub(crate) fn check_file(file: &[u8]) {
    let header = |header| {
        let colon = <[u8]>::iter(header).position(|byte| *byte == b':')?;
        Some((&header[..colon], &header[colon + 1..]))
    };
    let headers: Vec<Header<'_>> = rule::parts(file).filter_map(header).collect();
    check(&headers);
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
    /// Which it takes.
    takes: fn(&str) -> bool,
}

static SETTINGS: LazyLock<Vec<Setting>> = LazyLock::new(|| {
    let ours = |propagator: SessionPropagator, sends_all, user| Setting {
        propagator: Box::new(propagator),
        sends_all,
        user,
        takes: |_| true,
    };
    let of_mirascope = || SessionPropagator::new().with_header(SESSION_HEADER_NAME);
    let all = || of_mirascope().unwrap().with_header("x-session").unwrap();
    let takes = |id: &str| id.len() % 2 == 0;
    let verified = all().with_inbound(InboundPolicy::verify(move |id: &str, ()| takes(id)));
    let verified: [Box<dyn TextMapPropagator + Send + Sync>; 2] =
        [Box::new(TraceContextPropagator::new()), Box::new(verified)];
    vec![
        Setting {
            propagator: Box::new(propagator_from_env().unwrap()),
            sends_all: true,
            user: false,
            takes: |_| true,
        },
        ours(all().with_user(), true, true),
        ours(all().with_percent_encoded_headers(), true, false),
        ours(all().without_baggage(), false, false),
        ours(
            all().without_baggage().with_percent_encoded_headers(),
            true,
            false,
        ),
        Setting {
            propagator: Box::new(TextMapCompositePropagator::new(verified.into())),
            sends_all: true,
            user: false,
            takes,
        },
    ]
});

fn check_in<C: Fill>(headers: &[Header<'_>]) {
    let mut carrier = C::default();
    headers.iter().for_each(|header| carrier.add(*header));
    if let Some(id) = extract_session_id(&carrier) {
        check_id(&id, headers);
    }
    for setting in &*SETTINGS {
        let first = read(setting, &carrier);
        let session = session_of(&first);
        for id in [session.id(), session.user_id()].into_iter().flatten() {
            check_id(id, headers);
        }
        assert!(setting.user || session.user_id().is_none());
        assert!(session.id().is_none_or(setting.takes));

        send_on(setting, &first);
        // Where a header holds the most: one is enough, as it takes its time.
        if setting.user {
            send_on(setting, &in_a_session(&first));
        }
        let state = first.span().span_context().trace_state().clone();
        if state.get("ot").is_some() {
            sampling::check(
                &state,
                session.id().unwrap_or("chat-42"),
                0.5,
                headers.len() % 2 == 0,
            );
        }
    }
    check_inside_another(&carrier);
}

/// It is an id, and comes from nowhere else.
fn check_id(id: &str, headers: &[Header<'_>]) {
    assert_eq!(rule::received_id(id), Ok(id));
    let says = |value: &[u8]| value.windows(id.len()).any(|part| part == id.as_bytes());
    // A part of a header that is no text, is read as the sign for such.
    let says = |value: &[u8]| says(value) || says(lossy(value).as_bytes());
    let is_there = |(_, value): &Header<'_>| {
        let decoded: Vec<u8> = percent_decode(value).collect();
        let of_text: Vec<u8> = percent_decode(lossy(value).as_bytes()).collect();
        says(value) || says(&decoded) || says(&of_text)
    };
    assert!(headers.iter().any(is_there), "{id:?}");
}

/// Of what is in force around, all stays or nothing does: nobody is taken for another's user.
fn check_inside_another(carrier: &impl Carrier) {
    static SET: Once = Once::new();
    SET.call_once(|| global::set_text_map_propagator(propagator_from_env().unwrap()));
    let outer = Session::new("outer").unwrap().with_user("u-7").unwrap();
    let outer = outer.with_metadata("plan", "pro").unwrap();
    outer.in_scope(|| {
        let brought = session_of(&read(&SETTINGS[0], carrier));
        let inside = session_of(&extract_context(carrier));
        assert!(
            inside
                == if brought == Session::default() {
                    outer.clone()
                } else {
                    brought
                }
        );
    });
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
    if session.id().is_some_and(|id| !(setting.takes)(id)) {
        assert_eq!(sent_on.id(), None);
    } else if setting.sends_all || is_ascii {
        assert!(sent_on == session);
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
    assert_eq!(first.is_sampled(), second.is_sampled());
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
