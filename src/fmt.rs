//! The session in what `tracing_subscriber::fmt` prints, as text and as JSON.
//!
//! For people who log to the console or to a file: [`with_session`] goes around the formatter of a
//! `fmt` layer, and each line that is written in a session carries it.
//!
//! ```text
//! 2026-01-31T12:00:00.000000Z  INFO chat: answered tokens=12 session.id="chat-42" user.id="u-7"
//! {"session.id":"chat-42","user.id":"u-7","timestamp":"2026-01-31T12:00:00.000000Z","level":"INFO",..}
//! ```
//!
//! `json-subscriber` has formatters of its own; there
//! `add_dynamic_field("session.id", |_, _| current_session_id())` does it, as in
//! [`examples/logs`](https://docs.rs/crate/tracing-session/latest/source/examples/logs.rs).

use crate::diagnostic::setup;
use crate::format;
use crate::format::privacy::Privacy;
use crate::format::redaction::Redaction;
use crate::scope::Scope;
use crate::session::keys::{USER_HASH, USER_ID};
use opentelemetry::KeyValue;
use std::any::TypeId;
use std::cell::Cell;
use std::fmt::{self, Debug, Write};
use std::sync::Arc;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Compact, Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Wraps the formatter of a `fmt` layer, and adds the session to each line. Pass it to `map_event_format`, after all
/// other settings of the format.
///
/// As text (`Full`, `Compact`), the ids are at the end of the line, like fields. With `pretty()` they have a line of
/// their own. As JSON, they are the first members of the object. They are the ids of
/// [`current_session`](crate::current_session) where the event is written, with or without an OpenTelemetry layer. An
/// explicit `parent:` doesn't change that: the lines of `with_span_events` carry the session that is current where the span
/// is created, entered, left or closed. Fields of spans need a [`SessionLayer`] on the subscriber;
/// [`Session`](crate::Session) values don't.
///
/// If an event has its own field `session.id` or `user.id`, the line has only that one.
///
/// Lines don't contain metadata, tags and other values. For those, use log records: see
#[cfg_attr(
    feature = "logs",
    doc = "[`SessionLogProcessor`](crate::SessionLogProcessor)."
)]
#[cfg_attr(
    not(feature = "logs"),
    doc = "`SessionLogProcessor`, of the feature `logs`."
)]
///
/// The [default session](crate::Session::set_global_default) belongs to the process, so lines of every
/// subscriber carry it.
///
/// It takes the formats of `tracing-subscriber`. A formatter of one's own can ask `current_session`.
/// Whether there are colours is the layer's to say (`with_ansi`). Escapes in values are made harmless
/// on lines in a session even where the layer turns that off.
///
/// Cost: some 1,500 instructions for a line of JSON in a session with a user, of the 11,300 that the
/// line takes anyway, and 1,300 for a line of text, of 5,600; 200 for a line outside. The same written
/// by hand, as `session.id = %id`, takes 3,400 and 2,000.
///
/// [`SessionLayer`]: crate::SessionLayer
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
    setup::begins();
    SessionFormat {
        colored: format.clone().with_ansi(true),
        plain: format,
        is_line: [TypeId::of::<Full>(), TypeId::of::<Compact>()].contains(&TypeId::of::<F>()),
        redaction: None,
    }
}

/// A formatter with the session: see [`with_session`].
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
pub struct SessionFormat<F, T> {
    plain: Format<F, T>,
    /// For text that is formatted apart, of which `tracing-subscriber` does not know where it goes.
    colored: Format<F, T>,
    is_line: bool,
    /// Where there are none, OpenInference's.
    redaction: Option<Arc<Redaction>>,
}

impl<F, T> SessionFormat<F, T> {
    /// Redacts the ids that [`with_session`] adds. Default: none.
    ///
    /// It doesn't redact the fields of events and spans. The formatters of `tracing-subscriber` print the
    /// fields of all spans that an event is in, so the id in `session!(id)` is on the line anyway. To keep ids
    /// out of the lines, set them with [`Session`](crate::Session) values, or don't print the spans (for
    /// JSON: `with_current_span(false)`, `with_span_list(false)`).
    ///
    /// ```
    /// use tracing_session::fmt::with_session;
    /// use tracing_session::{IdPolicy, Privacy};
    /// use tracing_subscriber::fmt;
    /// # use tracing_subscriber::prelude::*;
    ///
    /// let nobody = Privacy::new().with_user_ids(IdPolicy::omitted());
    /// let layer = fmt::layer()
    ///     .json()
    ///     .with_span_list(false)
    ///     .with_current_span(false)
    ///     .map_event_format(|format| with_session(format).with_privacy(nobody));
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
        // Taken, as a field may write an event of its own when it is printed.
        let mut buffer = BUFFER.try_with(Cell::take).unwrap_or_default();
        let done = format
            .format_event(ctx, Writer::new(&mut buffer), event)
            .and_then(|()| self.write(&scope, event, &mut buffer, writer));
        buffer.clear();
        // While the thread ends there is nowhere to keep it.
        let _ = BUFFER.try_with(|it| it.set(buffer));
        done
    }
}

