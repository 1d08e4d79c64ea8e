//! What may come in from outside.

use std::fmt;
use std::sync::Arc;

/// Whether a session that a request names is taken.
///
/// Whoever sends a request can name any session in it. Where that matters, have an id
/// [verified](Self::verify), or [ignore](Self::ignore) them all. An id that is refused leaves what
/// is in force as it is.
///
/// `R` is what the id came with: nothing, in a [`SessionPropagator`](crate::SessionPropagator), and
/// the request, in a server.
///
/// ```
/// use tracing_session::{InboundPolicy, SessionPropagator};
///
/// let ours = |id: &str, _: &()| id.starts_with("chat-");
/// let propagator = SessionPropagator::new().with_inbound(InboundPolicy::verify(ours));
/// ```
pub struct InboundPolicy<R: ?Sized = ()>(Policy<Arc<Verify<R>>>);

#[derive(Clone)]
enum Policy<V> {
    Accept,
    Ignore,
    Verify(V),
}

type Verify<R> = dyn Fn(&str, &R) -> bool + Send + Sync;

impl<R: ?Sized> InboundPolicy<R> {
    /// Every valid id is taken. This is the default.
    ///
    /// ```
    /// # use tracing_session::{InboundPolicy, SessionPropagator};
    /// let propagator = SessionPropagator::new().with_inbound(InboundPolicy::accept());
    /// ```
    pub fn accept() -> Self {
        Self(Policy::Accept)
    }

    /// No id is taken: for a service that anybody can call.
    ///
    /// ```
    /// # use tracing_session::{InboundPolicy, SessionPropagator};
    /// let propagator = SessionPropagator::new().with_inbound(InboundPolicy::ignore());
    /// ```
    pub fn ignore() -> Self {
        Self(Policy::Ignore)
    }

    /// An id is taken if `verify` says so: if it belongs to the authenticated user, say.
    ///
    /// ```
    /// # use tracing_session::{InboundPolicy, SessionPropagator};
    /// let policy = InboundPolicy::verify(|id: &str, _: &()| id.starts_with("chat-"));
    /// let propagator = SessionPropagator::new().with_inbound(policy);
    /// ```
    pub fn verify(verify: impl Fn(&str, &R) -> bool + Send + Sync + 'static) -> Self {
        Self(Policy::Verify(Arc::new(verify)))
    }

    pub(crate) fn takes(&self, id: Option<&str>, with: &R) -> bool {
        match &self.0 {
            Policy::Accept => true,
            Policy::Ignore => false,
            Policy::Verify(verify) => id.is_some_and(|id| verify(id, with)),
        }
    }
}

impl<R: ?Sized> Clone for InboundPolicy<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R: ?Sized> Default for InboundPolicy<R> {
    fn default() -> Self {
        Self::accept()
    }
}

impl<R: ?Sized> fmt::Debug for InboundPolicy<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Policy::Accept => "InboundPolicy::accept()",
            Policy::Ignore => "InboundPolicy::ignore()",
            Policy::Verify(_) => "InboundPolicy::verify(..)",
        })
    }
}
