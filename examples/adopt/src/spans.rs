//! Whether the exported spans are in the right session.

use crate::BoxError;
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;
use std::collections::HashMap;

/// Prints the number of spans. Fails if a span is in another session than that of the HTTP request, which the path names.
pub(crate) fn check(spans: &[SpanData]) -> Result<(), BoxError> {
    let is_root = |span: &&SpanData| span.parent_span_id == SpanId::INVALID;
    let paths: HashMap<TraceId, Option<String>> = spans
        .iter()
        .filter(is_root)
        .map(|root| (root.span_context.trace_id(), value(root, "path")))
        .collect();
    for span in spans {
        let path = paths.get(&span.span_context.trace_id());
        let path = path.and_then(Option::as_deref);
        let session = value(span, "session.id").map(|id| format!("/conversations/{id}"));
        if session.is_some() && session.as_deref() != path {
            return Err(format!("`{}` of {path:?} is in a wrong session", span.name).into());
        }
    }
    println!("{} spans", spans.len());
    Ok(())
}

fn value(span: &SpanData, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|it| it.key.as_str() == key);
    found.map(|it| it.value.to_string())
}
