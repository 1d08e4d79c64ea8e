//! Sessions in the headers of calls and messages: the functions that inject the current context into a carrier, and
//! extract one from it. The propagators are in `propagation/`.

pub(crate) mod baggage;
pub(crate) mod carrier;
pub(crate) mod env;
#[cfg(any(feature = "reqwest", feature = "tower"))]
pub(crate) mod hosts;
pub(crate) mod propagator;

use crate::attach::SessionGuard;
use crate::diagnostic::{self, NO_PROPAGATOR};
use crate::here;
use crate::propagation::carrier::{Adapter, Carrier};
use crate::propagation::propagator::{SESSION_HEADER_NAME, SessionPropagator};
use crate::scope::Scope;
use crate::scope::in_force;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{FutureExt, WithContext};
use opentelemetry::{Context, global};

/// Injects the current context into the headers of a call or a message: the trace, the session, and everything else
/// that the global propagator carries.
///
/// OpenTelemetry's global propagator does nothing until you set it, for example with
/// [`propagator_from_env`](crate::propagator_from_env). Until then this function writes nothing and warns once.
///
/// Cost: the propagator's. The same holds for the other functions that inject or extract.
///
/// ```
/// use std::collections::HashMap;
/// use tracing_session::{Session, inject_context, propagator_from_env};
///
/// opentelemetry::global::set_text_map_propagator(propagator_from_env()?);
/// let mut headers: HashMap<String, String> = HashMap::new();
/// Session::new("chat-42")?.in_scope(|| inject_context(&mut headers));
/// assert_eq!(headers["baggage"], "session.id=chat-42");
/// # Ok::<(), tracing_session::Error>(())
/// ```
pub fn inject_context(carrier: &mut (impl Carrier + ?Sized)) {
    let Some(cx) = here::map(Context::clone) else {
        return;
    };
    let mut carrier = Adapter(carrier);
    with_propagator(|propagator| propagator.inject_context(&cx, &mut carrier));
}

/// Extracts a `Context` from the headers of a call or a message, on top of the current one. Attach it, or set it as
/// the parent of a span.
///
/// It needs the global propagator: see [`inject_context`].
///
/// ```
/// use std::collections::HashMap;
/// use tracing::info_span;
/// use tracing_opentelemetry::OpenTelemetrySpanExt;
/// use tracing_session::extract_context;
///
/// # fn handle(headers: HashMap<String, String>) {
/// let request = info_span!("request");
/// let _too_late = request.set_parent(extract_context(&headers));
/// request.in_scope(|| { /* in the session of the caller */ });
/// # }
/// ```
pub fn extract_context(carrier: &(impl Carrier + ?Sized)) -> Context {
    extract_accepted(carrier, |_| true)
}

/// The same, with the session in the headers only if the caller accepts it.
pub(crate) fn extract_accepted(
    carrier: &(impl Carrier + ?Sized),
    is_accepted: impl FnOnce(&Scope) -> bool,
) -> Context {
    let Some(outer) = here::map(Context::clone) else {
        return Context::new();
    };
    let cx =
        with_propagator(|propagator| propagator.extract_with_context(&outer, &Adapter(carrier)));
    match in_force::brought(&cx, &outer) {
        Some(scope) if is_accepted(&scope) => cx,
        // Headers without a session can replace the outer span, and with it the scope that applies there.
        _ => in_force::put_back(cx, &outer),
    }
}

/// Extracts a context from the headers of a call or a message, to attach it.
///
/// ```
/// use std::collections::HashMap;
/// use tracing_session::{current_session_id, propagated_context, propagator_from_env};
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

/// A context that was extracted from headers: see [`propagated_context`].
///
/// ```
/// use std::collections::HashMap;
/// use tracing_session::{PropagatedContext, propagated_context};
///
/// struct Job {
///     caller: PropagatedContext,
/// }
///
/// fn job(headers: &HashMap<String, String>) -> Job {
///     Job { caller: propagated_context(headers) }
/// }
/// ```
#[derive(Clone, Debug)]
#[must_use = "it is in force only where it is attached"]
pub struct PropagatedContext(Context);

impl PropagatedContext {
    /// Makes it the current context of this thread until the guard is dropped. For futures use [`WithPropagated`].
    ///
    /// ```
    /// # use std::collections::HashMap;
    /// # let headers: HashMap<String, String> = HashMap::new();
    /// let guard = tracing_session::propagated_context(&headers).attach();
    /// ```
    pub fn attach(self) -> SessionGuard {
        SessionGuard {
            _attached: here::attach(self.0),
        }
    }

    /// Runs `f` with it as the current context.
    ///
    /// ```
    /// # use std::collections::HashMap;
    /// # let headers: HashMap<String, String> = HashMap::new();
    /// tracing_session::propagated_context(&headers).in_scope(|| { /* ... */ });
    /// ```
    pub fn in_scope<T>(self, f: impl FnOnce() -> T) -> T {
        let _attached = self.attach();
        f()
    }
}

/// Runs a future in the context that was extracted from headers.
///
/// ```
/// use std::collections::HashMap;
/// use tracing_session::WithPropagated;
///
/// # async fn process(_: &str) {}
/// # async fn worker(job: &str, job_headers: HashMap<String, String>) {
/// process(job).with_propagated(&job_headers).await;
/// # }
/// ```
pub trait WithPropagated: Sized {
    /// Wraps this future so that the context in the headers is current whenever it is polled. A span inside it, such as
    /// one of an inner `.instrument(span)`, keeps the session that it was created in.
    ///
    /// ```
    /// # use std::collections::HashMap;
    /// # use tracing_session::WithPropagated;
    /// # let headers: HashMap<String, String> = HashMap::new();
    /// let task = async { /* ... */ }.with_propagated(&headers);
    /// # drop(task);
    /// ```
    fn with_propagated(self, carrier: &(impl Carrier + ?Sized)) -> WithContext<Self> {
        self.with_context(extract_context(carrier))
    }
}

impl<T> WithPropagated for T {}

/// The session id in headers: in [`SESSION_HEADER_NAME`], or in W3C baggage.
///
/// `None` if the headers contain no id, an invalid one, or several that differ. Use it in code without a propagator.
/// With one, [`extract_context`] finds the session.
///
/// ```
/// use std::collections::HashMap;
/// use tracing_session::extract_session_id;
///
/// let headers = HashMap::from([("mirascope-session-id".to_owned(), "chat-42".to_owned())]);
/// assert_eq!(extract_session_id(&headers).as_deref(), Some("chat-42"));
/// ```
pub fn extract_session_id(carrier: &(impl Carrier + ?Sized)) -> Option<String> {
    let reader = SessionPropagator::new()
        .with_header(SESSION_HEADER_NAME)
        .ok()?;
    let cx = reader.extract_with_context(&Context::new(), &Adapter(carrier));
    let id = Scope::of(&cx)?.id()?;
    Some(id.as_str().to_owned())
}

/// Runs `f` with the global propagator. Reports once if none is set.
fn with_propagator<T>(mut f: impl FnMut(&dyn TextMapPropagator) -> T) -> T {
    let mut is_set = true;
    let result = global::get_text_map_propagator(|propagator| {
        is_set = propagator.fields().next().is_some();
        f(propagator)
    });
    // Outside `get_text_map_propagator`, which holds a lock.
    if !is_set {
        diagnostic::emit_once(NO_PROPAGATOR);
    }
    result
}
