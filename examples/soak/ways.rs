//! Every way to set a session, and the values that the spans must have.

use crate::ask::{Ask, Dice, Way};
use crate::service::{App, Root};
use crate::want::{OF, Want, made, wanted};
use crate::work::{answer, pause};
use axum::body::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId};
use std::convert::Infallible;
use tokio::task::spawn_blocking;
use tracing::field::Empty;
use tracing::{Instrument, Span, debug_span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Conversation, InSession, Session, conversation::Turn, mark_trace, session, session::Part,
    set_session_id, set_user_id, user,
};

pub(crate) type Answer = BoxStream<'static, Result<Bytes, Infallible>>;
type Outcome<T = ()> = Result<T, tracing_session::Error>;

/// It runs in the span of the request, but its result doesn't.
pub(crate) async fn turn(ask: Ask, app: App, root: Root) -> Outcome<Answer> {
    let session = ask.session()?;
    let want = Want {
        way: ask.way,
        ..Want::default()
    }
    .of(&session);
    let make = |want: &Want| wanted!(want, info_span!("answer"));
    Ok(match ask.way {
        Way::Nothing | Way::Call => answer(want.none(), ask, app, None, make).boxed(),
        Way::Value => {
            let answer = answer(want, ask, app, None, make);
            answer.in_session(session).boxed()
        }
        Way::Macro => within(wanted!(want, session!(session)), want, ask, app),
        Way::Named => within(named(&want, &ask), want, ask, app),
        Way::Fields => within(fields(&want, &ask), want, ask, app),
        Way::Late => within(late(&want, &ask).await, want, ask, app),
        Way::Bound => {
            let want = Want {
                metadata: None,
                ..want
            };
            within(bound(&want, &ask, &root).await?, want, ask, app)
        }
        Way::Parent => within(below(&want, &ask, session, &root), want, ask, app),
        Way::Guard => within(by_guards(&want, &ask, session).await, want, ask, app),
        Way::Nested => nested(want, ask, app)?,
        Way::Cleared => cleared(want, ask, app, session),
        Way::Turn => {
            let (conversation, turn) = next_turn(&want, &ask, session);
            let span = turn.span();
            answer(want, ask, app, Some((conversation, turn)), |_| span).boxed()
        }
        Way::Header => {
            // The session is already current.
            let span = wanted!(want, user!(ask.user, metadata.of = ask.session));
            within(span, want, ask, app)
        }
        Way::Hostile => {
            // In no session, so the span itself carries what was written.
            let written = Want {
                session: Some("\u{0}".to_owned()),
                ..want.none()
            };
            let span = wanted!(written, session!("\u{0}"));
            within(span, want.none(), ask, app)
        }
        Way::Hidden => {
            let outer = debug_span!("session", id = ask.session, metadata.of = ask.session);
            let hidden = outer.in_scope(|| debug_span!("hidden", user.id = ask.user));
            within(hidden.in_scope(|| make(&want)), want, ask, app)
        }
    })
}

/// In an existing span.
fn within(span: Span, want: Want, ask: Ask, app: App) -> Answer {
    answer(want, ask, app, None, |_| span).boxed()
}

fn named(want: &Want, ask: &Ask) -> Span {
    let alone = Want {
        user: None,
        ..want.clone()
    };
    let session = wanted!(
        alone,
        info_span!("session", id = ask.session, metadata.of = ask.session)
    );
    session.in_scope(|| wanted!(want, info_span!("user", user.id = ask.user)))
}

#[tracing::instrument(name = "answer", skip_all, fields(
    session.id = ask.session,
    user.id = ask.user,
    metadata.of = ask.session,
    way = want.way.name(),
    want.session = want.session(),
    want.user = want.user(),
    want.metadata = want.metadata(),
))]
fn fields(want: &Want, ask: &Ask) -> Span {
    want.is_seen("in a function");
    made(Span::current())
}

