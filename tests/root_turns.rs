//! `SessionLayer::with_root_turns`: the span of a session begins a trace.

use crate::support::{self, App, remote, values};
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{TraceContextExt, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, SpanData};
use tracing::{Instrument, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{InSession, Session, current_session, session, set_session_id, user};

fn app() -> App {
    App::with(|layer| layer.with_root_turns())
}

fn trace(app: &App, name: &str) -> TraceId {
    app.span(name).span_context.trace_id()
}

fn is_root(span: &SpanData) -> bool {
    span.parent_span_id == opentelemetry::SpanId::INVALID
}

/// The spans that this one is linked to.
fn linked(span: &SpanData) -> Vec<opentelemetry::SpanId> {
    let links = span.links.links.iter();
    links.map(|link| link.span_context.span_id()).collect()
}

#[test]
fn session_span_under_another_span_begins_a_trace_and_is_linked_to_it() {
    let app = app();
    info_span!("http").in_scope(|| {
        session!("chat-42").in_scope(|| info_span!("model").in_scope(|| {}));
        info_span!("beside").in_scope(|| {});
    });
    app.exports(
        "
        http
          beside
        session session.id=chat-42
          model session.id=chat-42
        ",
    );
    let (http, turn) = (app.span("http"), app.span("session"));
    assert!(is_root(&turn));
    assert_ne!(trace(&app, "session"), trace(&app, "http"));
    assert_eq!(trace(&app, "model"), trace(&app, "session"));
    assert_eq!(linked(&turn), [http.span_context.span_id()]);
    assert_eq!(
        turn.links.links[0].span_context.trace_id(),
        trace(&app, "http")
    );
    assert!(linked(&http).is_empty() && linked(&app.span("model")).is_empty());
}

#[test]
fn without_the_switch_it_is_a_child() {
    let app = App::new();
    info_span!("http").in_scope(|| session!("chat-42").in_scope(|| {}));
    assert_eq!(trace(&app, "session"), trace(&app, "http"));
    assert!(linked(&app.span("session")).is_empty());
}

#[test]
fn span_that_has_no_parent_is_linked_to_nothing() {
    let app = app();
    session!("chat-42").in_scope(|| {});
    session!(parent: None, "chat-43").in_scope(|| {});
    let linked_to: Vec<_> = app.spans().iter().flat_map(linked).collect();
    assert!(linked_to.is_empty());
}

#[test]
fn span_under_a_remote_parent_begins_a_trace_however_it_came_by_it() {
    let app = app();
    let attached = remote().attach();
    session!("attached").in_scope(|| {});
    drop(attached);
    let set = session!("set");
    set.set_parent(remote()).unwrap();
    set.in_scope(|| info_span!("below").in_scope(|| {}));
    drop(set);
    let roots: Vec<_> = app.spans().into_iter().filter(is_root).collect();
    assert_eq!(roots.len(), 2);
    for turn in &roots {
        assert_eq!(turn.links.links.len(), 1);
        assert_eq!(
            turn.links.links[0].span_context.trace_id(),
            TraceId::from(7)
        );
        assert!(turn.links.links[0].span_context.is_remote());
        assert_ne!(turn.span_context.trace_id(), TraceId::from(7));
    }
    let below = app.span("below");
    assert_eq!(below.parent_span_id, roots[1].span_context.span_id());
    assert_eq!(values(&below, "session.id"), ["set"]);
}

#[test]
fn span_with_an_explicit_parent_begins_a_trace() {
    let app = app();
    let http = info_span!("http");
    session!(parent: &http, "chat-42").in_scope(|| info_span!("model").in_scope(|| {}));
    drop(http);
    assert!(is_root(&app.span("session")));
    assert_eq!(
        linked(&app.span("session")),
        [app.span("http").span_context.span_id()]
    );
    assert_eq!(trace(&app, "model"), trace(&app, "session"));
    assert_eq!(values(&app.span("model"), "session.id"), ["chat-42"]);
}

#[test]
fn each_way_to_say_a_session_begins_a_trace_and_a_user_does_not() {
    let app = app();
    let http = info_span!("http").entered();
    info_span!("session", id = "chat-42").in_scope(|| {});
    info_span!("handler", session.id = "chat-42").in_scope(|| {});
    user!("u-7").in_scope(|| {});
    info_span!("login", user.id = "u-7").in_scope(|| {});
    session!(
        Session::default().with_user("u-8").unwrap(),
        otel.name = "of a user"
    )
    .in_scope(|| {});
    drop(http);
    for (name, root) in [
        ("session", true),
        ("handler", true),
        ("user", false),
        ("login", false),
        ("of a user", false),
    ] {
        assert_eq!(is_root(&app.span(name)), root, "{name}");
    }
}

#[test]
fn what_is_in_force_around_the_turn_still_is() {
    let app = app();
    let around = Session::default()
        .with_user("u-7")
        .unwrap()
        .with_tags(["web"])
        .unwrap();
    around.in_scope(|| {
        info_span!("http").in_scope(|| {
            session!("chat-42").in_scope(|| info_span!("model").in_scope(|| {}));
        });
    });
    for name in ["session", "model"] {
        assert_eq!(values(&app.span(name), "user.id"), ["u-7"]);
        assert_eq!(values(&app.span(name), "tag.tags").len(), 1);
    }
}

#[test]
fn span_that_says_the_session_of_its_turn_again_stays_in_the_turn() {
    let app = app();
    session!("chat-42").in_scope(|| {
        user!("u-7").in_scope(|| {
            info_span!("again", session.id = "chat-42").in_scope(|| {});
            Session::new("chat-42").unwrap().in_scope(|| {
                info_span!("and again", session.id = "chat-42").in_scope(|| {});
            });
        });
        info_span!("other", session.id = "chat-43").in_scope(|| {
            info_span!("other again", session.id = "chat-43").in_scope(|| {});
            info_span!("first again", session.id = "chat-42").in_scope(|| {});
        });
    });
    for name in ["user", "again", "and again"] {
        assert_eq!(trace(&app, name), trace(&app, "session"), "{name}");
    }
    assert!(is_root(&app.span("other")) && is_root(&app.span("first again")));
    assert_eq!(trace(&app, "other again"), trace(&app, "other"));
}

#[test]
fn span_that_is_moved_into_a_turn_of_its_session_stays_there() {
    let app = app();
    let turn = session!("chat-42", otel.name = "turn").entered();
    let (same, other) = std::thread::scope(|scope| {
        let dispatch = app.dispatch.clone();
        let made = move || {
            let _default = tracing::dispatcher::set_default(&dispatch);
            (
                session!("chat-42", otel.name = "same"),
                session!("chat-43", otel.name = "other"),
            )
        };
        scope.spawn(made).join().unwrap()
    });
    for span in [&same, &other] {
        span.set_parent(turn.context()).unwrap();
        span.in_scope(|| {});
    }
    drop((same, other, turn));
    assert_eq!(trace(&app, "same"), trace(&app, "turn"));
    assert!(linked(&app.span("same")).is_empty());
    assert!(is_root(&app.span("other")));
}

#[test]
fn turn_whose_parent_was_set_from_outside_is_a_turn_to_those_below() {
    let app = app();
    let _user = user!("u-7").entered();
    let turn = session!("chat-42", otel.name = "turn");
    turn.set_parent(remote()).unwrap();
    turn.in_scope(|| session!("chat-42", otel.name = "again").in_scope(|| {}));
    drop(turn);
    assert!(is_root(&app.span("turn")));
    assert_eq!(trace(&app, "again"), trace(&app, "turn"));
}

/// A header has said the session already, and a value may have: there is no turn for it yet.
#[test]
fn span_in_a_session_that_no_span_has_said_begins_a_trace() {
    let app = app();
    let session = Session::new("chat-42").unwrap();
    session.in_scope(|| {
        info_span!("http").in_scope(|| session!("chat-42").in_scope(|| {}));
    });
    assert!(is_root(&app.span("session")));
    assert!(is_root(&app.span("http")));
    assert_ne!(trace(&app, "session"), trace(&app, "http"));
    assert_eq!(values(&app.span("http"), "session.id"), ["chat-42"]);

    // A value of another session inside a turn is no turn either.
    app.exporter.reset();
    session!("chat-41").in_scope(|| {
        session.in_scope(|| session!("chat-42", otel.name = "inner").in_scope(|| {}));
    });
    assert!(is_root(&app.span("inner")));
}

#[test]
fn default_session_is_no_turn() {
    if !support::alone(test_name!(), &[]) {
        return;
    }
    let default = Session::new("chat-42").unwrap();
    default.set_global_default().unwrap();
    let app = app();
    info_span!("http").in_scope(|| session!("chat-42").in_scope(|| {}));
    assert!(is_root(&app.span("session")));
    assert_eq!(linked(&app.span("session")).len(), 1);
}

#[test]
fn session_that_is_learnt_later_stays_in_the_trace() {
    let app = app();
    info_span!("http").in_scope(|| {
        let late = info_span!("late", session.id = tracing::field::Empty);
        late.in_scope(|| late.record("session.id", "chat-42"));
        info_span!("set").in_scope(|| set_session_id("chat-42").unwrap());
    });
    for name in ["late", "set"] {
        assert_eq!(trace(&app, name), trace(&app, "http"));
        assert_eq!(values(&app.span(name), "session.id"), ["chat-42"]);
    }
}

#[test]
fn sampler_decides_anew_and_sees_the_session_the_baggage_and_the_link() {
    /// Keeps roots that are in a session, and nothing else.
    #[derive(Clone, Debug)]
    struct Asks;

    impl opentelemetry_sdk::trace::ShouldSample for Asks {
        fn should_sample(
            &self,
            parent: Option<&Context>,
            _: TraceId,
            _: &str,
            _: &opentelemetry::trace::SpanKind,
            _: &[KeyValue],
            links: &[opentelemetry::trace::Link],
        ) -> SamplingResult {
            let cx = parent.unwrap();
            let kept = Session::of(cx).is_some_and(|session| session.id() == Some("chat-42"))
                && cx
                    .baggage()
                    .get("tenant")
                    .is_some_and(|tenant| tenant.as_str() == "acme")
                && links.len() == 1
                && !cx.has_active_span();
            use SamplingDecision::{Drop, RecordAndSample};
            SamplingResult {
                decision: if kept { RecordAndSample } else { Drop },
                attributes: Vec::new(),
                trace_state: TraceState::NONE,
            }
        }
    }

    let app = App::with_provider(
        |builder| builder.with_sampler(Sampler::ParentBased(Box::new(Asks))),
        |otel| {
            tracing_session::SessionLayer::new()
                .with_root_turns()
                .wrap(otel)
        },
    );
    let baggage = Context::new().with_baggage([KeyValue::new("tenant", "acme")]);
    let attached = baggage.attach();
    info_span!("http").in_scope(|| {
        session!("chat-42").in_scope(|| {
            info_span!("model").in_scope(|| {
                // What the turn is in reaches those below it, whatever the sampler saw.
                assert!(Context::current().baggage().get("tenant").is_some());
            });
        });
        session!("chat-43").in_scope(|| {});
    });
    drop(attached);
    let names: Vec<_> = app
        .spans()
        .iter()
        .map(|span| span.name.to_string())
        .collect();
    assert_eq!(names, ["model", "session"]);
}

#[test]
fn suppressed_telemetry_stays_suppressed() {
    let app = app();
    let _suppressed = Context::current().with_telemetry_suppressed().attach();
    session!("chat-42").in_scope(|| info_span!("model").in_scope(|| {}));
    assert!(app.spans().is_empty());
}

#[test]
fn concurrent_requests_have_a_turn_each() {
    let app = app();
    app.runtime().block_on(async {
        let requests = (0..100).map(|n| {
            let turn = async move {
                let inner = async {
                    tokio::task::yield_now().await;
                    info_span!("model").in_scope(|| assert!(current_session().is_some()));
                };
                inner.instrument(session!(format!("chat-{n}"))).await;
            };
            tokio::spawn(turn.instrument(info_span!("http")))
        });
        for request in requests.collect::<Vec<_>>() {
            request.await.unwrap();
        }
    });
    let spans = app.spans();
    let turns: Vec<_> = spans.iter().filter(|span| span.name == "session").collect();
    assert_eq!(turns.len(), 100);
    for turn in turns {
        assert!(is_root(turn));
        let parent = spans
            .iter()
            .find(|span| linked(turn) == [span.span_context.span_id()]);
        assert_eq!(parent.unwrap().name, "http");
        let id = turn.span_context.span_id();
        let below = spans.iter().filter(|span| span.parent_span_id == id);
        let below: Vec<_> = below.map(|span| values(span, "session.id")).collect();
        assert_eq!(below, [values(turn, "session.id")]);
    }
    assert!(app.diagnostics.messages().is_empty());
}

/// A filter that hides the turn: those below it are where they would have been.
#[test]
fn hidden_turn_begins_no_trace() {
    let app = App::with_layer(|otel| {
        let layer = tracing_session::SessionLayer::new()
            .with_root_turns()
            .with_opener_level(tracing::Level::DEBUG);
        layer.wrap_filtered(otel, tracing::level_filters::LevelFilter::INFO)
    });
    info_span!("http").in_scope(|| {
        session!(level: tracing::Level::DEBUG, "chat-42").in_scope(|| {
            info_span!("model").in_scope(|| {});
        });
    });
    assert_eq!(trace(&app, "model"), trace(&app, "http"));
    assert_eq!(values(&app.span("model"), "session.id"), ["chat-42"]);
}

#[tokio::test]
async fn values_are_no_spans() {
    let app = app();
    let work = async { info_span!("model").in_scope(|| {}) };
    let work = work.in_session(Session::new("chat-42").unwrap());
    work.instrument(info_span!("http")).await;
    assert_eq!(trace(&app, "model"), trace(&app, "http"));
}
