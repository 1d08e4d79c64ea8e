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
use tracing_session::{SessionLayer, SessionTracerProvider, session};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::prelude::*;

const SESSION: &str = "01938c1e-6b1f-7c7a-9c7e-0f4f3b8e2a11";
const USER: &str = "user-4711";

/// How a span of the tree is made.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Plain,
    /// Two fields written by hand on each span.
    HandWritten,
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

/// Case, set-up, what is done, spans a round.
const CASES: &[(&str, &str)] = &[
    ("tree13", "baseline"),
    ("tree13", "hand_written"),
    ("tree13", "tracing_session"),
    ("wide1000", "baseline"),
    ("wide1000", "hand_written"),
    ("wide1000", "tracing_session"),
    ("session1", "baseline"),
    ("session1", "hand_written"),
    ("session1", "tracing_session"),
    ("outside", "baseline"),
    ("outside", "tracing_session"),
    ("filtered", "baseline"),
    ("filtered", "tracing_session"),
    ("disabled", "baseline"),
    ("disabled", "tracing_session"),
    ("disabled_filtered", "baseline"),
    ("disabled_filtered", "tracing_session"),
];

fn run(shape: &str, case: &str, rounds: u64) {
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(Nowhere)
        .build();
    let filtered = shape.ends_with("filtered");
    let registry = tracing_subscriber::registry();
    if case == "tracing_session" {
        let provider = SessionTracerProvider::new(provider);
        let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("bench"));
        let layer = SessionLayer::new();
        if filtered {
            registry
                .with(layer.with_filter(LevelFilter::INFO).around(otel))
                .init();
        } else if shape == "disabled" {
            registry
                .with(layer.around(otel))
                .with(LevelFilter::INFO)
                .init();
        } else {
            registry.with(layer.around(otel)).init();
        }
    } else {
        let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("bench"));
        if filtered {
            registry.with(otel.with_filter(LevelFilter::INFO)).init();
        } else if shape == "disabled" {
            registry.with(otel).with(LevelFilter::INFO).init();
        } else {
            registry.with(otel).init();
        }
    }
    let way = match case {
        "hand_written" => Way::HandWritten,
        "tracing_session" if shape != "outside" => Way::Session,
        _ => Way::Plain,
    };
    for _ in 0..rounds {
        match shape {
            "wide1000" => wide1000(way),
            "session1" => drop(turn(way)),
            "disabled" | "disabled_filtered" => disabled13(),
            _ => tree13(way),
        }
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
    let mut baseline = 0.0;
    let mut by_hand = 0.0;
    for (shape, case) in CASES {
        let (few, many, spans) = match *shape {
            "wide1000" => (5, 15, 1001.0),
            "session1" => (1000, 3000, 1.0),
            _ => (200_u64, 1200_u64, 13.0),
        };
        let counted = count(shape, case, few).and_then(|f| Ok((f, count(shape, case, many)?)));
        let per_span = match counted {
            Ok((few_count, many_count)) => (many_count - few_count) / (many - few) as f64 / spans,
            Err(error) => {
                eprintln!("{shape} {case}: {error}");
                return ExitCode::FAILURE;
            }
        };
        if *case == "baseline" {
            baseline = per_span;
        }
        let over = per_span - baseline;
        if *case == "hand_written" {
            by_hand = over;
        }
        println!(
            "shape={shape} case={case} instructions_per_span={per_span:.1} over_baseline={over:.1} of_hand_written={:.2}",
            over / by_hand
        );
    }
    ExitCode::SUCCESS
}
