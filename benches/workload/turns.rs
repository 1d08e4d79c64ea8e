//! A realistic asynchronous turn, and a request whose handler is one span or two: each way to set a session.

use super::{Case, SESSION, USER, trees};
use futures_util::future::BoxFuture;
use futures_util::task::noop_waker_ref;
use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll};
use tracing::field::Empty;
use tracing::{Instrument, Span, info, info_span};
use tracing_session::{Conversation, InSession, Session, mark_trace, session};
use tracing_session::{set_session_id, set_user_id};

const METADATA: &str = r#"{"tenant":"acme","plan":"pro","seats":12}"#;
const TAGS: &str = r#"["beta","web"]"#;

/// A span with four fields of its own, and with the fields that are given.
macro_rules! span {
    ($name:literal $(, $($given:tt)*)?) => {
        info_span!(
            $name,
            model = "local",
            step = 1_u64,
            temperature = 0.5,
            stream = true
            $(, $($given)*)?
        )
    };
}

/// A span that sets the ids with its own fields if the case writes them by hand.
macro_rules! step {
    ($case:expr, $name:literal) => {
        match $case {
            Case::HandWritten => span!(
                $name,
                session.id = %black_box(SESSION),
                user.id = %black_box(USER)
            ),
            Case::HandWrittenFull => span!(
                $name,
                session.id = %black_box(SESSION),
                user.id = %black_box(USER),
                metadata = black_box(METADATA),
                tag.tags = black_box(TAGS)
            ),
            _ => span!($name),
        }
    };
}

/// The first span of a turn. In some cases its fields set the session.
fn first(case: Case) -> Span {
    match case {
        Case::TracingSession | Case::Hashed | Case::Coverage => session!(
            black_box(SESSION),
            user.id = black_box(USER),
            model = "local",
            step = 1_u64,
            temperature = 0.5,
            stream = true
        ),
        Case::Full => session!(
            black_box(SESSION),
            user.id = black_box(USER),
            metadata.tenant = "acme",
            metadata.plan = "pro",
            metadata.seats = 12,
            tags = black_box(TAGS),
            model = "local",
            step = 1_u64,
            temperature = 0.5,
            stream = true
        ),
        Case::Field => span!(
            "turn",
            session.id = %black_box(SESSION),
            user.id = %black_box(USER)
        ),
        Case::Late => span!("turn", session.id = Empty, user.id = Empty),
        _ => step!(case, "turn"),
    }
}

/// Sets the session inside the first span, in the cases that do.
fn set_inside(case: Case) {
    match case {
        Case::Late => {
            let span = Span::current();
            span.record("session.id", tracing::field::display(black_box(SESSION)));
            span.record("user.id", tracing::field::display(black_box(USER)));
        }
        Case::Set | Case::Marked => {
            let _known = set_session_id(black_box(SESSION));
            let _known = set_user_id(black_box(USER));
            if case == Case::Marked {
                let _marked = mark_trace();
            }
        }
        _ => {}
    }
}

fn value(case: Case) -> Option<Session> {
    match case {
        Case::SessionValue => Some(trees::session()),
        Case::FullValue => {
            let with = trees::session().with_metadata("tenant", "acme");
            let with = with.and_then(|it| it.with_metadata("plan", "pro"));
            let with = with.and_then(|it| it.with_metadata("seats", 12));
            with.and_then(|it| it.with_tags(["beta", "web"])).ok()
        }
        _ => None,
    }
}

/// A turn with 30 spans below it in five levels, 16 yields and 13 events.
pub(super) fn turn(case: Case) {
    if case == Case::Conversation {
        let turn = Conversation::new(trees::session()).turn(|| first(case));
        run(work(case).instrument(turn.span()));
        turn.finish();
        return;
    }
    match value(case) {
        Some(session) => run(async {
            let span = first(case);
            work(case).instrument(span).await;
        }
        .in_session(session)),
        None => run(work(case).instrument(first(case))),
    }
}

async fn work(case: Case) {
    set_inside(case);
    for _ in 0..6 {
        below(case, 5).await;
    }
    info!(tokens = 120, "answered");
    for _ in 0..4 {
        yield_now().await;
    }
}

fn below(case: Case, levels: u32) -> BoxFuture<'static, ()> {
    let work = async move {
        if levels == 1 {
            for _ in 0..2 {
                yield_now().await;
                info!(attempt = 1, "called");
            }
        } else {
            below(case, levels - 1).await;
        }
    };
    Box::pin(work.instrument(step!(case, "step")))
}

/// A request: a span of the server, and in it the span of the handler with so many spans below it. The handler learns the
/// session.
pub(super) fn handler(case: Case, below: u32) {
    step!(case, "request").in_scope(|| {
        if case == Case::Conversation {
            let turn = Conversation::new(trees::session()).turn(|| first(case));
            turn.span().in_scope(|| handle(case, below));
            return turn.finish();
        }
        let run = || first(case).in_scope(|| handle(case, below));
        match value(case) {
            Some(session) => session.in_scope(run),
            None => run(),
        }
    });
}

fn handle(case: Case, below: u32) {
    set_inside(case);
    for _ in 0..below {
        let _step = step!(case, "step").entered();
    }
}

fn run(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(noop_waker_ref());
    while future.as_mut().poll(&mut cx).is_pending() {}
}

async fn yield_now() {
    let mut yielded = false;
    poll_fn(|_| match std::mem::replace(&mut yielded, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}
