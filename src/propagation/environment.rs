//! Headers in environment variables, for child processes. OpenTelemetry's specification defines the names: upper case, and
//! `_` instead of `-`, such as `TRACEPARENT`, `TRACESTATE` and `BAGGAGE`.

use crate::propagation::headers::{Carrier, TraceHeaders};
use opentelemetry::global;
use std::env;
use std::ffi::OsStr;
use std::process::Command;

fn variable(header: &str) -> String {
    header.to_ascii_uppercase().replace('-', "_")
}

/// Writes headers into the environment of a child process, as variables such as `TRACEPARENT` and `BAGGAGE` (OpenTelemetry's
/// specification defines the names). For `tokio::process::Command`, pass `command.as_std_mut()`.
///
/// This carrier ignores variables that the child inherits from this process. If this process has a variable `BAGGAGE`, a
/// child process that you start outside any session inherits it. To prevent that, call `command.env_remove("BAGGAGE")` first.
///
/// ```
/// use std::process::Command;
/// use tracing_session::{Session, propagator_from_env, propagation::inject_context};
///
/// opentelemetry::global::set_text_map_propagator(propagator_from_env()?);
/// let mut command = Command::new("agent");
/// Session::new("chat-42")?.in_scope(|| inject_context(&mut command));
/// let mut variables = command.get_envs();
/// assert_eq!(variables.next(), Some(("BAGGAGE".as_ref(), Some("session.id=chat-42".as_ref()))));
/// # Ok::<(), tracing_session::Error>(())
/// ```
impl Carrier for Command {
    fn set(&mut self, name: &str, value: String) {
        self.env(variable(name), value);
    }

    fn get_all(&self, name: &str) -> Vec<&str> {
        let name = variable(name);
        let variables = self.get_envs().filter(|(key, _)| *key == OsStr::new(&name));
        variables.filter_map(|(_, value)| value?.to_str()).collect()
    }

    fn names(&self) -> Vec<&str> {
        self.get_envs()
            .filter_map(|(key, _)| key.to_str())
            .collect()
    }
}

impl TraceHeaders {
    /// Reads the headers that the parent process set in the environment of this process.
    ///
    /// It reads the headers that the global propagator uses. Attach the context for everything that the process does, for
    /// example in `main`.
    ///
    /// ```
    /// use tracing_session::propagation::{TraceHeaders, propagated_context};
    ///
    /// let guard = propagated_context(&TraceHeaders::from_env()).attach();
    /// ```
    pub fn from_env() -> Self {
        let fields = global::get_text_map_propagator(|propagator| {
            propagator.fields().map(str::to_owned).collect::<Vec<_>>()
        });
        let mut headers = Self::default();
        for field in fields {
            if let Ok(value) = env::var(variable(&field)) {
                headers.set(&field, value);
            }
        }
        headers
    }
}
