//! The load that `collector.py` sends through its Collectors: sessions of several traces, each made by two services.
//!
//! Arguments: the name of the services, the ratio of their `SessionSampler`, whether it keeps all roots that are in no session
//! (`all`, or else `ratio`), and where each of the two exports to. Then, from the standard input, a line for each thing to do:
//! `<cohort> <sessions> <turn> <bytes>` holds one turn in each session of a cohort, with a text of so many bytes on each span,
//! and answers with one line of JSON when all its spans are exported.

use opentelemetry::trace::{
    Span, SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceState, Tracer,
    TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, IdGenerator, RandomIdGenerator, Sampler, SdkTracer,
    SdkTracerProvider,
};
use serde_json::{Value, json};
use std::env;
use std::error::Error;
use std::io::{self, BufRead};
use tracing_session::{Session, SessionSampler, SessionTracerProvider, tracer::SessionTracer};

type Failure = Box<dyn Error + Send + Sync>;
type Provider = SessionTracerProvider<SdkTracerProvider>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [service, ratio, outside, endpoints @ ..] = &*arguments else {
        return Err("a service, a ratio, what to do outside sessions, and two endpoints".into());
    };
    let mut sampler = SessionSampler::new(ratio.parse()?);
    if outside == "all" {
        sampler = sampler.with_fallback(Sampler::AlwaysOn);
    }
    let providers: Vec<_> = endpoints
        .iter()
        .zip(["frontend", "backend"])
        .map(|(endpoint, part)| provider(service, part, endpoint, sampler.clone()))
        .collect::<Result<_, _>>()?;
    let [frontend, backend] = &*providers else {
        return Err("two endpoints".into());
    };
    let services = Services {
        frontend: frontend.tracer("load"),
        backend: backend.tracer("load"),
    };
    for line in io::stdin().lock().lines() {
        let line = line?;
        let [cohort, sessions, turn, bytes] = &*line.split(' ').collect::<Vec<_>>() else {
            return Err("a cohort, how many sessions, the turn, and how many bytes".into());
        };
        let (count, turn) = (sessions.parse()?, turn.parse()?);
        let text = "x".repeat(bytes.parse()?);
        let mut held = Vec::<Value>::new();
        for number in 0..count {
            held.push(services.turn(cohort, number, turn, &text)?);
            // In parts, for a flush has no more than 5 seconds.
            if number % 500 == 499 || number + 1 == count {
                providers.iter().try_for_each(|it| it.force_flush())?;
            }
        }
        println!("{}", Value::from(held));
    }
    Ok(())
}

fn provider(
    service: &str,
    part: &str,
    endpoint: &str,
    sampler: SessionSampler,
) -> Result<Provider, Failure> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .build()?;
    // What does not fit into its queue, a batch processor drops: none may be lost before the Collectors have it.
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(1 << 20)
        .build();
    let processor = BatchSpanProcessor::builder(exporter)
        .with_batch_config(config)
        .build();
    let resource = Resource::builder()
        .with_service_name(service.to_owned())
        .with_attribute(KeyValue::new("service.instance.id", part.to_owned()))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(processor)
        .with_resource(resource)
        .with_sampler(Sampler::parent_based(sampler))
        .build();
    Ok(SessionTracerProvider::new(provider))
}

struct Services {
    frontend: SessionTracer<SdkTracer>,
    backend: SessionTracer<SdkTracer>,
}

impl Services {
    /// A trace of six spans. In every fifth session the id is learnt after the root was made, as by a handler that reads it
    /// from the body: the first two spans are in no session. In another the trace is somebody else's, with a randomness of its
    /// own in the `tracestate`. Some sessions fail in their first turn, others in their third.
    fn turn(&self, cohort: &str, number: usize, turn: i64, text: &str) -> Result<Value, Failure> {
        let session = Session::new(format!("{cohort}-{number}"))?;
        let id = session.id().unwrap_or_default().to_owned();
        let is_late = number % 5 == 1;
        let is_foreign = number % 5 == 4;
        let fails = matches!((number % 10, turn), (3 | 6, 0) | (7, 2));
        let start = |tracer: &SessionTracer<SdkTracer>, name: &'static str, cx: &Context| {
            let mut span = tracer.start_with_context(name, cx);
            span.set_attribute(KeyValue::new("turn", turn));
            span.set_attribute(KeyValue::new("text", text.to_owned()));
            span
        };
        let outside = Context::new();
        let inside = session.in_scope(Context::current);
        let first = match (is_late, is_foreign) {
            (true, _) => &outside,
            (_, true) => &inside.with_remote_span_context(somebody_else(number, turn)?),
            _ => &inside,
        };

        let root = first.with_span(start(&self.frontend, "turn", first));
        drop(start(&self.frontend, "login", &root));
        // From here on the session is known.
        let caller = root.span().span_context().clone();
        let called = inside.with_remote_span_context(caller.clone());
        // In the other service, which gets the ids, the `tracestate` and the session.
        let answer = called.with_span(start(&self.backend, "answer", &called));
        drop(start(&self.backend, "retrieve", &answer));
        let mut complete = start(&self.backend, "complete", &answer);
        if fails {
            complete.set_status(Status::error("no answer"));
        }
        drop(complete);
        drop(start(&self.frontend, "render", &called));
        Ok(json!({
            "session": id,
            "late": is_late,
            "foreign": is_foreign,
            "fails": fails,
            "sampled": caller.is_sampled(),
        }))
    }
}

/// A caller who samples consistently, but knows of no session.
fn somebody_else(number: usize, turn: i64) -> Result<SpanContext, Failure> {
    let unique = ((number as u64) << 8) | turn as u64;
    let random = (unique + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    Ok(SpanContext::new(
        RandomIdGenerator::default().new_trace_id(),
        SpanId::from(random),
        TraceFlags::SAMPLED,
        true,
        format!("ot=rv:{:014x};th:0", random >> 8).parse::<TraceState>()?,
    ))
}
