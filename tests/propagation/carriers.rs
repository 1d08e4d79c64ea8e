//! What holds headers.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};

use serde_json::{Map, Value, json};
use tracing_session::propagation::TraceHeaders;
use tracing_session::propagation::{Carrier, extract_session_id};

fn owned<const LEN: usize>(pairs: [(&str, &str); LEN]) -> [(String, String); LEN] {
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))
}

fn sorted<T: Ord>(mut values: Vec<T>) -> Vec<T> {
    values.sort();
    values
}

/// Two headers, of which one stands there in two spellings.
const SPELLINGS: [(&str, &str); 3] = [("BAGGAGE", "one"), ("Baggage", "two"), ("Other", "three")];

fn finds_every_spelling_and_overwrites_them_all(mut carrier: impl Carrier) {
    for name in ["baggage", "Baggage", "BAGGAGE"] {
        assert_eq!(sorted(carrier.get_all(name)), ["one", "two"]);
    }
    assert_eq!(carrier.get_all("other"), ["three"]);
    assert_eq!(carrier.get_all("missing"), [""; 0]);
    assert_eq!(sorted(carrier.names()), ["BAGGAGE", "Baggage", "Other"]);
    carrier.set("baggage", "new".to_owned());
    assert_eq!(carrier.get_all("BAGGAGE"), ["new"]);
    assert_eq!(sorted(carrier.names()), ["Other", "baggage"]);
    carrier.set("added", "four".to_owned());
    assert_eq!(carrier.get_all("Added"), ["four"]);
}

#[test]
fn maps_of_text_are_carriers_with_case_insensitive_keys() {
    finds_every_spelling_and_overwrites_them_all(HashMap::from(owned(SPELLINGS)));
    finds_every_spelling_and_overwrites_them_all(BTreeMap::from(owned(SPELLINGS)));
    type Hasher = BuildHasherDefault<DefaultHasher>;
    let other_hasher: HashMap<String, String, Hasher> = owned(SPELLINGS).into_iter().collect();
    finds_every_spelling_and_overwrites_them_all(other_hasher);
}

#[test]
fn map_of_lists_is_a_carrier_with_case_insensitive_keys() {
    let lists = owned(SPELLINGS).map(|(name, value)| (name, vec![value]));
    finds_every_spelling_and_overwrites_them_all(HashMap::from(lists));
    let list = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
    let mut lists: HashMap<String, Vec<String>> = HashMap::from([
        ("several".to_owned(), list(&["b", "a", "b"])),
        ("empty".to_owned(), Vec::new()),
    ]);
    assert_eq!(
        Carrier::get_all(&lists, "Several"),
        ["b", "a", "b"],
        "in their order"
    );
    assert_eq!(Carrier::get_all(&lists, "empty"), [""; 0]);
    lists.set("SEVERAL", "c".to_owned());
    assert_eq!(lists["SEVERAL"], ["c"]);
    assert_eq!(lists.len(), 2);
}

/// `_meta` of the Model Context Protocol, and other JSON objects.
#[test]
fn json_object_is_a_carrier_and_keeps_its_other_values() {
    let texts = owned(SPELLINGS).map(|(name, value)| (name, Value::from(value)));
    finds_every_spelling_and_overwrites_them_all(texts.into_iter().collect::<Map<_, _>>());
    let mut meta = json!({ "progressToken": 7, "baggage": ["session.id=chat-42"] });
    let meta = meta.as_object_mut().unwrap();
    assert_eq!(Carrier::get_all(meta, "progressToken"), [""; 0]);
    assert_eq!(extract_session_id(meta), None);
    meta.set("baggage", "session.id=chat-42".to_owned());
    assert_eq!(extract_session_id(meta).as_deref(), Some("chat-42"));
    assert_eq!(meta["progressToken"], 7);
}

