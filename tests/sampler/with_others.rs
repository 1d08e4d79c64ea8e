//! Beside other samplers: those that ask it, those that it asks, and what is kept for a user's sake.

use super::{
    AT_HALF, AT_HALF_RV, AT_TENTH, AT_TENTH_RV, NEVER, NEVER_RV, app, asked, asked_of, in_session,
    is_kept, kept, remote,
};
use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, TraceId, Tracer, TracerProvider};
use opentelemetry_sdk::trace::Sampler;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{Session, SessionSampler, current_session_id, session, session::Part, user};

// The reason for what the documentation says of the two: should the SDK change, it may say less.
#[test]
fn parent_based_keeps_the_tracestate_and_the_older_variant_loses_it() {
    let sampler = SessionSampler::new(0.1);
    let newer = in_session(&Sampler::parent_based(sampler.clone()), AT_TENTH);
    assert_eq!(
        newer.trace_state.header(),
        format!("ot=rv:{AT_TENTH_RV};th:e6666666666666")
    );
    let older = in_session(&Sampler::ParentBased(Box::new(sampler)), AT_TENTH);
    assert_eq!(older.trace_state.header(), "");
    assert!(is_kept(&newer) && is_kept(&older));
}

#[test]
fn under_parent_based_a_parent_decides() {
    let sampler = Sampler::parent_based(SessionSampler::new(0.1));
    for (id, sampled) in [(AT_TENTH, false), (NEVER, true)] {
        let _of = remote("ot=th:0;p:8", sampled).attach();
        let said = in_session(&sampler, id);
        assert_eq!(
            (is_kept(&said), said.trace_state.header().as_str()),
            (sampled, "ot=th:0;p:8")
        );
        let app = app(sampler.clone());
        let tracer = app.provider.tracer("library");
        Session::new(id)
            .unwrap()
            .in_scope(|| tracer.in_span("plain", |_| info_span!("call").in_scope(|| {})));
        assert_eq!(kept(&app).len(), if sampled { 2 } else { 0 });
    }
    // A span that is current, and has no context, is no parent.
    let invalid = Context::new().with_remote_span_context(opentelemetry::trace::SpanContext::NONE);
    let _in = invalid.attach();
    assert!(is_kept(&in_session(&sampler, AT_TENTH)));
    assert!(!is_kept(&in_session(&sampler, NEVER)));
}

#[test]
fn it_decides_under_remote_parents_if_it_is_set_for_them() {
    let sampler = SessionSampler::new(0.1);
    let sampler = Sampler::parent_based(sampler.clone())
        .with_remote_parent_sampled(sampler.clone())
        .with_remote_parent_not_sampled(sampler);
    for sampled in [true, false] {
        for (id, ot) in [
            (AT_TENTH, format!("ot=rv:{AT_TENTH_RV};th:e6666666666666")),
            (NEVER, format!("ot=rv:{NEVER_RV}")),
        ] {
            let app = app(sampler.clone());
            let of = remote("", sampled).attach();
            Session::new(id).unwrap().in_scope(|| {
                info_span!("request").in_scope(|| {
                    let cx = Context::current();
                    assert_eq!(cx.span().span_context().trace_state().header(), ot);
                    info_span!("call").in_scope(|| {});
                });
            });
            drop(of);
            assert_eq!(
                kept(&app).len(),
                if id == AT_TENTH { 2 } else { 0 },
                "{id} {sampled}"
            );
        }
    }
}

#[test]
fn by_itself_it_makes_the_same_decision_on_each_span() {
    let app = app(SessionSampler::new(0.1));
    session!(AT_TENTH).in_scope(|| info_span!("call").in_scope(|| {}));
    session!(NEVER).in_scope(|| info_span!("call").in_scope(|| {}));
    assert_eq!(kept(&app), ["call", "session"]);
}

#[test]
fn children_of_a_dropped_span_inherit_the_session() {
    let app = app(Sampler::parent_based(SessionSampler::new(0.1)));
    session!(NEVER).in_scope(|| {
        info_span!("call").in_scope(|| {
            assert_eq!(current_session_id().as_deref(), Some(NEVER));
            info_span!(parent: None, "session", id = AT_TENTH).in_scope(|| {
                info_span!("kept").in_scope(|| {});
            });
        });
    });
    app.exports(&format!(
        "
        session session.id={AT_TENTH}
          kept session.id={AT_TENTH}
        "
    ));
}

