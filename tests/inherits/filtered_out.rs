//! Spans that are filtered out for the OpenTelemetry layer, and exist for another layer: they are transparent.

use crate::inherits::session_of;
use crate::support::{App, Base, Otel, remote, session, values};
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::SpanId;
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Span, debug_span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Session, SessionLayer, current_session_id, session, set_session_id, set_user_id, user,
};
use tracing_subscriber::Layer;

type Make = fn(Otel) -> Box<dyn Layer<Base> + Send + Sync>;

fn app(make: Make) -> App {
    let app = App::with_layer(make);
    // An exported span proves to the layer that the tracer is ours.
    info_span!("first").in_scope(|| {});
    app
}

/// The layer for diagnostics is a neighbour in each of them, and enables all spans.
const SET_UPS: [(&str, Make); 4] = [
    ("wrap_filtered", |otel| {
        SessionLayer::new()
            .with_opener_level(Level::DEBUG)
            .wrap_filtered(otel, LevelFilter::INFO)
            .boxed()
    }),
    ("wrap_filtered around a filter", |otel| {
        let otel = otel.with_filter(LevelFilter::INFO);
        SessionLayer::new()
            .wrap_filtered(otel, LevelFilter::DEBUG)
            .boxed()
    }),
    ("a filter inside", |otel| {
        SessionLayer::new()
            .wrap(otel.with_filter(LevelFilter::INFO))
            .boxed()
    }),
    ("a filter in a box inside", |otel| {
        SessionLayer::new()
            .wrap(Some(otel.with_filter(LevelFilter::INFO)).boxed())
            .boxed()
    }),
];

type Create = fn() -> Span;

/// A span that is filtered out and inherits the session `outer`. `session!` spans are kept open by being entered.
const CREATED: [(&str, Create); 5] = [
    ("in a value", || {
        session("outer").in_scope(|| debug_span!("hidden"))
    }),
    ("in a span", || {
        session!("outer").in_scope(|| debug_span!("hidden"))
    }),
    ("under a span", || {
        let session = session!("outer");
        debug_span!(parent: &session, "hidden")
    }),
    ("under a child", || {
        let session = session!("outer");
        let between = info_span!(parent: &session, "between");
        debug_span!(parent: &between, "hidden")
    }),
    ("under another one", || {
        let other = session!("outer").in_scope(|| debug_span!("other hidden"));
        debug_span!(parent: &other, "hidden")
    }),
];

type Inherit = fn(&Span);

/// The ways to inherit: a span named `child` starts.
const WAYS: [(&str, Inherit); 11] = [
    ("contextual", |it| {
        it.in_scope(|| info_span!("child").in_scope(|| {}))
    }),
    ("explicit", |it| {
        info_span!(parent: it, "child").in_scope(|| {})
    }),
    ("explicit, in it", |it| {
        it.in_scope(|| info_span!(parent: it, "child").in_scope(|| {}));
    }),
    ("opener", |it| {
        it.in_scope(|| user!("u-7").in_scope(|| info_span!("child").in_scope(|| {})))
    }),
    ("explicit opener", |it| {
        user!(parent: it, "u-7").in_scope(|| info_span!("child").in_scope(|| {}));
    }),
    ("opener itself", |it| {
        drop(info_span!(parent: it, "child", user.id = "u-7").entered())
    }),
    ("filtered-out opener", |it| {
        let opener = debug_span!(parent: it, "user", user.id = "u-7");
        opener.in_scope(|| info_span!("child").in_scope(|| {}));
    }),
    ("explicit child of a filtered-out opener", |it| {
        let opener = it.in_scope(|| debug_span!("user", user.id = "u-7"));
        info_span!(parent: &opener, "child").in_scope(|| {});
    }),
    ("through a second one", |it| {
        it.in_scope(|| debug_span!("second").in_scope(|| info_span!("child").in_scope(|| {})));
    }),
    ("explicit, through a second one", |it| {
        let second = debug_span!(parent: it, "second");
        info_span!(parent: &second, "child").in_scope(|| {});
    }),
    ("contextual in an explicit one", |it| {
        debug_span!(parent: it, "second").in_scope(|| info_span!("child").in_scope(|| {}));
    }),
];

type Within = fn(&mut dyn FnMut());

const WITHIN: [(&str, Within); 4] = [
    ("nothing", |work| work()),
    ("a value", |work| session("elsewhere").in_scope(work)),
    ("a session span", |work| {
        session!("elsewhere").in_scope(work)
    }),
    ("a filtered-out span", |work| {
        session("elsewhere")
            .in_scope(|| debug_span!("elsewhere"))
            .in_scope(work);
    }),
];

