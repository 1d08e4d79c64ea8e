//! Conversations: which turn follows which, and what is kept between requests.

mod finished;
mod hostile;
mod lifecycle;
mod links;
mod state;

use crate::support::{self, App, values};
use futures_util::{StreamExt, stream};
use opentelemetry::Context;
use opentelemetry::trace::{SpanId, TraceContextExt, TraceId};
use opentelemetry_sdk::trace::SpanData;
use std::collections::HashSet;
use tracing::{Instrument, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{Conversation, Session, SessionLayer, session, user};

fn chat() -> Conversation {
    Conversation::new(Session::new("chat-42").unwrap())
}

fn app(root_turns: bool) -> App {
    App::with(|layer| match root_turns {
        true => layer.with_root_turns(),
        false => layer,
    })
}

/// A turn that is finished.
fn take(chat: &mut Conversation, name: &str) {
    let turn = chat.turn(name);
    turn.span().in_scope(|| info_span!("model").in_scope(|| {}));
    turn.finish();
}

fn id(app: &App, name: &str) -> SpanId {
    app.span(name).span_context.span_id()
}

fn trace(app: &App, name: &str) -> TraceId {
    app.span(name).span_context.trace_id()
}

fn linked(span: &SpanData) -> Vec<SpanId> {
    let links = span.links.links.iter();
    links.map(|link| link.span_context.span_id()).collect()
}

fn is_root(span: &SpanData) -> bool {
    span.parent_span_id == SpanId::INVALID
}

// The two shapes

#[test]
fn each_turn_is_a_trace_linked_to_the_turn_before() {
    let app = App::new();
    let mut chat = chat();
    for name in ["one", "two", "three"] {
        take(&mut chat, name);
    }
    let names = ["one", "two", "three"];
    let traces: HashSet<_> = names.iter().map(|name| trace(&app, name)).collect();
    assert_eq!(traces.len(), 3);
    assert!(names.iter().all(|name| is_root(&app.span(name))));
    assert_eq!(linked(&app.span("one")), []);
    assert_eq!(linked(&app.span("two")), [id(&app, "one")]);
    assert_eq!(linked(&app.span("three")), [id(&app, "two")]);
    let link = &app.span("three").links.links[0];
    assert_eq!(link.span_context.trace_id(), trace(&app, "two"));
    assert!(
        app.spans()
            .iter()
            .all(|span| values(span, "session.id") == ["chat-42"])
    );
    assert!(app.diagnostics.messages().is_empty());
}

#[test]
fn in_one_trace_each_turn_is_a_child_of_the_turn_before() {
    let app = App::new();
    let mut chat = chat().in_one_trace();
    for name in ["one", "two", "three"] {
        take(&mut chat, name);
    }
    app.exports(
        "
        one session.id=chat-42
          model session.id=chat-42
          two session.id=chat-42
            model session.id=chat-42
            three session.id=chat-42
              model session.id=chat-42
        ",
    );
    assert!(is_root(&app.span("one")));
    let traces: HashSet<_> = app
        .spans()
        .iter()
        .map(|span| span.span_context.trace_id())
        .collect();
    assert_eq!(traces.len(), 1);
    assert!(app.spans().iter().all(|span| linked(span).is_empty()));
}

#[test]
fn ids_are_those_of_the_last_turn() {
    let app = App::new();
    for mut chat in [chat(), chat().in_one_trace()] {
        app.exporter.reset();
        assert_eq!((chat.trace_id(), chat.last_span_id()), (None, None));
        for name in ["one", "two"] {
            let turn = chat.turn(name);
            let (span, trace_of_turn) = (turn.span_id(), turn.trace_id());
            turn.finish();
            assert_eq!(span, Some(id(&app, name)));
            assert_eq!(trace_of_turn, Some(trace(&app, name)));
            assert_eq!(
                (chat.trace_id(), chat.last_span_id()),
                (trace_of_turn, span)
            );
        }
    }
}

// Inside other spans

#[test]
fn turn_inside_a_request_begins_a_trace_with_a_link_to_the_request() {
    for root_turns in [false, true] {
        let app = app(root_turns);
        let mut chat = chat();
        take(&mut chat, "one");
        info_span!("http").in_scope(|| take(&mut chat, "two"));
        assert!(is_root(&app.span("two")));
        assert_eq!(
            linked(&app.span("two")),
            [id(&app, "one"), id(&app, "http")]
        );
    }
}

#[test]
fn in_one_trace_the_first_turn_inside_a_request_begins_it_and_the_others_stay_in_it() {
    for root_turns in [false, true] {
        let app = app(root_turns);
        let mut chat = chat().in_one_trace();
        for (http, name) in [("http 1", "one"), ("http 2", "two")] {
            info_span!("http", otel.name = http).in_scope(|| take(&mut chat, name));
        }
        assert!(is_root(&app.span("one")));
        assert_eq!(linked(&app.span("one")), [id(&app, "http 1")]);
        assert_eq!(app.span("two").parent_span_id, id(&app, "one"));
        assert_eq!(trace(&app, "one"), trace(&app, "two"));
    }
}

#[test]
fn turn_inherits_current_values_and_sets_its_own() {
    let app = App::new();
    let mut chat = chat();
    user!("u-7").in_scope(|| take(&mut chat, "of the user around"));
    session!("chat-1").in_scope(|| take(&mut chat, "in another session"));
    // Its id stays, whatever the session that is given.
    let session = Session::new("chat-1").unwrap().with_user("u-8").unwrap();
    let session = session.with_metadata("plan", "pro");
    let mut chat = chat.with_session(session.unwrap());
    user!("u-7").in_scope(|| take(&mut chat, "with a user of its own"));
    let said = |name| {
        let span = app.span(name);
        (values(&span, "session.id"), values(&span, "user.id"))
    };
    let chat_42 = vec!["chat-42".to_owned()];
    assert_eq!(
        said("of the user around"),
        (chat_42.clone(), vec!["u-7".to_owned()])
    );
    assert_eq!(said("in another session"), (chat_42.clone(), vec![]));
    assert_eq!(
        said("with a user of its own"),
        (chat_42, vec!["u-8".to_owned()])
    );
    let own = app.span("with a user of its own");
    assert_eq!(values(&own, "metadata"), [r#"{"plan":"pro"}"#]);
}

#[test]
fn user_recorded_inside_is_on_the_turn() {
    let app = App::new();
    let turn = chat().turn("one");
    turn.span().record("user.id", "u-7");
    turn.finish();
    assert_eq!(values(&app.span("one"), "user.id"), ["u-7"]);
}

#[test]
fn turn_of_a_session_without_an_id_gets_one() {
    let app = App::new();
    let mut chat = Conversation::new(Session::default().with_user("u-7").unwrap());
    take(&mut chat, "one");
    let generated = chat.session().id().unwrap();
    assert_eq!(values(&app.span("one"), "session.id"), [generated]);
    assert_eq!(values(&app.span("one"), "user.id"), ["u-7"]);
}

// Spans of one's own

#[test]
fn closure_creates_the_span_of_the_turn() {
    for root_turns in [false, true] {
        let app = app(root_turns);
        for mut chat in [chat(), chat().in_one_trace()] {
            app.exporter.reset();
            take(&mut chat, "one");
            info_span!("http").in_scope(|| {
                let turn = chat.turn(|| info_span!("two", channel = "web"));
                let ids = (turn.trace_id(), turn.span_id());
                turn.span().in_scope(|| {
                    info_span!("model", otel.name = "model of two").in_scope(|| {
                        info_span!("tool", session.id = "chat-42").in_scope(|| {});
                    });
                });
                turn.finish();
                assert_eq!((chat.trace_id(), chat.last_span_id()), ids);
            });
            let two = app.span("two");
            assert_eq!(values(&two, "channel"), ["web"]);
            if trace(&app, "one") == trace(&app, "two") {
                assert_eq!(two.parent_span_id, id(&app, "one"));
                assert_eq!(linked(&two), []);
            } else {
                assert!(is_root(&two));
                assert_eq!(linked(&two), [id(&app, "one"), id(&app, "http")]);
            }
            for name in ["two", "model of two", "tool"] {
                assert_eq!(values(&app.span(name), "session.id"), ["chat-42"]);
                assert_eq!(trace(&app, name), trace(&app, "two"), "{name}");
            }
            assert_eq!(app.span("model of two").parent_span_id, id(&app, "two"));
            assert!(values(&app.span("http"), "session.id").is_empty());
        }
    }
}

/// That a trace begins with the turn holds for the turn, and for nothing that comes after it.
#[test]
fn span_inside_a_turn_with_an_explicit_outer_parent_is_under_that_parent() {
    let app = App::new();
    let mut chat = chat();
    info_span!("http").in_scope(|| {
        let around = tracing::Span::current().context();
        let around = around.span().span_context().clone();
        for turn in [chat.turn("one"), chat.turn(|| info_span!("two"))] {
            turn.span().in_scope(|| {
                let below = Context::map_current(|cx| cx.with_remote_span_context(around.clone()));
                for span in [info_span!("below"), info_span!("below", user.id = "u-7")] {
                    span.set_parent(below.clone()).unwrap();
                    span.in_scope(|| {});
                }
            });
        }
    });
    let below: Vec<_> = app
        .spans()
        .into_iter()
        .filter(|span| span.name == "below")
        .collect();
    assert_eq!(below.len(), 4);
    for span in &below {
        assert_eq!(span.parent_span_id, id(&app, "http"));
        assert_eq!(linked(span), []);
        assert_eq!(values(span, "session.id"), ["chat-42"]);
    }
}

#[test]
fn custom_span_may_set_more_values_and_an_id() {
    let app = App::new();
    let mut chat = chat();
    let closure = || info_span!("one", user.id = "u-7", metadata.plan = "pro");
    let turn = chat.turn(closure);
    turn.span().in_scope(|| info_span!("model").in_scope(|| {}));
    turn.finish();
    chat.turn(|| session!("chat-1", otel.name = "two")).finish();
    for name in ["one", "model"] {
        assert_eq!(values(&app.span(name), "session.id"), ["chat-42"]);
        assert_eq!(values(&app.span(name), "user.id"), ["u-7"]);
        assert_eq!(values(&app.span(name), "metadata"), [r#"{"plan":"pro"}"#]);
    }
    assert_eq!(values(&app.span("two"), "session.id"), ["chat-1"]);
    assert_eq!(linked(&app.span("two")), [id(&app, "one")]);
}

/// As `RUST_LOG=my_app=debug` is: a turn of a name would be disabled.
#[test]
fn custom_span_passes_filters_for_its_target() {
    use tracing_subscriber::filter::Targets;
    let app = App::with_layer(|otel| {
        let filter = Targets::new().with_target("my_app", tracing::Level::DEBUG);
        SessionLayer::new().wrap_filtered(otel, filter)
    });
    let mut chat = chat();
    let turn = chat.turn(|| info_span!(target: "my_app", "one"));
    turn.span()
        .in_scope(|| info_span!(target: "my_app::model", "model").in_scope(|| {}));
    turn.finish();
    app.exports(
        "
        one session.id=chat-42
          model session.id=chat-42
        ",
    );
    assert_eq!(chat.last_span_id(), Some(id(&app, "one")));
}

#[test]
fn custom_span_has_its_session_without_opentelemetry() {
    use tracing_subscriber::prelude::*;
    let _default = tracing_subscriber::registry()
        .with(SessionLayer::new())
        .set_default();
    let turn = chat().turn(|| info_span!("one"));
    let here = turn.span().in_scope(tracing_session::current_session_id);
    assert_eq!(here.as_deref(), Some("chat-42"));
}

#[test]
fn closure_that_panics_leaves_nothing_behind() {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let app = App::new();
    let mut chat = chat();
    let turn = AssertUnwindSafe(|| chat.turn(|| panic!("in the closure")));
    assert!(catch_unwind(turn).is_err());
    assert_eq!(tracing_session::current_session(), None);
    info_span!("http").in_scope(|| info_span!("below").in_scope(|| {}));
    assert_eq!(trace(&app, "below"), trace(&app, "http"));
}

#[test]
fn other_values_of_the_context_reach_the_turn_and_its_descendants() {
    #[derive(Debug, PartialEq)]
    struct Tenant(&'static str);
    let _app = App::new();
    let _tenant = opentelemetry::Context::current_with_value(Tenant("acme")).attach();
    let here = || opentelemetry::Context::map_current(|cx| cx.get::<Tenant>().is_some());
    for mut chat in [chat(), chat().in_one_trace()] {
        for turn in [chat.turn("one"), chat.turn(|| info_span!("two"))] {
            assert!(turn.span().in_scope(|| info_span!("model").in_scope(here)));
        }
    }
}

#[test]
fn suppressed_telemetry_stays_suppressed() {
    let app = App::new();
    let suppressed = opentelemetry::Context::current().with_telemetry_suppressed();
    let _suppressed = suppressed.attach();
    let mut chat = chat();
    take(&mut chat, "one");
    chat.turn(|| info_span!("two")).finish();
    assert!(app.spans().is_empty());
}

// When the conversation moves on

#[test]
fn dropped_turn_does_not_move_the_conversation() {
    let app = App::new();
    for mut chat in [chat(), chat().in_one_trace()] {
        app.exporter.reset();
        take(&mut chat, "one");
        drop(chat.turn("failed"));
        assert_eq!(chat.last_span_id(), Some(id(&app, "one")));
        assert_eq!(chat.trace_id(), Some(trace(&app, "one")));
        take(&mut chat, "two");
        let two = app.span("two");
        let follows = if is_root(&two) {
            linked(&two)[0]
        } else {
            two.parent_span_id
        };
        assert_eq!(follows, id(&app, "one"));
    }
}

#[test]
fn dropped_first_turn_leaves_no_trace_to_continue() {
    let _app = App::new();
    let mut chat = chat();
    drop(chat.turn("failed"));
    assert_eq!((chat.trace_id(), chat.last_span_id()), (None, None));
}

#[tokio::test]
async fn cancelled_turn_does_not_move_the_conversation() {
    let app = App::new();
    let mut chat = chat();
    take(&mut chat, "one");
    let turn = chat.turn("cancelled");
    let work = async move {
        std::future::pending::<()>().instrument(turn.span()).await;
        turn.finish();
    };
    let timeout = std::time::Duration::from_millis(5);
    assert!(tokio::time::timeout(timeout, work).await.is_err());
    assert_eq!(chat.last_span_id(), Some(id(&app, "one")));
    assert!(is_root(&app.span("cancelled")));
}

#[tokio::test]
async fn streaming_turn_does_not_move_the_conversation() {
    let app = App::new();
    let mut chat = chat();
    take(&mut chat, "one");
    let turn = chat.turn("poem");
    let span = turn.span_id();
    let mut tokens = stream::iter(["Roses", "are", "red"]);
    while let Some(_token) = tokens.next().instrument(turn.span()).await {
        assert_eq!(chat.last_span_id(), Some(id(&app, "one")));
    }
    turn.finish();
    assert_eq!(chat.last_span_id(), span);
}

#[test]
fn concurrent_turns_follow_the_last_finished_turn() {
    let app = App::new();
    let mut chat = chat();
    take(&mut chat, "one");
    let (second, third) = (chat.turn("two"), chat.turn("three"));
    let last = second.span_id();
    third.finish();
    second.finish();
    assert_eq!(chat.last_span_id(), last);
    take(&mut chat, "four");
    for (name, before) in [("two", "one"), ("three", "one"), ("four", "two")] {
        assert_eq!(linked(&app.span(name)), [id(&app, before)], "{name}");
    }
}

#[test]
fn in_one_trace_turns_are_children_of_the_first_until_one_is_finished() {
    let app = App::new();
    let mut chat = chat().in_one_trace();
    drop(chat.turn("failed"));
    assert_eq!(chat.last_span_id(), None);
    assert_eq!(chat.trace_id(), Some(trace(&app, "failed")));
    take(&mut chat, "two");
    assert_eq!(app.span("two").parent_span_id, id(&app, "failed"));
    take(&mut chat, "three");
    assert_eq!(app.span("three").parent_span_id, id(&app, "two"));
}

#[test]
fn turns_may_be_finished_by_other_tasks() {
    let app = App::new();
    let mut chat = chat();
    let turns: Vec<_> = (0..20).map(|n| chat.turn(&format!("turn {n}"))).collect();
    app.runtime().block_on(async {
        let work = turns.into_iter().map(|turn| {
            tokio::spawn(async move {
                tokio::task::yield_now().instrument(turn.span()).await;
                turn.finish();
            })
        });
        for work in work.collect::<Vec<_>>() {
            work.await.unwrap();
        }
    });
    let spans = app.spans();
    assert_eq!(spans.len(), 20);
    let last = chat.last_span_id().unwrap();
    assert!(spans.iter().any(|span| span.span_context.span_id() == last));
}

// Beginning anew

#[test]
fn reset_begins_a_session_with_the_previous_id() {
    let app = App::new();
    for mut chat in [chat(), chat().in_one_trace()] {
        app.exporter.reset();
        chat = chat.with_session(Session::default().with_user("u-7").unwrap());
        take(&mut chat, "one");
        let under_way = chat.turn("under way");
        chat.reset();
        assert_eq!((chat.trace_id(), chat.last_span_id()), (None, None));
        assert_eq!(chat.previous_id(), Some("chat-42"));
        assert_eq!(chat.session().user_id(), Some("u-7"));
        under_way.finish();
        assert_eq!(chat.last_span_id(), None);
        take(&mut chat, "two");
        let two = app.span("two");
        assert!(is_root(&two) && linked(&two).is_empty());
        assert_ne!(trace(&app, "two"), trace(&app, "one"));
        assert_eq!(values(&two, "session.id"), [chat.session().id().unwrap()]);
        assert_eq!(values(&two, "session.previous_id"), ["chat-42"]);
        assert_eq!(
            values(&app.span("one"), "session.previous_id"),
            Vec::<String>::new()
        );
        let below = app.spans().into_iter().filter(|span| span.name == "model");
        let below: Vec<_> = below
            .flat_map(|span| values(&span, "session.previous_id"))
            .collect();
        assert!(below.is_empty());
    }
}

// Where nothing is exported

#[test]
fn without_a_subscriber_nothing_breaks() {
    for mut chat in [chat(), chat().in_one_trace()] {
        for _ in 0..2 {
            let turn = chat.turn("one");
            assert_eq!((turn.span_id(), turn.trace_id()), (None, None));
            turn.finish();
        }
        assert_eq!((chat.trace_id(), chat.last_span_id()), (None, None));
        chat.reset();
        assert_eq!(chat.previous_id(), Some("chat-42"));
    }
}

#[test]
fn turn_has_its_session_without_opentelemetry() {
    use tracing_subscriber::prelude::*;
    let _default = tracing_subscriber::registry()
        .with(SessionLayer::new())
        .set_default();
    let mut chat = chat();
    let turn = chat.turn("one");
    let here = turn.span().in_scope(tracing_session::current_session_id);
    assert_eq!(here.as_deref(), Some("chat-42"));
    turn.finish();
    assert_eq!(chat.last_span_id(), None);
}

#[test]
fn filtered_out_turn_does_not_move_the_conversation() {
    let app = App::with_layer(|otel| {
        let hides = tracing_subscriber::filter::filter_fn(|span| span.name() != "turn");
        SessionLayer::new().wrap_filtered(otel, hides)
    });
    let mut chat = chat();
    take(&mut chat, "one");
    assert_eq!((chat.trace_id(), chat.last_span_id()), (None, None));
    assert_eq!(values(&app.span("model"), "session.id"), ["chat-42"]);
}

#[test]
fn unsampled_turn_moves_the_conversation() {
    use opentelemetry_sdk::trace::Sampler;
    let app = App::with_provider(
        |builder| builder.with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff))),
        |otel| SessionLayer::new().wrap(otel),
    );
    let mut chat = chat().in_one_trace();
    take(&mut chat, "one");
    let first = (chat.trace_id(), chat.last_span_id());
    assert!(first.0.is_some() && first.1.is_some());
    take(&mut chat, "two");
    assert_eq!(chat.trace_id(), first.0);
    assert!(app.spans().is_empty());
}

/// Said once for the process, so in a process of its own.
#[test]
fn turn_that_a_filter_disables_is_reported_once() {
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::prelude::*;
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let mut chat = chat();
    // Nobody expects it there.
    take(&mut chat, "without a subscriber");
    let app = App::new();
    let filter = || {
        Targets::new()
            .with_target("tracing_session", tracing::Level::WARN)
            .with_default(tracing::Level::INFO)
    };
    let subscriber = || tracing_subscriber::registry().with(app.diagnostics.clone());
    let none_of_ours = subscriber().with(filter()).set_default();
    take(&mut chat, "without a layer of ours");
    drop(none_of_ours);
    assert_eq!(app.diagnostics.messages(), Vec::<String>::new());
    let subscriber = subscriber().with(SessionLayer::new()).with(filter());
    let _default = subscriber.set_default();
    for _ in 0..2 {
        take(&mut chat, "one");
    }
    assert_eq!(
        app.diagnostics.messages(),
        [
            "the turns of a `Conversation` are not exported because a filter disables their spans: enable the \
             target `tracing_session` at the level INFO, or give `Conversation::turn` a closure that creates a \
             span of your own"
        ]
    );
}

/// As `RUST_LOG=my_app=debug` is: then nobody would hear the warning.
#[test]
fn turn_that_a_filter_disables_with_our_warnings_is_reported_on_standard_error() {
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::prelude::*;
    let Some(printed) = support::output_alone(test_name!(), &[]) else {
        let filter = Targets::new().with_target("my_app", tracing::Level::DEBUG);
        let subscriber = tracing_subscriber::registry().with(SessionLayer::new());
        let _default = subscriber.with(filter).set_default();
        let mut chat = chat();
        for _ in 0..2 {
            take(&mut chat, "one");
        }
        return;
    };
    let said = "\ntracing-session: the turns of a `Conversation` are not exported";
    assert_eq!(printed.matches(said).count(), 1, "{printed}");
    assert!(!printed.contains("chat-42"));
}
