//! Two providers whose spans have equal ids (row 14).

use crate::inherits::session_of;
use crate::support::{App, remote};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::IdGenerator;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing::{dispatcher, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{Session, session, set_session_id, set_user_id};

#[derive(Debug)]
struct Counting(AtomicU64, AtomicU64);

impl Counting {
    /// Counts spans from behind a prefix.
    fn from(first: u64) -> Self {
        Self(AtomicU64::new(0), AtomicU64::new(first))
    }
}

impl IdGenerator for Counting {
    fn new_trace_id(&self) -> TraceId {
        TraceId::from(u128::from(self.0.fetch_add(1, Ordering::Relaxed) + 1))
    }

    fn new_span_id(&self) -> SpanId {
        SpanId::from(self.1.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

fn counting_from(first: u64) -> App {
    let build = |builder: opentelemetry_sdk::trace::TracerProviderBuilder| {
        builder.with_id_generator(Counting::from(first))
    };
    App::with_provider(build, |otel| {
        tracing_session::SessionLayer::new().wrap(otel)
    })
}

fn counting() -> App {
    counting_from(0)
}

/// Both applications make the same spans, with the same ids.
fn side_by_side(first: impl Fn(), second: impl Fn()) -> (App, App) {
    let (one, other) = (counting(), counting());
    let within = |app: &App, f: &dyn Fn()| dispatcher::with_default(&app.dispatch, f);
    let make = || info_span!("root");
    let (a, b) = (
        dispatcher::with_default(&one.dispatch, make),
        dispatcher::with_default(&other.dispatch, make),
    );
    within(&one, &|| a.in_scope(&first));
    within(&other, &|| b.in_scope(&second));
    for (app, root) in [(&one, &a), (&other, &b)] {
        within(app, &|| {
            root.in_scope(|| info_span!("child").in_scope(|| {}))
        });
    }
    within(&one, &|| drop(a.clone()));
    drop((a, b));
    (one, other)
}

fn never(app: &App, id: &str) {
    for span in app.spans() {
        assert!(!session_of(&span).contains(&id.to_owned()), "{}", span.name);
    }
}

#[test]
fn sessions_set_on_spans_with_equal_ids_stay_apart() {
    let set = |id: &'static str| move || set_session_id(id).unwrap();
    let (one, other) = side_by_side(set("first"), set("second"));
    never(&one, "second");
    never(&other, "first");
    assert_eq!(session_of(&one.span("root")), ["first"]);
    assert_eq!(session_of(&other.span("root")), ["second"]);
}

#[test]
fn session_set_on_a_span_reaches_no_span_of_another_provider() {
    let (one, other) = side_by_side(|| set_session_id("first").unwrap(), || {});
    never(&other, "first");
    let (one_too, other_too) = side_by_side(|| {}, || set_user_id("u-7").unwrap());
    for span in one_too.spans().iter().chain(&other.spans()) {
        let ids = ["session.id", "user.id"].map(|key| crate::support::values(span, key));
        assert_eq!(ids.concat(), [""; 0], "{}", span.name);
    }
    assert_eq!(session_of(&one.span("root")), ["first"]);
    drop(other_too);
}

#[test]
fn openers_with_remote_parents_and_equal_ids_stay_apart() {
    let apps = [counting(), counting()];
    let open = |(app, id): (&App, &str)| {
        dispatcher::with_default(&app.dispatch, || {
            let span = session!(id);
            span.set_parent(remote()).unwrap();
            span.in_scope(|| {});
            span
        })
    };
    let spans: Vec<_> = apps.iter().zip(["first", "second"]).map(open).collect();
    for (app, span) in apps.iter().zip(&spans) {
        dispatcher::with_default(&app.dispatch, || {
            span.in_scope(|| info_span!("child").in_scope(|| {}));
        });
    }
    drop(spans);
    never(&apps[0], "second");
    never(&apps[1], "first");
}

#[test]
fn counters_behind_a_prefix_stay_apart() {
    for prefix in [
        7 << 40,
        7 << 56,
        u64::from(u32::MAX),
        0xabcd_1234 << 32,
        0xabcd << 48,
    ] {
        let (one, other) = (counting_from(prefix), counting_from(prefix));
        let within = |app: &App, f: &dyn Fn()| dispatcher::with_default(&app.dispatch, f);
        let a = dispatcher::with_default(&one.dispatch, || info_span!("a"));
        within(&one, &|| a.in_scope(|| set_session_id("first").unwrap()));
        within(&other, &|| {
            info_span!("b").in_scope(|| info_span!("below").in_scope(|| {}));
        });
        never(&other, "first");
        drop(a);
    }
}

#[test]
fn remote_parent_with_the_id_of_a_span_inherits_nothing_from_it() {
    let app = counting();
    let caller = SpanContext::new(
        TraceId::from(0xdead),
        SpanId::from(1),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    let session = Session::new("caller").unwrap();
    let cx = Context::new().with_remote_span_context(caller);
    let attached = cx.attach();
    let extracted = session.in_scope(Context::current);
    drop(attached);
    let span = session!("own");
    span.set_parent(extracted).unwrap();
    span.in_scope(|| info_span!("child").in_scope(|| {}));
    drop(span);
    assert_eq!(app.span("session").span_context.span_id(), SpanId::from(1));
    assert_eq!(session_of(&app.span("child")), ["own"]);
}