/// Calls `check` with each set-up, each way to create a span that is filtered out, each place, and each way to inherit.
fn each(check: impl Fn(&App, &Span, Inherit, &str)) {
    for (set_up, make) in SET_UPS {
        for (created, create) in CREATED {
            for (place, within) in WITHIN {
                for (way, inherit) in WAYS {
                    let shown = format!("{set_up}, created {created}, in {place}, {way}");
                    let app = app(make);
                    let hidden = create();
                    assert!(!hidden.is_disabled(), "{shown}");
                    within(&mut || check(&app, &hidden, inherit, &shown));
                    assert_eq!(current_session_id(), None, "{shown}");
                }
            }
        }
    }
}

#[test]
fn children_of_a_filtered_out_span_inherit_the_session_it_was_created_in() {
    each(|app, hidden, inherit, shown| {
        let inside = hidden.in_scope(current_session_id);
        assert_eq!(inside.as_deref(), Some("outer"), "{shown}");
        inherit(hidden);
        assert_eq!(session_of(&app.span("child")), ["outer"], "{shown}");
    });
}

#[test]
fn children_of_a_filtered_out_span_inherit_the_session_set_in_it() {
    each(|app, hidden, inherit, shown| {
        hidden.in_scope(|| set_session_id("set")).expect(shown);
        let inside = hidden.in_scope(current_session_id);
        assert_eq!(inside.as_deref(), Some("set"), "{shown}");
        inherit(hidden);
        assert_eq!(session_of(&app.span("child")), ["set"], "{shown}");
        assert_ne!(current_session_id().as_deref(), Some("set"), "{shown}");
    });
}

