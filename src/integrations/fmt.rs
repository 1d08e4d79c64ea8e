//! Adds the session to the lines that `tracing_subscriber::fmt` prints, as text or as JSON.
//!
//! [`with_session`] wraps the formatter of a `fmt` layer, and adds the current session to each line:
//!
//! ```text
//! 2026-01-31T12:00:00.000000Z  INFO chat: answered tokens=12 session.id="chat-42" user.id="u-7"
//! {"session.id":"chat-42","user.id":"u-7","timestamp":"2026-01-31T12:00:00.000000Z","level":"INFO",..}
//! ```
//!
//! `json-subscriber` doesn't use these formatters. With it, call
//! `add_dynamic_field("session.id", |_, _| current_session_id())`, as in
//! [`examples/logs`](https://docs.rs/crate/tracing-session/latest/source/examples/logs.rs).

use crate::base::setup;
use crate::export;
use crate::export::Redaction;
use crate::export::privacy::Privacy;
use crate::scope::Scope;
use crate::session::keys::{SESSION_ID, USER_HASH, USER_ID};
use opentelemetry::KeyValue;
use std::any::TypeId;
use std::cell::Cell;
use std::fmt::{self, Debug};
use std::iter;
use std::sync::Arc;
use tracing::field::Field;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Compact, Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Wraps the formatter of a `fmt` layer, and adds the current session to each line. Pass it to `map_event_format`, after all
/// other settings of the format.
///
/// - As text (`Full`, `Compact`), the ids are at the end of the line, like fields.
/// - With `pretty()`, the ids are on a separate line.
/// - As JSON, the ids are the first members of the object.
///
/// The ids are those of [`current_session`](crate::current_session) when the event is emitted, with or without an
/// OpenTelemetry layer, and even if the event has an explicit `parent:`. Lines of `with_span_events` contain the session that
/// is current when the span is created, entered, left or closed. Fields of spans need a [`SessionLayer`] on the subscriber,
/// but [`Session`](crate::Session) values don't.
///
/// If an event has its own field `session.id` or `user.id`, the line contains only that one. Lines don't contain metadata,
/// tags and other values; use log records for those: see [`SessionLogProcessor`].
///
/// The [default session](crate::Session::set_global_default) belongs to the process, so lines of every subscriber contain it.
///
/// `with_session` accepts the formats of `tracing-subscriber`. In your own formatter, call `current_session`. Set colours on
/// the layer (`with_ansi`). On lines in a session, escape sequences in values are always escaped, even if the layer turns
/// that off.
///
/// Cost: a JSON line takes about half of the time of the same fields written by hand (`session.id = %id`), and a text line
/// about three quarters. A line outside any session takes about 1 % more.
///
/// [`SessionLayer`]: crate::SessionLayer
/// [`SessionLogProcessor`]: https://docs.rs/tracing-session/latest/tracing_session/struct.SessionLogProcessor.html
///
/// ```
/// use tracing_session::SessionLayer;
/// use tracing_session::fmt::with_session;
/// use tracing_subscriber::fmt;
/// use tracing_subscriber::prelude::*;
///
/// let subscriber = tracing_subscriber::registry()
///     .with(SessionLayer::new())
///     .with(fmt::layer().json().map_event_format(with_session));
/// # drop(subscriber);
/// ```
pub fn with_session<F: Clone + 'static, T: Clone>(format: Format<F, T>) -> SessionFormat<F, T> {
    setup::begin();
    SessionFormat {
        colored: format.clone().with_ansi(true),
        plain: format,
        is_one_line: [TypeId::of::<Full>(), TypeId::of::<Compact>()].contains(&TypeId::of::<F>()),
        redaction: None,
    }
}

/// The formatter that [`with_session`] returns.
///
/// ```
/// use tracing_session::fmt::{SessionFormat, with_session};
/// use tracing_subscriber::fmt::format::{Format, Json};
///
/// fn json<T: Clone>(format: Format<Json, T>) -> SessionFormat<Json, T> {
///     with_session(format)
/// }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a format does nothing until a layer has it: `fmt::layer().map_event_format(with_session)`"]
pub struct SessionFormat<F, T> {
    plain: Format<F, T>,
    /// The same format with colours. `plain` can't detect colours, because it writes into a buffer.
    colored: Format<F, T>,
    is_one_line: bool,
    redaction: Option<Arc<Redaction>>,
}

impl<F, T> SessionFormat<F, T> {
    /// Redacts the ids that [`with_session`] adds. Default: none.
    ///
    /// It doesn't redact the fields of events and spans. The formatters of `tracing-subscriber` print the fields of all spans
    /// around an event, so the line contains the id of `session!(id)`. To keep ids out of the lines, set them with
    /// [`Session`](crate::Session) values, or don't print the spans (for JSON: `with_current_span(false)`,
    /// `with_span_list(false)`).
    ///
    /// ```
    /// use tracing_session::fmt::with_session;
    /// use tracing_session::{Privacy, export::IdPolicy};
    /// use tracing_subscriber::fmt;
    /// # use tracing_subscriber::prelude::*;
    ///
    /// let privacy = Privacy::new().with_user_ids(IdPolicy::omitted());
    /// let layer = fmt::layer()
    ///     .json()
    ///     .with_span_list(false)
    ///     .with_current_span(false)
    ///     .map_event_format(|format| with_session(format).with_privacy(privacy));
    /// # let subscriber = tracing_subscriber::registry().with(layer);
    /// ```
    pub fn with_privacy(mut self, privacy: Privacy) -> Self {
        self.redaction = Redaction::of(privacy);
        self
    }
}

