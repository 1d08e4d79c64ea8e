//! When a session starts and ends, as events.

use crate::session::Session;
use tracing::{Level, event};

impl Session {
    /// Tells that this session starts, with the event `session.start` of OpenTelemetry's semantic
    /// conventions.
    ///
    /// It is an event of `tracing`, with the target `tracing_session` and the level `INFO`. The bridge
    /// of `opentelemetry-appender-tracing` makes a log record of it, with this event name, and the
    /// OpenTelemetry layer an event of the span that is current, if there is one. It has no ids itself: the
    /// session is in force for it, and is written on the record, with what is to be hidden hidden, by
    /// `SessionLogProcessor` (feature `logs`).
    ///
    /// A session that goes on from another one says so with the attribute `session.previous_id`;
    /// a [`Conversation`](crate::Conversation) that was reset does.
    ///
    /// Filters have to let it pass: `my_app=debug` alone does not.
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// let session = Session::new("chat-43")?.with_attribute("session.previous_id", "chat-42")?;
    /// session.emit_start();
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn emit_start(&self) {
        self.in_scope(|| {
            event!(name: "session.start", target: "tracing_session", Level::INFO, "session.start");
        });
    }

    /// Tells that this session has ended, with the event `session.end`, as [`emit_start`] does. What
    /// comes next starts after it.
    ///
    /// ```
    /// use tracing_session::Session;
    ///
    /// Session::new("chat-42")?.emit_end();
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    ///
    /// [`emit_start`]: Self::emit_start
    pub fn emit_end(&self) {
        self.in_scope(|| {
            event!(name: "session.end", target: "tracing_session", Level::INFO, "session.end");
        });
    }
}