thread_local! {
    static BUFFER: Cell<String> = const { Cell::new(String::new()) };
}

impl<F, T> SessionFormat<F, T> {
    /// Writes the line that is in the buffer, with the ids, which are made behind it.
    fn write(
        &self,
        scope: &Scope,
        event: &Event<'_>,
        buffer: &mut String,
        mut writer: Writer<'_>,
    ) -> fmt::Result {
        let line = buffer.len();
        let text = buffer.trim_end_matches('\n').len();
        let style = match buffer.as_bytes().first() {
            _ if self.is_line => Style::Line,
            Some(b'{') => Style::Json,
            _ => Style::Pretty,
        };
        let colored = writer.has_ansi_escapes();
        let mut push = |id: KeyValue| {
            if !is_own(event, id.key.as_str()) {
                let first = buffer.len() == line;
                style.push(buffer, &id, first, colored);
            }
        };
        let redaction = self.redaction.as_ref();
        scope.with_values(|values| format::encode_ids(values, redaction, &mut push));
        let (line, ids) = buffer.split_at(line);
        if ids.is_empty() {
            return writer.write_str(line);
        }
        if let Style::Json = style {
            let rest = &line[1..];
            let ids = if rest.starts_with('}') {
                &ids[..ids.len() - 1]
            } else {
                ids
            };
            writer.write_str("{")?;
            writer.write_str(ids)?;
            return writer.write_str(rest);
        }
        let (text, end) = line.split_at(text);
        writer.write_str(text)?;
        // A formatter that has nothing more to say has written the space already.
        writer.write_str(if text.ends_with(' ') {
            ids.trim_start_matches(' ')
        } else {
            ids
        })?;
        writer.write_str(end)
    }
}

#[derive(Clone, Copy)]
enum Style {
    Line,
    Pretty,
    Json,
}

impl Style {
    /// As the formatters of `tracing-subscriber` print a field.
    fn push(self, buffer: &mut String, id: &KeyValue, first: bool, colored: bool) {
        let (before, after) = match (self, colored) {
            (Self::Json, _) => ("\"", "\":"),
            (Self::Line, false) => (" ", "="),
            (Self::Line, true) => (" \x1b[3m", "\x1b[0m\x1b[2m=\x1b[0m"),
            (Self::Pretty, false) if first => ("\n    with ", ": "),
            (Self::Pretty, false) => (", ", ": "),
            (Self::Pretty, true) if first => ("\n    \x1b[2;3mwith\x1b[0m \x1b[1m", "\x1b[0m: "),
            (Self::Pretty, true) => (", \x1b[1m", "\x1b[0m: "),
        };
        let (key, value) = (id.key.as_str(), id.value.as_str());
        buffer.extend([before, key, after]);
        if is_plain(&value) {
            buffer.extend(["\"", &*value, "\""]);
        } else if let Self::Json = self {
            buffer.push_str(&serde_json::Value::from(value.as_ref()).to_string());
        } else {
            // To a string that always succeeds.
            let _ = write!(buffer, "{value:?}");
        }
        if let Self::Json = self {
            buffer.push(',');
        }
    }
}

/// Whether nothing in this is to be escaped. Most ids are so.
fn is_plain(text: &str) -> bool {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    // Without a way out, so that the compiler looks at many bytes at once.
    text.bytes().fold(true, |all, byte| all & is_plain(byte))
}

/// Whether the event says itself what is to be written under this key.
fn is_own(event: &Event<'_>, key: &str) -> bool {
    struct Own<'a>(&'a str, bool);

    impl Visit for Own<'_> {
        fn record_debug(&mut self, field: &Field, _: &dyn Debug) {
            self.1 |= is(field.name(), self.0);
        }
    }

    fn is(own: &str, key: &str) -> bool {
        own == key || own == USER_ID && key == USER_HASH
    }

    // A field that is declared need not have a value.
    let mut declared = event.metadata().fields().iter();
    declared.any(|field| is(field.name(), key)) && {
        let mut own = Own(key, false);
        event.record(&mut own);
        own.1
    }
}
