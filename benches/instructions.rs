//! Instructions per span, counted by callgrind: the same figure on a noisy machine as on a quiet
//! one. `cargo bench --bench instructions`, with valgrind installed.
//!
//! Each case is a process of its own, run twice with different numbers of rounds: the difference
//! leaves out what starting and stopping cost.

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use std::hint::black_box;
use std::process::{Command, ExitCode};
use tracing::{Span, info_span, trace, trace_span};
use tracing_session::{Session, SessionLayer, SessionTracerProvider, session};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;

const SESSION: &str = "01938c1e-6b1f-7c7a-9c7e-0f4f3b8e2a11";
const USER: &str = "user-4711";

/// How a span of the tree is made.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Plain,
    /// Two fields written by hand on each span, as `%id`.
    HandWritten,
    /// The same with what is a `&str` at hand.
    HandWrittenStr,
    /// The first span of the tree says it, with this crate.
    Session,
}

macro_rules! spans {
    ($way:expr, $name:literal) => {
        match $way {
            Way::HandWritten => info_span!(
                $name,
                model = "local",
                step = 1_u64,
                session.id = %black_box(SESSION),
                user.id = %black_box(USER)
            ),
            Way::HandWrittenStr => info_span!(
                $name,
                model = "local",
                step = 1_u64,
                session.id = black_box(SESSION),
                user.id = black_box(USER)
            ),
            _ => info_span!($name, model = "local", step = 1_u64),
        }
    };
}

/// The span that the others are below.
fn turn(way: Way) -> Span {
    match way {
        Way::Session => session!(
            black_box(SESSION),
            user.id = black_box(USER),
            model = "local",
            step = 1_u64
        ),
        _ => spans!(way, "turn"),
    }
}

/// A turn of 13 spans: one, three below it, and three below each of these.
fn tree13(way: Way) {
    let _turn = turn(way).entered();
    for _ in 0..3 {
        let _step = spans!(way, "step").entered();
        for _ in 0..3 {
            let _call = spans!(way, "call").entered();
        }
    }
}

/// A thousand spans below one.
fn wide1000(way: Way) {
    let _turn = turn(way).entered();
    for _ in 0..1000 {
        let _step = spans!(way, "step").entered();
    }
}

/// Thirteen spans and as many events that the level filter turns off.
fn disabled13() {
    for _ in 0..13 {
        let _off = trace_span!("off", model = "local").entered();
        trace!(model = "local", "off");
    }
}

#[derive(Debug)]
struct Nowhere;

impl SpanExporter for Nowhere {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        black_box(batch);
        Ok(())
    }
}

/// Shapes and cases. The first case of a shape is what the others are over.
const SHAPES: &[(&str, &[&str])] = &[
    (
        "tree13",
        &[
            "baseline",
            "hand_written",
            "hand_written_str",
            "tracing_session",
            "session_value",
        ],
    ),
    (
        "wide1000",
        &[
            "baseline",
            "hand_written",
            "hand_written_str",
            "tracing_session",
        ],
    ),
    ("session1", &["baseline", "hand_written", "tracing_session"]),
    (
        "outside",
        &["baseline", "tracing_session", "default_session"],
    ),
    ("filtered", &["baseline", "hand_written", "tracing_session"]),
    ("disabled", &["baseline", "tracing_session"]),
    ("disabled_filtered", &["baseline", "tracing_session"]),
];

/// What a process of its own does, so many times.
fn run(shape: &str, case: &str, rounds: u64) {
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(Nowhere)
        .build();
    set_up(provider, shape, case);
    let way = match case {
        "hand_written" => Way::HandWritten,
        "hand_written_str" => Way::HandWrittenStr,
        "tracing_session" if shape != "outside" => Way::Session,
        _ => Way::Plain,
    };
    let session = Session::new(SESSION).and_then(|session| session.with_user(USER));
    let session = session.unwrap_or_default();
    for _ in 0..rounds {
        let _attached = (case == "session_value").then(|| session.attach());
        match shape {
            "wide1000" => wide1000(way),
            "session1" => drop(turn(way)),
            "disabled" | "disabled_filtered" => disabled13(),
            _ => tree13(way),
        }
    }
}

fn set_up(provider: SdkTracerProvider, shape: &str, case: &str) {
    let registry = tracing_subscriber::registry();
    let filtered = shape.ends_with("filtered");
    if !["tracing_session", "session_value", "default_session"].contains(&case) {
        let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("bench"));
        return match shape {
            _ if filtered => registry.with(otel.with_filter(LevelFilter::INFO)).init(),
            "disabled" => registry.with(otel).with(LevelFilter::INFO).init(),
            _ => registry.with(otel).init(),
        };
    }
    let provider = SessionTracerProvider::new(provider);
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("bench"));
    let layer = match case {
        "default_session" => SessionLayer::new().with_default_session(Session::generate()),
        _ => SessionLayer::new(),
    };
    match shape {
        _ if filtered => registry
            .with(layer.with_filter(LevelFilter::INFO).around(otel))
            .init(),
        "disabled" => registry
            .with(layer.around(otel))
            .with(LevelFilter::INFO)
            .init(),
        _ => registry.with(layer.around(otel)).init(),
    }
}

fn count(shape: &str, case: &str, rounds: u64) -> Result<f64, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args(["--run", shape, case, &rounds.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, collected) = collected.ok_or_else(|| format!("no count in:\n{text}"))?;
    collected
        .trim()
        .parse()
        .map_err(|error| format!("{collected}: {error}"))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, shape, case, rounds] = args.as_slice() {
        if flag == "--run" {
            run(shape, case, rounds.parse().unwrap_or(0));
            return ExitCode::SUCCESS;
        }
    }
    match compare() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn compare() -> Result<(), String> {
    for (shape, cases) in SHAPES {
        let (mut baseline, mut by_hand) = (0.0, None);
        for case in *cases {
            let per_span = per_span(shape, case)?;
            if *case == "baseline" {
                baseline = per_span;
            }
            let over = per_span - baseline;
            if *case == "hand_written" {
                by_hand = Some(over);
            }
            print!(
                "shape={shape} case={case} instructions_per_span={per_span:.0} over_baseline={over:.0}"
            );
            match by_hand {
                Some(by_hand) => println!(" of_hand_written={:.2}", over / by_hand),
                None => println!(),
            }
        }
    }
    Ok(())
}

/// What a further span costs.
fn per_span(shape: &str, case: &str) -> Result<f64, String> {
    let (few, many, spans) = match shape {
        "wide1000" => (5, 15, 1001),
        "session1" => (1000, 3000, 1),
        _ => (200, 1200, 13),
    };
    let further = count(shape, case, many)? - count(shape, case, few)?;
    Ok(further / ((many - few) * spans) as f64)
}
