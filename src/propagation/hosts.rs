//! The hosts that get the session, for the layers of HTTP clients.

use crate::base::thread_context;
use crate::propagation::functions::inject_context;
use crate::scope::Scope;
use crate::session::keys::{SESSION_ID, USER_ID};
use http::HeaderMap;
use http::uri::Authority;
use opentelemetry::baggage::{Baggage, BaggageExt};
use opentelemetry::{Context, Key};
use std::sync::Arc;

/// The hosts that get the session: by default all.
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

    /// A request without a host is not allowed.
    pub(crate) fn allow(&self, host: impl FnOnce() -> Option<String>) -> bool {
        let Some(hosts) = &self.0 else { return true };
        let Some(host) = host() else { return false };
        let host = host.to_ascii_lowercase();
        hosts.iter().any(|entry| matches_host(entry, bare(&host)))
    }
}

/// Whether an entry of the list matches `host`. Both are in lower case.
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
    let _attached = (!is_allowed).then(|| thread_context::attach_changed(without_session));
    inject_context(headers);
}

/// `cx` without the session, neither in the scope nor in the baggage.
fn without_session(cx: &Context) -> Context {
    let is_id = |key: &Key| [SESSION_ID, USER_ID].contains(&key.as_str());
    let others = cx.baggage().iter().filter(|(key, _)| !is_id(key));
    let baggage: Baggage = others
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Scope::empty().entered(&cx.with_baggage(baggage))
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
