//! One consumer receives many messages at once: each is handled in its own session, and the batch is linked to all.

use crate::support::{self, App, session, values};
use opentelemetry::trace::{SpanId, TraceContextExt};
use opentelemetry_sdk::trace::SpanData;
use std::collections::HashMap;
use tracing::{Instrument, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::current::detached;
use tracing_session::propagation::{
    PropagatedContext, WithPropagated, extract_context, inject_context, propagated_context,
};
use tracing_session::{InSession, current_session_id, propagator_from_env};

const BATCHES: usize = 100;
const MESSAGES: usize = 100;
const SESSIONS: usize = 1_000;

struct Message {
    session: Option<String>,
    headers: HashMap<String, String>,
}

/// Every seventh message is sent in no session and no span.
fn send(number: usize) -> Message {
    let mut headers = HashMap::new();
    if number % 7 == 0 {
        return Message {
            session: None,
            headers,
        };
    }
    let id = format!("chat-{}", number % SESSIONS);
    session(&id).in_scope(|| info_span!("send").in_scope(|| inject_context(&mut headers)));
    Message {
        session: Some(id),
        headers,
    }
}

async fn handle(message: &Message) {
    assert_eq!(current_session_id(), message.session);
    tokio::task::yield_now().await;
    info_span!("step", of = message.session.as_deref()).in_scope(|| {});
}

fn with_name<'a>(spans: &'a [SpanData], name: &str) -> Vec<&'a SpanData> {
    spans.iter().filter(|span| span.name == name).collect()
}

#[test]
fn each_message_is_handled_in_its_own_session() {
    support::propagate(propagator_from_env().unwrap());
    let app = App::new();
    let consume = async |messages: &[Message]| {
        let batch = info_span!("batch");
        for message in messages {
            let cx = detached(|| extract_context(&message.headers));
            batch.add_link(cx.span().span_context().clone());
        }
        let handle_all = async {
            for message in messages {
                let span = || info_span!("message", of = message.session.as_deref());
                let work = async { handle(message).instrument(span()).await };
                detached(|| work.with_propagated(&message.headers)).await;
            }
        };
        handle_all.instrument(batch).await;
    };
    app.runtime().block_on(async {
        for batch in 0..BATCHES {
            let numbers = batch * MESSAGES..(batch + 1) * MESSAGES;
            let messages: Vec<_> = numbers.map(send).collect();
            consume(&messages).in_session(session("consumer")).await;
        }
    });
    let spans = app.spans();
    let without = (BATCHES * MESSAGES).div_ceil(7);
    let batches = with_name(&spans, "batch");
    assert_eq!(batches.len(), BATCHES);
    let links: usize = batches.iter().map(|batch| batch.links.len()).sum();
    assert_eq!(links, BATCHES * MESSAGES - without);
    for batch in batches {
        assert_eq!(values(batch, "session.id"), ["consumer"]);
    }
    for name in ["message", "step"] {
        let found = with_name(&spans, name);
        assert_eq!(found.len(), BATCHES * MESSAGES);
        for span in found {
            assert_eq!(values(span, "session.id"), values(span, "of"), "{name}");
        }
    }
    let roots = with_name(&spans, "message");
    let roots = roots
        .iter()
        .filter(|it| it.parent_span_id == SpanId::INVALID);
    assert_eq!(roots.count(), without, "only without headers");
}

/// A job that keeps the context, where its headers are gone before it runs.
#[test]
fn future_runs_in_a_context_that_was_extracted_before() {
    support::propagate(propagator_from_env().unwrap());
    let app = App::new();
    struct Job {
        of: Option<String>,
        caller: PropagatedContext,
    }
    let jobs: Vec<_> = (0..50)
        .map(send)
        .map(|message| Job {
            of: message.session,
            caller: propagated_context(&message.headers),
        })
        .collect();
    app.runtime().block_on(async {
        let jobs = jobs.into_iter().map(|job| {
            let work = async move {
                tokio::task::yield_now().await;
                assert_eq!(current_session_id(), job.of);
                // Created before the future is polled in its session, so it is adopted.
                async {}.instrument(info_span!("job", of = job.of)).await;
            };
            tokio::spawn(work.with_propagated(job.caller))
        });
        for job in jobs.collect::<Vec<_>>() {
            job.await.unwrap();
        }
    });
    let spans = app.spans();
    let jobs = with_name(&spans, "job");
    assert_eq!(jobs.len(), 50);
    for job in jobs {
        assert_eq!(values(job, "session.id"), values(job, "of"));
        let is_root = job.parent_span_id == SpanId::INVALID;
        assert_eq!(is_root, values(job, "of").is_empty());
    }
}
