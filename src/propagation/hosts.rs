//! Which hosts may learn the session, and writing headers for them.

use crate::propagation::propagated::inject_context;
use crate::scope::Scope;
use crate::session::keys::{SESSION_ID, USER_ID};
use http::HeaderMap;
use http::uri::Authority;
use opentelemetry::Context;
use opentelemetry::baggage::{Baggage, BaggageExt};
use std::sync::Arc;

/// By default all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts(Option<Arc<[String]>>);

impl Hosts {
    pub(crate) fn only<H: Into<String>>(hosts: impl IntoIterator<Item = H>) -> Self {
        let hosts = hosts.into_iter().map(|host| {
            let host = host.into().trim().to_ascii_lowercase();
            match host.parse::<Authority>() {
                Ok(authority) => bare(authority.host()).to_owned(),
                Err(_) => host,
            }
        });
        // What is left of a list with a comma too many names no host.
        let names_one = |host: &String| !host.trim_matches('.').is_empty();
        Self(Some(hosts.filter(names_one).collect()))
    }

    /// A host that is not known may not.
    pub(crate) fn may_know(&self, host: impl FnOnce() -> Option<String>) -> bool {
        let Some(hosts) = &self.0 else { return true };
        let Some(host) = host() else { return false };
        let host = host.to_ascii_lowercase();
        hosts.iter().any(|known| names(known, bare(&host)))
    }
}

/// Whether an entry of the list names `host`, both in lower case.
fn names(entry: &str, host: &str) -> bool {
    match entry.strip_prefix('.') {
        Some(domain) => host == domain || host.ends_with(entry),
        None => host == entry,
    }
}

/// An IPv6 address stands in brackets where a port may follow.
fn bare(host: &str) -> &str {
    let inside = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    inside.unwrap_or(host)
}

/// Writes what is in force here into `headers`, the session only if the receiver may know it.
pub(crate) fn inject(headers: &mut HeaderMap, may_know: bool) {
    let _withheld = (!may_know).then(|| withheld(&Context::current()).attach());
    inject_context(headers);
}

/// `cx` without the session, in whichever place a propagator would look for it.
fn withheld(cx: &Context) -> Context {
    let others = cx
        .baggage()
        .iter()
        .filter(|(key, _)| ![SESSION_ID, USER_ID].contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()));
    let baggage: Baggage = others.collect();
    Scope::empty().entered(&cx.with_baggage(baggage))
}

#[cfg(test)]
mod tests {
    use super::Hosts;

    fn may_know(hosts: &[&str], host: &str) -> bool {
        Hosts::only(hosts.iter().copied()).may_know(|| Some(host.to_owned()))
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
            assert_eq!(may_know(&[entry], host), expected, "{entry} {host}");
        }
    }

    #[test]
    fn a_list_that_names_nobody_lets_nobody_know() {
        for hosts in [&[][..], &[""], &["."], &[" ", "agents.internal"]] {
            assert!(!may_know(hosts, ""), "{hosts:?}");
            assert!(!may_know(hosts, "evil.com"), "{hosts:?}");
            assert!(!may_know(hosts, "evil.com."), "{hosts:?}");
        }
    }

    #[test]
    fn a_host_that_is_not_known_may_not() {
        assert!(!Hosts::only(["agents.internal"]).may_know(|| None));
        assert!(Hosts::default().may_know(|| None));
    }
}
