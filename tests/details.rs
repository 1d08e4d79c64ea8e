//! What a session says besides its ids: metadata, tags, a prompt template, attributes of one's own.

mod support;

use futures_util::StreamExt;
use opentelemetry::trace::{Span as _, Tracer, TracerProvider};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::SpanData;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Barrier, Mutex};
use support::{App, remote, values};
use tracing::field::{Empty, debug, display};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::{Instrument, debug_span, info_span, instrument};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    InSession, Part, Session, SessionLayer, SessionPropagator, SpanSession, current_session,
    mark_trace, session, set_session_id, set_user_id, user,
};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context as LayerContext;
use tracing_subscriber::registry::LookupSpan;

/// A span as one line, with its attributes sorted, but for the OpenTelemetry layer's.
fn line(span: &SpanData) -> String {
    let of_layer = ["code.", "thread.", "target", "busy_ns", "idle_ns"];
    let is_ours = |it: &&KeyValue| !of_layer.iter().any(|of| it.key.as_str().starts_with(of));
    let attributes = span.attributes.iter().filter(is_ours);
    let mut attributes: Vec<_> = attributes
        .map(|it| format!(" {}={}", it.key, it.value))
        .collect();
    attributes.sort();
    format!("{}{}", span.name, attributes.concat())
}

/// Asserts what was exported, in the order in which the spans started.
#[track_caller]
fn exports(app: &App, expected: &[&str]) {
    let mut spans = app.spans();
    spans.sort_by_key(|span| span.start_time);
    let lines: Vec<_> = spans.iter().map(line).collect();
    assert_eq!(lines, expected, "\n{}", app.tree());
    assert_eq!(app.diagnostics.said(), [""; 0]);
}

fn span(name: &'static str) {
    match name {
        "before" => info_span!("before").in_scope(|| {}),
        "after" => info_span!("after").in_scope(|| {}),
        "inside" => info_span!("inside").in_scope(|| {}),
        _ => info_span!("span").in_scope(|| {}),
    }
}

