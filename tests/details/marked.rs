//! Spans that are marked.

use crate::details::{full, lacks, line, list, span, with_metadata};
use crate::support::{App, remote, values};
use opentelemetry::{Context, Value};
use opentelemetry_sdk::trace::SpanData;
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    InSession, Session, SessionLayer, mark_trace, session, set_session_id, set_user_id,
};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;

#[test]
fn marked_spans_export_the_values_and_pass_on_nothing() {
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
fn own_attribute_of_a_marked_span_wins_and_is_not_duplicated() {
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
fn own_attribute_with_the_key_of_a_marked_attribute_is_not_duplicated() {
    for when in ["before", "after"] {
        let request = marked_with_own(when, &[("ring", "own".into())]);
        assert_eq!(values(&request, "ring"), ["own"], "{when}");
    }
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
fn span_marked_by_two_sessions_does_not_mix_them() {
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
fn span_marked_by_two_users_does_not_mix_them() {
    let app = App::new();
    info_span!("request").in_scope(|| {
        for id in ["u-1", "u-2"] {
            let session = Session::new("chat-42").unwrap().with_user(id).unwrap();
            let session = with_metadata(session, "of", id);
            session.in_scope(|| info_span!("handler").in_scope(|| mark_trace().unwrap()));
        }
    });
    let request = app.span("request");
    let id = values(&request, "user.id").concat();
    assert_eq!(
        values(&request, "metadata"),
        [format!(r#"{{"of":"{id}"}}"#)]
    );
}

#[test]
fn second_mark_adds_the_user_of_the_session_and_nothing_else() {
    let app = App::new();
    let session = Session::new("chat-42").unwrap();
    let mark = |session: &Session| session.in_scope(span_that_marks);
    info_span!("request").in_scope(|| {
        mark(&session);
        mark(&with_metadata(session.clone(), "tenant", "acme"));
        mark(&session.clone().with_user("u-7").unwrap());
        mark(&session);
    });
    let request = app.span("request");
    assert_eq!(values(&request, "session.id"), ["chat-42"]);
    assert_eq!(values(&request, "user.id"), ["u-7"]);
    assert_eq!(values(&request, "metadata"), [""; 0]);
}

#[test]
fn second_mark_of_another_session_adds_nothing_to_a_user() {
    let app = App::new();
    info_span!("request").in_scope(|| {
        let user = Session::default().with_user("u-7").unwrap();
        user.in_scope(span_that_marks);
        let session = Session::new("chat-42").unwrap().with_user("u-7").unwrap();
        session.in_scope(span_that_marks);
    });
    let request = app.span("request");
    assert_eq!(values(&request, "user.id"), ["u-7"]);
    assert_eq!(values(&request, "session.id"), [""; 0]);
}

#[test]
fn metadata_alone_marks_nothing() {
    let app = App::new();
    info_span!("request").in_scope(|| {
        let alone = with_metadata(Session::default(), "secret", "of alice");
        alone.in_scope(|| {
            info_span!("handler").in_scope(|| assert!(mark_trace().is_err()));
        });
        let bob = Session::new("chat-2").unwrap().with_user("bob").unwrap();
        bob.in_scope(span_that_marks);
    });
    assert_eq!(values(&app.span("request"), "metadata"), [""; 0]);
}

fn span_that_marks() {
    info_span!("handler").in_scope(|| mark_trace().unwrap());
}

#[test]
fn mark_is_not_combined_with_an_id_that_is_set_later() {
    type Set = fn(&tracing::Span);
    let later: [(&str, Set); 4] = [
        ("user.id", |span| {
            span.in_scope(|| set_user_id("u-2").unwrap())
        }),
        ("session.id", |span| {
            span.in_scope(|| set_session_id("chat-2").unwrap())
        }),
        ("user.id", |span| span.set_attribute("user.id", "u-2")),
        ("user.id", |span| {
            span.record("user.id", "u-2");
        }),
    ];
    for (at, (key, set)) in later.into_iter().enumerate() {
        let app = App::new();
        let request = info_span!("request", user.id = tracing::field::Empty);
        request.in_scope(|| {
            let session = Session::new("chat-1").unwrap().with_user("u-1").unwrap();
            session.in_scope(span_that_marks);
        });
        set(&request);
        drop(request);
        let request = app.span("request");
        let ids = ["session.id", "user.id"].map(|key| values(&request, key));
        let own = values(&request, key);
        // Only the id of its own: nothing of the mark.
        assert_eq!(ids.concat(), own, "{at}");
        assert!(own[0].ends_with("-2"), "{at}: {own:?}");
    }
}

#[test]
fn mark_is_not_combined_with_another_id_in_the_spans_field() {
    let app = App::new();
    let request = session!("chat-2");
    request.in_scope(|| {
        let session = Session::new("chat-1").unwrap().with_user("u-1").unwrap();
        session.in_scope(span_that_marks);
        // The span started with another id, and keeps it.
        request.record("session.id", "chat-1");
        session.in_scope(span_that_marks);
    });
    drop(request);
    let request = app.span("session");
    assert_eq!(values(&request, "session.id"), ["chat-2"]);
    assert_eq!(values(&request, "user.id"), [""; 0]);
}

#[test]
fn mark_adds_the_user_to_a_span_of_the_same_session() {
    let app = App::new();
    session!("chat-1").in_scope(|| {
        let session = Session::new("chat-1").unwrap().with_user("u-1").unwrap();
        session.in_scope(span_that_marks);
    });
    let request = app.span("session");
    assert_eq!(values(&request, "user.id"), ["u-1"]);
}

#[test]
fn root_that_two_tasks_mark_has_the_session_and_user_of_one() {
    let app = App::new();
    info_span!("request").in_scope(|| {
        info_span!("task").in_scope(|| {
            set_session_id("chat-a").unwrap();
            mark_trace().unwrap();
        });
        info_span!("task").in_scope(|| {
            set_session_id("chat-b").unwrap();
            set_user_id("user-b").unwrap();
            mark_trace().unwrap();
        });
    });
    let request = app.span("request");
    assert_eq!(values(&request, "session.id"), ["chat-a"]);
    assert_eq!(values(&request, "user.id"), [""; 0]);
}

/// The current span is of no trace, or of another one than the span that `tracing` says is current.
#[test]
fn mark_reaches_no_span_of_another_trace() {
    let chat = || Session::new("chat-42").unwrap();
    let places: [fn(&dyn Fn()); 2] = [
        |mark| {
            let _attached = Context::new().attach();
            mark();
        },
        |mark| {
            let elsewhere = remote();
            let _attached = elsewhere.attach();
            mark();
        },
    ];
    for place in places {
        for name in ["exported", "hidden"] {
            let filter = filter_fn(|it: &tracing::Metadata<'_>| it.name() != "hidden");
            let app = App::with_layer(|otel| SessionLayer::new().wrap(otel.with_filter(filter)));
            info_span!("root").in_scope(|| {
                let below = match name {
                    "hidden" => info_span!("hidden"),
                    _ => info_span!("exported"),
                };
                below.in_scope(|| {
                    place(&|| chat().in_scope(|| drop(mark_trace().unwrap_err())));
                });
            });
            assert_eq!(line(&app.span("root")), "root", "{name}");
        }
    }
}

#[test]
fn mark_in_a_destructor_reaches_no_span_around_the_drop() {
    struct Marks;

    impl Drop for Marks {
        fn drop(&mut self) {
            drop(mark_trace());
        }
    }

    let app = App::new();
    let work = async {
        let _marks = Marks;
        std::future::pending::<()>().await;
    };
    let mut work = Box::pin(work.in_session(Session::new("alice").unwrap()));
    assert!(futures_util::FutureExt::now_or_never(&mut work).is_none());
    info_span!("http of bob").in_scope(|| {
        let bob = Session::new("bob").unwrap();
        bob.in_scope(|| info_span!("handler").in_scope(|| drop(work)));
    });
    assert_eq!(line(&app.span("http of bob")), "http of bob");
}

#[test]
fn mark_inside_a_session_in_a_filtered_out_span_reaches_the_root() {
    let filter = filter_fn(|it: &tracing::Metadata<'_>| it.name() != "hidden");
    let app = App::with_layer(|otel| SessionLayer::new().wrap(otel.with_filter(filter)));
    info_span!("root").in_scope(|| {
        info_span!("hidden").in_scope(|| {
            let chat = Session::new("chat-42").unwrap();
            chat.in_scope(|| mark_trace().unwrap());
        });
    });
    assert_eq!(values(&app.span("root"), "session.id"), ["chat-42"]);
}

#[test]
fn mark_of_another_session_does_not_prevent_a_mark_of_the_spans_session() {
    let app = App::new();
    session!("chat-42").in_scope(|| {
        let marks = |session: Session| {
            session.in_scope(|| info_span!("below").in_scope(|| mark_trace().unwrap()));
        };
        marks(Session::new("other").unwrap());
        marks(Session::new("chat-42").unwrap().with_user("u-7").unwrap());
    });
    let root = app.span("session");
    assert_eq!(values(&root, "session.id"), ["chat-42"]);
    assert_eq!(values(&root, "user.id"), ["u-7"]);
}

#[test]
fn mark_in_a_filtered_out_span_outside_its_trace_reaches_nothing() {
    let filter = filter_fn(|it: &tracing::Metadata<'_>| it.name() != "hidden");
    let app = App::with_layer(|otel| SessionLayer::new().wrap(otel.with_filter(filter)));
    let http = info_span!("http of bob");
    let bob = Session::new("bob").unwrap();
    let worker = http.in_scope(|| bob.in_scope(|| info_span!("hidden")));
    let alice = Session::new("alice").unwrap();
    let mark = || alice.in_scope(|| drop(mark_trace().unwrap_err()));
    worker.in_scope(|| {
        let _attached = Context::new().attach();
        mark();
    });
    worker.in_scope(mark);
    drop((worker, http));
    assert_eq!(line(&app.span("http of bob")), "http of bob");
}
