//! How a session crosses services (E).

#![allow(unreachable_pub, reason = "the modules are parts of one test")]

mod batches;
mod carriers;
mod environment;
mod functions;
mod inbound;
mod outbound;
mod round_trip;

use crate::support::session;
use opentelemetry::Context;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use tracing_session::{Session, SessionPropagator, current_session};

/// The headers of a request, in their order: a name may stand there twice.
#[derive(Debug, Default)]
struct Lines(Vec<(String, String)>);

impl<N: Into<String>, V: Into<String>, const LEN: usize> From<[(N, V); LEN]> for Lines {
    fn from(lines: [(N, V); LEN]) -> Self {
        let lines = lines.into_iter();
        Self(lines.map(|(name, v)| (name.into(), v.into())).collect())
    }
}

impl From<&[(&str, &str)]> for Lines {
    fn from(lines: &[(&str, &str)]) -> Self {
        let lines = lines.iter();
        Self(
            lines
                .map(|(name, v)| ((*name).into(), (*v).into()))
                .collect(),
        )
    }
}

impl Extractor for Lines {
    fn get(&self, key: &str) -> Option<&str> {
        self.get_all(key)?.first().copied()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn get_all(&self, key: &str) -> Option<Vec<&str>> {
        let named = |(name, _): &&(String, String)| name.eq_ignore_ascii_case(key);
        let values = self.0.iter().filter(named).map(|(_, value)| value.as_str());
        Some(values.collect()).filter(|values: &Vec<_>| !values.is_empty())
    }
}

impl Injector for Lines {
    fn set(&mut self, key: &str, value: String) {
        self.0.push((key.to_owned(), value));
    }
}

/// What is written under `cx`, line by line.
fn sent(propagator: &dyn TextMapPropagator, cx: &Context) -> Vec<String> {
    let mut lines = Lines::default();
    propagator.inject_context(cx, &mut lines);
    let line = |(name, value)| format!("{name}: {value}");
    lines.0.into_iter().map(line).collect()
}

/// What is written here.
fn sent_here(propagator: &dyn TextMapPropagator) -> Vec<String> {
    sent(propagator, &Context::current())
}

/// What is written inside `session`.
fn sent_in(propagator: &dyn TextMapPropagator, session: &Session) -> Vec<String> {
    session.in_scope(|| sent_here(propagator))
}

fn received(
    propagator: &dyn TextMapPropagator,
    from: impl Into<Lines>,
    under: &Context,
) -> Context {
    propagator.extract_with_context(under, &from.into())
}

/// The session and the user that are in force once the headers are read, where there was nothing.
fn taken(
    propagator: &dyn TextMapPropagator,
    from: impl Into<Lines>,
) -> (Option<String>, Option<String>) {
    ids_under(received(propagator, from, &Context::new()))
}

fn ids_under(cx: Context) -> (Option<String>, Option<String>) {
    let _attached = cx.attach();
    let session = current_session().unwrap_or_default();
    let owned = |id: Option<&str>| id.map(str::to_owned);
    (owned(session.id()), owned(session.user_id()))
}

/// The id of the session alone.
fn id_taken(propagator: &dyn TextMapPropagator, from: impl Into<Lines>) -> Option<String> {
    taken(propagator, from).0
}

/// The baggage of `cx`, with what stands behind the values, in order.
fn baggage_of(cx: &Context) -> Vec<String> {
    let member = |(key, (value, metadata)): (_, &(_, _))| format!("{key}={value} [{metadata}]");
    let mut members: Vec<_> = cx.baggage().iter().map(member).collect();
    members.sort();
    members
}

/// A propagator of one header and no baggage.
fn only_in(header: &str) -> SessionPropagator {
    let propagator = SessionPropagator::new().without_baggage();
    propagator.with_header(header).unwrap()
}

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