/// A message of some queue, and a carrier that is known only at run time.
#[test]
fn application_can_implement_carrier() {
    struct Message(Vec<(String, String)>);

    impl Carrier for Message {
        fn set(&mut self, name: &str, value: String) {
            self.0.push((name.to_owned(), value));
        }

        fn get_all(&self, name: &str) -> Vec<&str> {
            let pairs = self.0.iter().filter(|(key, _)| key == name);
            pairs.map(|(_, value)| value.as_str()).collect()
        }

        fn names(&self) -> Vec<&str> {
            self.0.iter().map(|(key, _)| key.as_str()).collect()
        }
    }

    let message = Message(owned([("baggage", "session.id=chat-42")]).into());
    assert_eq!(extract_session_id(&message).as_deref(), Some("chat-42"));
    let carriers: [Box<dyn Carrier>; 2] = [Box::new(message), Box::new(BTreeMap::new())];
    let ids = carriers.map(|carrier| extract_session_id(&*carrier));
    assert_eq!(ids, [Some("chat-42".to_owned()), None]);
}

#[test]
fn session_id_of_headers_is_read_without_a_propagator() {
    let read = |pairs: &[(&str, &str)]| {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let headers: HashMap<String, String> = pairs.iter().map(owned).collect();
        extract_session_id(&headers)
    };
    let chat = Some("chat-42".to_owned());
    assert_eq!(read(&[("Mirascope-Session-Id", "chat-42")]), chat);
    assert_eq!(read(&[("x-mirascope-session-id", " chat-42 ")]), chat);
    assert_eq!(read(&[("Baggage", "a=1,session.id=chat%2D42;x=1")]), chat);
    let agree = [
        ("baggage", "session.id=chat-42"),
        ("mirascope-session-id", "chat-42"),
    ];
    assert_eq!(read(&agree), chat);
    let differ = [
        ("baggage", "session.id=chat-42"),
        ("mirascope-session-id", "chat-43"),
    ];
    assert_eq!(read(&differ), None);
    assert_eq!(read(&[("mirascope-session-id", "")]), None);
    assert_eq!(read(&[("baggage", "user.id=u-7")]), None);
    assert_eq!(read(&[("X-TraceCtrl-Session", "chat-42")]), None);
    assert_eq!(read(&[]), None);
}

#[test]
fn session_id_of_headers_is_not_the_current_one() {
    let headers: HashMap<String, String> = HashMap::new();
    assert_eq!(
        crate::propagation::session("outer").in_scope(|| extract_session_id(&headers)),
        None
    );
}

/// As it goes through a queue.
#[test]
fn trace_headers_are_a_map_of_text_in_a_message() {
    #[derive(Debug, serde::Deserialize, serde::Serialize)]
    struct Job {
        trace_headers: TraceHeaders,
    }
    let mut trace_headers = TraceHeaders::default();
    trace_headers.set("Baggage", "session.id=old".to_owned());
    trace_headers.set("baggage", "session.id=chat-42".to_owned());
    assert_eq!(trace_headers.names(), ["baggage"]);
    let message = serde_json::to_string(&Job { trace_headers }).unwrap();
    let expected = r#"{"trace_headers":{"baggage":"session.id=chat-42"}}"#;
    assert_eq!(message, expected);
    let job: Job = serde_json::from_str(&message).unwrap();
    let id = extract_session_id(&job.trace_headers);
    assert_eq!(id.as_deref(), Some("chat-42"));
    assert_eq!(
        format!("{job:?}"),
        r#"Job { trace_headers: {"baggage"} }"#,
        "no value"
    );
}

#[test]
fn error_in_trace_headers_contains_no_header() {
    for bad in [
        r#""session.id=secret""#,
        r#"["session.id=secret"]"#,
        r#"{"baggage":["session.id=secret"]}"#,
        r#"{"mirascope-session-id":5678}"#,
    ] {
        let error = serde_json::from_str::<TraceHeaders>(bad).unwrap_err();
        assert_eq!(error.to_string(), "not a map of headers to their values");
    }
}