fn list<const N: usize>(texts: [&'static str; N]) -> Value {
    Value::Array(Array::String(texts.map(StringValue::from).into()))
}

fn with_metadata(session: Session, key: &str, value: impl Serialize) -> Session {
    session.with_metadata(key, value).unwrap()
}

/// A session that says all that a session can.
fn full() -> Session {
    let session = Session::new("chat-42").unwrap().with_user("u-7").unwrap();
    with_metadata(session, "tenant", "acme")
        .with_tags(["beta"])
        .unwrap()
        .with_prompt_template("Say {word}")
        .with_prompt_template_version("v1")
        .with_prompt_template_variables(BTreeMap::from([("word", "hello")]))
        .unwrap()
        .with_attribute("ring", 2)
        .unwrap()
}

const FULL: &str = r#" llm.prompt_template.template=Say {word} llm.prompt_template.variables={"word":"hello"} llm.prompt_template.version=v1 metadata={"tenant":"acme"} ring=2 session.id=chat-42 tag.tags=["beta"] user.id=u-7"#;

// Nested

#[test]
fn everything_is_on_every_span_once() {
    let app = App::new();
    full().in_scope(|| span("inside"));
    session!(full()).in_scope(|| span("inside"));
    exports(
        &app,
        &[
            &format!("inside{FULL}"),
            &format!("session{FULL}"),
            &format!("inside{FULL}"),
        ],
    );
}

#[test]
fn metadata_is_merged_by_key_and_the_inner_value_wins() {
    let app = App::new();
    let outer = with_metadata(Session::new("chat-42").unwrap(), "tenant", "acme");
    let outer = with_metadata(outer, "step", 1);
    outer.in_scope(|| {
        let inner = with_metadata(Session::default(), "step", 2);
        with_metadata(inner, "tool", "search").in_scope(|| span("inside"));
        session!("chat-43", metadata.step = 3).in_scope(|| {
            info_span!("user", id = "u-7", metadata.step = 4, metadata.plan = "pro")
                .in_scope(|| span("inside"));
            span("after");
        });
        span("after");
    });
    exports(
        &app,
        &[
            r#"inside metadata={"tenant":"acme","step":2,"tool":"search"} session.id=chat-42"#,
            r#"session metadata={"tenant":"acme","step":3} session.id=chat-43"#,
            r#"user metadata={"tenant":"acme","step":4,"plan":"pro"} session.id=chat-43 user.id=u-7"#,
            r#"inside metadata={"tenant":"acme","step":4,"plan":"pro"} session.id=chat-43 user.id=u-7"#,
            r#"after metadata={"tenant":"acme","step":3} session.id=chat-43"#,
            r#"after metadata={"tenant":"acme","step":1} session.id=chat-42"#,
        ],
    );
}

#[test]
fn tags_are_joined_without_doubles() {
    let app = App::new();
    let outer = Session::new("chat-42").unwrap();
    let outer = outer.with_tags(["beta", " web ", "beta"]).unwrap();
    outer.in_scope(|| {
        let inner = Session::default().with_tags(["web", "eu"]).unwrap();
        inner.in_scope(|| span("inside"));
        user!("u-7", tags = "eu,beta").in_scope(|| span("inside"));
        span("after");
    });
    exports(
        &app,
        &[
            r#"inside session.id=chat-42 tag.tags=["beta","web","eu"]"#,
            r#"user session.id=chat-42 tag.tags=["beta","web","eu"] user.id=u-7"#,
            r#"inside session.id=chat-42 tag.tags=["beta","web","eu"] user.id=u-7"#,
            r#"after session.id=chat-42 tag.tags=["beta","web"]"#,
        ],
    );
}

#[test]
fn what_the_template_has_is_inherited_each_on_its_own() {
    let app = App::new();
    let outer = Session::default()
        .with_prompt_template("Say {word}")
        .with_prompt_template_version("v1");
    let word = |word| BTreeMap::from([("word", word)]);
    outer.in_scope(|| {
        let inner = Session::default().with_prompt_template_variables(word("hello"));
        inner.unwrap().in_scope(|| {
            let next = Session::default().with_prompt_template_version("v2");
            next.in_scope(|| span("inside"));
            let next = Session::default().with_prompt_template_variables(word("bye"));
            next.unwrap().in_scope(|| span("inside"));
        });
        Session::default()
            .with_prompt_template("Sing")
            .in_scope(|| span("inside"));
    });
    exports(
        &app,
        &[
            r#"inside llm.prompt_template.template=Say {word} llm.prompt_template.variables={"word":"hello"} llm.prompt_template.version=v2"#,
            r#"inside llm.prompt_template.template=Say {word} llm.prompt_template.variables={"word":"bye"} llm.prompt_template.version=v1"#,
            "inside llm.prompt_template.template=Sing llm.prompt_template.version=v1",
        ],
    );
}

#[test]
fn attributes_of_ones_own_are_merged_by_key() {
    let app = App::new();
    full().in_scope(|| {
        let inner = Session::default().with_attribute("ring", "three").unwrap();
        let inner = inner.with_attribute("region", "eu").unwrap();
        let here = inner.in_scope(|| {
            span("inside");
            current_session().unwrap()
        });
        assert_eq!(here.attribute("ring"), Some(&"three".into()));
        assert_eq!(here.attribute("region"), Some(&"eu".into()));
    });
    let span = app.span("inside");
    assert_eq!(values(&span, "ring"), ["three"]);
    assert_eq!(values(&span, "region"), ["eu"]);
}

// Cleared

const PARTS: [(Part, &[&str]); 6] = [
    (Part::Session, &["session.id"]),
    (Part::User, &["user.id"]),
    (Part::Metadata, &["metadata"]),
    (Part::Tags, &["tag.tags"]),
    (
        Part::PromptTemplate,
        &[
            "llm.prompt_template.template",
            "llm.prompt_template.variables",
            "llm.prompt_template.version",
        ],
    ),
    (Part::Attributes, &["ring"]),
];

const KEYS: [&str; 8] = [
    "llm.prompt_template.template",
    "llm.prompt_template.variables",
    "llm.prompt_template.version",
    "metadata",
    "ring",
    "session.id",
    "tag.tags",
    "user.id",
];

/// The span has all keys of a full session but these, each once.
#[track_caller]
fn lacks(span: &SpanData, missing: &[&str]) {
    for key in KEYS {
        let times = usize::from(!missing.contains(&key));
        assert_eq!(values(span, key).len(), times, "{key}: {}", line(span));
    }
}

#[test]
fn each_part_can_be_cleared_inside_and_is_back_afterwards() {
    for (part, keys) in PARTS {
        let app = App::new();
        full().in_scope(|| {
            Session::default().without(part).in_scope(|| {
                info_span!("value").in_scope(|| info_span!("below").in_scope(|| {}));
                let here = current_session().unwrap().attributes();
                assert!(here.into_iter().all(|it| !keys.contains(&it.key.as_str())));
            });
            info_span!("between").in_scope(|| {});
            session!(Session::default().without(part))
                .in_scope(|| info_span!("in the span").in_scope(|| {}));
            info_span!("at last").in_scope(|| {});
        });
        for name in ["value", "below", "session", "in the span"] {
            lacks(&app.span(name), keys);
        }
        for name in ["between", "at last"] {
            lacks(&app.span(name), &[]);
        }
    }
}

#[test]
fn each_part_of_a_default_session_can_be_cleared() {
    for (part, keys) in PARTS {
        let app = App::with(|layer| layer.with_default_session(full()));
        info_span!("outside").in_scope(|| {});
        let inner = Session::default().without(part);
        session!(inner).in_scope(|| info_span!("in the span").in_scope(|| {}));
        info_span!("at last").in_scope(|| {});
        lacks(&app.span("outside"), &[]);
        lacks(&app.span("session"), keys);
        lacks(&app.span("in the span"), keys);
        lacks(&app.span("at last"), &[]);
    }
}

#[test]
fn value_that_clears_one_part_keeps_the_rest_of_a_default_session() {
    let app = App::with(|layer| layer.with_default_session(full()));
    let inner = Session::default().without(Part::User);
    inner.in_scope(|| info_span!("in the value").in_scope(|| {}));
    lacks(&app.span("in the value"), &["user.id"]);
}

#[test]
fn what_is_cleared_can_be_said_anew() {
    let app = App::new();
    full().in_scope(|| {
        let inner = full().without(Part::Metadata).without(Part::Tags);
        let inner = with_metadata(inner, "step", 2).with_tags(["eu"]).unwrap();
        let inner = inner.without(Part::User).with_user("u-8").unwrap();
        inner.in_scope(|| span("inside"));
        session!(inner).in_scope(|| {});
    });
    for span in app.spans() {
        assert_eq!(values(&span, "metadata"), [r#"{"step":2}"#]);
        assert_eq!(values(&span, "tag.tags"), [r#"["eu"]"#]);
        assert_eq!(values(&span, "user.id"), ["u-8"]);
    }
}

#[test]
fn what_is_cleared_on_a_span_may_be_recorded_on_it() {
    let app = App::new();
    full().in_scope(|| {
        let inner = Session::default()
            .without(Part::User)
            .without(Part::Metadata);
        let inner = session!(inner, metadata.step = Empty);
        let entered = inner.enter();
        inner.record("user.id", "u-8").record("metadata.step", 2);
        drop(entered);
    });
    let span = app.span("session");
    assert_eq!(values(&span, "metadata"), [r#"{"step":2}"#]);
    assert_eq!(values(&span, "user.id"), ["u-8"]);
}

// Values

#[test]
fn json_types_are_kept() {
    #[derive(Serialize)]
    struct Plan {
        name: &'static str,
        seats: Option<u8>,
    }
    #[derive(Serialize)]
    enum Tier {
        Gold,
    }
    let app = App::new();
    let session = with_metadata(Session::default(), "text", "a \"b\" \n é😀");
    let session = with_metadata(session, "int", -3);
    let session = with_metadata(session, "most", u64::MAX);
    let session = with_metadata(session, "least", i64::MIN);
    let session = with_metadata(session, "float", 1.5);
    let session = with_metadata(session, "nan", f64::NAN);
    let session = with_metadata(session, "inf", f32::INFINITY);
    let session = with_metadata(session, "yes", true);
    let session = with_metadata(session, "none", None::<u8>);
    let session = with_metadata(session, "list", [1, 2]);
    let plan = Plan {
        name: "pro",
        seats: Some(3),
    };
    let session = with_metadata(session, "plan", plan);
    let session = with_metadata(session, "tier", Tier::Gold);
    let session = with_metadata(session, "map", HashMap::from([(7, "seven")]));
    session.in_scope(|| span("inside"));
    assert_eq!(
        values(&app.span("inside"), "metadata"),
        [concat!(
            r#"{"text":"a \"b\" \n é😀","int":-3,"most":18446744073709551615,"#,
            r#""least":-9223372036854775808,"float":1.5,"nan":null,"inf":null,"yes":true,"#,
            r#""none":null,"list":[1,2],"plan":{"name":"pro","seats":3},"tier":"Gold","map":{"7":"seven"}}"#
        )]
    );
    assert_eq!(session.metadata("most").unwrap(), u64::MAX);
}

#[test]
fn what_is_no_json_is_an_error_that_holds_no_value() {
    struct Refuses;
    impl Serialize for Refuses {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(S::Error::custom("secret"))
        }
    }
    let tuples = BTreeMap::from([((1, "secret"), 2)]);
    let error = Session::default()
        .with_metadata("places", tuples)
        .unwrap_err();
    assert!(error.is_invalid_json() && !error.is_invalid_id());
    let text = "`places`: the value cannot be serialised as JSON";
    assert_eq!(error.to_string(), text);
    let error = Session::default()
        .with_metadata("places", Refuses)
        .unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"));
    for error in [
        Session::default()
            .with_prompt_template_variables(["secret"])
            .unwrap_err(),
        Session::default()
            .with_prompt_template_variables("secret")
            .unwrap_err(),
    ] {
        assert_eq!(error.to_string(), "the value is not a JSON object");
        assert!(error.is_invalid_json());
    }
    let error = Session::default().with_prompt_template_variables(Refuses);
    assert!(!error.unwrap_err().to_string().contains("secret"));
}

#[test]
fn key_or_tag_that_breaks_the_rule_is_an_error_that_says_which() {
    let long = "x".repeat(1025);
    for (text, why) in [
        (" \t", "is blank"),
        (long.as_str(), "is longer than 1024 bytes"),
        ("two\nlines", "has a control character"),
    ] {
        let refused = [
            ("metadata key", Session::default().with_metadata(text, 1)),
            ("attribute key", Session::default().with_attribute(text, 1)),
            ("tag", Session::default().with_tags(["fine", text])),
        ];
        for (noun, result) in refused {
            let error = result.unwrap_err();
            assert_eq!(error.to_string(), format!("{noun} {why}"));
            assert!(error.is_invalid_id());
        }
    }
}

#[test]
fn key_that_is_written_here_is_no_attribute_of_ones_own() {
    let keys = KEYS.into_iter().filter(|key| *key != "ring");
    for key in keys.chain(["session", "user"]) {
        let error = Session::default().with_attribute(key, "x").unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("`{key}`: ")),
            "{error}"
        );
    }
}

#[test]
fn entry_of_metadata_is_no_attribute_of_ones_own() {
    assert!(
        Session::default()
            .with_attribute("metadata.step", 2)
            .is_err()
    );
}

#[test]
fn debug_shows_none_of_it() {
    let shown = format!("{:?}", full());
    for text in ["acme", "beta", "Say", "hello", "u-7", "chat-42"] {
        assert!(!shown.contains(text), "{shown}");
    }
}

// Fields

#[test]
fn metadata_fields_keep_their_types() {
    let app = App::new();
    let plan = String::from("pro");
    drop(session!(
        "chat-42",
        metadata.int = -3_i64,
        metadata.most = u64::MAX,
        metadata.float = 1.5,
        metadata.nan = f64::NAN,
        metadata.yes = true,
        metadata.text = "a \"b\"",
        metadata.display = %plan,
        metadata.debug = ?plan,
        metadata.some = Some(7),
        metadata.none = None::<i64>,
        metadata.long = u128::MAX,
        metadata.step.name = "dotted",
    ));
    exports(
        &app,
        &[concat!(
            r#"session metadata={"int":-3,"most":18446744073709551615,"float":1.5,"nan":null,"yes":true,"#,
            r#""text":"a \"b\"","display":"pro","debug":"pro","some":7,"#,
            r#""long":"340282366920938463463374607431768211455","step.name":"dotted"} session.id=chat-42"#
        )],
    );
}

#[test]
fn fields_of_every_span_that_says_an_id_say_metadata_and_tags() {
    #[instrument(fields(session.id = %id, metadata.plan = "pro", tags = "a"))]
    fn chat(id: &str) {
        span("inside");
    }
    let app = App::new();
    chat("chat-42");
    user!("u-7", metadata.plan = "pro", tags = "a").in_scope(|| span("inside"));
    info_span!("session", id = 42, metadata.plan = "pro", tags = "a").in_scope(|| span("inside"));
    info_span!(
        "request",
        user.id = "u-7",
        metadata.plan = "pro",
        tags = "a"
    )
    .in_scope(|| span("inside"));
    let says = r#" metadata={"plan":"pro"}"#;
    let tags = r#" tag.tags=["a"]"#;
    exports(
        &app,
        &[
            &format!("chat id=chat-42{says} session.id=chat-42{tags}"),
            &format!("inside{says} session.id=chat-42{tags}"),
            &format!("user{says}{tags} user.id=u-7"),
            &format!("inside{says}{tags} user.id=u-7"),
            &format!("session{says} session.id=42{tags}"),
            &format!("inside{says} session.id=42{tags}"),
            &format!("request{says}{tags} user.id=u-7"),
            &format!("inside{says}{tags} user.id=u-7"),
        ],
    );
}

#[test]
fn the_same_fields_on_other_spans_are_theirs() {
    let app = App::new();
    info_span!("plain", metadata.plan = "pro", tags = "a,b").in_scope(|| span("inside"));
    exports(&app, &["plain metadata.plan=pro tags=a,b", "inside"]);
}

#[test]
fn tags_are_read_from_every_form_of_a_list() {
    let session = |tags: &dyn tracing::Value| drop(session!("chat-42", tags = tags));
    let forms: [(&str, &dyn Fn()); 12] = [
        (r#"["a","b"]"#, &|| session(&"a,b")),
        (r#"["a","b"]"#, &|| session(&" a , b ")),
        (r#"["a","b"]"#, &|| session(&debug(["a", "b"]))),
        (r#"["a","b"]"#, &|| session(&debug(vec!["a", "b"]))),
        (r#"["a","b"]"#, &|| session(&r#"["a", "b"]"#)),
        (r#"["a","b"]"#, &|| session(&display("[a, b]"))),
        (r#"["a","b"]"#, &|| session(&debug("a,b"))),
        (r#"["a,b","c"]"#, &|| session(&debug(["a,b", "c"]))),
        (r#"["say \"x\", y","]"]"#, &|| {
            session(&debug(["say \"x\", y", "]"]));
        }),
        (r#"["é/","\\"]"#, &|| session(&r#"["\u00e9\/","\\"]"#)),
        (r#"["7"]"#, &|| session(&7)),
        (r#"["a"]"#, &|| session(&"a,a, a")),
    ];
    for (expected, say) in forms {
        let app = App::new();
        say();
        let expected: Vec<String> = serde_json::from_str(expected).unwrap();
        let span = app.span("session");
        let tags = span
            .attributes
            .iter()
            .find(|it| it.key.as_str() == "tag.tags");
        let expected: Vec<StringValue> = expected.into_iter().map(Into::into).collect();
        assert_eq!(tags.unwrap().value, Value::Array(Array::String(expected)));
        assert_eq!(values(&span, "tags"), [""; 0]);
        assert_eq!(app.diagnostics.said(), [""; 0]);
    }
}

#[test]
fn no_tags_are_no_tags() {
    let app = App::new();
    drop(session!("chat-42", tags = ?[""; 0]));
    drop(session!("chat-42", tags = None::<&str>));
    exports(&app, &["session session.id=chat-42"; 2]);
}

#[test]
fn tags_that_break_the_rule_are_ignored_with_a_warning() {
    let app = App::new();
    full().in_scope(|| {
        drop(session!("chat-42", tags = "fine, "));
        drop(session!("chat-42", tags = " "));
    });
    for span in app.spans() {
        assert_eq!(values(&span, "tag.tags"), [r#"["beta"]"#]);
    }
    let said = app.diagnostics.said();
    assert_eq!(said.len(), 2, "{said:?}");
    for said in said {
        assert!(
            said.contains("field `tags` of span `session`") && said.ends_with("tag is blank"),
            "{said}"
        );
    }
}

#[test]
fn field_recorded_late_reaches_what_is_open_and_what_comes() {
    let app = App::new();
    let outer = with_metadata(Session::default(), "tenant", "acme");
    outer.in_scope(|| {
        let request = info_span!(
            "request",
            session.id = "chat-42",
            metadata.plan = Empty,
            metadata.step = 1,
            tags = Empty
        );
        let entered = request.enter();
        span("before");
        let inside = info_span!("inside").entered();
        let value = with_metadata(Session::default(), "tool", "search").attach();
        let below = info_span!("below").entered();
        request
            .record("metadata.plan", "pro")
            .record("metadata.step", 2)
            .record("tags", "a,b");
        request.record("metadata.plan", display("max"));
        drop(below);
        drop(value);
        drop(inside);
        span("after");
        drop(entered);
    });
    let end = r#" session.id=chat-42 tag.tags=["a","b"]"#;
    exports(
        &app,
        &[
            &format!(r#"request metadata={{"tenant":"acme","step":2,"plan":"max"}}{end}"#),
            r#"before metadata={"tenant":"acme","step":1} session.id=chat-42"#,
            &format!(r#"inside metadata={{"tenant":"acme","step":2,"plan":"max"}}{end}"#),
            &format!(
                r#"below metadata={{"tenant":"acme","step":2,"plan":"max","tool":"search"}}{end}"#
            ),
            &format!(r#"after metadata={{"tenant":"acme","step":2,"plan":"max"}}{end}"#),
        ],
    );
}

#[test]
fn field_recorded_late_on_an_outer_span_does_not_replace_what_is_said_inside() {
    let app = App::new();
    let request = info_span!("request", user.id = "u-7", metadata.step = Empty);
    request.in_scope(|| {
        with_metadata(Session::default(), "step", "value").in_scope(|| {
            let value = info_span!("in the value").entered();
            let said = session!("chat-42", metadata.step = "span").entered();
            let cleared = Session::default().without(Part::Metadata).attach();
            let inside = info_span!("cleared").entered();
            request.record("metadata.step", "late");
            drop((inside, cleared, said, value));
        });
    });
    drop(request);
    let step = |name| values(&app.span(name), "metadata");
    assert_eq!(step("request"), [r#"{"step":"late"}"#]);
    assert_eq!(step("in the value"), [r#"{"step":"value"}"#]);
    assert_eq!(step("session"), [r#"{"step":"span"}"#]);
    assert_eq!(step("cleared"), [""; 0]);
}

#[test]
fn field_that_is_never_recorded_says_nothing() {
    let app = App::new();
    session!("chat-42", metadata.plan = Empty, tags = Empty).in_scope(|| span("inside"));
    exports(
        &app,
        &["session session.id=chat-42", "inside session.id=chat-42"],
    );
}

#[test]
fn two_threads_that_record_at_once_lose_nothing() {
    for _ in 0..200 {
        let app = App::new();
        let request = info_span!(
            "request",
            user.id = "u-7",
            metadata.a = Empty,
            metadata.b = Empty,
            tags = Empty
        );
        let below = info_span!(parent: &request, "below");
        let barrier = Barrier::new(2);
        std::thread::scope(|scope| {
            for field in ["metadata.a", "metadata.b"] {
                let (request, barrier, dispatch) = (&request, &barrier, &app.dispatch);
                scope.spawn(move || {
                    let _default = tracing::dispatcher::set_default(dispatch);
                    barrier.wait();
                    request.record(field, field).record("tags", field);
                });
            }
        });
        drop((below, request));
        for span in app.spans() {
            let metadata = values(&span, "metadata").concat();
            assert!(metadata.contains(r#""a":"metadata.a""#), "{metadata}");
            assert!(metadata.contains(r#""b":"metadata.b""#), "{metadata}");
            let tags = values(&span, "tag.tags").concat();
            assert_eq!(tags.matches("metadata.").count(), 2, "{tags}");
        }
    }
}

struct Panics;

impl fmt::Debug for Panics {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        resume_unwind(Box::new("in Debug"))
    }
}

#[test]
fn field_whose_debug_panics_breaks_nothing_afterwards() {
    let app = App::new();
    let said = full().without(Part::User);
    let make = || session!(said, metadata.plan = ?Panics, tags = ?Panics);
    assert!(catch_unwind(AssertUnwindSafe(make)).is_err());
    let request = session!("chat-43", metadata.plan = Empty, tags = "a");
    let record = || request.record("metadata.plan", debug(Panics)).clone();
    assert!(catch_unwind(AssertUnwindSafe(record)).is_err());
    request.record("metadata.plan", "pro");
    drop(request);
    drop(session!(Session::new("chat-44").unwrap()));
    let spans = app.spans();
    let lines: Vec<_> = spans.iter().map(line).collect();
    assert_eq!(
        lines[lines.len() - 2..],
        [
            r#"session metadata={"plan":"pro"} session.id=chat-43 tag.tags=["a"]"#,
            "session session.id=chat-44"
        ]
    );
}

#[test]
fn value_given_to_a_span_is_for_no_span_that_is_made_for_its_fields() {
    let app = App::new();
    let number = |id: &str| {
        drop(session!(id));
        drop(info_span!("plain"));
        7
    };
    drop(session!(full(), number = number("chat-1")));
    drop(session!(
        "chat-2",
        number = {
            drop(session!(full()));
            7
        }
    ));
    drop(user!("u-8", number = number("chat-3")));
    exports(
        &app,
        &[
            "session session.id=chat-1",
            "plain",
            &format!("session{}", FULL.replace(" ring", " number=7 ring")),
            &format!("session{FULL}"),
            "session number=7 session.id=chat-2",
            "session session.id=chat-3",
            "plain",
            "user number=7 user.id=u-8",
        ],
    );
}

#[test]
fn values_given_to_spans_of_two_tasks_are_not_exchanged() {
    let app = App::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(async {
        let turn = |id: &'static str, turns: usize| async move {
            let session = with_metadata(Session::new(id).unwrap(), "of", id);
            let number = async {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
                7
            };
            drop(session!(session, number = number.await));
        };
        // The first has to wait for less than the second, which starts in between.
        tokio::join!(turn("chat-1", 2), turn("chat-2", 3));
    });
    for span in app.spans() {
        let id = values(&span, "session.id").concat();
        let own = format!(r#"{{"of":"{id}"}}"#);
        let is_of_another = values(&span, "metadata").iter().any(|it| *it != own);
        assert!(!is_of_another, "{}", app.tree());
    }
}

// Who inherits

#[test]
fn explicit_parent_gives_its_own_and_nothing_of_what_is_in_force() {
    let app = App::new();
    let request = session!("chat-42", metadata.plan = "pro", tags = "a");
    session!("chat-43", metadata.tenant = "acme", tags = "b").in_scope(|| {
        info_span!(parent: &request, "plain").in_scope(|| span("inside"));
        let says_an_id = info_span!(parent: &request, "user", id = "u-7");
        says_an_id.in_scope(|| span("inside"));
        let says_more = session!(parent: &request, "chat-44", metadata.step = 2);
        says_more.in_scope(|| span("inside"));
        info_span!(parent: None, "root").in_scope(|| span("inside"));
        info_span!(parent: None, "user", id = "u-8").in_scope(|| span("inside"));
    });
    drop(request);
    let of_parent = r#" metadata={"plan":"pro"} session.id=chat-42 tag.tags=["a"]"#;
    let more = r#" metadata={"plan":"pro","step":2} session.id=chat-44 tag.tags=["a"]"#;
    exports(
        &app,
        &[
            &format!("session{of_parent}"),
            r#"session metadata={"tenant":"acme"} session.id=chat-43 tag.tags=["b"]"#,
            &format!("plain{of_parent}"),
            &format!("inside{of_parent}"),
            &format!("user{of_parent} user.id=u-7"),
            &format!("inside{of_parent} user.id=u-7"),
            &format!("session{more}"),
            &format!("inside{more}"),
            "root",
            "inside",
            "user user.id=u-8",
            "inside user.id=u-8",
        ],
    );
}

#[test]
fn parent_that_is_set_before_the_start_takes_the_place_of_what_was_in_force() {
    let app = App::new();
    let elsewhere = full().in_scope(Context::current);
    let make: [fn() -> tracing::Span; 4] = [
        || info_span!("plain"),
        || session!("chat-44"),
        || user!("u-8", metadata.step = 2),
        || session!(with_metadata(Session::new("chat-45").unwrap(), "step", 3)),
    ];
    for around in [
        session!(
            "chat-43",
            user.id = "u-1",
            metadata.tenant = "secret",
            tags = "secret"
        ),
        session!(
            "chat-43",
            user.id = "u-1",
            metadata.tenant = Empty,
            tags = Empty
        ),
        session!(full()),
    ] {
        around.in_scope(|| {
            for make in make {
                let span = make();
                span.set_parent(elsewhere.clone()).unwrap();
                span.in_scope(|| info_span!("below").in_scope(|| {}));
                let span = make();
                span.set_parent(remote()).unwrap();
                span.in_scope(|| info_span!("below of remote").in_scope(|| {}));
            }
            around
                .record("metadata.tenant", "secret")
                .record("tags", "secret");
        });
    }
    for span in app.spans() {
        let shown = line(&span);
        if !shown.contains("chat-43") {
            assert!(!shown.contains("secret"), "{shown}\n{}", app.tree());
        }
        if span.name == "below of remote" {
            assert!(!shown.contains("acme"), "{shown}\n{}", app.tree());
            assert!(!shown.contains("u-1 "), "{shown}");
        }
        if span.name == "below" {
            assert!(shown.contains(r#""tenant":"acme""#), "{shown}");
        }
    }
}

#[test]
fn hidden_span_still_says_it() {
    let app = App::with_layer(|otel| {
        SessionLayer::new()
            .with_filter(LevelFilter::INFO)
            .around(otel)
    });
    let hidden = debug_span!("session", id = "chat-42", metadata.plan = Empty, tags = "a");
    hidden.in_scope(|| {
        let open = info_span!("before").entered();
        hidden.record("metadata.plan", "pro");
        drop(open);
        span("inside");
        debug_span!("user", id = "u-7", metadata.step = 2).in_scope(|| {
            tracing::trace_span!("nothing").in_scope(|| span("after"));
        });
    });
    exports(
        &app,
        &[
            r#"before metadata={"plan":"pro"} session.id=chat-42 tag.tags=["a"]"#,
            r#"inside metadata={"plan":"pro"} session.id=chat-42 tag.tags=["a"]"#,
            r#"after metadata={"plan":"pro","step":2} session.id=chat-42 tag.tags=["a"] user.id=u-7"#,
        ],
    );
}

#[test]
fn tasks_polls_and_streams_keep_it() {
    let app = App::new();
    app.runtime().block_on(async {
        let work = || async {
            span("before");
            tokio::task::yield_now().await;
            span("after");
        };
        tokio::spawn(work().in_session(full())).await.unwrap();
        tokio::spawn(work().instrument(session!(full())))
            .await
            .unwrap();
        tokio::task::spawn_blocking(|| full().in_scope(|| span("inside")))
            .await
            .unwrap();
        let items = futures_util::stream::iter(0..2).then(|_| work());
        items.in_session(full()).collect::<Vec<_>>().await;
        // Two at once on one thread.
        let other = Session::new("chat-43").unwrap();
        let other = with_metadata(other, "tenant", "other");
        tokio::join!(work().in_session(full()), async {
            work().in_session(other).await;
        });
    });
    let spans = app.spans();
    assert_eq!(spans.len(), 14);
    for span in spans {
        match values(&span, "session.id").concat().as_str() {
            "chat-42" => lacks(&span, &[]),
            _ => assert!(
                line(&span).ends_with(r#" metadata={"tenant":"other"} session.id=chat-43"#),
                "{}",
                line(&span)
            ),
        }
    }
}

#[test]
fn spans_of_opentelemetry_carry_it() {
    let app = App::new();
    let tracer = app.provider.tracer("library");
    let work = || {
        tracer.in_span("plain", |cx| {
            tracer.start_with_context("below", &cx).end();
            span("inside");
        });
    };
    full().in_scope(work);
    session!(full()).in_scope(work);
    let spans = app.spans();
    assert_eq!(spans.len(), 7);
    spans.iter().for_each(|span| lacks(span, &[]));
}

#[test]
fn set_session_and_user_leave_the_rest() {
    let app = App::new();
    full().in_scope(|| {
        info_span!("handler").in_scope(|| {
            set_session_id("chat-43").unwrap();
            span("before");
            set_user_id("u-8").unwrap();
            span("after");
        });
        session!("chat-1", metadata.step = Empty).in_scope(|| {
            set_session_id("chat-44").unwrap();
            tracing::Span::current().record("metadata.step", 2);
            span("inside");
        });
    });
    let line = |name| line(&app.span(name));
    let with = |id, user: &str| FULL.replace("chat-42", id).replace("u-7", user);
    assert_eq!(
        line("handler"),
        format!("handler{}", with("chat-43", "u-8"))
    );
    assert_eq!(line("before"), format!("before{}", with("chat-43", "u-7")));
    assert_eq!(line("after"), format!("after{}", with("chat-43", "u-8")));
    let step = with("chat-44", "u-7").replace(r#""acme""#, r#""acme","step":2"#);
    assert_eq!(line("session"), format!("session{step}"));
    assert_eq!(line("inside"), format!("inside{step}"));
}

#[test]
fn marked_spans_carry_it_and_pass_nothing_on() {
    let app = App::new();
    info_span!("request").in_scope(|| {
        info_span!("router").in_scope(|| {
            full().in_scope(|| info_span!("handler").in_scope(|| mark_trace().unwrap()));
            span("after");
        });
    });
    // Attributes of one's own are not marked: the spans may have some of these names already.
    lacks(&app.span("request"), &["ring"]);
    lacks(&app.span("router"), &["ring"]);
    lacks(&app.span("handler"), &[]);
    assert_eq!(line(&app.span("after")), "after");
}

#[test]
fn own_attribute_of_a_marked_span_wins_and_is_not_doubled() {
    for when in ["before", "after"] {
        let request = marked_with_own(
            when,
            &[
                ("metadata", r#"{"tenant":"own"}"#.into()),
                ("tag.tags", list(["own"])),
                ("llm.prompt_template.version", "own".into()),
            ],
        );
        lacks(&request, &["ring"]);
        assert_eq!(values(&request, "metadata"), [r#"{"tenant":"own"}"#]);
        assert_eq!(values(&request, "llm.prompt_template.version"), ["own"]);
    }
}

#[test]
fn own_attribute_with_the_key_of_one_that_is_marked_is_not_doubled() {
    for when in ["before", "after"] {
        let request = marked_with_own(when, &[("ring", "own".into())]);
        assert_eq!(values(&request, "ring"), ["own"], "{when}");
    }
}

#[test]
fn own_attributes_outside_any_session_are_exported_as_they_were_set() {
    let app = App::new();
    let span = info_span!("span");
    span.set_attribute("metadata", r#"{ "b": 1.0, "a": 12345678901234567890123 }"#);
    span.set_attribute("tag.tags", "a, b");
    drop(span);
    exports(
        &app,
        &[r#"span metadata={ "b": 1.0, "a": 12345678901234567890123 } tag.tags=a, b"#],
    );
}

/// A span with attributes of its own, that is marked with a full session from below.
fn marked_with_own(when: &str, own: &[(&'static str, Value)]) -> SpanData {
    let app = App::new();
    let request = info_span!("request");
    let set = || {
        for (key, value) in own {
            request.set_attribute(*key, value.clone());
        }
    };
    request.in_scope(|| {
        if when == "before" {
            set();
        }
        full().in_scope(|| info_span!("handler").in_scope(|| mark_trace().unwrap()));
        if when == "after" {
            set();
        }
    });
    drop(request);
    app.span("request")
}

#[test]
fn span_marked_from_two_sessions_does_not_mix_them() {
    let app = App::new();
    info_span!("request").in_scope(|| {
        for id in ["chat-1", "chat-2"] {
            let session = with_metadata(Session::new(id).unwrap(), "of", id);
            session.in_scope(|| info_span!("handler").in_scope(|| mark_trace().unwrap()));
        }
    });
    let request = app.span("request");
    let id = values(&request, "session.id").concat();
    assert_eq!(
        values(&request, "metadata"),
        [format!(r#"{{"of":"{id}"}}"#)]
    );
}

#[test]
fn everything_can_be_read_back() {
    #[derive(Clone, Default)]
    struct Reads(Arc<Mutex<Vec<Session>>>);
    impl<S: tracing::Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Reads {
        fn on_new_span(&self, _: &Attributes<'_>, id: &Id, ctx: LayerContext<'_, S>) {
            let span = ctx.span(id).unwrap();
            if let Some(opened) = span.extensions().get::<SpanSession>() {
                self.0.lock().unwrap().push(opened.session());
            }
        }
    }
    #[track_caller]
    fn is_full(session: &Session) {
        assert_eq!(
            (session.id(), session.user_id()),
            (Some("chat-42"), Some("u-7"))
        );
        assert_eq!(session.metadata("tenant").unwrap(), "acme");
        assert_eq!(session.all_metadata().count(), 1);
        assert!(session.tags().eq(["beta"]));
        assert_eq!(session.prompt_template(), Some("Say {word}"));
        assert_eq!(session.prompt_template_version(), Some("v1"));
        let word = &session.prompt_template_variables().unwrap()["word"];
        assert_eq!(word, "hello");
        assert_eq!(session.attribute("ring"), Some(&2.into()));
        let mut attributes: Vec<_> = session
            .attributes()
            .map(|it| format!(" {}={}", it.key, it.value))
            .collect();
        attributes.sort();
        assert_eq!(attributes.concat(), FULL);
        assert_eq!(*session, full());
    }
    let reads = Reads::default();
    let app = App::with_layer(|otel| SessionLayer::new().around(otel).and_then(reads.clone()));
    full().in_scope(|| is_full(&current_session().unwrap()));
    session!(full()).in_scope(|| {
        is_full(&current_session().unwrap());
        span("inside");
    });
    session!("chat-42", user.id = "u-7", metadata.tenant = Empty).in_scope(|| {
        tracing::Span::current().record("metadata.tenant", "acme");
        let here = current_session().unwrap();
        assert_eq!(here.metadata("tenant").unwrap(), "acme");
    });
    let read = reads.0.lock().unwrap();
    assert_eq!(read.len(), 2);
    is_full(&read[0]);
    assert_eq!(read[1].id(), Some("chat-42"));
    drop(app);
}

#[test]
fn headers_replace_all_that_was_in_force() {
    use opentelemetry::propagation::TextMapPropagator;
    let app = App::new();
    let headers: HashMap<_, _> = [("baggage".to_owned(), "session.id=chat-43".to_owned())].into();
    let inside = || {
        let cx = SessionPropagator::new().extract(&headers);
        let _attached = cx.attach();
        span("inside");
        session!("chat-44", metadata.step = 2).in_scope(|| span("after"));
    };
    full().in_scope(inside);
    session!("chat-1", user.id = "u-1", metadata.plan = Empty, tags = "a").in_scope(|| {
        inside();
        tracing::Span::current().record("metadata.plan", "pro");
    });
    for span in app.spans() {
        match &*span.name {
            "inside" => assert_eq!(line(&span), "inside session.id=chat-43"),
            "after" => assert_eq!(
                line(&span),
                r#"after metadata={"step":2} session.id=chat-44"#
            ),
            _ => {}
        }
    }
}

// Own attributes

/// Sets `attributes` on the span of that name in each way and at each time, below `session`.
fn set_own(session: &Session, attributes: &[KeyValue], check: impl Fn(&SpanData)) {
    for way in [
        "builder",
        "started",
        "tracing before",
        "tracing after",
        "declaring",
    ] {
        let app = App::new();
        let tracer = app.provider.tracer("library");
        session.in_scope(|| match way {
            "builder" => {
                let builder = tracer.span_builder("own");
                let builder = builder.with_attributes(attributes.to_vec());
                builder.start(&tracer).end();
            }
            "started" => {
                let mut span = tracer.start("own");
                span.set_attributes(attributes.to_vec());
                span.end();
            }
            "declaring" => {
                let span = info_span!("own", session.id = "chat-42", metadata.declared = 1);
                span.in_scope(|| {
                    for it in attributes {
                        span.set_attribute(it.key.clone(), it.value.clone());
                    }
                });
            }
            way => {
                let span = info_span!("own");
                let entered = (way == "tracing after").then(|| span.enter());
                for it in attributes {
                    span.set_attribute(it.key.clone(), it.value.clone());
                }
                drop(entered);
            }
        });
        let span = app.span("own");
        let mut keys: Vec<_> = span.attributes.iter().map(|it| it.key.clone()).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), span.attributes.len(), "{way}: {}", line(&span));
        check(&span);
    }
}

#[track_caller]
fn metadata(span: &SpanData) -> serde_json::Value {
    let mut metadata: serde_json::Value =
        serde_json::from_str(&values(span, "metadata").concat()).unwrap();
    metadata.as_object_mut().unwrap().remove("declared");
    metadata
}

#[test]
fn own_metadata_is_joined_with_that_of_the_session_and_wins() {
    let own = [KeyValue::new("metadata", r#"{"tenant":"own","n":1.5}"#)];
    set_own(&full(), &own, |span| {
        assert_eq!(
            metadata(span),
            serde_json::json!({"tenant": "own", "n": 1.5})
        );
    });
}

#[test]
fn own_metadata_that_is_no_object_stands_alone() {
    for text in ["hello", "[1]", "null", "{"] {
        set_own(&full(), &[KeyValue::new("metadata", text)], |span| {
            assert_eq!(values(span, "metadata"), [text]);
        });
    }
}

#[test]
fn last_of_ones_own_wins() {
    let own = |first, last| {
        [
            KeyValue::new("metadata", first),
            KeyValue::new("metadata", last),
        ]
    };
    set_own(&full(), &own(r#"{"a":1}"#, "hello"), |span| {
        assert_eq!(values(span, "metadata"), ["hello"]);
    });
    set_own(&full(), &own("hello", r#"{"a":1}"#), |span| {
        assert_eq!(
            metadata(span),
            serde_json::json!({"tenant": "acme", "a": 1})
        );
    });
    let tags = [
        KeyValue::new("tag.tags", "text"),
        KeyValue::new("tag.tags", list(["own"])),
    ];
    set_own(&full(), &tags, |span| {
        assert!(values(span, "tag.tags").concat().contains("own"));
    });
}

#[test]
fn own_entry_of_metadata_is_found_beside_the_others() {
    let own = [
        KeyValue::new("metadata.step", 2),
        KeyValue::new("metadata.tenant", "own"),
        KeyValue::new("metadata.list", Value::Array(Array::I64(vec![1, 2]))),
    ];
    set_own(&full(), &own, |span| {
        let all = values(span, "metadata").concat() + &values(span, "metadata.list").concat();
        assert!(all.contains("[1,2]"), "{}", line(span));
        let metadata = metadata(span);
        assert_eq!(
            (&metadata["step"], &metadata["tenant"]),
            (&2.into(), &"own".into())
        );
    });
}

#[test]
fn own_tags_are_joined_with_those_of_the_session() {
    let own = list(["own", "beta"]);
    set_own(&full(), &[KeyValue::new("tag.tags", own)], |span| {
        let tags = values(span, "tag.tags");
        let [tags] = tags.as_slice() else {
            panic!("{tags:?}")
        };
        let mut tags: Vec<String> = serde_json::from_str(tags).unwrap();
        tags.sort();
        assert_eq!(tags, ["beta", "own"]);
    });
}

#[test]
fn own_template_and_attribute_win() {
    let own = [
        KeyValue::new("llm.prompt_template.template", "own"),
        KeyValue::new("llm.prompt_template.version", 7),
        KeyValue::new("llm.prompt_template.variables", r#"{"own":1}"#),
        KeyValue::new("ring", "own"),
    ];
    set_own(&full(), &own, |span| {
        assert_eq!(values(span, "llm.prompt_template.template"), ["own"]);
        assert_eq!(values(span, "llm.prompt_template.version"), ["7"]);
        assert_eq!(
            values(span, "llm.prompt_template.variables"),
            [r#"{"own":1}"#]
        );
        assert_eq!(values(span, "ring"), ["own"]);
    });
}

#[test]
fn own_attributes_that_are_not_of_the_session_are_left_alone() {
    let own = [
        KeyValue::new("tags", "own"),
        KeyValue::new("metadata.", "own"),
        KeyValue::new("tag", "own"),
    ];
    set_own(&full(), &own[..1], |span| {
        assert_eq!(values(span, "tags"), ["own"]);
    });
    set_own(&Session::new("chat-42").unwrap(), &own[2..], |span| {
        assert_eq!(values(span, "tag"), ["own"]);
    });
}

#[test]
fn own_attributes_by_fields_win_too() {
    let app = App::new();
    full().in_scope(|| {
        info_span!(
            "own",
            metadata = r#"{"own":1}"#,
            ring = 3,
            metadata.step = Empty
        )
        .record("metadata.step", 2);
    });
    let span = app.span("own");
    lacks(&span, &[]);
    assert_eq!(
        values(&span, "metadata"),
        [r#"{"tenant":"acme","own":1,"step":2}"#]
    );
    assert_eq!(values(&span, "ring"), ["3"]);
}

#[test]
fn own_attributes_go_no_further() {
    let app = App::new();
    full().in_scope(|| {
        let own = info_span!("own");
        own.set_attribute("metadata", r#"{"own":1}"#);
        own.in_scope(|| span("inside"));
    });
    lacks(&app.span("inside"), &[]);
    assert_eq!(line(&app.span("inside")), format!("inside{FULL}"));
}

// Cost

#[test]
fn text_is_made_once_for_all_spans_of_a_scope() {
    thread_local! {
        static MADE: Cell<usize> = const { Cell::new(0) };
    }
    struct Counts;
    impl Serialize for Counts {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            MADE.set(MADE.get() + 1);
            serializer.serialize_u8(7)
        }
    }
    let app = App::new();
    let value = with_metadata(full(), "count", Counts);
    value.in_scope(|| (0..3).for_each(|_| span("inside")));
    value.in_scope(|| user!("u-8").in_scope(|| span("inside")));
    assert_eq!(MADE.get(), 1);
    let texts = |spans: &[SpanData], key: &str| -> Vec<*const str> {
        let attributes = spans.iter().flat_map(|span| &span.attributes);
        let of_key = attributes.filter(|it| it.key.as_str() == key);
        let text = |it: &KeyValue| match &it.value {
            Value::String(text) => std::ptr::from_ref(text.as_str()),
            other => panic!("{other:?}"),
        };
        of_key.map(text).collect()
    };
    let shared = [
        "metadata",
        "llm.prompt_template.template",
        "llm.prompt_template.variables",
    ];
    let check = |spans: &[SpanData]| {
        for key in shared {
            let texts = texts(spans, key);
            assert_eq!(texts.len(), spans.len());
            assert!(
                texts.iter().all(|text| std::ptr::eq(*text, texts[0])),
                "{key}"
            );
        }
    };
    check(&app.spans());
    app.exporter.reset();
    session!(value, metadata.step = Empty).in_scope(|| {
        tracing::Span::current().record("metadata.step", 2);
        (0..3).for_each(|_| span("inside"));
    });
    assert_eq!(app.spans().len(), 4);
    check(&app.spans());
}

#[test]
fn spans_that_declare_metadata_can_nest_deeper_than_a_stack_is_for() {
    const DEPTH: usize = 20_000;
    let app = App::new();
    let mut spans: Vec<_> = Vec::new();
    let began = std::time::Instant::now();
    for depth in 0..DEPTH {
        let span = info_span!("session", id = depth, metadata.step = depth, tags = "a");
        let _id = span.id().map(|id| app.dispatch.enter(&id));
        spans.push(span);
    }
    spans[0].record("metadata.outermost", 1);
    while let Some(span) = spans.pop() {
        let _id = span.id().map(|id| app.dispatch.exit(&id));
        drop(span);
    }
    eprintln!("nested: {:?}", began.elapsed());
    let exported = app.spans();
    assert_eq!(exported.len(), DEPTH);
    for span in &exported {
        let id = values(span, "session.id").concat();
        assert_eq!(values(span, "metadata"), [format!(r#"{{"step":{id}}}"#)]);
    }
}

#[test]
fn scopes_that_declare_metadata_can_follow_one_another_without_end() {
    let app = App::new();
    let _outer = session!("chat-42", metadata.plan = Empty).entered();
    for step in 0..20_000 {
        with_metadata(Session::default(), "step", step).in_scope(|| {});
        drop(user!("u-7", metadata.step = step));
        app.exporter.reset();
        set_user_id(step).unwrap();
    }
    tracing::Span::current().record("metadata.plan", "pro");
    span("inside");
    let user = 19_999;
    assert_eq!(
        line(&app.span("inside")),
        format!(r#"inside metadata={{"plan":"pro"}} session.id=chat-42 user.id={user}"#)
    );
}