#[test]
fn parent_that_is_set_replaces_the_session_of_a_filtered_out_parent() {
    type Make = fn(&Span) -> Span;
    let children: [(&str, Make); 4] = [
        ("contextual", |it| it.in_scope(|| info_span!("child"))),
        ("explicit", |it| info_span!(parent: it, "child")),
        ("opener", |it| {
            it.in_scope(|| info_span!("child", user.id = "u-7"))
        }),
        (
            "explicit opener",
            |it| info_span!(parent: it, "child", user.id = "u-7"),
        ),
    ];
    type Parent = (&'static str, fn() -> Context, &'static [&'static str]);
    let parents: [Parent; 4] = [
        ("nothing", Context::new, &[]),
        ("a span of another process", remote, &[]),
        (
            "a value",
            || session("new").in_scope(Context::current),
            &["new"],
        ),
        ("a span", || session!("new").context(), &["new"]),
    ];
    for (set_up, make) in SET_UPS {
        for (created, create) in CREATED.into_iter().chain([(
            "as an opener",
            (|| debug_span!("session", id = "outer")) as Create,
        )]) {
            for (child, create_child) in children {
                for (parent, make_parent, expected) in parents {
                    let shown = format!("{set_up}, {created}, {child}, {parent}");
                    let app = app(make);
                    let hidden = create();
                    let child = create_child(&hidden);
                    child.set_parent(make_parent()).expect(&shown);
                    child.in_scope(|| {
                        assert_eq!(
                            current_session_id().as_deref(),
                            expected.first().copied(),
                            "{shown}"
                        );
                        info_span!("grandchild").in_scope(|| {});
                        hidden.in_scope(|| {});
                    });
                    info_span!(parent: &child, "explicit grandchild").in_scope(|| {});
                    drop(child);
                    for name in ["child", "grandchild", "explicit grandchild"] {
                        assert_eq!(session_of(&app.span(name)), expected, "{shown}, {name}");
                    }
                }
            }
        }
    }
}

#[test]
fn filtered_out_opener_sets_the_session_up_to_the_opener_level_of_wrap_filtered_only() {
    for (set_up, make) in SET_UPS {
        let app = app(make);
        session("outer").in_scope(|| {
            let opener = debug_span!("session", session.id = "inner");
            info_span!(parent: &opener, "explicit").in_scope(|| {});
            opener.in_scope(|| info_span!("child").in_scope(|| {}));
        });
        let expected = if set_up.starts_with("wrap_filtered") {
            "inner"
        } else {
            "outer"
        };
        for name in ["explicit", "child"] {
            assert_eq!(session_of(&app.span(name)), [expected], "{set_up}, {name}");
        }
    }
    let app = App::with_layer(|otel| SessionLayer::new().wrap_filtered(otel, LevelFilter::INFO));
    debug_span!("session", id = "too verbose").in_scope(|| {
        info_span!("child").in_scope(|| {});
    });
    app.exports("child");
}

#[test]
fn values_of_a_session_attached_in_the_span_do_not_stay_on_it() {
    use tracing_session::set_user_id;
    for (set_up, make) in SET_UPS {
        let app = app(make);
        let hidden = session("outer").in_scope(|| debug_span!("hidden"));
        hidden.in_scope(|| {
            session("attached")
                .in_scope(|| set_user_id("u-7"))
                .unwrap_err();
            set_user_id("u-8").unwrap();
            info_span!("child").in_scope(|| {});
        });
        let child = app.span("child");
        assert_eq!(session_of(&child), ["outer"], "{set_up}");
        assert_eq!(values(&child, "user.id"), ["u-8"], "{set_up}");
    }
}

fn hiding() -> App {
    App::with_layer(|otel| {
        let filter = tracing_subscriber::filter::filter_fn(|it| it.target() != "hidden");
        SessionLayer::new().wrap_filtered(otel, filter)
    })
}

#[test]
fn filtered_out_child_does_not_start_its_parent() {
    let app = hiding();
    Session::new("over").unwrap().in_scope(|| {});
    let request = info_span!("request");
    let hidden = info_span!(target: "hidden", parent: &request, "internals");
    request.set_parent(remote()).unwrap();
    // When it is entered, its children inherit from the parent.
    let session = Session::new("chat-42").unwrap();
    request.in_scope(|| session.set_on_current_span().unwrap());
    hidden.in_scope(|| info_span!("below").in_scope(|| {}));
    let explicit = info_span!(parent: &hidden, "explicit");
    drop((explicit, hidden, request));
    for name in ["below", "explicit"] {
        assert_eq!(values(&app.span(name), "session.id"), ["chat-42"], "{name}");
    }
}

#[test]
fn filtered_out_child_inherits_from_the_explicit_parent_of_an_opener() {
    let headers = || {
        let user = Session::default().with_user("u-7").unwrap();
        user.in_scope(|| {
            let span = remote().span().span_context().clone();
            Context::current().with_remote_span_context(span)
        })
    };
    for is_set_before in [true, false] {
        let app = hiding();
        let opener = session!("chat-42");
        if is_set_before {
            opener.set_parent(headers()).unwrap();
        }
        let hidden = info_span!(target: "hidden", parent: &opener, "hidden");
        if !is_set_before {
            opener.set_parent(headers()).unwrap();
        }
        let explicit = info_span!(parent: &hidden, "explicit");
        hidden.in_scope(|| info_span!("below").in_scope(|| {}));
        drop((explicit, hidden, opener));
        for name in ["below", "explicit"] {
            let span = app.span(name);
            assert_eq!(session_of(&span), ["chat-42"], "{name}");
            assert_eq!(values(&span, "user.id"), ["u-7"], "{name}");
        }
    }
}

#[test]
fn filtered_out_span_outside_a_session_changes_no_tree() {
    let test = test_name!();
    if !crate::support::alone(test, &[]) {
        return;
    }
    let app = hiding();
    let outer = info_span!("outer").entered();
    let hidden = info_span!(target: "hidden", parent: None, "hidden").entered();
    drop(outer);
    info_span!("next").in_scope(|| {});
    drop(hidden);
    assert_eq!(app.span("next").parent_span_id, SpanId::INVALID);
}

#[test]
fn session_attached_inside_a_filtered_out_span_is_detached() {
    let app = hiding();
    let _session = Session::new("chat-42").unwrap().attach();
    let hidden = info_span!(target: "hidden", "hidden").entered();
    let suppressed = Context::enter_telemetry_suppressed_scope();
    assert!(set_user_id("u-7").is_err());
    drop(suppressed);
    let baggage = Context::current_with_baggage([KeyValue::new("secret", "alice")]).attach();
    assert!(set_user_id("u-7").is_err());
    drop(baggage);
    set_user_id("u-7").unwrap();
    Context::map_current(|cx| {
        assert!(!cx.is_telemetry_suppressed() && cx.baggage().is_empty());
    });
    info_span!("below").in_scope(|| {});
    drop(hidden);
    assert_eq!(values(&app.span("below"), "user.id"), ["u-7"]);
}
