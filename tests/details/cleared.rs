//! What is not inherited.

use crate::details::{full, lacks, span, with_metadata};
use crate::support::{self, App, values};
use tracing::field::Empty;
use tracing::info_span;
use tracing_session::{Session, current_session, session, session::Part};

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

#[test]
fn each_part_can_be_cleared_inside_and_is_restored_afterwards() {
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
    if !support::alone(test_name!(), &[]) {
        return;
    }
    full().set_global_default().unwrap();
    for (part, keys) in PARTS {
        let app = App::new();
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
    if !support::alone(test_name!(), &[]) {
        return;
    }
    full().set_global_default().unwrap();
    let app = App::new();
    let inner = Session::default().without(Part::User);
    inner.in_scope(|| info_span!("in the value").in_scope(|| {}));
    lacks(&app.span("in the value"), &["user.id"]);
}

#[test]
fn cleared_part_can_be_set_again() {
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
fn part_cleared_on_a_span_may_be_recorded_on_it() {
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

#[test]
fn session_without_a_part_loses_the_part() {
    for (part, keys) in PARTS {
        let app = App::new();
        let session = full().without(part);
        session.in_scope(|| span("inside"));
        session!(session).in_scope(|| {});
        lacks(&app.span("inside"), keys);
        lacks(&app.span("session"), keys);
    }
}

#[test]
fn nothing_applies_where_all_parts_are_cleared() {
    let parts = PARTS.into_iter().map(|(part, _)| part);
    let nothing = parts.fold(Session::default(), Session::without);
    let here = || nothing.in_scope(current_session);
    assert_eq!(full().in_scope(here), None);
}

#[test]
fn id_recorded_where_it_was_cleared_is_inherited() {
    for (part, key) in [(Part::Session, "session.id"), (Part::User, "user.id")] {
        let app = App::new();
        full().in_scope(|| {
            let cleared = session!(Session::default().without(part), user.id = Empty);
            cleared.in_scope(|| span("before"));
            cleared.record(key, "new");
            cleared.in_scope(|| span("after"));
        });
        lacks(&app.span("before"), &[key]);
        assert_eq!(values(&app.span("after"), key), ["new"], "{}", app.tree());
        assert_eq!(values(&app.span("session"), key), ["new"], "{}", app.tree());
    }
}

#[test]
fn part_that_is_cleared_twice_stays_cleared() {
    let app = App::new();
    let twice = Session::default().without(Part::Tags).without(Part::Tags);
    full().in_scope(|| twice.in_scope(|| span("inside")));
    lacks(&app.span("inside"), &["tag.tags"]);
}

#[test]
fn parts_cleared_in_nested_sessions_under_an_unrecorded_field_are_all_cleared() {
    let app = App::new();
    full().in_scope(|| {
        info_span!("declaring", session.id = "chat-42", metadata.late = Empty).in_scope(|| {
            Session::default().without(Part::Tags).in_scope(|| {
                Session::default()
                    .without(Part::PromptTemplate)
                    .in_scope(|| span("inside"));
                span("after");
            });
        });
    });
    let template = PARTS[4].1;
    lacks(&app.span("inside"), &[&["tag.tags"], template].concat());
    lacks(&app.span("after"), &["tag.tags"]);
    lacks(&app.span("declaring"), &[]);
}

#[test]
fn part_cleared_twice_under_an_unrecorded_field_stays_cleared() {
    let app = App::new();
    full().in_scope(|| {
        info_span!("declaring", session.id = "chat-42", metadata.late = Empty).in_scope(|| {
            let without = Session::default().without(Part::Tags);
            without.in_scope(|| without.in_scope(|| span("inside")));
        });
    });
    lacks(&app.span("inside"), &["tag.tags"]);
}
