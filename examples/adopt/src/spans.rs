//! How many of the exported spans are in a session.

use crate::BoxError;
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::SpanData;
use std::collections::{BTreeMap, HashMap};

/// The share of spans in a session that the bot must have, in percent.
const REQUIRED: usize = match env!("CARGO_BIN_NAME").as_bytes() {
    b"before" => 0,
    _ => 95,
};

pub(crate) fn report(spans: &[SpanData]) -> Result<(), BoxError> {
    let roots: HashMap<TraceId, &SpanData> = spans
        .iter()
        .filter(|span| span.parent_span_id == SpanId::INVALID)
        .map(|root| (root.span_context.trace_id(), root))
        .collect();
    let mut of_name: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for span in spans {
        let session = value(span, "session.id");
        let root = roots.get(&span.span_context.trace_id());
        let path = root.and_then(|root| value(root, "path"));
        let is_wrong = |id: &String| path.is_none_or(|path| path != format!("/conversations/{id}"));
        let [all, inside, wrong] = of_name.entry(&span.name).or_default();
        *all += 1;
        *inside += usize::from(session.is_some());
        *wrong += usize::from(session.is_some_and(|id| is_wrong(&id)));
    }
    println!(
        "{:>5} {:>10} {:>13}  span",
        "all", "in session", "wrong session"
    );
    let mut sums = [0; 3];
    for (name, counts) in of_name {
        print(counts, name);
        sums = std::array::from_fn(|at| sums[at] + counts[at]);
    }
    print(sums, "together");
    let [all, inside, wrong] = sums;
    if wrong > 0 || inside * 100 < all * REQUIRED {
        return Err(format!("less than {REQUIRED} % of the spans are in their session").into());
    }
    Ok(())
}

fn print([all, inside, wrong]: [usize; 3], name: &str) {
    println!("{all:>5} {inside:>10} {wrong:>13}  {name}");
}

fn value(span: &SpanData, key: &str) -> Option<String> {
    let found = span.attributes.iter().find(|it| it.key.as_str() == key);
    found.map(|it| it.value.to_string())
}
