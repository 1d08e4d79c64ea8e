//! The backend that receives the spans of all services.

use opentelemetry::trace::SpanId;
use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// One clone for each service. The provider sets the name of the service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backend {
    service: String,
    arrived: Arc<Mutex<Vec<Arrived>>>,
}

#[derive(Clone, Debug)]
struct Arrived {
    service: String,
    span: SpanData,
}

impl SpanExporter for Backend {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let batch = batch.into_iter().map(|span| Arrived {
            service: self.service.clone(),
            span,
        });
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.extend(batch);
        Ok(())
    }

    fn set_resource(&mut self, resource: &Resource) {
        let name = resource.get(&Key::new("service.name"));
        self.service = name.map(|it| it.to_string()).unwrap_or_default();
    }
}

impl Backend {
    /// Whether the spans of all three services are one trace in this session.
    pub(crate) fn print_and_verify(&self, session: &str) -> bool {
        let mut arrived = self
            .arrived
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        arrived.sort_by_key(|it| it.span.start_time);
        let mut roots = 0;
        let mut in_trees = 0;
        for root in &arrived {
            if root.span.parent_span_id == SpanId::INVALID {
                println!("\ntrace {}", root.span.span_context.trace_id());
                roots += 1;
                in_trees += print_tree(root, &arrived, 1);
            }
        }
        let services: HashSet<_> = arrived.iter().map(|it| it.service.as_str()).collect();
        let is_right = (roots, in_trees) == (1, arrived.len())
            && services == HashSet::from(["gateway", "agent", "worker"])
            && arrived.iter().all(|it| session_of(&it.span) == session);
        if !is_right {
            eprintln!("that is not one trace of all three services in the session {session}");
        }
        is_right
    }
}

/// Prints a span and its descendants, and counts them.
fn print_tree(top: &Arrived, all: &[Arrived], depth: usize) -> usize {
    let Arrived { service, span } = top;
    let name = format!("{}{}", "  ".repeat(depth), span.name);
    println!("{name:18} {service:8} session.id={}", session_of(span));
    let context = &span.span_context;
    let is_below = |it: &&Arrived| {
        it.span.parent_span_id == context.span_id()
            && it.span.span_context.trace_id() == context.trace_id()
    };
    let below = all.iter().filter(is_below);
    let counts = below.map(|it| print_tree(it, all, depth + 1));
    1 + counts.sum::<usize>()
}

/// All values of the span. A key that is exported twice shows.
fn session_of(span: &SpanData) -> String {
    let of_key = |it: &&KeyValue| it.key.as_str() == "session.id";
    let values = span.attributes.iter().filter(of_key);
    let values: Vec<_> = values.map(|it| it.value.to_string()).collect();
    values.join(" and ")
}