async fn late(want: &Want, ask: &Ask) -> Span {
    let span = wanted!(
        want.none(),
        info_span!(
            "answer",
            session.id = Empty,
            user.id = Empty,
            metadata.of = Empty
        )
    );
    log_in(want, ask).instrument(span.clone()).await;
    span.record("session.id", &ask.session);
    span.record("user.id", &ask.user);
    span.record("metadata.of", &ask.session);
    want.say_on(&span);
    span
}

/// Ends before the session is known.
async fn log_in(want: &Want, ask: &Ask) {
    drop(wanted!(want.none(), info_span!("log in")));
    pause(&mut Dice(ask.number)).await;
    want.none().is_seen("before it is known");
}

async fn bound(want: &Want, ask: &Ask, root: &Root) -> Outcome<Span> {
    let span = wanted!(want.none(), info_span!("answer"));
    let bind = async {
        log_in(want, ask).await;
        set_session_id(&ask.session)?;
        set_user_id(&ask.user)?;
        want.say_on(&Span::current());
        mark_trace()?;
        want.say_on(&root.0);
        want.is_seen("after it is set");
        Ok(())
    };
    bind.instrument(span.clone()).await.map(|()| span)
}

fn below(want: &Want, ask: &Ask, session: Session, root: &Root) -> Span {
    if ask.number % 2 == 0 {
        return wanted!(want, session!(parent: &root.0, session));
    }
    let span = wanted!(want, session!(session));
    // An error would mean that it has started already.
    let _not_started = span.set_parent(remote(ask.number));
    span
}

async fn by_guards(want: &Want, ask: &Ask, session: Session) -> Span {
    for _ in 0..2 {
        let guard = session.attach();
        drop(wanted!(want, info_span!("guarded")));
        drop(guard);
        want.none().is_seen("outside a guard");
        pause(&mut Dice(ask.number)).await;
    }
    let there = want.clone();
    let on_a_thread = move || {
        there.none().is_seen("on a thread, before");
        let span = session.in_scope(|| wanted!(there, info_span!("answer")));
        there.none().is_seen("on a thread, after");
        span
    };
    let span = spawn_blocking(on_a_thread).await;
    span.unwrap_or_else(|_| Span::none())
}

fn nested(want: Want, ask: Ask, app: App) -> Outcome<Answer> {
    let around = format!("around {}", ask.session);
    let around = Session::new(&around)?
        .with_user("around")?
        .with_metadata(OF, around)?;
    let outer = want.of(&around);
    let inner = Session::new(&ask.session)?;
    // All but the session is inherited.
    let want = Want {
        session: want.session,
        ..outer.clone()
    };
    let span = wanted!(outer, session!(around)).in_scope(|| {
        drop(wanted!(outer, info_span!("before")));
        let span = wanted!(want, session!(inner));
        drop(wanted!(outer, info_span!("after")));
        span
    });
    Ok(within(span, want, ask, app))
}

fn cleared(mut want: Want, ask: Ask, app: App, session: Session) -> Answer {
    drop(session.in_scope(|| wanted!(want, info_span!("around"))));
    let part = if ask.number % 2 == 0 {
        want.session = None;
        Part::Session
    } else {
        want.user = None;
        Part::User
    };
    let make = |want: &Want| wanted!(want, info_span!("answer"));
    let inside = answer(want, ask, app, None, make).in_session(Session::default().without(part));
    inside.in_session(session).boxed()
}

fn next_turn(want: &Want, ask: &Ask, session: Session) -> (Conversation, Turn) {
    let mut conversation = match ask.state.clone() {
        Some(state) => Conversation::resume(state).with_session(session),
        None => Conversation::new(session),
    };
    let turn = match ask.number % 4 {
        0 => {
            let turn = made(conversation.turn("answer"));
            want.say_on_plain(&turn.span().context().span());
            turn
        }
        _ => conversation.turn(|| wanted!(want, info_span!("answer"))),
    };
    (conversation, turn)
}

/// The parent in a caller's service.
fn remote(number: u64) -> Context {
    let mut dice = Dice(number);
    let trace = u128::from(dice.next()) << 64 | u128::from(dice.next());
    Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from(trace),
        SpanId::from(dice.next() | 1),
        TraceFlags::SAMPLED,
        true,
        Default::default(),
    ))
}
