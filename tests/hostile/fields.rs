//! What has to hold whatever stands in the fields of a span, and in the attributes that its author sets.

#[path = "rule.rs"]
mod rule;

use crate::support::{App, values};
use opentelemetry::{Array, StringValue, Value};
use opentelemetry_sdk::trace::SpanData;
use serde_json::{Map, Value as Json, json};
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{Dialect, Privacy, SessionExporter, export::IdPolicy};

type Object = Map<String, Json>;

fn plain() -> &'static App {
    thread_local! {
        static APP: &'static App = Box::leak(Box::new(App::new()));
    }
    APP.with(|app| *app)
}

/// One that hides the ids and some metadata, and writes for several backends.
fn private() -> &'static App {
    fn make() -> App {
        let hashed = IdPolicy::hashed("0123456789abcdef").unwrap();
        let privacy = Privacy::new()
            .with_user_ids(hashed)
            .with_session_ids(IdPolicy::omitted())
            .with_user_key("other")
            .with_metadata(["plan"], IdPolicy::omitted());
        let dialect = Dialect::OPENINFERENCE
            .and(Dialect::LANGFUSE)
            .and(Dialect::LANGSMITH);
        App::exporting(
            |exporter| SessionExporter::new(exporter).with_dialect(dialect),
            |provider| provider.with_privacy(privacy),
        )
    }
    thread_local! {
        static APP: &'static App = Box::leak(Box::new(make()));
    }
    APP.with(|app| *app)
}

/// What comes in.
struct Texts {
    session: String,
    user: String,
    tags: String,
    plan: String,
    /// The author's own `metadata`, his `session.id` and another attribute, set on a span inside.
    metadata: String,
    own: String,
    other: String,
    /// Recorded as one.
    list: Vec<String>,
}

/// Panics where something does not hold.
pub(crate) fn check(file: &[u8]) {
    let mut texts = rule::texts(file);
    let mut next = || texts.next().unwrap_or_default();
    let texts = Texts {
        session: next(),
        user: next(),
        tags: next(),
        plan: next(),
        metadata: next(),
        own: next(),
        other: next(),
        list: texts.collect(),
    };
    plain().anew(|app| {
        spans(&texts);
        check_exported(&texts, &app.spans());
        for warning in app.diagnostics.messages() {
            assert!(names_no_value(&warning), "{warning}");
        }
    });
    private().anew(|app| {
        spans(&texts);
        check_hidden(&texts, &app.spans());
    });
}

/// A span whose fields say it, one inside with attributes of its own, and one with a list of tags.
fn spans(texts: &Texts) {
    let Texts {
        session,
        user,
        tags,
        plan,
        list,
        ..
    } = texts;
    let chat = info_span!(
        "chat",
        session.id = session,
        user.id = ?user,
        tags = tags,
        metadata.plan = plan,
    );
    chat.in_scope(|| {
        let inside = info_span!("inside", metadata = texts.metadata);
        inside.set_attribute("session.id", texts.own.clone());
        inside.set_attribute("other", texts.other.clone());
    });
    info_span!("debug", session.id = %session, tags = ?list).in_scope(|| {});
    let json = Json::from(list.as_slice());
    info_span!("json", session.id = ?session, tags = %json).in_scope(|| {});
}

#[track_caller]
fn named<'a>(spans: &'a [SpanData], name: &str) -> &'a SpanData {
    let span = spans.iter().find(|span| span.name == name).unwrap();
    for attribute in &span.attributes {
        // A name that the SDK is given twice is exported twice.
        assert_eq!(
            values(span, attribute.key.as_str()).len(),
            1,
            "{}",
            attribute.key
        );
    }
    span
}

