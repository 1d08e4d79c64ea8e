//! Headers in environment variables, for child processes. The names are those of OpenTelemetry's specification: in upper case, with
//! `_` in place of `-`, such as `TRACEPARENT`, `TRACESTATE` and `BAGGAGE`.

use crate::propagation::headers::{Carrier, TraceHeaders};
use opentelemetry::global;
use std::env;
use std::ffi::OsStr;
use std::process::Command;

fn variable(header: &str) -> String {
    header.to_ascii_uppercase().replace('-', "_")
}

/// The environment of a child process. Headers become variables such as `TRACEPARENT` and `BAGGAGE`, as in OpenTelemetry's
/// specification. For `tokio::process::Command` pass `command.as_std_mut()`.
///
/// The variables that the child inherits from this process are not among the headers. If this process was started with a `BAGGAGE` of
/// its own, the child of work in no session inherits it: call `command.env_remove("BAGGAGE")` first.
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
    /// The headers in the environment of this process, which its parent process has set: those that the global propagator reads.
    ///
    /// Make the context current around all that the process does, for example `main`.
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
