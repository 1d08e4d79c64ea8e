//! Clients, each with one conversation after another, under ids that never come again.

use crate::Outcome;
use crate::ask::{Ask, Dice, Fault, Way};
use crate::collector::MOST_EXAMPLES;
use crate::service::WANT;
use crate::telemetry::Kind;
use crate::want::Want;
use crate::work::END;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use std::fmt;
use std::net::SocketAddr;
use std::ops::AddAssign;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing_session::conversation::ConversationState;

/// The clients that run at once. The first round has [`TIMES_AT_FIRST`] as many, so that tables and buffers have reached
/// their final size at its end.
const CLIENTS: u64 = 32;
const TIMES_AT_FIRST: u64 = 3;
/// The longest time that a client waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// The results of the clients.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) conversations: u64,
    pub(crate) requests: u64,
    pub(crate) answered: u64,
    pub(crate) hung_up: u64,
    pub(crate) refused: u64,
    /// The service had panicked on purpose.
    pub(crate) broken_off: u64,
    /// Requests that should have been answered.
    pub(crate) failed: u64,
    /// The first of them.
    pub(crate) failures: Vec<String>,
    pub(crate) slowest: Duration,
}

impl AddAssign for Seen {
    fn add_assign(&mut self, other: Self) {
        self.conversations += other.conversations;
        self.requests += other.requests;
        self.answered += other.answered;
        self.hung_up += other.hung_up;
        self.refused += other.refused;
        self.broken_off += other.broken_off;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.failures.truncate(MOST_EXAMPLES);
        self.slowest = self.slowest.max(other.slowest);
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} conversations, {} requests: {} answered, {} hung up, {} broken off, {} refused, {} failed; the slowest took {} ms",
            self.conversations,
            self.requests,
            self.answered,
            self.hung_up,
            self.broken_off,
            self.refused,
            self.failed,
            self.slowest.as_millis(),
        )
    }
}

impl Seen {
    fn fail(&mut self, failure: String) {
        self.failed += 1;
        if self.failures.len() < MOST_EXAMPLES {
            self.failures.push(failure);
        }
    }
}

/// Asks both services until it is told to stop.
pub(crate) async fn run(
    round: u64,
    services: &[(Kind, SocketAddr)],
    stop: watch::Receiver<bool>,
) -> Outcome<Seen> {
    // A client of their own, so that all connections are closed with it.
    let http = Client::builder().no_proxy().build()?;
    let mut clients = JoinSet::new();
    let times = if round == 0 { TIMES_AT_FIRST } else { 1 };
    for number in 0..CLIENTS * times {
        let (kind, address) = services[number as usize % services.len()];
        let person = Person {
            url: format!("http://{address}/chat"),
            kind,
            http: http.clone(),
            dice: Dice(round << 32 | number),
            seen: Seen::default(),
        };
        clients.spawn(person.chat(stop.clone()));
    }
    let mut seen = Seen::default();
    for one in clients.join_all().await {
        seen += one;
    }
    Ok(seen)
}

struct Person {
    url: String,
    kind: Kind,
    http: Client,
    dice: Dice,
    seen: Seen,
}

impl Person {
    async fn chat(mut self, stop: watch::Receiver<bool>) -> Seen {
        while !*stop.borrow() {
            self.converse(&stop).await;
        }
        self.seen
    }

    async fn converse(&mut self, stop: &watch::Receiver<bool>) {
        self.seen.conversations += 1;
        // With characters that are difficult in headers and JSON.
        let session = format!("chat {:016x} ü+%41\"", self.dice.next());
        let user = format!("user-{:016x}", self.dice.next());
        let mut state = None;
        for _ in 0..=self.dice.roll(6) {
            if *stop.borrow() {
                return;
            }
            let ask = Ask {
                number: self.dice.next(),
                session: session.clone(),
                user: user.clone(),
                way: self.way(),
                fault: self.fault(),
                words: 1 + self.dice.roll(12) as u32,
                state: state.clone(),
            };
            state = self.ask(ask).await.or(state);
            sleep(Duration::from_millis(self.dice.roll(20))).await;
        }
    }

    fn way(&mut self) -> Way {
        let roll = self.dice.roll(Way::ALL.len() as u64 + 1);
        match Way::ALL.get(roll as usize) {
            Some(way) => *way,
            None if self.kind == Kind::Filtered => Way::Hidden,
            None => Way::Nothing,
        }
    }

