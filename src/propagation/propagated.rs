//! Contexts that were extracted from headers, and futures that run in them.

use crate::current::{SessionGuard, WithSession};
use crate::propagation::functions::extract_context;
use crate::propagation::headers::Carrier;
use crate::scope::thread;
use opentelemetry::Context;

/// Extracts a context from the headers of a call or a message, so that you can attach it.
///
/// Extraction needs OpenTelemetry's global propagator: see [`inject_context`](crate::propagation::inject_context).
///
/// ```
/// use std::collections::HashMap;
/// use tracing_session::{current_session_id, propagator_from_env, propagation::propagated_context};
///
/// opentelemetry::global::set_text_map_propagator(propagator_from_env()?);
/// let headers = HashMap::from([("baggage".to_owned(), "session.id=chat-42".to_owned())]);
/// let guard = propagated_context(&headers).attach();
/// assert_eq!(current_session_id().as_deref(), Some("chat-42"));
/// # Ok::<(), tracing_session::Error>(())
/// ```
pub fn propagated_context(carrier: &(impl Carrier + ?Sized)) -> PropagatedContext {
    PropagatedContext(extract_context(carrier))
}

/// A context that [`propagated_context`] extracted from headers.
///
/// Store it in a job if the headers don't exist any more when the job runs.
///
/// ```
/// use std::collections::HashMap;
/// use tracing_session::propagation::{PropagatedContext, WithPropagated, propagated_context};
///
/// struct Job {
///     text: String,
///     caller: PropagatedContext,
/// }
///
/// fn job(text: String, headers: &HashMap<String, String>) -> Job {
///     Job { text, caller: propagated_context(headers) }
/// }
///
/// # async fn process(_: String) {}
/// async fn work(job: Job) {
///     process(job.text).with_propagated(job.caller).await;
/// }
/// ```
#[derive(Clone, Debug)]
#[must_use = "it applies only where you attach it: `let _guard = context.attach()` or `context.in_scope(...)`"]
pub struct PropagatedContext(Context);

impl PropagatedContext {
    /// Makes this context current on this thread until the guard is dropped. For futures, use [`WithPropagated`].
    ///
    /// ```
    /// # use std::collections::HashMap;
    /// # let headers: HashMap<String, String> = HashMap::new();
    /// let guard = tracing_session::propagation::propagated_context(&headers).attach();
    /// ```
    pub fn attach(self) -> SessionGuard {
        let _attached = thread::attach(self.0);
        SessionGuard { _attached }
    }

    /// Runs `f` with this context as the current one.
    ///
    /// ```
    /// # use std::collections::HashMap;
    /// # let headers: HashMap<String, String> = HashMap::new();
    /// tracing_session::propagation::propagated_context(&headers).in_scope(|| { /* ... */ });
    /// ```
    pub fn in_scope<T>(self, f: impl FnOnce() -> T) -> T {
        let _attached = self.attach();
        f()
    }
}

/// The argument of [`with_propagated`](WithPropagated::with_propagated): headers, or a context that was extracted from
/// headers.
///
/// `&C` implements it for every [`Carrier`] `C`, including your own types.
///
/// ```
/// use tracing_session::current::WithSession;
/// use tracing_session::propagation::{IntoPropagated, WithPropagated};
///
/// fn for_caller<F: Future>(answer: F, caller: impl IntoPropagated) -> WithSession<F> {
///     answer.with_propagated(caller)
/// }
/// ```
pub trait IntoPropagated {
    /// Returns the context to run in.
    ///
    /// ```
    /// # use std::collections::HashMap;
    /// use tracing_session::propagation::IntoPropagated;
    ///
    /// # let headers: HashMap<String, String> = HashMap::new();
    /// (&headers).into_propagated().in_scope(|| { /* ... */ });
    /// ```
    fn into_propagated(self) -> PropagatedContext;
}

impl<C: Carrier + ?Sized> IntoPropagated for &C {
    fn into_propagated(self) -> PropagatedContext {
        propagated_context(self)
    }
}

impl IntoPropagated for PropagatedContext {
    fn into_propagated(self) -> PropagatedContext {
        self
    }
}

/// Runs a future in the context that is in headers.
///
/// ```
/// use std::collections::HashMap;
/// use tracing_session::propagation::WithPropagated;
///
/// # async fn process(_: &str) {}
/// # async fn worker(job: &str, job_headers: HashMap<String, String>) {
/// process(job).with_propagated(&job_headers).await;
/// # }
/// ```
pub trait WithPropagated: Sized {
    /// Wraps this future or stream, so that the context in the headers is current while it is polled or dropped.
    ///
    /// Pass the headers by reference, or a [`PropagatedContext`].
    ///
    /// If the future contains a span that was created outside any session, such as an inner `.instrument(span)`, that span is
    /// in the session too: see [`in_session`](crate::InSession::in_session). But the span isn't in the caller's trace, and
    /// the crate warns once.
    ///
    /// ```
    /// # use std::collections::HashMap;
    /// # use tracing_session::propagation::WithPropagated;
    /// # let headers: HashMap<String, String> = HashMap::new();
    /// let task = async { /* ... */ }.with_propagated(&headers);
    /// # drop(task);
    /// ```
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    fn with_propagated(self, caller: impl IntoPropagated) -> WithSession<Self> {
        WithSession::in_context(self, &caller.into_propagated().0)
    }
}

impl<T> WithPropagated for T {}
