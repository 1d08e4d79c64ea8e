//! The work for an answer, in any session. It receives the expected session, and creates spans of every kind, in tasks
//! and on threads.

use crate::ask::{Ask, Dice, Fault};
use crate::faults;
use crate::pools;
use crate::service::App;
use crate::want::{Want, wanted};
use axum::body::Bytes;
use futures_util::future::pending;
use futures_util::{Stream, StreamExt, stream};
use opentelemetry::trace::FutureExt;
use std::convert::Infallible;
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::sleep;
use tracing::{Instrument, Span, info_span};
use tracing_session::{Conversation, InSession, Session, conversation::Turn, current_session};

/// The last word of an answer. A state may follow.
pub(crate) const END: &str = "the end";

pub(crate) async fn pause(dice: &mut Dice) {
    match dice.roll(4) {
        0 => sleep(Duration::from_millis(dice.roll(5))).await,
        1 => {}
        _ => yield_now().await,
    }
}

async fn work(want: &Want, ask: &Ask, app: &App) {
    let mut dice = Dice(ask.number);
    want.is_seen("at first");
    wanted!(want, info_span!("step")).in_scope(|| drop(wanted!(want, info_span!("step in step"))));
    pause(&mut dice).await;
    query(want, &mut dice).await;
    want.is_seen("after a query");
    let explicit = wanted!(want, info_span!(parent: &Span::current(), "explicit"));
    elsewhere(want, ask, app, &mut dice).await;
    match dice.roll(4) {
        0 => pools::cancelled(want, &mut dice).await,
        1 => pools::older_span(want).await,
        2 => pools::pooled(want).await,
        _ => pause(&mut dice).await,
    }
    explicit.in_scope(|| want.is_seen("in an explicit child"));
    if ask.fault == Fault::Panics && dice.roll(2) == 0 {
        let _guard = current_session().unwrap_or_default().attach();
        wanted!(want, info_span!("panics")).in_scope(faults::panic);
    }
}

/// Like a library that uses OpenTelemetry's API and not `tracing`.
async fn query(want: &Want, dice: &mut Dice) {
    let query = want.plain_span("query");
    let rows = async {
        pause(dice).await;
        want.is_seen("in a query");
        drop(want.plain_span("row"));
        drop(wanted!(want, info_span!("mapped")));
    };
    rows.with_context(query).await;
}

/// A part of the work that is done by another task, thread or service.
async fn elsewhere(want: &Want, ask: &Ask, app: &App, dice: &mut Dice) {
    let session = current_session().unwrap_or_default();
    let part = in_a_task(want.clone(), ask.fault, Dice(dice.next()));
    let (there, fault) = (want.clone(), ask.fault);
    let blocking = move || on_a_thread(&there, fault);
    let task = match dice.roll(8) {
        0 | 1 => tokio::spawn(part.in_session(session)),
        2 | 3 => tokio::spawn(part.instrument(wanted!(want, info_span!("task")))),
        4 => spawn_blocking(move || session.in_scope(blocking)),
        5 => {
            let span = wanted!(want, info_span!("thread"));
            spawn_blocking(move || span.in_scope(blocking))
        }
        6 if dice.roll(4) == 0 => return on_a_new_thread(session, blocking).await,
        _ => return app.call(want.session()).await,
    };
    if ask.fault == Fault::Aborts {
        faults::abort(&task, Duration::from_millis(dice.roll(8))).await;
    }
    // One that has panicked was counted where it has.
    drop(task.await);
}

async fn in_a_task(want: Want, fault: Fault, mut dice: Dice) {
    want.is_seen("in a task");
    pause(&mut dice).await;
    drop(want.plain_span("library in a task"));
    let step = wanted!(want, info_span!("step in a task"));
    let end = async {
        match fault {
            Fault::Panics => faults::panic(),
            Fault::Aborts => pending().await,
            _ => want.is_seen("at the end of a task"),
        }
    };
    end.instrument(step).await;
}

fn on_a_thread(want: &Want, fault: Fault) {
    want.is_seen("on a thread");
    drop(want.plain_span("library on a thread"));
    wanted!(want, info_span!("step on a thread")).in_scope(|| {
        if fault == Fault::Panics {
            faults::panic();
        }
    });
}

async fn on_a_new_thread(session: Session, work: impl FnOnce() + Send + 'static) {
    let (done, is_done) = oneshot::channel();
    thread::spawn(move || {
        let _guard = session.attach();
        work();
        let _gone = done.send(());
    });
    // An error means that the thread has panicked.
    let _panicked = is_done.await;
}

/// A streamed answer, with the spans that end when it ends.
struct Talk {
    want: Want,
    words: u32,
    panics_at: Option<u32>,
    dice: Dice,
    turn: Option<(Conversation, Turn)>,
    complete: Span,
    _answer: Span,
}

/// The answer, word by word, in a span that is created when the first word is polled.
pub(crate) fn answer(
    want: Want,
    ask: Ask,
    app: App,
    turn: Option<(Conversation, Turn)>,
    make: impl FnOnce(&Want) -> Span + Send + 'static,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    let begin = async move {
        let answer = make(&want);
        work(&want, &ask, &app).instrument(answer.clone()).await;
        let mut dice = Dice(!ask.number);
        let panics = ask.fault == Fault::Panics;
        let complete = wanted!(want, info_span!(parent: &answer, "complete"));
        Talk {
            words: ask.words,
            panics_at: panics.then(|| dice.roll(ask.words.into()) as u32),
            dice,
            want,
            turn,
            complete,
            _answer: answer,
        }
    };
    stream::once(begin).flat_map(words)
}

fn words(talk: Talk) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::unfold(Some(talk), |talk| async {
        let mut talk = talk?;
        let complete = talk.complete.clone();
        if let Some(words) = talk.words.checked_sub(1) {
            talk.words = words;
            let word = talk.word().instrument(complete).await;
            return Some((Ok(word), Some(talk)));
        }
        let mut last = END.to_owned();
        if let Some((conversation, turn)) = talk.turn.take() {
            turn.finish();
            last += &serde_json::to_string(&conversation.state()).unwrap_or_default();
        }
        Some((Ok(last.into()), None))
    })
}

impl Talk {
    async fn word(&mut self) -> Bytes {
        pause(&mut self.dice).await;
        self.want.is_seen("in a stream");
        if self.dice.roll(3) == 0 {
            drop(wanted!(self.want, info_span!("token")));
        }
        if self.panics_at == Some(self.words) {
            faults::panic();
        }
        Bytes::from_static(b"word ")
    }
}