    fn fault(&mut self) -> Fault {
        match self.dice.roll(20) {
            0 | 1 => Fault::HangsUp,
            2 => Fault::Panics,
            3 => Fault::Aborts,
            4 => Fault::BadState,
            _ => Fault::Nothing,
        }
    }

    /// Returns the state of the conversation, if a turn was finished.
    async fn ask(&mut self, ask: Ask) -> Option<ConversationState> {
        self.seen.requests += 1;
        let begun = Instant::now();
        let request = self.request(&ask);
        if ask.fault == Fault::HangsUp {
            let read = 1 + self.dice.roll(6) as usize;
            let patience = Duration::from_millis(self.dice.roll(30));
            drop(timeout(patience, answer(request, Some(read))).await);
            self.seen.hung_up += 1;
            return None;
        }
        let done = timeout(PATIENCE, answer(request, None)).await;
        self.seen.slowest = self.seen.slowest.max(begun.elapsed());
        let failure = match (done, ask.fault) {
            (Ok(Ok(_)), Fault::BadState) => "what is no state was taken".to_owned(),
            (Ok(Ok(said)), fault) => match (said.split_once(END), fault) {
                (Some((_, state)), _) => {
                    self.seen.answered += 1;
                    return serde_json::from_str(state).ok();
                }
                (None, Fault::Panics) => return self.is_broken_off(),
                (None, _) => "an answer without an end".to_owned(),
            },
            (Ok(Err(error)), Fault::BadState) if error.status().is_some_and(|it| it == 422) => {
                self.seen.refused += 1;
                return None;
            }
            (Ok(Err(error)), Fault::Panics) if error.status().is_none() => {
                return self.is_broken_off();
            }
            (Ok(Err(error)), _) => format!("{error:?}"),
            (Err(_), _) => "no answer in time".to_owned(),
        };
        let (way, fault) = (ask.way, ask.fault);
        self.seen.fail(format!("{way:?} {fault:?}: {failure}"));
        None
    }

    fn is_broken_off<T>(&mut self) -> Option<T> {
        self.seen.broken_off += 1;
        None
    }

    fn request(&mut self, ask: &Ask) -> RequestBuilder {
        let mut body = serde_json::to_value(ask).unwrap_or_default();
        if ask.fault == Fault::BadState {
            body["state"] = bad_state(&mut self.dice);
        }
        let request = self.http.post(&self.url);
        let request = request.header("content-type", "application/json");
        let request = request.body(body.to_string());
        let brings = |id: &str| format!("session.id={}", utf8_percent_encode(id, NON_ALPHANUMERIC));
        let (baggage, session) = match ask.way {
            Way::Header => (Some(brings(&ask.session)), Some(ask.session.clone())),
            Way::Hostile => (Some(self.hostile(&ask.session, brings)), None),
            _ => (None, None),
        };
        let want = Want {
            way: ask.way,
            session,
            ..Want::default()
        };
        let request = request.header(WANT, serde_json::to_vec(&want).unwrap_or_default());
        match baggage {
            Some(baggage) => request.header("baggage", baggage),
            None => request,
        }
    }

    fn hostile(&mut self, id: &str, brings: impl Fn(&str) -> String) -> String {
        match self.dice.roll(4) {
            0 => brings("\u{0}"),
            1 => brings(&id.repeat(100)),
            2 => format!("{},{}", brings(id), brings("another")),
            _ => "session.id=,,;;==%FF".to_owned(),
        }
    }
}

/// The whole answer, or so many parts of it.
async fn answer(request: RequestBuilder, parts: Option<usize>) -> reqwest::Result<String> {
    let mut response = request.send().await?.error_for_status()?;
    let mut said = Vec::new();
    let mut read = 0;
    while parts.is_none_or(|parts| read < parts) {
        let Some(part) = response.chunk().await? else {
            break;
        };
        said.extend(part);
        read += 1;
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn bad_state(dice: &mut Dice) -> Value {
    match dice.roll(3) {
        0 => serde_json::json!({ "version": 1, "session_id": "\u{0}" }),
        1 => serde_json::json!({ "version": 2, "session_id": "chat" }),
        _ => {
            serde_json::json!({ "version": 1, "session_id": "chat", "trace_id": "0", "last_span_id": [] })
        }
    }
}
