//! Context propagation, on carriers that are just maps. What goes over a connection is in `http.rs`.

use crate::seeds::{call_model, call_model_async, session};
use crate::support::{self, App, values};
use opentelemetry::propagation::TextMapCompositePropagator;
use opentelemetry::trace::{FutureExt, TraceContextExt, TraceId};
use opentelemetry::{Context, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use std::collections::{BTreeSet, HashMap};
use std::sync::mpsc::{Sender, channel};
use tracing::info_span;
use tracing_session::{
    SESSION_HEADER_NAME, SessionPropagator, WithPropagated, current_session, current_session_id,
    extract_context, extract_session_id, inject_context, propagated_context, propagator_from_env,
};

type Headers = HashMap<String, String>;

pub(crate) fn propagate() {
    let session = SessionPropagator::new();
    support::propagate(TextMapCompositePropagator::new(vec![
        Box::new(TraceContextPropagator::new()),
        Box::new(session.with_header(SESSION_HEADER_NAME).unwrap()),
    ]));
}

fn injected() -> Headers {
    let mut headers = Headers::new();
    inject_context(&mut headers);
    headers
}

/// Mirascope: a client writes headers, and what a server does for them is below the client's span.
#[test]
fn mirascope_headers_connect_client_and_server() {
    propagate();
    let app = App::new();
    let headers =
        session("demo-session").in_scope(|| info_span!("client request").in_scope(injected));
    app.on_thread(|| {
        propagated_context(&headers).in_scope(call_model);
        call_model();
    });
    app.exports(
        "
        client request session.id=demo-session
          call session.id=demo-session
            http session.id=demo-session
        call
          http
        ",
    );
}

/// Mirascope: the headers are those of the trace, and the session's where there is a session.
#[test]
fn mirascope_inject_context_writes_the_trace_and_the_session() {
    propagate();
    let app = App::new();
    let (outside, inside) = info_span!("call").in_scope(|| {
        let inside = session("user-session-123").in_scope(injected);
        (injected(), inside)
    });
    let names = |headers: &Headers| headers.keys().cloned().collect::<BTreeSet<_>>();
    let of_trace = ["traceparent", "tracestate"].map(str::to_owned);
    assert_eq!(names(&outside), of_trace.clone().into());
    let of_session = [SESSION_HEADER_NAME, "baggage"].map(str::to_owned);
    assert_eq!(
        names(&inside),
        of_trace.into_iter().chain(of_session).collect()
    );
    assert_eq!(inside[SESSION_HEADER_NAME], "user-session-123");
    let span = app.span("call").span_context;
    let traceparent = format!("00-{}-{}-01", span.trace_id(), span.span_id());
    assert_eq!(outside["traceparent"], traceparent);
    assert_eq!(inside["traceparent"], traceparent);
}

/// Mirascope: the server asks for the session, and has the id that the client gave it. The header
/// alone will do, by either of its names.
#[test]
fn mirascope_session_of_the_client_is_the_servers() {
    propagate();
    let sent = session("user-session-123").in_scope(injected);
    assert_eq!(sent[SESSION_HEADER_NAME], "user-session-123");
    for name in [SESSION_HEADER_NAME, "X-Mirascope-Session-Id"] {
        let received = Headers::from([(name.to_owned(), sent[SESSION_HEADER_NAME].clone())]);
        propagated_context(&received).in_scope(|| {
            let session = current_session().unwrap();
            assert_eq!(session.id(), Some("user-session-123"));
        });
    }
    assert_eq!(current_session(), None);
}

/// Mirascope: the id in headers, whatever the case of their names, that have one value or a list.
#[test]
fn mirascope_extract_session_id_reads_the_header() {
    let one = ["mirascope-session-id", "MIRASCOPE-SESSION-ID"]
        .map(|name| Headers::from([(name.to_owned(), "user-123".to_owned())]));
    for headers in &one {
        assert_eq!(extract_session_id(headers).as_deref(), Some("user-123"));
    }
    let list = HashMap::from([(SESSION_HEADER_NAME.to_owned(), vec!["user-123".to_owned()])]);
    assert_eq!(extract_session_id(&list).as_deref(), Some("user-123"));
    assert_eq!(extract_session_id(&Headers::new()), None);
}

/// Mirascope: a variable chooses the format of the trace's headers. The session goes along in each.
#[test]
fn mirascope_format_of_the_propagator_is_the_environments() {
    const VARIABLE: &str = "MIRASCOPE_PROPAGATOR";
    let formats = [
        ("tracecontext", "traceparent tracestate"),
        ("b3", "b3"),
        ("b3multi", "x-b3-sampled x-b3-spanid x-b3-traceid"),
        ("jaeger", "uber-trace-id"),
        (
            "composite",
            "b3 traceparent tracestate uber-trace-id x-b3-sampled x-b3-spanid x-b3-traceid",
        ),
    ];
    let test = test_name!();
    let alone = |format| support::alone(test, &[(VARIABLE, format)]);
    if !formats.map(|(format, _)| alone(format)).contains(&true) {
        return;
    }
    let format = std::env::var(VARIABLE).unwrap();
    let (_, of_trace) = formats.iter().find(|(name, _)| *name == format).unwrap();

    global::set_text_map_propagator(propagator_from_env().unwrap());
    let app = App::new();
    let headers = session("user-123").in_scope(|| info_span!("client").in_scope(injected));
    let names: BTreeSet<_> = headers.keys().map(|name| name.to_lowercase()).collect();
    let of_trace = of_trace.split(' ').map(str::to_owned);
    let of_session = SESSION_HEADER_NAME.to_lowercase();
    assert_eq!(names, of_trace.chain([of_session]).collect());
    propagated_context(&headers).in_scope(call_model);
    app.exports(
        "
        client session.id=user-123
          call session.id=user-123
            http session.id=user-123
        ",
    );
}

/// Mirascope: what the headers say is a value, to be put in force by whoever has it.
#[tokio::test]
async fn mirascope_context_values_may_be_handled_by_hand() {
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

/// Mirascope: a job carries the headers of the request that left it, and is done on another thread
/// when that has ended.
#[test]
fn mirascope_background_job_goes_on_with_the_request() {
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

/// Mirascope: a service in another language goes on with our trace, and we with its. Its
/// OpenTelemetry sends the session as W3C baggage.
#[test]
fn mirascope_trace_goes_on_in_other_languages() {
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
