//! Middleware for `reqwest-middleware`: requests carry the session.
//!
//! It uses OpenTelemetry's global propagator, which does nothing until you set it: see
//! [`inject_context`](crate::propagation::inject_context). The blocking client of `reqwest` has no middleware: call that function
//! with the request's headers.

use crate::propagation::functions::hosts::{AllowedHosts, inject_for_host};
use async_trait::async_trait;
use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next, Result};

/// Middleware that injects the current context into the headers of each request: the trace, the session, and
/// everything else that the global propagator carries.
///
/// It does so when the request is sent, and overwrites the propagator's headers that are on the request already.
///
/// ```
/// use reqwest_middleware::ClientBuilder;
///
/// # fn build(client: reqwest::Client) {
/// let client = ClientBuilder::new(client).with(tracing_session::propagation::reqwest::middleware()).build();
/// # }
/// ```
pub fn middleware() -> SessionMiddleware {
    SessionMiddleware {
        hosts: AllowedHosts::default(),
    }
}

/// See [`middleware`].
///
/// Cost: the propagator's.
///
/// ```
/// let middleware: tracing_session::propagation::reqwest::SessionMiddleware = tracing_session::propagation::reqwest::middleware();
/// ```
#[derive(Clone, Debug)]
#[must_use = "a middleware does nothing until a client has it: `ClientBuilder::new(client).with(middleware)`"]
pub struct SessionMiddleware {
    hosts: AllowedHosts,
}

impl SessionMiddleware {
    /// Only these hosts get the session and the user. Default: all.
    ///
    /// `agents.internal` is that host, and `.agents.internal` also every host below it. Case and
    /// port make no difference. Others get the trace and the other baggage. A header that the
    /// application put on the request itself is left to it.
    ///
    /// `reqwest` follows redirects below its middleware, with the same headers. So a listed host can redirect
    /// the session anywhere: build the client with [`Policy::none`](reqwest::redirect::Policy::none) to prevent that.
    ///
    /// ```
    /// let middleware = tracing_session::propagation::reqwest::middleware().only_to(["agents.internal"]);
    /// ```
    pub fn only_to<H>(self, hosts: impl IntoIterator<Item = H>) -> Self
    where
        H: Into<String>,
    {
        Self {
            hosts: AllowedHosts::only(hosts),
        }
    }
}

#[async_trait]
impl Middleware for SessionMiddleware {
    async fn handle(
        &self,
        mut request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let host = || request.url().host_str().map(str::to_owned);
        let is_allowed = self.hosts.allow(host);
        inject_for_host(request.headers_mut(), is_allowed);
        next.run(request, extensions).await
    }
}
