//! Calls from one service to another: what is in force goes into the headers, and comes out of them.

use super::{Case, trees};
use opentelemetry::baggage::BaggageExt;
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use std::cell::RefCell;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::LazyLock;
use tracing_session::{Session, SessionPropagator};

/// One that calls and is called.
struct Service {
    propagator: TextMapCompositePropagator,
    /// What is in force where it calls.
    cx: Context,
    headers: HashMap<String, String>,
}

impl Service {
    fn new(case: Case, others: bool) -> Self {
        let mut propagators: Vec<Box<dyn TextMapPropagator + Send + Sync>> =
            vec![Box::new(TraceContextPropagator::new())];
        match case {
            Case::BaggagePropagator => propagators.push(Box::new(BaggagePropagator::new())),
            Case::SessionPropagator => propagators.push(Box::new(SessionPropagator::new())),
            _ => {}
        }
        let mut baggage = Vec::new();
        if case == Case::BaggagePropagator {
            baggage.push(KeyValue::new("session.id", super::SESSION));
        }
        if others {
            baggage.push(KeyValue::new("tenant", "acme"));
            baggage.push(KeyValue::new("plan", "free of charge"));
            baggage.push(KeyValue::new("region", "eu-west-1"));
        }
        let mut cx = Context::new().with_remote_span_context(trees::elsewhere());
        if !baggage.is_empty() {
            cx = cx.with_baggage(baggage);
        }
        if case == Case::SessionPropagator {
            let session = Session::new(super::SESSION).unwrap_or_default();
            let _cx = cx.attach();
            cx = session.in_scope(Context::current);
        }
        let propagator = TextMapCompositePropagator::new(propagators);
        let mut headers = HashMap::new();
        propagator.inject_context(&cx, &mut headers);
        Self {
            propagator,
            cx,
            headers,
        }
    }
}

/// Made once: a call has neither to make the session nor the headers' names.
static ALONE: LazyLock<Vec<(Case, Service)>> = LazyLock::new(|| services(false));
static BESIDE_OTHERS: LazyLock<Vec<(Case, Service)>> = LazyLock::new(|| services(true));

fn services(others: bool) -> Vec<(Case, Service)> {
    let service = |case: &Case| (*case, Service::new(*case, others));
    super::CALLS.iter().map(service).collect()
}

fn service(case: Case, others: bool) -> Option<&'static Service> {
    let services: &[(Case, Service)] = if others { &BESIDE_OTHERS } else { &ALONE };
    let (_, service) = services.iter().find(|(known, _)| *known == case)?;
    Some(service)
}

pub(super) fn inject(case: Case, others: bool) {
    thread_local! {
        static HEADERS: RefCell<HashMap<String, String>> = RefCell::default();
    }
    let Some(service) = service(case, others) else {
        return;
    };
    HEADERS.with_borrow_mut(|headers| {
        let cx = black_box(&service.cx);
        service.propagator.inject_context(cx, headers);
    });
}

pub(super) fn extract(case: Case, others: bool) {
    if let Some(service) = service(case, others) {
        let headers = black_box(&service.headers);
        let cx = service
            .propagator
            .extract_with_context(&Context::new(), headers);
        black_box(cx);
    }
}
