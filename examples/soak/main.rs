//! A chat service under load and with faults, which accounts for every span.
//!
//!     cargo run --release --example soak --features otlp,tower -- --seconds 60
//!
//! It runs three processes: two services, which call each other, and this one, with the clients and the collector. One
//! service uses `wrap`, the other one `wrap_filtered`. The processes communicate over sockets only.
//!
//! - Every span has attributes with its expected session and user, and the collector compares. See `want.rs`, and `ways.rs`
//!   for all the ways to set a session.
//! - The collector is slow, answers too late or not at all, answers with 429 or 503, dies, and comes back.
//! - Clients disconnect, tasks are aborted, and handlers, tasks and threads panic. Requests contain invalid ids.
//! - Futures are dropped in the session of another user, a pool works for all sessions, spans are older than their session,
//!   and layers are reloaded while spans are entered. See `pools.rs`.
//! - Every ended span has to be accounted for: it arrived, didn't fit into the SDK's queue, or was in a failed export. See
//!   `account.rs`.
//! - No id is used twice, so that memory that grows with the ids shows. The memory in use is measured after each round, when
//!   the services are idle: at the end, it must not be more than in the first half.
//!
//! It fails if a promise doesn't hold, and prints which.

mod account;
mod ask;
mod collector;
mod faults;
mod load;
mod memory;
mod pools;
mod report;
mod service;
mod telemetry;
mod want;
mod ways;
mod work;

use account::{Account, Round};
use collector::{Collector, Mood};
use memory::Counts;
use report::{Batch, Figures, Say};
use std::env;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use telemetry::Kind;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[global_allocator]
static COUNTS: Counts = Counts;

const USAGE: &str = "soak [--seconds N]";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["--serve", kind, collector] => serve(kind, collector),
        ["--seconds", seconds] => seconds.parse().map_err(Into::into).and_then(soak),
        [] => soak(60),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(kind: &str, collector: &str) -> Outcome<bool> {
    let kind = Kind::ALL.into_iter().find(|it| it.name() == kind);
    service::run(kind.ok_or(USAGE)?, collector).map(|()| true)
}

/// The collector's behaviour in a round, and for how many parts of the round at least.
const MOODS: [(Mood, u32); 8] = [
    (Mood::Well, 8),
    (Mood::Slow, 3),
    (Mood::CutsOff, 2),
    (Mood::Busy, 2),
    (Mood::Unavailable, 2),
    (Mood::TooLate, 2),
    // It dies while it answers.
    (Mood::Dead, 2),
    (Mood::Well, 4),
];
/// In seconds. The first half of the rounds is warm-up.
const LONGEST_ROUND: u64 = 60;
const FEWEST_ROUNDS: u64 = 4;
/// The timeout for all work except the load.
const GRACE: Duration = Duration::from_secs(30);

/// Whether all promises hold.
#[tokio::main(worker_threads = 2)]
async fn soak(seconds: u64) -> Outcome<bool> {
    let rounds = FEWEST_ROUNDS.max(seconds.div_ceil(LONGEST_ROUND));
    let length = Duration::from_secs(seconds) / rounds as u32;
    let collector = Collector::start().await?;
    let mut services = Vec::new();
    for kind in Kind::ALL {
        services.push(Service::start(kind, &collector.url()).await?);
    }
    let addresses: Vec<_> = services.iter().map(|it| (it.kind, it.address)).collect();
    for (service, (_, peer)) in services.iter_mut().zip(addresses.iter().rev()) {
        service.ask(&format!("peer {peer}"))?;
    }

    let mut account = Account::default();
    for number in 0..rounds {
        let begun = Instant::now();
        let (stop, stopped) = watch::channel(false);
        let moods = async {
            for (mood, parts) in MOODS {
                let all: u32 = MOODS.iter().map(|(_, parts)| parts).sum();
                collector.be(mood, length * parts / all).await;
            }
            stop.send_replace(true);
        };
        let (seen, ()) = tokio::join!(load::run(number, &addresses, stopped), moods);
        let took = begun.elapsed();
        let mut settled = Vec::new();
        for service in &mut services {
            settled.push(service.settle().await?);
        }
        let round = Round {
            seen: seen?,
            took,
            settled,
        };
        round.print(number);
        account.rounds.push(round);
    }
    for service in services {
        account.services.push(service.stop().await?);
    }
    account.print(&collector.taken());
    let broken = account.broken_promises(&collector.taken());
    for promise in &broken {
        println!("BROKEN: {promise}");
    }
    Ok(broken.is_empty())
}

/// A service, as this process sees it.
struct Service {
    kind: Kind,
    address: SocketAddr,
    process: Child,
    asks: Option<ChildStdin>,
    says: mpsc::UnboundedReceiver<Say>,
    batches: Vec<Batch>,
}

impl Service {
    async fn start(kind: Kind, collector: &str) -> Outcome<Self> {
        let mut process = Command::new(env::current_exe()?)
            .args(["--serve", kind.name(), collector])
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let asks = process.stdin.take();
        let lines = BufReader::new(process.stdout.take().ok_or("no standard output")?).lines();
        let (say, says) = mpsc::unbounded_channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                match serde_json::from_str(&line) {
                    Ok(said) => drop(say.send(said)),
                    Err(error) => eprintln!("{}: {line}: {error}", kind.name()),
                }
            }
        });
        let mut this = Self {
            kind,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            process,
            asks,
            says,
            batches: Vec::new(),
        };
        match this.hear().await? {
            Say::Listening(address) => this.address = address,
            _ => return Err("a service does not begin as it should".into()),
        }
        Ok(this)
    }

    fn ask(&mut self, line: &str) -> Outcome {
        let asked = self.asks.as_ref().map(|mut asks| writeln!(asks, "{line}"));
        match asked {
            Some(Ok(())) => Ok(()),
            _ => Err(self.is_gone()),
        }
    }

    fn is_gone(&self) -> Box<dyn Error + Send + Sync> {
        format!("the service {} is gone", self.kind.name()).into()
    }

    /// Its next message, except for messages about batches.
    async fn hear(&mut self) -> Outcome<Say> {
        loop {
            match timeout(GRACE, self.says.recv()).await {
                Ok(Some(Say::Batch(batch))) => self.batches.push(batch),
                Ok(Some(said)) => return Ok(said),
                Ok(None) => return Err(self.is_gone()),
                Err(_) => return Err(format!("the service {} hangs", self.kind.name()).into()),
            }
        }
    }

    async fn settle(&mut self) -> Outcome<Figures> {
        self.ask("settle")?;
        match self.hear().await? {
            Say::Settled(figures) => Ok(figures),
            _ => Err("a service does not settle".into()),
        }
    }

    async fn stop(mut self) -> Outcome<account::Service> {
        // It stops when its standard input ends.
        drop(self.asks.take());
        let Say::Stopped(figures) = self.hear().await? else {
            return Err("a service does not stop".into());
        };
        self.process.wait()?;
        Ok(account::Service {
            kind: self.kind,
            figures,
            batches: std::mem::take(&mut self.batches),
        })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Fails if it has already stopped.
        let _stopped = self.process.kill();
        let _stopped = self.process.wait();
    }
}
