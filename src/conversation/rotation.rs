//! Sessions that end after an idle time or at a maximum age.

use crate::base::sync::Mutex;
use crate::session::keys::PREVIOUS_SESSION_ID;
use crate::session::{Id, Session};
use opentelemetry::KeyValue;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// Starts a new session after an idle time, or when the session reaches a maximum age.
///
/// Use it in applications that have no sessions of their own, such as a command-line agent or a desktop application. Each new
/// session has the attribute `session.previous_id` (OpenTelemetry's semantic conventions) with the id of the previous
/// session.
///
/// The system's monotonic clock measures the time. On some systems, this clock stops while the machine sleeps.
///
/// ```
/// use std::time::Duration;
/// use tracing_session::{Session, conversation::SessionRotation};
///
/// let sessions = SessionRotation::new(Session::default().with_user("u-7")?)
///     .with_idle_timeout(Duration::from_secs(30 * 60))
///     .with_max_age(Duration::from_secs(24 * 60 * 60));
/// sessions.session().in_scope(|| { /* one request */ });
/// assert_eq!(sessions.session(), sessions.session());
/// # Ok::<(), tracing_session::Error>(())
/// ```
#[derive(Debug)]
pub struct SessionRotation {
    idle_timeout: Duration,
    max_age: Duration,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    session: Session,
    began: Instant,
    used: Instant,
}

impl SessionRotation {
    /// Starts with this session. A session without an id gets a [new id](Session::generate). Later sessions have the same
    /// other values. By default, no session ends.
    ///
    /// ```
    /// use tracing_session::{Session, conversation::SessionRotation};
    ///
    /// let sessions = SessionRotation::new(Session::new("chat-42")?);
    /// assert_eq!(sessions.session().id(), Some("chat-42"));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn new(mut session: Session) -> Self {
        session.id.get_or_insert_with(Id::generate);
        let now = Instant::now();
        Self {
            idle_timeout: Duration::MAX,
            max_age: Duration::MAX,
            current: Mutex::new(Current {
                session,
                began: now,
                used: now,
            }),
        }
    }

    /// Ends a session if [`session`](Self::session) isn't called for this time. Default: never.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tracing_session::{Session, conversation::SessionRotation};
    /// let sessions = SessionRotation::new(Session::generate()).with_idle_timeout(Duration::ZERO);
    /// assert_ne!(sessions.session().id(), sessions.session().id());
    /// ```
    #[must_use = "it returns the changed rotation: `let sessions = ...`"]
    pub fn with_idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Ends a session at this age, even if it is in use. Default: never.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tracing_session::{Session, conversation::SessionRotation};
    /// let day = Duration::from_secs(24 * 60 * 60);
    /// let sessions = SessionRotation::new(Session::generate()).with_max_age(day);
    /// ```
    #[must_use = "it returns the changed rotation: `let sessions = ...`"]
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// Returns the current session. Call it once for each request or turn, because each call counts as a use.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tracing_session::{Session, conversation::SessionRotation};
    /// let sessions = SessionRotation::new(Session::new("chat-42")?).with_max_age(Duration::ZERO);
    /// let previous = sessions.session().attribute("session.previous_id").map(ToString::to_string);
    /// assert_eq!(previous.as_deref(), Some("chat-42"));
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn session(&self) -> Session {
        self.session_at(Instant::now())
    }

    fn session_at(&self, now: Instant) -> Session {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = now.duration_since(current.used) >= self.idle_timeout
            || now.duration_since(current.began) >= self.max_age;
        if is_over {
            let previous = current.session.id.replace(Id::generate());
            let previous = previous.map(|id| KeyValue::new(PREVIOUS_SESSION_ID, id.shared()));
            let session = std::mem::take(&mut current.session);
            current.session =
                session.change(|it| previous.into_iter().for_each(|id| _ = it.set_attribute(id)));
            current.began = now;
        }
        current.used = now;
        current.session.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn use_keeps_a_session_alive() {
        let sessions = SessionRotation::new(Session::generate()).with_idle_timeout(3 * MINUTE);
        let began = Instant::now();
        let first = sessions.session_at(began);
        for minutes in [2, 4, 6] {
            assert_eq!(sessions.session_at(began + minutes * MINUTE), first);
        }
        let second = sessions.session_at(began + 10 * MINUTE);
        assert_ne!(second.id(), first.id());
        assert_eq!(sessions.session_at(began + 12 * MINUTE), second);
    }

    #[test]
    fn each_session_ends_at_its_own_age() {
        let sessions = SessionRotation::new(Session::generate()).with_max_age(3 * MINUTE);
        let began = Instant::now();
        let at = |minutes: u32| sessions.session_at(began + minutes * MINUTE);
        let first = at(2);
        let second = at(4);
        assert_ne!(second.id(), first.id());
        assert_eq!(at(6), second, "2 minutes old");
        assert_ne!(at(8), second);
    }
}