#[cfg(feature = "http")]
mod of_http {
    use http::header::{HeaderMap, HeaderName, HeaderValue};
    use tracing_session::propagation::{Carrier, extract_session_id};

    const SESSION: HeaderName = HeaderName::from_static("mirascope-session-id");

    fn one(value: &[u8]) -> HeaderMap {
        HeaderMap::from_iter([(SESSION, HeaderValue::from_bytes(value).unwrap())])
    }

    #[test]
    fn header_map_is_a_carrier_with_case_insensitive_names() {
        let mut headers = HeaderMap::new();
        headers.append(SESSION, HeaderValue::from_static("one"));
        headers.append("Mirascope-Session-Id", HeaderValue::from_static("two"));
        let carrier: &mut dyn Carrier = &mut headers;
        assert_eq!(carrier.get_all("MIRASCOPE-SESSION-ID"), ["one", "two"]);
        carrier.set("Mirascope-Session-Id", "three".to_owned());
        carrier.set("x-other", "four".to_owned());
        assert_eq!(carrier.get_all("mirascope-session-id"), ["three"]);
        assert_eq!(carrier.get_all("X-Other"), ["four"]);
        assert_eq!(carrier.get_all("missing"), [""; 0]);
        assert_eq!(carrier.get_all("no name"), [""; 0]);
        assert_eq!(carrier.names(), ["mirascope-session-id", "x-other"]);
        assert_eq!(extract_session_id(&headers).as_deref(), Some("three"));
    }

    /// A value may contain an id, and `Debug` of a request must not print it.
    #[test]
    fn values_set_in_a_header_map_are_sensitive() {
        let mut headers = HeaderMap::new();
        for name in ["baggage", "mirascope-session-id", "x-session"] {
            Carrier::set(&mut headers, name, "secret-42".to_owned());
            assert!(headers[name].is_sensitive());
        }
        assert!(!format!("{headers:?}").contains("secret"));
    }

    #[test]
    fn metadata_of_tonic_is_a_carrier() {
        let mut request = tonic::Request::new(());
        let headers: &mut HeaderMap = request.metadata_mut().as_mut();
        Carrier::set(headers, "Mirascope-Session-Id", "chat-42".to_owned());
        assert_eq!(
            request.metadata().get("mirascope-session-id").unwrap(),
            "chat-42"
        );
        let headers: &HeaderMap = request.metadata().as_ref();
        assert_eq!(extract_session_id(headers).as_deref(), Some("chat-42"));
    }

    #[test]
    fn header_map_omits_invalid_headers() {
        let mut headers = HeaderMap::new();
        let carrier: &mut dyn Carrier = &mut headers;
        carrier.set("no name", "value".to_owned());
        carrier.set("x-value", "a\r\nx-evil: 1".to_owned());
        assert!(headers.is_empty());
    }

    #[test]
    fn different_values_in_a_header_map_set_no_session() {
        let mut headers = one(b"chat-42");
        headers.append(SESSION, HeaderValue::from_static("chat-42"));
        assert_eq!(extract_session_id(&headers).as_deref(), Some("chat-42"));
        headers.append(SESSION, HeaderValue::from_static("chat-43"));
        assert_eq!(extract_session_id(&headers), None);
        headers.remove(SESSION);
        headers.append("baggage", HeaderValue::from_static("a=1"));
        headers.append("baggage", HeaderValue::from_static("session.id=chat-44"));
        assert_eq!(extract_session_id(&headers).as_deref(), Some("chat-44"));
    }

    /// As in the other carriers.
    #[test]
    fn id_in_a_header_map_may_be_utf8() {
        assert_eq!(
            extract_session_id(&one("séance".as_bytes())).as_deref(),
            Some("séance")
        );
    }

    #[test]
    fn bytes_in_a_header_map_that_are_not_text_set_no_session() {
        assert_eq!(extract_session_id(&one(b"s\xe9ance")), None);
    }
}