#[test]
fn fallback_decides_only_on_spans_in_no_session() {
    let outside = |sampler: SessionSampler| asked_of(&sampler, &Context::new(), TraceId::from(7));
    let none = SessionSampler::new(0.5);
    assert!(!is_kept(&outside(none.clone())));
    assert!(is_kept(&outside(
        none.clone().with_fallback(Sampler::AlwaysOn)
    )));
    let all = SessionSampler::new(1.0).with_fallback(Sampler::AlwaysOff);
    assert!(!is_kept(&outside(all.clone())));
    assert!(is_kept(&in_session(&all, NEVER)));
    assert!(!is_kept(&in_session(
        &none.with_fallback(Sampler::AlwaysOn),
        NEVER
    )));
    // A user is no session.
    let user = Session::default().with_user("u-7").unwrap();
    assert!(!is_kept(
        &user.in_scope(|| asked(&all, &Context::current()))
    ));
    // It is given all that there is to know, and what it says is taken as it is.
    let nested = SessionSampler::new(0.0).with_fallback(Sampler::parent_based(Sampler::AlwaysOff));
    let said = asked(&nested, &remote("ot=rv:ffffffffffffff;th:8,a=1", true));
    assert!(is_kept(&said));
    assert_eq!(said.trace_state.header(), "ot=rv:ffffffffffffff;th:8,a=1");
}

#[test]
fn never_keep_wins_over_everything_else() {
    let is_private = |session: &Session| session.metadata("private").is_some();
    let keeps_all = SessionSampler::new(1.0)
        .with_fallback(Sampler::AlwaysOn)
        .always_keep(|_| true);
    let sampler = keeps_all.never_keep(is_private);
    let private = |session: Session| session.with_metadata("private", true).unwrap();
    for (session, is_kept_there, ot) in [
        (
            Session::new(AT_HALF).unwrap(),
            true,
            Some(format!("rv:{AT_HALF_RV};th:0")),
        ),
        (
            private(Session::new(AT_HALF).unwrap()),
            false,
            Some(format!("rv:{AT_HALF_RV}")),
        ),
        (private(Session::default()), false, None),
    ] {
        let said = session.in_scope(|| asked(&sampler, &Context::current()));
        assert_eq!(is_kept(&said), is_kept_there);
        assert_eq!(said.trace_state.get("ot"), ot.as_deref());
    }
    // A second function replaces the first one, and outside any session there is nothing to choose.
    let sampler = sampler.never_keep(|_| false);
    let said = private(Session::default()).in_scope(|| asked(&sampler, &Context::current()));
    assert!(is_kept(&said));
    assert!(is_kept(&asked(
        &sampler.never_keep(|_| true),
        &Context::new()
    )));
}

#[test]
fn always_kept_spans_represent_only_themselves() {
    let sampler = SessionSampler::new(0.1)
        .with_fallback(Sampler::AlwaysOff)
        .always_keep(|session| {
            session.user_id() == Some("u-7")
                || session.id() == Some(NEVER)
                || session.metadata("debug").is_some()
        });
    let half = || Session::new(AT_HALF).unwrap();
    for (session, ot) in [
        (half(), format!("rv:{AT_HALF_RV}")),
        (half().with_user("u-8").unwrap(), format!("rv:{AT_HALF_RV}")),
        (
            half().with_user("u-7").unwrap(),
            format!("rv:{AT_HALF_RV};th:0"),
        ),
        (
            half().with_metadata("debug", 1).unwrap(),
            format!("rv:{AT_HALF_RV};th:0"),
        ),
        (Session::new(NEVER).unwrap(), format!("rv:{NEVER_RV};th:0")),
        (
            Session::new(AT_TENTH).unwrap(),
            format!("rv:{AT_TENTH_RV};th:e6666666666666"),
        ),
        (
            Session::default().with_user("u-7").unwrap(),
            "th:0".to_owned(),
        ),
    ] {
        let said = session.in_scope(|| asked(&sampler, &Context::current()));
        assert_eq!(said.trace_state.get("ot"), Some(&*ot));
        assert_eq!(is_kept(&said), ot.contains("th"));
    }
    // Where a value is cleared, it is not there.
    let nobody = Session::default().without(Part::User);
    let seven = half().with_user("u-7").unwrap();
    let said = seven.in_scope(|| nobody.in_scope(|| asked(&sampler, &Context::current())));
    assert!(!is_kept(&said));
    assert!(!is_kept(&asked(&sampler, &Context::new())));
}

#[test]
fn always_keep_is_called_once_for_each_root_with_all_its_values() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let app = app(Sampler::parent_based(SessionSampler::new(0.0).always_keep(
        move |session| {
            count.fetch_add(1, Ordering::Relaxed);
            session.user_id() == Some("u-7")
        },
    )));
    info_span!("outside").in_scope(|| {});
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    session!(NEVER, user.id = "u-7").in_scope(|| info_span!("call").in_scope(|| {}));
    session!(NEVER).in_scope(|| user!("u-7").in_scope(|| {}));
    user!("u-7").in_scope(|| {});
    assert_eq!(asked.load(Ordering::Relaxed), 3);
    assert_eq!(kept(&app), ["call", "session", "user"]);
}

#[test]
fn a_parent_that_is_not_sampled_wins_over_always_keep() {
    let app = app(Sampler::parent_based(
        SessionSampler::new(1.0).always_keep(|_| true),
    ));
    let span = info_span!("request");
    span.set_parent(remote("", false)).unwrap();
    span.in_scope(|| session!(AT_TENTH).in_scope(|| {}));
    drop(span);
    assert_eq!(kept(&app).len(), 0);
}