impl<S, N, F, T> FormatEvent<S, N> for SessionFormat<F, T>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    Format<F, T>: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        ctx: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(scope) = Scope::current() else {
            return self.plain.format_event(ctx, writer, event);
        };
        let colored = writer.has_ansi_escapes();
        let format = if colored { &self.colored } else { &self.plain };
        // A field whose `Display` logs an event, on the same thread, finds the cell empty.
        let mut line = LINE.try_with(Cell::take).unwrap_or_default();
        let written = format
            .format_event(ctx, Writer::new(&mut line), event)
            .and_then(|()| self.write_line(&scope, event, &mut line, writer));
        line.clear();
        // Free the memory of a very long line.
        if line.capacity() <= LONGEST_KEPT {
            // Fails only while the thread exits.
            let _dropped = LINE.try_with(|it| it.set(line));
        }
        written
    }
}

/// The most bytes of memory that a thread keeps for its next line.
const LONGEST_KEPT: usize = 64 * 1024;

thread_local! {
    /// The memory of the last line of this thread, so that a line allocates nothing. Only `format_event` takes it and
    /// puts it back. The string in the cell has no contents, and no memory either while a line is being formatted, or
    /// after a panic in a field.
    static LINE: Cell<String> = const { Cell::new(String::new()) };
}

impl<F, T> SessionFormat<F, T> {
    /// Writes a formatted line with the ids of `scope`.
    fn write_line(
        &self,
        scope: &Scope,
        event: &Event<'_>,
        line: &mut String,
        mut writer: Writer<'_>,
    ) -> fmt::Result {
        let style = match line.as_bytes().first() {
            _ if self.is_one_line => Style::Line,
            Some(b'{') => Style::Json,
            _ => Style::Pretty,
        };
        let colored = writer.has_ansi_escapes();
        let is_json = matches!(style, Style::Json);
        let len = line.len();
        if !is_json {
            line.truncate(line.trim_end_matches('\n').len());
        }
        let start = line.len();
        let has_own = event.fields().any(|it| ID_KEYS.contains(&it.name()));
        let mut push = |id: KeyValue| {
            if !(has_own && has_value(event, id.key.as_str())) {
                style.push(line, &id, line.len() == start, colored);
            }
        };
        let redaction = self.redaction.as_ref();
        scope.with_values(|values| export::encode_ids(values, redaction, &mut push));
        if is_json && line.len() > start {
            // The line is the object, a newline, and the start of a second object with the ids.
            if !line.starts_with("{}") {
                line.push(',');
            }
            let (line, ids) = line.split_at(start);
            writer.write_str(ids)?;
            return writer.write_str(&line[1..]);
        }
        line.extend(iter::repeat_n('\n', len - start));
        writer.write_str(line)
    }
}

/// How the formatter writes fields.
#[derive(Clone, Copy)]
enum Style {
    Line,
    Pretty,
    Json,
}

impl Style {
    /// Adds an id as the formatters of `tracing-subscriber` print a field.
    fn push(self, line: &mut String, id: &KeyValue, is_first: bool, colored: bool) {
        let (before, after) = match (self, colored) {
            (Self::Json, _) if is_first => ("{\"", "\":\""),
            (Self::Json, _) => (",\"", "\":\""),
            (Self::Line, false) => ("", "=\""),
            (Self::Line, true) => ("\x1b[3m", "\x1b[0m\x1b[2m=\x1b[0m\""),
            (Self::Pretty, false) if is_first => ("\n    with ", ": \""),
            (Self::Pretty, false) => (", ", ": \""),
            (Self::Pretty, true) if is_first => {
                ("\n    \x1b[2;3mwith\x1b[0m \x1b[1m", "\x1b[0m: \"")
            }
            (Self::Pretty, true) => (", \x1b[1m", "\x1b[0m: \""),
        };
        // If the event has no fields, the formatter has already written the space.
        if matches!(self, Self::Line) && !line.ends_with(' ') {
            line.push(' ');
        }
        line.push_str(before);
        line.push_str(id.key.as_str());
        line.push_str(after);
        let value = id.value.as_str();
        if needs_no_escape(&value) {
            line.push_str(&value);
        } else {
            let quoted = match self {
                Self::Json => serde_json::Value::from(value.as_ref()).to_string(),
                Self::Line | Self::Pretty => format!("{value:?}"),
            };
            line.push_str(&quoted[1..quoted.len() - 1]);
        }
        line.push('"');
    }
}

/// True for most ids.
fn needs_no_escape(text: &str) -> bool {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    // Without an early return, so that the compiler can vectorise it.
    text.bytes().fold(true, |all, byte| all & is_plain(byte))
}

/// Every key that `encode_ids` writes.
const ID_KEYS: [&str; 3] = [SESSION_ID, USER_ID, USER_HASH];

/// Whether the event has its own value for this key. A declared field may have none.
fn has_value(event: &Event<'_>, key: &str) -> bool {
    let is_key = |name: &str| name == key || name == USER_ID && key == USER_HASH;
    let mut has_value = false;
    event.record(&mut |field: &Field, _: &dyn Debug| has_value |= is_key(field.name()));
    has_value
}
