//! The samples of propagation that are not about one connection.

use crate::other_systems::{Headers, call_model, call_model_async, injected, propagate};
use crate::support::{App, session, values};
use opentelemetry::Context;
use opentelemetry::trace::{FutureExt, TraceContextExt, TraceId};
use std::sync::mpsc::{Sender, channel};
use tracing::info_span;
use tracing_session::{
    current_session_id,
    propagation::{WithPropagated, extract_context, propagated_context},
};

/// What the headers say is a value, to be put in force by whoever has it.
#[tokio::test]
async fn context_can_be_propagated_by_hand() {
    propagate();
    let app = App::new();
    let headers = session("by hand").in_scope(|| info_span!("client").in_scope(injected));

    let cx: Context = extract_context(&headers);
    assert_eq!(current_session_id(), None, "nothing is in force yet");
    {
        let _attached = cx.clone().attach();
        call_model();
    }
    call_model_async().with_context(cx).await;
    app.exports(
        "
        client session.id=by hand
          call session.id=by hand
            http session.id=by hand
          call session.id=by hand
            http session.id=by hand
        ",
    );
}

/// A job carries the headers of the request that left it, and is done on another thread
/// when that has ended.
#[test]
fn background_job_continues_the_trace_of_the_request() {
    struct Job {
        data: &'static str,
        trace_headers: Headers,
    }
    #[tracing::instrument(skip_all)]
    fn enqueue_job(data: &'static str, queue: &Sender<Job>) {
        let trace_headers = injected();
        let job = Job {
            data,
            trace_headers,
        };
        queue.send(job).unwrap();
    }
    #[tracing::instrument]
    async fn process_job(data: &str) {
        call_model_async().await;
    }

    propagate();
    let app = App::new();
    let (queue, jobs) = channel();
    let request = session("chat-42").with_user("ada").unwrap();
    request.in_scope(|| enqueue_job("a", &queue));
    enqueue_job("b", &queue);
    drop(queue);
    assert_eq!(app.spans().len(), 2, "the requests have ended");

    app.runtime().block_on(async {
        for job in jobs {
            let work = process_job(job.data).with_propagated(&job.trace_headers);
            tokio::spawn(work).await.unwrap();
        }
    });
    // Who the user is stays in the process, unless it is asked for.
    app.exports(
        "
        enqueue_job session.id=chat-42 user.id=ada
          process_job data=a session.id=chat-42
            call session.id=chat-42
              http session.id=chat-42
        enqueue_job
          process_job data=b
            call
              http
        ",
    );
}

/// A service in another language goes on with our trace, and we with its. Its
/// OpenTelemetry sends the session as W3C baggage.
#[test]
fn trace_continues_in_other_languages() {
    propagate();
    let app = App::new();
    let headers = [
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        ("baggage", "tenant=acme,session.id=chat%2042"),
    ];
    let from_node = Headers::from(headers.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let to_node = propagated_context(&from_node).in_scope(|| {
        assert_eq!(current_session_id().as_deref(), Some("chat 42"));
        info_span!("ours").in_scope(|| {
            let cx = Context::current();
            let trace = TraceId::from_hex("4bf92f3577b34da6a3ce929d0e0e4736").unwrap();
            assert_eq!(cx.span().span_context().trace_id(), trace);
            injected()
        })
    });
    let ours = app.span("ours");
    assert_eq!(values(&ours, "session.id"), ["chat 42"]);
    assert_eq!(ours.parent_span_id.to_string(), "00f067aa0ba902b7");
    let span = ours.span_context.span_id();
    let traceparent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{span}-01");
    assert_eq!(to_node["traceparent"], traceparent);
    let mut members: Vec<_> = to_node["baggage"].split(',').collect();
    members.sort_unstable();
    assert_eq!(members, ["session.id=chat%2042", "tenant=acme"]);
}
