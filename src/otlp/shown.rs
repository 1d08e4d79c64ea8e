//! What an installed subscriber takes notice of: the spans that are exported, and warnings.

use crate::diagnostic::{self, Message};
use std::fmt::{Debug, Write as _};
use std::io::{self, Write as _};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Context;

const OURS: &str = "tracing_session";
/// Each of its crates has a target that begins so.
const OPENTELEMETRY: &str = "opentelemetry";

/// The levels that `RUST_LOG` asks for, and what is to be said of directives that are ignored.
///
/// Warnings are let through unless they are named there, and the turns of a `Conversation`, which are
/// ours: whoever asks for the spans of one crate has not asked for mistakes or turns to be hidden.
pub(super) fn levels() -> (Targets, Option<Message>) {
    let asked = std::env::var("RUST_LOG").unwrap_or_default();
    let directives = asked.split(',').map(str::trim).filter(|it| !it.is_empty());
    // A filter by the name of a span would be taken for the name of a target.
    let is_valid = |it: &&str| !it.contains('[') && it.parse::<Targets>().is_ok();
    let (valid, ignored): (Vec<_>, Vec<_>) = directives.partition(is_valid);
    let mut levels = match valid.join(",").parse() {
        Ok(levels) if !valid.is_empty() => levels,
        _ => Targets::new().with_default(LevelFilter::INFO),
    };
    let asked_of_all = levels.default_level().unwrap_or(LevelFilter::INFO);
    let turns = asked_of_all.clamp(LevelFilter::WARN, LevelFilter::INFO);
    for (target, level) in [(OURS, turns), (OPENTELEMETRY, LevelFilter::WARN)] {
        if !levels.iter().any(|(named, _)| named == target) {
            levels = levels.with_target(target, level);
        }
    }
    let ignored = ignored.first();
    (levels, ignored.map(|it| diagnostic::directive_ignored(it)))
}

/// Writes on standard error what this crate and OpenTelemetry warn of.
///
/// A `fmt` layer with a filter would look each span up, whenever it is entered and left.
pub(super) struct Warnings;

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let (level, target) = (event.metadata().level(), event.metadata().target());
        if *level > Level::WARN || !(target == OURS || target.starts_with(OPENTELEMETRY)) {
            return;
        }
        let mut line = format!("{level} {target}:");
        event.record(&mut Line(&mut line));
        // `eprintln!` would panic where standard error is closed.
        let _closed = writeln!(io::stderr(), "{line}");
    }
}

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _infallible = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