fn check_exported(texts: &Texts, spans: &[SpanData]) {
    let (chat, inside) = (named(spans, "chat"), named(spans, "inside"));
    let id = |text| rule::received_id(text).ok().map(str::to_owned);
    let exported = |span, key| values(span, key).pop();
    let (session, user) = (id(&texts.session), id(&texts.user));
    let is_debug_form =
        |text: &str| text.trim_matches(|c| c == '"') != text || text.starts_with("Some(");
    // `as_field` is the text as the OpenTelemetry layer exports the field.
    let on_opener = |text: &str, as_field: String| match rule::received_id(text) {
        Ok(id) => Some(id.to_owned()),
        Err("is blank: set a value, or leave it out" | rule::PLACEHOLDER) => None,
        Err(_) => Some(as_field),
    };
    let plain = on_opener(&texts.session, texts.session.clone());
    let debug = |text: &String| on_opener(text, format!("{text:?}"));
    // Quotes and `Some(..)` that are part of it come off where a field may be recorded with `?`: nobody can tell.
    let is_plain = |shown| shown == plain || is_debug_form(&texts.session);
    assert_eq!(exported(chat, "session.id"), plain);
    assert_eq!(exported(chat, "user.id"), debug(&texts.user));
    assert!(is_plain(exported(named(spans, "debug"), "session.id")));
    assert_eq!(
        exported(named(spans, "json"), "session.id"),
        debug(&texts.session)
    );
    // An attribute of the author's own stays as it was set, unless it is no id and one is inherited.
    let own = match (id(&texts.own), &session) {
        (None, Some(session)) => session,
        _ => &texts.own,
    };
    let shown = exported(inside, "session.id");
    let is_own = shown.as_ref() == Some(own);
    assert!(is_own || is_debug_form(&texts.own) && shown == session);
    assert_eq!(exported(inside, "user.id"), user);

    let metadata = |span| {
        let text = exported(span, "metadata").unwrap();
        serde_json::from_str::<Object>(&text).ok().ok_or(text)
    };
    let inherited = Object::from_iter([("plan".to_owned(), json!(texts.plan))]);
    assert_eq!(metadata(chat).as_ref(), Ok(&inherited));
    assert_eq!(exported(inside, "metadata").as_ref(), Some(&texts.metadata));
    assert_eq!(exported(inside, "other").as_ref(), Some(&texts.other));

    let listed = tags_of(texts.list.iter().map(String::as_str));
    let list = texts.tags.trim();
    let is_list = list.len() > 1 && list.starts_with('[') && list.ends_with(']');
    if !is_list {
        assert_eq!(tags(chat), tags_of(texts.tags.split(',')));
    }
    assert_eq!(tags(named(spans, "debug")), listed);
    assert_eq!(tags(named(spans, "json")), listed);
    for tag in spans.iter().flat_map(tags) {
        assert_eq!(rule::id(&tag), Ok(&*tag));
    }
}

/// None of them, where one is no tag.
fn tags_of<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut tags = Vec::new();
    for text in texts {
        match rule::id(text) {
            Ok(tag) if tags.iter().any(|known| known == tag) => {}
            Ok(tag) => tags.push(tag.to_owned()),
            Err(_) => return Vec::new(),
        }
    }
    tags
}

fn tags(span: &SpanData) -> Vec<String> {
    let mut attributes = span.attributes.iter();
    match attributes
        .find(|it| it.key.as_str() == "tag.tags")
        .map(|it| &it.value)
    {
        Some(Value::Array(Array::String(tags))) => tags
            .iter()
            .map(StringValue::as_str)
            .map(str::to_owned)
            .collect(),
        None => Vec::new(),
        Some(other) => panic!("{other:?}"),
    }
}

fn check_hidden(texts: &Texts, spans: &[SpanData]) {
    let ids = [&texts.session, &texts.user].map(|text| rule::id(text).ok());
    for name in ["chat", "inside"] {
        let span = named(spans, name);
        assert_eq!(values(span, "session.id"), [""; 0]);
        assert_eq!(values(span, "user.id"), [""; 0]);
        // On the opener, a value that is no id is hashed too.
        let has_user = match rule::received_id(&texts.user) {
            Ok(_) => true,
            Err("is blank: set a value, or leave it out" | rule::PLACEHOLDER) => false,
            Err(_) => name == "chat",
        };
        assert_eq!(values(span, "user.hash").len(), usize::from(has_user));
        for attribute in &span.attributes {
            let Value::String(text) = &attribute.value else {
                continue;
            };
            // Keys of metadata and tags that say the same, are what the author said there.
            let is_said = ["tag", "metadata"]
                .iter()
                .any(|it| attribute.key.as_str().contains(it));
            let text = Some(text.as_str().trim());
            assert!(
                is_said || !ids.contains(&text) || text.is_none(),
                "{}",
                attribute.key
            );
        }
    }
}

/// Nothing but the name of a field, the place in the code, and the rule.
fn names_no_value(warning: &str) -> bool {
    let parse = || {
        // Of an id that looks like `Name("x")`.
        if warning.contains(" contains the name of a type, ") {
            return Some(warning.starts_with("field `session.id` of span `debug` at "));
        }
        let (what, why) = warning.split_once(" is ignored: ")?;
        let is_known = match what {
            "an attribute `session.id` set on a span" => true,
            what => {
                let (field, place) = what.strip_prefix("field `")?.split_once("` of span `")?;
                let (span, place) = place.split_once("` at ")?;
                ["session.id", "user.id", "tags"].contains(&field)
                    && ["chat", "inside", "debug", "json"].contains(&span)
                    && place.contains("fields.rs:")
            }
        };
        let reasons = [
            "is blank: set a value, or leave it out",
            "is longer than 1024 bytes: shorten it, or use a hash of it",
            "contains a control or invisible character: remove it",
            rule::PLACEHOLDER,
        ];
        let later = " (declare the field Empty, and record it later)";
        let why = why.strip_suffix(later).unwrap_or(why);
        let (noun, why) = why.split_once(' ')?;
        Some(is_known && ["id", "tag"].contains(&noun) && reasons.contains(&why))
    };
    parse().unwrap_or(false)
}
