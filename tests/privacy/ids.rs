//! Ids of sessions and users, on spans.

use crate::privacy::{
    CHAT, CHAT_HASH, NUMBER, NUMBER_HASH, USER, USER_HASH, Work, below, both, conversation, hashed,
    mark, sent, set_own,
};
use opentelemetry::KeyValue;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span as _, Tracer, TracerProvider};
use std::collections::HashMap;
use tracing::field::{Empty, debug, display};
use tracing::{Span, debug_span, info_span, instrument};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Dialect, Privacy, Session, SessionPropagator, export::IdPolicy, session, set_session_id,
    set_user_id, user,
};

#[instrument(fields(session.id, user.id))]
fn handle() {
    Span::current()
        .record("session.id", CHAT)
        .record("user.id", USER);
    below();
}

/// Every way in which an id gets onto spans.
const WAYS: &[(&str, &Work<'static>)] = &[
    ("session!", &|_| session!(conversation()).in_scope(below)),
    ("user!", &|_| {
        session!(CHAT).in_scope(|| user!(USER).in_scope(below))
    }),
    ("span with the field id", &|_| {
        info_span!("session", id = CHAT)
            .in_scope(|| info_span!("user", id = %USER).in_scope(below));
    }),
    ("quoted", &|_| {
        info_span!("session", id = ?CHAT)
            .in_scope(|| info_span!("user", id = ?USER).in_scope(below));
        info_span!("request", session.id = ?CHAT, user.id = ?USER).in_scope(below);
    }),
    ("in an Option", &|provider| {
        let (chat, user) = (Some(CHAT), Some(Some(USER)));
        info_span!("session", id = ?chat)
            .in_scope(|| info_span!("user", id = ?user).in_scope(below));
        info_span!("request", session.id = ?chat, user.id = ?user).in_scope(below);
        let late = info_span!("request", session.id = Empty, user.id = Empty);
        late.in_scope(below);
        late.record("session.id", debug(chat))
            .record("user.id", debug(user));
        let mut span = provider.tracer("library").start("library");
        span.set_attribute(KeyValue::new("session.id", format!("{chat:?}")));
        span.set_attribute(KeyValue::new("langfuse.user.id", format!("{user:?}")));
        span.end();
    }),
    ("with spaces", &|_| {
        info_span!("request", session.id = %format!(" {CHAT} "), user.id = ?format!("{USER}\t"))
            .in_scope(below);
    }),
    ("recorded late", &|_| handle()),
    ("recorded twice", &|_| {
        let span = info_span!("request", session.id = CHAT, user.id = USER);
        span.in_scope(below);
        span.record("session.id", "another")
            .record("user.id", "another");
    }),
    ("value", &|_| conversation().in_scope(below)),
    ("spans of OpenTelemetry", &|provider| {
        let tracer = provider.tracer("library");
        conversation().in_scope(|| tracer.in_span("library", |_| below()));
    }),
    ("own, in a builder", &|provider| {
        let tracer = provider.tracer("library");
        let builder = tracer.span_builder("library");
        let own = [
            KeyValue::new("session.id", CHAT),
            KeyValue::new("user.id", USER),
        ];
        builder.with_attributes(own).start(&tracer).end();
    }),
    ("own, later", &|provider| {
        let mut span = provider.tracer("library").start("library");
        span.set_attribute(KeyValue::new("session.id", CHAT));
        span.set_attribute(KeyValue::new("user.id", USER));
        span.set_attribute(KeyValue::new("user.id", format!(" {USER}")));
        span.end();
    }),
    ("own, before the start", &|_| {
        set_own(
            &info_span!("span"),
            &[("session.id", CHAT), ("user.id", USER)],
        );
    }),
    ("own, in another session", &|_| {
        let other = Session::new("another").unwrap().with_user("another");
        other.unwrap().in_scope(|| {
            let span = info_span!("span").entered();
            set_own(&span, &[("session.id", CHAT), ("user.id", USER)]);
        });
    }),
    ("set on the current span", &|_| {
        info_span!("handler").in_scope(|| {
            set_session_id(CHAT).unwrap();
            set_user_id(USER).unwrap();
            below();
        });
    }),
    ("marked", &|_| {
        info_span!("request")
            .in_scope(|| conversation().in_scope(|| info_span!("handler").in_scope(mark)));
    }),
    ("hidden span", &|_| {
        debug_span!("session", id = CHAT, user.id = USER).in_scope(|| {
            below();
            debug_span!("user", id = USER).in_scope(below);
        });
    }),
    ("other fields", &|_| {
        conversation().in_scope(|| {
            info_span!("span", user = USER, session = CHAT, who = USER, chat = ?CHAT, late = Empty)
                .record("late", display(USER));
        });
    }),
    ("attribute of the same value", &|provider| {
        let tracer = provider.tracer("library");
        conversation().in_scope(|| {
            let builder = tracer.span_builder("library");
            let own = [KeyValue::new("enduser.id", USER)];
            let mut span = builder.with_attributes(own).start(&tracer);
            span.set_attribute(KeyValue::new("thread", CHAT));
            span.set_attribute(KeyValue::new("user", USER));
            span.end();
        });
    }),
    ("field of one's own", &|_| {
        info_span!("request", customer = USER).in_scope(below);
        info_span!("request", customer = ?USER).in_scope(below);
        info_span!("request", customer = Empty)
            .record("customer", USER)
            .in_scope(below);
    }),
    ("blank, too long", &|_| {
        let long = USER.repeat(200);
        info_span!("request", user.id = %long, session.id = %long).in_scope(below);
        let span = info_span!("span");
        span.set_attribute("user.id", long);
        span.set_attribute("session.id", format!("{CHAT}\n{USER}"));
    }),
    ("error", &|_| {
        info_span!("handler").in_scope(|| {
            set_session_id(format!("{CHAT}\n{USER}")).unwrap_err();
        });
    }),
];

/// The same, where the id is known only after the attribute was set, or is no longer that of the span.
const LATER: &[(&str, &Work<'static>)] = &[
    ("other field before the user is known", &|_| {
        let span = info_span!(
            "request",
            who = USER,
            chat = CHAT,
            session.id = Empty,
            user.id = Empty
        );
        let _entered = span.enter();
        info_span!("inside", who = USER).in_scope(|| {
            Span::current().record("who", USER);
            span.record("user.id", USER).record("session.id", CHAT);
        });
    }),
    ("other field, then set_user_id", &|_| {
        info_span!("request", who = USER, chat = CHAT).in_scope(|| {
            set_user_id(USER).unwrap();
            set_session_id(CHAT).unwrap();
        });
    }),
    ("other field, then marked", &|_| {
        info_span!("request", who = USER)
            .in_scope(|| conversation().in_scope(|| info_span!("handler").in_scope(mark)));
    }),
    ("own id beside the inherited one", &|_| {
        conversation().in_scope(|| {
            let span = info_span!("span", who = USER, chat = CHAT);
            set_own(&span, &[("user.id", "another"), ("session.id", "another")]);
        });
    }),
    ("field of one's own, with spaces around", &|_| {
        let (who, chat) = (format!(" {USER} "), format!("{CHAT} "));
        conversation().in_scope(|| drop(info_span!("span", who, chat)));
    }),
    ("field of one's own, then another user", &|_| {
        info_span!("request", customer = USER).in_scope(|| set_user_id("another").unwrap());
        let span = info_span!("request", customer = USER);
        span.set_attribute("user.id", "another");
    }),
    ("field of one's own, twice", &|_| {
        info_span!("request", customer = USER).record("customer", "another");
    }),
    ("attribute of the session", &|_| {
        let session = conversation().with_attribute("who", USER).unwrap();
        let session = session.with_attribute("langfuse.session.id", CHAT).unwrap();
        session.in_scope(below);
    }),
    ("attribute of a session around", &|_| {
        let outer = Session::default().with_attribute("who", USER).unwrap();
        outer.in_scope(|| conversation().in_scope(below));
    }),
];

fn leaking(ways: &[(&str, &Work<'_>)]) -> Vec<String> {
    let mut leaking = Vec::new();
    let all = [
        Dialect::GEN_AI,
        Dialect::LANGFUSE,
        Dialect::LANGSMITH,
        Dialect::MLFLOW,
        Dialect::TRACELOOP,
        Dialect::POSTHOG,
        Dialect::WEAVE,
        Dialect::MIRASCOPE,
        Dialect::TRACECTRL,
    ];
    let all = all.into_iter().fold(Dialect::OPENINFERENCE, Dialect::and);
    for (name, work) in ways {
        for (way, policy, dialect) in [
            ("hashed", hashed(), Dialect::OPENINFERENCE),
            ("omitted", IdPolicy::omitted(), Dialect::OPENINFERENCE),
            ("hashed, in all dialects", hashed(), all.clone()),
            ("hashed, in one without users", hashed(), Dialect::GEN_AI),
        ] {
            let privacy = both(policy);
            let shown = format!("{name}, {way}");
            let sent = sent(privacy, dialect, |layer| layer, work);
            for id in [USER, CHAT] {
                if sent.has(id) {
                    leaking.push(format!("{shown}: {id}"));
                }
            }
        }
    }
    leaking
}

#[test]
fn no_id_is_sent_for_any_author() {
    // So that the test could fail: everything is there, were it not hidden.
    for (name, work) in WAYS.iter().chain(LATER) {
        let sent = sent(Privacy::new(), Dialect::OPENINFERENCE, |layer| layer, work);
        let is_sent = sent.has(USER) || sent.has(CHAT);
        let has_no_id = *name == "error";
        assert_eq!(is_sent, !has_no_id, "{name}: {:?}", sent.attributes());
    }
    assert_eq!(leaking(WAYS), [""; 0]);
}

#[test]
fn no_id_of_the_default_session_is_sent() {
    if !crate::support::alone(test_name!(), &[]) {
        return;
    }
    conversation().set_global_default().unwrap();
    let ways: &[(&str, &Work<'_>)] = &[("default session", &|_| below())];
    let plain = sent(
        Privacy::new(),
        Dialect::OPENINFERENCE,
        |layer| layer,
        ways[0].1,
    );
    assert!(plain.has(USER) && plain.has(CHAT));
    assert_eq!(leaking(ways), [""; 0]);
}

#[test]
fn no_id_that_is_set_later_is_sent() {
    assert_eq!(leaking(LATER), [""; 0]);
}

#[test]
fn integer_ids_are_redacted() {
    let ways: &[&Work<'_>] = &[
        &|_| user!(NUMBER).in_scope(below),
        &|_| info_span!("user", id = NUMBER).in_scope(below),
        &|_| info_span!("request", customer = NUMBER).in_scope(below),
        &|_| {
            info_span!("request", user.id = Empty)
                .record("user.id", NUMBER)
                .in_scope(below)
        },
        &|_| {
            let span = info_span!("span");
            span.set_attribute("user.id", NUMBER);
        },
        &|provider| {
            let mut span = provider.tracer("library").start("library");
            span.set_attribute(KeyValue::new("langfuse.user.id", NUMBER));
            span.end();
        },
    ];
    for (way, work) in ways.iter().enumerate() {
        let sent = sent(both(hashed()), Dialect::OPENINFERENCE, |it| it, *work);
        assert!(!sent.has_number(), "{way}: {:?}", sent.attributes());
        assert!(sent.has(NUMBER_HASH), "{way}: {:?}", sent.attributes());
    }
}

#[test]
fn keys_that_libraries_set_for_any_dialect_are_redacted() {
    // Another test's dialect would register the keys for the whole process.
    if !crate::support::alone(test_name!(), &[]) {
        return;
    }
    let of_user = [
        "user.id",
        "langfuse.user.id",
        "langsmith.metadata.user_id",
        "traceloop.association.properties.user_id",
        "posthog.distinct_id",
        "posthogDistinctId",
    ];
    let of_session = [
        "session.id",
        "gen_ai.conversation.id",
        "langfuse.session.id",
        "langsmith.metadata.thread_id",
        "traceloop.association.properties.session_id",
        "$ai_session_id",
        "sessionId",
        "wandb.thread_id",
        "weave.conversation.id",
        "mirascope.ops.session.id",
        "tracectrl.session_id",
    ];
    // In no session: nothing but the key tells.
    let work: &Work<'_> = &|provider| {
        let mut span = provider.tracer("library").start("library");
        for key in of_user {
            span.set_attribute(KeyValue::new(key, USER));
        }
        for key in of_session {
            span.set_attribute(KeyValue::new(key, CHAT));
        }
        span.end();
    };
    // Of these no text is known from another key.
    let different: &Work<'_> = &|provider| {
        let mut span = provider.tracer("library").start("library");
        let ids = [(USER, &of_user[..]), (CHAT, &of_session)];
        for (id, keys) in ids {
            for (number, key) in keys.iter().enumerate() {
                span.set_attribute(KeyValue::new(*key, format!("{id}-{number}")));
            }
        }
        span.end();
    };
    for dialect in [
        Dialect::OPENINFERENCE,
        Dialect::LANGFUSE,
        Dialect::TRACECTRL,
    ] {
        for work in [work, different] {
            let omitted = sent(both(IdPolicy::omitted()), dialect.clone(), |it| it, work);
            assert!(!omitted.has(USER) && !omitted.has(CHAT));
        }
        let hashes = sent(both(hashed()), dialect, |it| it, work);
        assert!(!hashes.has(USER) && !hashes.has(CHAT));
        for key in &of_user[1..] {
            assert_eq!(hashes.texts(key), [USER_HASH], "{key}");
        }
        for key in &of_session[1..] {
            assert_eq!(hashes.texts(key), [CHAT_HASH], "{key}");
        }
    }
}

#[test]
fn hash_is_under_the_keys_of_the_dialect_and_user_hash() {
    let work: &Work<'_> = &|_| conversation().in_scope(below);
    let hashes = sent(both(hashed()), Dialect::OPENINFERENCE, |it| it, work);
    assert_eq!(hashes.texts("user.hash"), [USER_HASH]);
    assert_eq!(hashes.texts("session.id"), [CHAT_HASH]);
    assert_eq!(hashes.texts("user.id"), [""; 0]);
    let both_dialects = Dialect::OPENINFERENCE.and(Dialect::LANGFUSE);
    let hashes = sent(both(hashed()), both_dialects, |it| it, work);
    assert_eq!(hashes.texts("user.hash"), [USER_HASH]);
    assert_eq!(hashes.texts("langfuse.user.id"), [USER_HASH]);
    assert_eq!(hashes.texts("langfuse.session.id"), [CHAT_HASH]);
}

#[test]
fn own_user_hash_stays_if_users_are_not_redacted() {
    let work: &Work<'_> = &|provider| {
        conversation().in_scope(|| {
            let mut span = provider.tracer("library").start("library");
            span.set_attribute(KeyValue::new("user.hash", "of-the-library"));
            span.end();
        });
    };
    let privacy = Privacy::new().with_session_ids(IdPolicy::omitted());
    let sent = sent(privacy, Dialect::OPENINFERENCE, |it| it, work);
    assert_eq!(sent.texts("user.hash"), ["of-the-library"]);
    assert_eq!(sent.texts("user.id"), [USER]);
}

#[test]
fn metadata_that_a_dialect_writes_under_the_key_of_an_id_is_redacted_as_metadata() {
    let work: &Work<'_> = &|_| {
        let session = Session::default().with_metadata("session_id", CHAT);
        session.unwrap().in_scope(below);
    };
    let privacy = Privacy::new().with_metadata(["session_id"], IdPolicy::omitted());
    assert!(!sent(privacy, Dialect::TRACELOOP, |it| it, work).has(CHAT));
    assert!(sent(Privacy::new(), Dialect::TRACELOOP, |it| it, work).has(CHAT));
}

#[test]
fn user_hash_is_exported_once_even_if_another_one_is_set() {
    let ways: &[&Work<'_>] = &[
        &|_| {
            conversation().in_scope(|| {
                let span = info_span!("span");
                span.set_attribute("user.hash", "own");
            });
        },
        &|_| {
            let session = conversation().with_attribute("user.hash", "of the session");
            session.unwrap().in_scope(below);
        },
        // What a service in front brings, and who logs in here.
        &|_| {
            let headers = HashMap::from([("baggage".to_owned(), "user.hash=abc".to_owned())]);
            let cx = SessionPropagator::new().with_user().extract(&headers);
            let _attached = cx.attach();
            user!(USER).in_scope(|| {});
        },
    ];
    for (way, work) in ways.iter().enumerate() {
        let sent = sent(both(hashed()), Dialect::OPENINFERENCE, |it| it, *work);
        assert_eq!(
            sent.texts("user.hash").len(),
            1,
            "{way}: {:?}",
            sent.attributes()
        );
    }
}

#[test]
fn replaced_id_is_still_redacted() {
    let ways: &[&Work<'_>] = &[
        &|_| {
            let span = info_span!("span", user.id = USER, who = USER);
            span.record("user.id", "another");
        },
        &|_| {
            info_span!("span", who = USER).in_scope(|| {
                set_user_id(USER).unwrap();
                set_user_id("another").unwrap();
            });
        },
        &|provider| {
            let mut span = provider.tracer("library").start("library");
            for (key, value) in [("user.id", USER), ("who", USER), ("user.id", "another")] {
                span.set_attribute(KeyValue::new(key, value));
            }
            span.end();
        },
    ];
    for (way, work) in ways.iter().enumerate() {
        let sent = sent(both(hashed()), Dialect::OPENINFERENCE, |it| it, *work);
        assert!(!sent.has(USER), "{way}: {:?}", sent.attributes());
    }
}

/// A conversation says two sessions: its own, and the one before.
#[test]
fn previous_session_of_a_conversation_is_redacted_too() {
    use tracing_session::Conversation;
    for (policy, shown) in [(hashed(), vec![CHAT_HASH]), (IdPolicy::omitted(), vec![])] {
        let work = |_: &_| {
            let mut chat = Conversation::new(conversation()).with_lifecycle_events();
            chat.turn("one").finish();
            chat.reset();
            chat.turn("two").finish();
            // The attribute may be said by anybody.
            let own = Session::generate().with_attribute("session.previous_id", CHAT);
            own.unwrap().in_scope(below);
            set_own(&info_span!("own"), &[("session.previous_id", CHAT)]);
        };
        let sent = sent(both(policy), Dialect::OPENINFERENCE, |layer| layer, &work);
        assert!(!sent.has(CHAT) && !sent.has(USER));
        let previous = sent.texts("session.previous_id");
        assert_eq!(previous, shown.repeat(3));
    }
}
