//! HTTP clients: the list of hosts that get the session, and the middleware for `reqwest`.

use crate::propagation::functions::inject_context;
use crate::scope::{Scope, thread};
use crate::session::keys::{SESSION_ID, USER_ID};
use http::HeaderMap;
use http::uri::Authority;
use opentelemetry::baggage::{Baggage, BaggageExt};
use opentelemetry::{Context, Key};
use std::sync::Arc;

/// The hosts whose requests carry the session. `None` allows all hosts.
#[derive(Clone, Debug, Default)]
pub(crate) struct AllowedHosts(Option<Arc<[String]>>);

impl AllowedHosts {
    pub(crate) fn only<H: Into<String>>(hosts: impl IntoIterator<Item = H>) -> Self {
        let hosts = hosts.into_iter().map(|host| {
            let host = host.into().trim().to_ascii_lowercase();
            match host.parse::<Authority>() {
                Ok(authority) => bare(authority.host()).to_owned(),
                Err(_) => host,
            }
        });
        // An entry without a name, such as one after a trailing comma, allows no host.
        let has_name = |host: &String| !host.trim_matches('.').is_empty();
        Self(Some(hosts.filter(has_name).collect()))
    }

    /// Whether a request to this host carries the session. A list allows no request without a host.
    pub(crate) fn allow(&self, host: impl FnOnce() -> Option<String>) -> bool {
        let Some(hosts) = &self.0 else { return true };
        let Some(host) = host() else { return false };
        let host = host.to_ascii_lowercase();
        hosts.iter().any(|entry| matches_host(entry, bare(&host)))
    }
}

/// Whether an entry of the list matches `host`. Both must be in lower case.
fn matches_host(entry: &str, host: &str) -> bool {
    match entry.strip_prefix('.') {
        Some(domain) => host == domain || host.ends_with(entry),
        None => host == entry,
    }
}

/// The host without the brackets that an IPv6 address has in a URI.
fn bare(host: &str) -> &str {
    let inside = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    inside.unwrap_or(host)
}

/// Writes the current context into `headers`, without the session unless the host is allowed.
pub(crate) fn inject_for_host(headers: &mut HeaderMap, is_allowed: bool) {
    let _attached = (!is_allowed).then(|| thread::attach_changed(without_session));
    inject_context(headers);
}

/// Returns `cx` without the session's scope and without session ids in its baggage.
fn without_session(cx: &Context) -> Context {
    let is_id = |key: &Key| [SESSION_ID, USER_ID].contains(&key.as_str());
    let others = cx.baggage().iter().filter(|(key, _)| !is_id(key));
    let others = others.map(|(key, value)| (key.clone(), value.clone()));
    Scope::empty().entered(&cx.with_baggage(others.collect::<Baggage>()))
}

#[cfg(feature = "reqwest")]
pub mod reqwest {
    //! Middleware for `reqwest-middleware` that injects the session into each request.
    //!
    //! It uses OpenTelemetry's global propagator, which does nothing until you set it: see
    //! [`inject_context`](crate::propagation::inject_context). The blocking client of `reqwest` has no middleware. Use
    //! `inject_context` with the request's headers there.

    use crate::propagation::clients::{AllowedHosts, inject_for_host};
    use async_trait::async_trait;
    use http::Extensions;
    use reqwest::{Request, Response};
    use reqwest_middleware::{Middleware, Next, Result};

    /// Creates a middleware that injects the current context into the headers of each request.
    ///
    /// The context contains the trace, the session, and everything else that the global propagator carries. The middleware
    /// injects it when the request is sent, and replaces headers with the same names.
    ///
    /// Cost: one call of the global propagator per request.
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

    /// The middleware that [`middleware`] creates.
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
        /// Sends the session and the user to these hosts only. Default: to all hosts.
        ///
        /// `agents.internal` matches that host, and `.agents.internal` also matches its subdomains. Matching ignores case and
        /// ports. Requests to other hosts carry the trace and the other baggage. The middleware doesn't remove headers that
        /// you set on the request yourself.
        ///
        /// `reqwest` follows redirects after its middleware has run, and repeats the headers. So a listed host can redirect
        /// the session to any host. To prevent that, build the client with [`Policy::none`](reqwest::redirect::Policy::none).
        ///
        /// ```
        /// use reqwest::redirect::Policy;
        /// use reqwest_middleware::ClientBuilder;
        /// use tracing_session::propagation::reqwest::middleware;
        ///
        /// let client = reqwest::Client::builder().redirect(Policy::none()).build()?;
        /// let client = ClientBuilder::new(client).with(middleware().only_to(["agents.internal"])).build();
        /// # Ok::<(), reqwest::Error>(())
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
}

#[cfg(test)]
mod tests {
    use super::AllowedHosts;

    fn allows(hosts: &[&str], host: &str) -> bool {
        AllowedHosts::only(hosts.iter().copied()).allow(|| Some(host.to_owned()))
    }

    #[test]
    fn an_entry_names_one_host_and_with_a_dot_those_below_it_too() {
        for (entry, host, expected) in [
            ("agents.internal", "agents.internal", true),
            ("agents.internal", "AGENTS.Internal", true),
            ("Agents.Internal", "agents.internal", true),
            ("agents.internal", "a.agents.internal", false),
            ("agents.internal", "evil-agents.internal", false),
            ("agents.internal", "agents.internal.evil.com", false),
            ("agents.internal", "agents", false),
            (".agents.internal", "agents.internal", true),
            (".agents.internal", "a.agents.internal", true),
            (".agents.internal", "a.b.Agents.internal", true),
            (".agents.internal", "evil-agents.internal", false),
            (".agents.internal", "agents.internal.evil.com", false),
            (".agents.internal", "internal", false),
            (".agents.internal", "é", false),
            ("::1", "[::1]", true),
            ("[::1]:80", "[::1]", true),
            ("127.0.0.1:80", "127.0.0.1", true),
            (" agents.internal ", "agents.internal", true),
        ] {
            assert_eq!(allows(&[entry], host), expected, "{entry} {host}");
        }
    }

    #[test]
    fn a_list_without_names_allows_no_host() {
        for hosts in [&[][..], &[""], &["."], &[" ", "agents.internal"]] {
            assert!(!allows(hosts, ""), "{hosts:?}");
            assert!(!allows(hosts, "evil.com"), "{hosts:?}");
            assert!(!allows(hosts, "evil.com."), "{hosts:?}");
        }
    }

    #[test]
    fn a_request_without_a_host_is_not_allowed() {
        assert!(!AllowedHosts::only(["agents.internal"]).allow(|| None));
        assert!(AllowedHosts::default().allow(|| None));
    }
}
