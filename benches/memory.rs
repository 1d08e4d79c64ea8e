//! Resident bytes per live scope, with a million of them. `cargo bench --bench memory`, on Linux.
//!
//! - `contexts`: a `Context` in which a `Session` is attached, kept as a task or a request would.
//!   The ids are there already: they are the `Session`'s, and the scope shares them. Beside it what
//!   OpenTelemetry itself takes to keep any value in a `Context`.
//! - `spans`: an open `session!` span, beside an open span with the same two fields and no crate of
//!   ours: never entered (OpenTelemetry's span is not started yet), or entered once and left.
//! - `names`: spans that end, each with another name, under coverage. Its table is bounded.
//!
//! What keeps them, a vector of a million places, is there before and not counted. Each measurement
//! is a process of its own, so that none reuses what another has freed; the largest takes 2.4 GiB.

#[allow(dead_code, reason = "the set-up is wanted, the trees are not")]
mod workload;

use opentelemetry::Context;
use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::path::Path;
use std::process::{Command, ExitCode};
use tracing::{Span, info_span};
use tracing_session::{Session, SessionTracerProvider, session};
use workload::{Case, SHAPES};

const STATUS: &str = "/proc/self/status";

const LIVE: usize = 1_000_000;
/// As a test it has only to run.
const LIVE_IN_A_TEST: usize = 1_000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args.as_slice() {
        ["--run", what, live] => run(what, live),
        _ if !Path::new(STATUS).exists() => {
            println!("memory: needs Linux, which tells of it in {STATUS}");
            Ok(())
        }
        // As criterion tells `cargo bench` from `cargo test`.
        _ if args.contains(&"--bench") && !args.contains(&"--test") => compare(LIVE),
        _ => compare(LIVE_IN_A_TEST),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What this crate may take besides the ids, in bytes: for a scope in a `Context`, besides what OpenTelemetry takes to keep any value
/// there, and for an open `session!` span, besides a span with the same fields.
const MOST_OF_A_SCOPE: f64 = 300.0;
const MOST_OF_A_SPAN: f64 = 1300.0;
/// For a span name that coverage meets once: less than 2 MB for a million names.
const MOST_OF_A_NAME: f64 = 2.0;

fn compare(live: usize) -> Result<(), String> {
    let of = |what| measure(what, live);
    let ids = of("ids")?;
    let mut broken = Vec::new();
    println!("| {live} live | bytes | without this crate | ours | at most |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    println!("| the ids of a session | {ids:.0} | | | |");
    for (what, plain, ours, ids, at_most) in [
        (
            "a `Context` with a session",
            "plain_context",
            "session_context",
            0.0,
            MOST_OF_A_SCOPE,
        ),
        (
            "a `session!` span, never entered",
            "plain_span",
            "session_span",
            ids,
            MOST_OF_A_SPAN,
        ),
        (
            "entered once",
            "plain_span_entered",
            "session_span_entered",
            ids,
            MOST_OF_A_SPAN,
        ),
        (
            "a span name, with coverage",
            "name",
            "name_with_coverage",
            0.0,
            MOST_OF_A_NAME,
        ),
    ] {
        let (plain, bytes) = (of(plain)?, of(ours)?);
        let ours = bytes - plain - ids;
        println!("| {what} | {bytes:.0} | {plain:.0} | {ours:.0} | {at_most} |");
        if live == LIVE && ours > at_most {
            broken.push(what);
        }
    }
    match broken.is_empty() {
        true => Ok(()),
        false => Err(format!("takes more than it may: {}", broken.join(", "))),
    }
}

fn measure(what: &str, live: usize) -> Result<f64, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(this)
        .args(["--run", what, &live.to_string()])
        .output()
        .map_err(|error| format!("{what}: {error}"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{what}: {}, {error}", output.status));
    }
    let bytes = String::from_utf8_lossy(&output.stdout);
    bytes
        .trim()
        .parse()
        .map_err(|error| format!("{what}: {bytes}: {error}"))
}

/// What a process of its own does: tells how much each of so many takes.
fn run(what: &str, live: &str) -> Result<(), String> {
    let live: usize = live.parse().map_err(|error| format!("{error}"))?;
    let bytes = match what {
        "ids" => grown(live, Session::default(), new_session)?,
        "session_context" => {
            let sessions: Vec<Session> = (0..live).map(new_session).collect::<Result<_, _>>()?;
            let mut sessions = sessions.iter();
            grown(live, Context::new(), |_| {
                let _attached = sessions.next().ok_or("too few sessions")?.attach();
                Ok(Context::current())
            })?
        }
        "plain_context" => grown(live, Context::new(), |number| {
            let _attached = Context::current_with_value(Number(number)).attach();
            Ok(Context::current())
        })?,
        "plain_span" => spans(live, Case::Baseline, plain_span)?,
        "plain_span_entered" => spans(live, Case::Baseline, entered(plain_span))?,
        "session_span" => spans(live, Case::TracingSession, session_span)?,
        "session_span_entered" => spans(live, Case::TracingSession, entered(session_span))?,
        "name" => names(live, |provider| provider)?,
        "name_with_coverage" => names(live, SessionTracerProvider::with_coverage)?,
        _ => return Err("no such measurement".into()),
    };
    println!("{bytes}");
    Ok(())
}

#[expect(dead_code, reason = "it is kept, and never read")]
struct Number(usize);

fn session_id(number: usize) -> String {
    format!("01938c1e-6b1f-7c7a-9c7e-{number:012x}")
}

fn user_id(number: usize) -> String {
    format!("user-{number:07}")
}

fn new_session(number: usize) -> Result<Session, String> {
    Session::new(session_id(number))
        .and_then(|session| session.with_user(user_id(number)))
        .map_err(|error| error.to_string())
}

fn plain_span(number: usize) -> Span {
    let (id, user) = (session_id(number), user_id(number));
    info_span!("session", session.id = id.as_str(), user.id = user.as_str())
}

fn session_span(number: usize) -> Span {
    let (id, user) = (session_id(number), user_id(number));
    session!(id, user.id = user.as_str())
}

fn entered(span: impl Fn(usize) -> Span) -> impl Fn(usize) -> Span {
    move |number| {
        let span = span(number);
        span.in_scope(|| {});
        span
    }
}

fn spans(live: usize, case: Case, span: impl Fn(usize) -> Span) -> Result<f64, String> {
    let shape = SHAPES.iter().find(|shape| shape.name == "session1");
    let subscriber = workload::subscriber(shape.ok_or("no such shape")?, case);
    tracing::dispatcher::set_global_default(subscriber).map_err(|error| error.to_string())?;
    grown(live, Span::none(), |number| Ok(span(number)))
}

/// Ends a span of each name.
fn names(
    live: usize,
    configure: fn(SessionTracerProvider) -> SessionTracerProvider,
) -> Result<f64, String> {
    let provider = configure(SessionTracerProvider::new(SdkTracerProvider::default()));
    let tracer = provider.tracer("memory");
    grown(live, (), |number| {
        tracer.in_span(format!("name {number}"), |_| {});
        Ok(())
    })
}

/// How much more memory is in use with so many of them, each.
fn grown<T: Clone>(
    live: usize,
    empty: T,
    mut make: impl FnMut(usize) -> Result<T, String>,
) -> Result<f64, String> {
    // The pages of its places are in use from here on.
    let mut kept = vec![empty; live];
    let before = resident()?;
    for (number, place) in kept.iter_mut().enumerate() {
        *place = make(number)?;
    }
    let after = resident()?;
    drop(kept);
    Ok((after - before) / live as f64)
}

/// The bytes of this process that are in memory.
fn resident() -> Result<f64, String> {
    let status = std::fs::read_to_string(STATUS).map_err(|error| format!("{STATUS}: {error}"))?;
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
        .ok_or_else(|| format!("no resident set size in {STATUS}"))?;
    let kib: f64 = kib.parse().map_err(|error| format!("{kib}: {error}"))?;
    Ok(kib * 1024.0)
}
