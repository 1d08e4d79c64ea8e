//! Each error is of one kind, and of no other.

use tracing_session::{
    Conversation, Error, Session, conversation::link_context, mark_trace, set_session_id,
};

type Is = (&'static str, fn(&Error) -> bool);

const KINDS: &[Is] = &[
    ("an id", Error::is_invalid_id),
    ("a span", Error::is_no_span),
    ("a propagator", Error::is_unknown_propagator),
    ("JSON", Error::is_invalid_json),
    ("a state", Error::is_invalid_state),
    #[cfg(feature = "otlp")]
    ("a setting", Error::is_invalid_setting),
    #[cfg(feature = "otlp")]
    ("the subscriber", Error::is_subscriber_set),
    #[cfg(feature = "otlp")]
    ("the export", Error::is_export_failed),
];

#[test]
fn each_error_is_of_one_kind() {
    let trace = "4bf92f3577b34da6a3ce125d0e0e4736";
    let errors = [
        ("an id", Session::new("  ").err()),
        ("an id", Session::new("x".repeat(1025)).err()),
        ("an id", Session::new("two\nlines").err()),
        ("an id", Session::default().with_tags([""]).err()),
        ("a span", set_session_id("chat-42").err()),
        ("", in_a_span(mark_trace).err()),
        ("", Session::default().with_attribute("session.id", 1).err()),
        (
            "JSON",
            Session::default().with_prompt_template_variables([1]).err(),
        ),
        ("a state", link_context("", "").err()),
        ("a state", link_context(trace, "").err()),
        (
            "a state",
            Conversation::new(Session::generate())
                .resume_trace(trace, Some("7"))
                .err(),
        ),
        #[cfg(feature = "otlp")]
        (
            "a setting",
            tracing_session::otlp::pipeline("my-app")
                .with_endpoint("localhost")
                .install()
                .err(),
        ),
    ];
    for (expected, error) in errors {
        let error = error.expect(expected);
        let kinds = KINDS.iter().filter(|(_, is_it)| is_it(&error));
        let kinds: Vec<_> = kinds.map(|(kind, _)| *kind).collect();
        assert_eq!(kinds.join(" and "), expected, "{error}");
    }
}

fn in_a_span<T>(f: impl FnOnce() -> T) -> T {
    let subscriber = tracing_subscriber::registry();
    tracing::subscriber::with_default(subscriber, || tracing::info_span!("work").in_scope(f))
}

/// A filter may have disabled the span that sets the session, and all others.
#[test]
fn nothing_to_mark_outside_any_span_is_no_error() {
    mark_trace().unwrap();
    let session = Session::new("chat-42").unwrap();
    session.in_scope(mark_trace).unwrap();
    in_a_span(|| mark_trace().unwrap_err());
}
