//! The cases of `openinference-vercel`, which has such a processor too: see `openinference.rs`.

use crate::support::{App, session, shown};
use opentelemetry::Context;
use opentelemetry::trace::{Span, Tracer, TracerProvider};
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, SdkTracerProvider, SpanData, TracerProviderBuilder,
};
use tracing::info_span;
use tracing::level_filters::LevelFilter;
use tracing_session::{SessionLayer, processors::SessionSpanProcessor};
use tracing_subscriber::prelude::*;

type Export = fn(TracerProviderBuilder, InMemorySpanExporter) -> TracerProviderBuilder;

const SIMPLE_AND_BATCH: [Export; 2] = [
    |builder, exporter| builder.with_simple_exporter(exporter),
    |builder, exporter| builder.with_batch_exporter(exporter),
];

/// The spans that `work` makes, with the processor or without, exported one by one and in batches.
#[track_caller]
fn each(processor: bool, work: impl Fn(&SdkTracerProvider), check: impl Fn(&[SpanData])) {
    for export in SIMPLE_AND_BATCH {
        let exporter = InMemorySpanExporter::default();
        let mut builder = export(SdkTracerProvider::builder(), exporter.clone());
        if processor {
            builder = builder.with_span_processor(SessionSpanProcessor::new());
        }
        let provider = builder.build();
        work(&provider);
        provider.force_flush().unwrap();
        check(&exporter.get_finished_spans().unwrap());
    }
}

fn generate_text(provider: &SdkTracerProvider) {
    let tracer = provider.tracer("ai");
    let cx = Context::current();
    tracer.start_with_context("ai.generateText", &cx).end();
}

/// And the same by default: there is no option.
#[test]
fn stamps_session_id_onto_a_span_that_it_did_not_make() {
    each(
        true,
        |provider| session("session-123").in_scope(|| generate_text(provider)),
        |spans| {
            assert_eq!(spans.len(), 1);
            assert_eq!(shown(&spans[0]), ["session.id=session-123"]);
        },
    );
}

#[test]
fn propagates_multiple_context_attributes() {
    let session = session("session-abc").with_user("user-42").unwrap();
    each(
        true,
        |provider| session.in_scope(|| generate_text(provider)),
        |spans| {
            let expected = ["session.id=session-abc", "user.id=user-42"];
            assert_eq!(shown(&spans[0]), expected);
        },
    );
}

/// There, an option switches it off. Here one leaves the processor out.
#[test]
fn does_not_stamp_without_the_processor() {
    each(
        false,
        |provider| session("session-123").in_scope(|| generate_text(provider)),
        |spans| {
            assert_eq!(spans.len(), 1);
            assert_eq!(shown(&spans[0]), [""; 0]);
        },
    );
}

/// With a wrapped provider, with the processor, and with a span of `tracing` that is hidden.
#[test]
fn keeps_session_id_where_the_parent_is_filtered_out() {
    let spans = || {
        info_span!("ai.generateText")
            .in_scope(|| info_span!("ai.generateText.doGenerate").in_scope(|| {}));
    };
    let handle = || {
        let http = tracing::debug_span!("GET /chat", session.id = "session-xyz");
        http.in_scope(spans);
        session("session-xyz").in_scope(|| tracing::debug_span!("GET /chat").in_scope(spans));
    };
    let app = App::with_layer(|otel| {
        SessionLayer::new()
            .with_opener_level(tracing::Level::DEBUG)
            .wrap_filtered(otel, LevelFilter::INFO)
    });
    handle();
    let tree = "
        ai.generateText session.id=session-xyz
          ai.generateText.doGenerate session.id=session-xyz
        ";
    app.exports(&tree.repeat(2));
    drop(app);
    each(
        true,
        |provider| {
            let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
            let filtered = SessionLayer::new()
                .with_opener_level(tracing::Level::DEBUG)
                .wrap_filtered(otel, LevelFilter::INFO);
            let subscriber = tracing_subscriber::registry().with(filtered);
            tracing::subscriber::with_default(subscriber, handle);
        },
        |spans| {
            assert_eq!(spans.len(), 4);
            for span in spans {
                assert_eq!(shown(span), ["session.id=session-xyz"]);
            }
        },
    );
}
