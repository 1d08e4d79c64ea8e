//! JSON types, and what is refused.

use crate::details::{KEYS, full, span, with_metadata};
use crate::support::{App, values};
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, HashMap};
use tracing_session::Session;

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
fn value_that_is_not_json_is_an_error_without_the_value() {
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
    let text = "`places`: the value cannot be serialised as JSON: check its `Serialize`, and that map keys are strings";
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
        assert_eq!(
            error.to_string(),
            "the value is not a JSON object: pass a map or a struct"
        );
        assert!(error.is_invalid_json());
    }
    let error = Session::default().with_prompt_template_variables(Refuses);
    assert!(!error.unwrap_err().to_string().contains("secret"));
}

#[test]
fn invalid_key_or_tag_is_an_error_that_names_it() {
    let long = "x".repeat(1025);
    for (text, why) in [
        (" \t", "is blank: set a value, or leave it out"),
        (
            long.as_str(),
            "is longer than 1024 bytes: shorten it, or use a hash of it",
        ),
        (
            "two\nlines",
            "contains a control or invisible character: remove it",
        ),
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
fn reserved_key_cannot_be_an_attribute() {
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
fn metadata_entry_cannot_be_an_attribute() {
    assert!(
        Session::default()
            .with_attribute("metadata.step", 2)
            .is_err()
    );
}

#[test]
fn debug_shows_no_values() {
    let shown = format!("{:?}", full());
    for text in ["acme", "beta", "Say", "hello", "u-7", "chat-42"] {
        assert!(!shown.contains(text), "{shown}");
    }
}
