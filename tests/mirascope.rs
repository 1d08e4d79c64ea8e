//! What Mirascope's own tests say of sessions and of propagation, said in Rust: each case under its
//! own name, in a module named for the file that it stands in there.
//!
//! Cases that have no test here:
//!
//! | file | case | why |
//! | --- | --- | --- |
//! | `test_context` | `both_parent_and_extract_from`, `neither_parent_nor_extract_from` | an error about arguments: here they are two functions |
//! | `test_propagation` | `invalid_format_is_logged` | the error is returned, and the caller logs it |
//! | `test_propagation` | `sets_global`, `respects_set_global_false` | the application sets the global propagator itself |
//! | `test_propagation` | `extraction_errors`, `injection_errors` | OpenTelemetry's propagators return no errors |
//! | `test_propagation` | `singleton`, `reset_picks_up_new_env_value` | nothing is kept: each call reads the environment |
//! | `session.test.ts` | `array_with_undefined_first` | a list of strings holds nothing else |
//!
//! The tables at the end say what Mirascope 2.8.2 does with given headers and ids, and where we
//! differ on purpose, by which rule; `mirascope/attributes.rs` has those about attributes and JSON. Left
//! out of them are ids that are no text (`None`, integers, bytes, tuples).

mod support;

#[path = "mirascope/attributes.rs"]
mod attributes;

use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::trace::{Span, SpanContext, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use support::{App, values};
use tracing_session::{
    Dialect, SESSION_HEADER_NAME, Session, SessionPropagator, current_session, current_session_id,
    extract_session_id, inject_context, propagator_from_env,
};

type Headers = HashMap<String, String>;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

fn headers(lines: &[(&str, &str)]) -> Headers {
    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    lines.iter().map(owned).collect()
}

fn session(id: &str) -> Session {
    Session::new(id).unwrap()
}

fn here() -> SpanContext {
    Context::current().span().span_context().clone()
}

/// What `MIRASCOPE_PROPAGATOR=tracecontext` makes, for the whole process.
fn set_propagator() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let mirascope = SessionPropagator::new().with_baggage(false);
        let propagators: Vec<Box<dyn TextMapPropagator + Send + Sync>> = vec![
            Box::new(TraceContextPropagator::new()),
            Box::new(mirascope.with_header(SESSION_HEADER_NAME).unwrap()),
        ];
        global::set_text_map_propagator(TextMapCompositePropagator::new(propagators));
    });
}

/// What is written here.
fn injected() -> Headers {
    let mut headers = Headers::new();
    inject_context(&mut headers);
    headers
}

const FORMATS: [&str; 5] = ["tracecontext", "b3", "b3multi", "jaeger", "composite"];

/// Runs a test once for each format, in a process of its own where it is the global propagator.
fn in_format(test: &str) -> Option<String> {
    const VARIABLE: &str = "MIRASCOPE_PROPAGATOR";
    for format in FORMATS {
        if support::alone(test, &[(VARIABLE, format)]) {
            global::set_text_map_propagator(propagator_from_env().unwrap());
            return std::env::var(VARIABLE).ok();
        }
    }
    None
}

mod test_session {
    use super::*;
    use tracing_session::InSession;

    #[test]
    fn context_creation() {
        assert_eq!(session("chat-42").id(), Some("chat-42"));
        assert_eq!(session("chat-42").user_id(), None);
    }

    #[test]
    fn with_attributes() {
        let said = session("chat-42").with_metadata("user", "alice").unwrap();
        let said = said.with_metadata("env", "prod").unwrap();
        said.in_scope(|| {
            let here = current_session().unwrap();
            assert_eq!(here.id(), Some("chat-42"));
            assert_eq!(here.metadata("user").unwrap(), "alice");
            assert_eq!(here.metadata("env").unwrap(), "prod");
            assert_eq!(here.all_metadata().count(), 2);
        });
        assert_eq!(session("chat-42").all_metadata().count(), 0);
    }

    #[test]
    fn context_auto_generates_id() {
        let (one, other) = (Session::generate(), Session::generate());
        assert!(one.id().is_some_and(|id| !id.is_empty()));
        assert_ne!(one, other);
    }

    #[test]
    fn context_manager() {
        let guard = session("chat-42").attach();
        assert_eq!(current_session(), Some(session("chat-42")));
        drop(guard);
        assert_eq!(current_session(), None);
    }

    #[test]
    fn auto_generates_id() {
        let session = Session::generate();
        session.in_scope(|| assert_eq!(current_session_id().as_deref(), session.id()));
    }

    #[test]
    fn nested() {
        session("outer").in_scope(|| {
            session("inner")
                .in_scope(|| assert_eq!(current_session_id().as_deref(), Some("inner")));
            assert_eq!(current_session_id().as_deref(), Some("outer"));
        });
        assert_eq!(current_session(), None);
    }

    #[test]
    fn exception_unwinding() {
        let left = catch_unwind(|| session("chat-42").in_scope(|| panic!("on purpose")));
        assert!(left.is_err());
        assert_eq!(current_session(), None);
    }

    #[test]
    fn nested_exception() {
        session("outer").in_scope(|| {
            let left = catch_unwind(|| session("inner").in_scope(|| panic!("on purpose")));
            assert!(left.is_err());
            assert_eq!(current_session_id().as_deref(), Some("outer"));
        });
    }

    #[tokio::test]
    async fn async_propagation() {
        let work = async {
            tokio::task::yield_now().await;
            current_session_id()
        };
        assert_eq!(
            work.in_session(session("chat-42")).await.as_deref(),
            Some("chat-42")
        );
    }

    #[tokio::test]
    async fn async_nested() {
        let inner = async {
            tokio::task::yield_now().await;
            current_session_id()
        };
        let outer = async {
            let inside = inner.in_session(session("override")).await;
            tokio::task::yield_now().await;
            (inside, current_session_id())
        };
        let (inside, after) = outer.in_session(session("base")).await;
        assert_eq!(inside.as_deref(), Some("override"));
        assert_eq!(after.as_deref(), Some("base"));
    }

    #[test]
    fn extract_from_mirascope_session_id() {
        assert_eq!(SESSION_HEADER_NAME, "Mirascope-Session-Id");
        let headers = headers(&[("Mirascope-Session-Id", "chat-42")]);
        assert_eq!(extract_session_id(&headers).as_deref(), Some("chat-42"));
    }

    #[test]
    fn case_insensitive() {
        for name in ["mirascope-session-id", "MIRASCOPE-SESSION-ID"] {
            let id = extract_session_id(&headers(&[(name, "chat-42")]));
            assert_eq!(id.as_deref(), Some("chat-42"));
        }
    }

    /// A list gives its first value there. Here several that differ are ignored.
    #[test]
    fn edge_cases() {
        let list = |values: &[&str]| {
            let values = values.iter().map(|&value| value.to_owned()).collect();
            let headers: HashMap<String, Vec<String>> =
                HashMap::from([(SESSION_HEADER_NAME.to_owned(), values)]);
            extract_session_id(&headers)
        };
        assert_eq!(list(&["chat-42", "chat-42"]).as_deref(), Some("chat-42"));
        assert_eq!(list(&["chat-42", "chat-43"]), None);
        assert_eq!(list(&[]), None);
        assert_eq!(extract_session_id(&headers(&[("Other", "chat-42")])), None);
        assert_eq!(
            extract_session_id(&headers(&[(SESSION_HEADER_NAME, "")])),
            None
        );
    }

    #[test]
    fn current_session_none_outside() {
        assert_eq!(current_session(), None);
    }

    #[test]
    fn isolation_between_consecutive_sessions() {
        for id in ["one", "two"] {
            session(id).in_scope(|| assert_eq!(current_session_id().as_deref(), Some(id)));
            assert_eq!(current_session(), None);
        }
    }
}

mod test_span {
    use super::*;
    use tracing::info_span;

    #[test]
    fn span_with_session() {
        let app = App::new();
        session("chat-42").in_scope(|| info_span!("span").in_scope(|| {}));
        app.exports("span session.id=chat-42");
    }

    /// Under the keys of OpenInference, and under Mirascope's own where these are asked for.
    #[test]
    fn span_with_session_attributes() {
        let said = session("chat-42").with_metadata("user", "alice").unwrap();
        let said = said.with_metadata("env", "prod").unwrap();
        let app = App::new();
        said.in_scope(|| info_span!("span").in_scope(|| {}));
        app.exports(r#"span session.id=chat-42 metadata={"user":"alice","env":"prod"}"#);
        drop(app);
        let app = App::with_format(|provider| provider.with_dialect(Dialect::MIRASCOPE));
        said.in_scope(|| info_span!("span").in_scope(|| {}));
        app.exports(
            "span mirascope.ops.session.id=chat-42 \
             mirascope.ops.session.attributes={\"user\":\"alice\",\"env\":\"prod\"}",
        );
    }

    #[test]
    fn span_without_session() {
        let app = App::new();
        info_span!("span").in_scope(|| {});
        app.exports("span");
    }

    #[test]
    fn span_nested_session_override() {
        let app = App::new();
        session("outer").in_scope(|| {
            info_span!("first").in_scope(|| {});
            session("inner").in_scope(|| info_span!("second").in_scope(|| {}));
            info_span!("third").in_scope(|| {});
        });
        app.exports(
            "
            first session.id=outer
            second session.id=inner
            third session.id=outer
            ",
        );
    }
}

mod test_tracing {
    use super::*;
    use tracing::instrument;
    use tracing_session::InSession;

    #[test]
    fn trace_with_session() {
        #[instrument]
        fn traced() {}
        let app = App::new();
        session("chat-42").in_scope(traced);
        app.exports("traced session.id=chat-42");
    }

    #[tokio::test]
    async fn async_trace_with_session() {
        #[instrument]
        async fn traced() {
            tokio::task::yield_now().await;
        }
        let app = App::new();
        traced().in_session(session("chat-42")).await;
        app.exports("traced session.id=chat-42");
    }
}

mod test_context {
    use super::*;
    use tracing::info_span;
    use tracing_opentelemetry::OpenTelemetrySpanExt;
    use tracing_session::{extract_context, propagated_context};

    fn from_outside() -> Headers {
        headers(&[
            ("traceparent", TRACEPARENT),
            (SESSION_HEADER_NAME, "remote"),
        ])
    }

    #[test]
    fn extract_from_gives_same_trace_id() {
        set_propagator();
        propagated_context(&from_outside())
            .in_scope(|| assert_eq!(here().trace_id().to_string(), TRACE_ID));
    }

    #[test]
    fn parent_gives_same_trace_id() {
        set_propagator();
        let app = App::new();
        let parent = extract_context(&from_outside());
        let span = info_span!("span");
        span.set_parent(parent.clone()).unwrap();
        drop(span.entered());
        let _attached = parent.attach();
        info_span!("attached").in_scope(|| {});
        for name in ["span", "attached"] {
            assert_eq!(app.span(name).span_context.trace_id().to_string(), TRACE_ID);
        }
    }

    #[test]
    fn detaches_on_exit() {
        set_propagator();
        propagated_context(&from_outside()).in_scope(|| assert!(here().is_valid()));
        assert!(!here().is_valid());
    }

    #[test]
    fn detaches_on_exception() {
        set_propagator();
        let inside = || propagated_context(&from_outside()).in_scope(|| panic!("on purpose"));
        assert!(catch_unwind(inside).is_err());
        assert!(!here().is_valid());
    }

    #[test]
    fn invalid_carrier_does_not_raise() {
        set_propagator();
        let invalid = headers(&[
            ("traceparent", "\0"),
            ("", ""),
            (SESSION_HEADER_NAME, "\u{7f}"),
        ]);
        propagated_context(&invalid).in_scope(|| {
            assert!(!here().is_valid());
            assert_eq!(current_session(), None);
        });
    }

    #[test]
    fn nested_calls_restore_outer() {
        set_propagator();
        let inner = headers(&[(
            "traceparent",
            "00-11111111111111111111111111111111-2222222222222222-01",
        )]);
        propagated_context(&from_outside()).in_scope(|| {
            let inside = propagated_context(&inner).in_scope(here);
            assert_eq!(inside.trace_id().to_string(), "1".repeat(32));
            assert_eq!(here().trace_id().to_string(), TRACE_ID);
        });
    }

    #[test]
    fn child_span_has_parents_trace_id_and_a_new_span_id() {
        set_propagator();
        let app = App::new();
        propagated_context(&from_outside()).in_scope(|| info_span!("child").in_scope(|| {}));
        let child = app.span("child");
        assert_eq!(child.span_context.trace_id().to_string(), TRACE_ID);
        assert_eq!(child.parent_span_id.to_string(), "b7ad6b7169203331");
        assert_ne!(child.span_context.span_id(), child.parent_span_id);
    }

    #[test]
    fn empty_carrier() {
        set_propagator();
        propagated_context(&Headers::new()).in_scope(|| assert!(!here().is_valid()));
    }

    #[test]
    fn session_extraction() {
        set_propagator();
        let inside = |lines| propagated_context(&headers(lines)).in_scope(current_session_id);
        assert_eq!(
            inside(&[(SESSION_HEADER_NAME, "remote")]).as_deref(),
            Some("remote")
        );
        assert_eq!(
            inside(&[("mirascope-session-id", "remote")]).as_deref(),
            Some("remote")
        );
        assert_eq!(inside(&[("traceparent", TRACEPARENT)]), None);
    }

    #[test]
    fn explicit_session_inside_overrides_and_is_restored() {
        set_propagator();
        propagated_context(&from_outside()).in_scope(|| {
            let inside = session("explicit").in_scope(current_session_id);
            assert_eq!(inside.as_deref(), Some("explicit"));
            assert_eq!(current_session_id().as_deref(), Some("remote"));
        });
    }

    #[test]
    fn cleanup_on_exception() {
        set_propagator();
        session("outer").in_scope(|| {
            let inside = || propagated_context(&from_outside()).in_scope(|| panic!("on purpose"));
            assert!(catch_unwind(AssertUnwindSafe(inside)).is_err());
            assert_eq!(current_session_id().as_deref(), Some("outer"));
        });
    }

    #[test]
    fn five_propagators() {
        let Some(format) = in_format("test_context::five_propagators") else {
            return;
        };
        let _app = App::new();
        let (sent, trace) = session("chat-42")
            .in_scope(|| info_span!("client").in_scope(|| (injected(), here().trace_id())));
        let header = match &*format {
            "b3" => "b3",
            "b3multi" => "x-b3-traceid",
            "jaeger" => "uber-trace-id",
            _ => "traceparent",
        };
        assert!(sent.contains_key(header), "{sent:?}");
        propagated_context(&sent).in_scope(|| {
            assert_eq!(here().trace_id(), trace);
            assert_eq!(current_session_id().as_deref(), Some("chat-42"));
        });
    }
}

mod test_propagation {
    use super::*;
    use tracing::info_span;
    use tracing_session::{extract_context, propagated_context};

    /// Of the default it is W3C baggage that carries the session here; and OpenTelemetry for Rust
    /// writes `tracestate` even if it is empty.
    #[test]
    fn exact_header_set_per_format() {
        const TEST: &str = "test_propagation::exact_header_set_per_format";
        if std::env::var_os("TEST_ALONE").is_none() && !support::alone(TEST, &[]) {
            in_format(TEST);
            return;
        }
        let format = std::env::var("MIRASCOPE_PROPAGATOR").unwrap_or_default();
        global::set_text_map_propagator(propagator_from_env().unwrap());
        let _app = App::new();
        let inside = || info_span!("client").in_scope(injected);
        let sent: BTreeMap<_, _> = session("sid").in_scope(inside).into_iter().collect();
        let names: Vec<_> = sent.keys().map(String::as_str).collect();
        let expected: &[&str] = match &*format {
            "" => &["baggage", "traceparent", "tracestate"],
            "tracecontext" => &["Mirascope-Session-Id", "traceparent", "tracestate"],
            "b3" => &["Mirascope-Session-Id", "b3"],
            "b3multi" => &[
                "Mirascope-Session-Id",
                "x-b3-sampled",
                "x-b3-spanid",
                "x-b3-traceid",
            ],
            "jaeger" => &["Mirascope-Session-Id", "uber-trace-id"],
            _ => &[
                "Mirascope-Session-Id",
                "b3",
                "traceparent",
                "tracestate",
                "uber-trace-id",
                "x-b3-sampled",
                "x-b3-spanid",
                "x-b3-traceid",
            ],
        };
        assert_eq!(names, expected, "{format}");
    }

    #[test]
    fn invalid_format_error_text() {
        let invalid = [
            "W3C",
            "TRACECONTEXT",
            "tracecontext ",
            "baggage",
            "b3,tracecontext",
        ];
        for name in invalid {
            let test = "test_propagation::invalid_format_error_text";
            if support::alone(test, &[("MIRASCOPE_PROPAGATOR", name)]) {
                let name = std::env::var("MIRASCOPE_PROPAGATOR").unwrap();
                let error = propagator_from_env().unwrap_err();
                assert_eq!(
                    error.to_string(),
                    format!(
                        "MIRASCOPE_PROPAGATOR: `{name}`: no such propagator (valid: tracecontext, \
                         b3, b3multi, jaeger, composite)"
                    )
                );
                return;
            }
        }
    }

    #[test]
    fn extract_valid() {
        set_propagator();
        let cx = extract_context(&headers(&[("traceparent", TRACEPARENT)]));
        let span = cx.span().span_context().clone();
        assert!(span.is_valid() && span.is_remote() && span.is_sampled());
        assert_eq!(span.trace_id().to_string(), TRACE_ID);
        assert_eq!(span.span_id().to_string(), "b7ad6b7169203331");
    }

    #[test]
    fn extract_invalid() {
        set_propagator();
        let cx = extract_context(&headers(&[("traceparent", "invalid")]));
        assert!(!cx.span().span_context().is_valid());
    }

    #[test]
    fn extract_missing() {
        set_propagator();
        assert!(
            !extract_context(&Headers::new())
                .span()
                .span_context()
                .is_valid()
        );
    }

    #[test]
    fn inject_specific_context() {
        let app = App::new();
        let span = app.provider.tracer("lib").start("client");
        let trace = span.span_context().trace_id().to_string();
        let cx = session("chat-42").in_scope(|| Context::current_with_span(span));
        let mut sent = Headers::new();
        TraceContextPropagator::new().inject_context(&cx, &mut sent);
        SessionPropagator::new().inject_context(&cx, &mut sent);
        assert!(sent["traceparent"].contains(&trace));
        assert_eq!(sent["baggage"], "session.id=chat-42");
    }

    #[test]
    fn inject_extract_session_round_trip() {
        set_propagator();
        let _app = App::new();
        let sent = session("chat-42").in_scope(|| info_span!("client").in_scope(injected));
        let mut names: Vec<_> = sent.keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, [SESSION_HEADER_NAME, "traceparent", "tracestate"]);
        assert_eq!(extract_session_id(&sent).as_deref(), Some("chat-42"));
        let inside = propagated_context(&sent).in_scope(current_session_id);
        assert_eq!(inside.as_deref(), Some("chat-42"));
    }

    #[test]
    fn trace_round_trip_for_all_formats() {
        if in_format("test_propagation::trace_round_trip_for_all_formats").is_none() {
            return;
        }
        let _app = App::new();
        let (sent, client) =
            session("sid").in_scope(|| info_span!("client").in_scope(|| (injected(), here())));
        propagated_context(&sent).in_scope(|| {
            let span = here();
            assert_eq!(span.trace_id(), client.trace_id());
            assert_eq!(span.span_id(), client.span_id());
            assert!(span.is_sampled() && span.is_remote());
            assert_eq!(current_session(), Some(session("sid")));
        });
    }

    #[test]
    fn client_server_continuity() {
        set_propagator();
        let app = App::new();
        let sent = session("chat-42").in_scope(|| info_span!("client").in_scope(injected));
        propagated_context(&sent).in_scope(|| info_span!("server").in_scope(|| {}));
        app.exports(
            "
            client session.id=chat-42
              server session.id=chat-42
            ",
        );
    }

    #[test]
    fn three_hops() {
        set_propagator();
        let app = App::new();
        let hop = |from: &Headers, name: &'static str| {
            propagated_context(from)
                .in_scope(|| info_span!("hop", otel.name = name).in_scope(injected))
        };
        let first = session("chat-42").in_scope(|| hop(&Headers::new(), "first"));
        let second = hop(&first, "second");
        hop(&second, "third");
        app.exports(
            "
            first session.id=chat-42
              second session.id=chat-42
                third session.id=chat-42
            ",
        );
    }

    #[test]
    fn b3_client_to_composite_server() {
        const TEST: &str = "test_propagation::b3_client_to_composite_server";
        if !support::alone(TEST, &[("MIRASCOPE_PROPAGATOR", "composite")]) {
            return;
        }
        global::set_text_map_propagator(propagator_from_env().unwrap());
        let b3 = format!("{TRACE_ID}-b7ad6b7169203331-1");
        let sent = headers(&[("b3", &b3), (SESSION_HEADER_NAME, "chat-42")]);
        propagated_context(&sent).in_scope(|| {
            assert_eq!(here().trace_id().to_string(), TRACE_ID);
            assert_eq!(here().span_id().to_string(), "b7ad6b7169203331");
            assert_eq!(current_session_id().as_deref(), Some("chat-42"));
        });
    }

    #[test]
    fn five_threads_isolated() {
        set_propagator();
        let app = App::new();
        std::thread::scope(|scope| {
            let threads = ["one", "two", "three", "four", "five"].map(|id| {
                let dispatch = &app.dispatch;
                scope.spawn(move || {
                    let _default = tracing::dispatcher::set_default(dispatch);
                    session(id).in_scope(|| {
                        for _ in 0..20 {
                            let sent = info_span!("client").in_scope(injected);
                            assert_eq!(sent[SESSION_HEADER_NAME], id);
                            let inside = propagated_context(&sent).in_scope(current_session_id);
                            assert_eq!(inside.as_deref(), Some(id));
                        }
                    });
                })
            });
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }

    #[test]
    fn malformed_partial_empty_traceparent() {
        set_propagator();
        let app = App::new();
        for traceparent in [
            "not-a-traceparent",
            "00-0af7651916cd43dd8448eb211c80319c",
            "",
        ] {
            let sent = headers(&[
                ("traceparent", traceparent),
                (SESSION_HEADER_NAME, "chat-42"),
            ]);
            propagated_context(&sent).in_scope(|| {
                info_span!("server").in_scope(|| assert!(here().is_valid() && here().is_sampled()));
            });
        }
        app.exports(&"server session.id=chat-42\n".repeat(3));
        let spans = app.spans();
        assert!(
            spans
                .iter()
                .all(|span| span.span_context.trace_id().to_string() != TRACE_ID)
        );
    }
}

/// `session.test.ts`, where it has more.
mod session_test_ts {
    use super::*;
    use tracing_session::InSession;

    #[tokio::test]
    async fn concurrent_sessions_separate() {
        let work = |id: &'static str| {
            let work = async move {
                for _ in 0..10 {
                    tokio::task::yield_now().await;
                    assert_eq!(current_session_id().as_deref(), Some(id));
                }
            };
            work.in_session(session(id))
        };
        tokio::join!(work("one"), work("two"), work("three"));
        assert_eq!(current_session(), None);
    }

    #[test]
    fn deeply_nested() {
        fn nest(depth: usize) {
            let id = depth.to_string();
            session(&id).in_scope(|| {
                if depth < 100 {
                    nest(depth + 1);
                }
                assert_eq!(current_session_id().as_deref(), Some(&*id));
            });
        }
        nest(0);
    }
}

/// What Mirascope 2.8.2 was seen to do. A rule stands where we do something else.
mod observed {
    use super::*;
    use tracing::info_span;
    use tracing_session::propagated_context;

    #[test]
    fn headers_to_the_id_of_the_session() {
        const BLANK: &str = "blank is nothing";
        const TRIMMED: &str = "ids are trimmed";
        const DIFFER: &str = "several that differ are ignored";
        const VALID: &str = "an id has 1 to 1,024 bytes and no control characters";
        const X: &str = "the header of the documentation is read too";
        let long = "x".repeat(4096);
        let id = "Mirascope-Session-Id";
        type Lines<'a> = &'a [(&'a str, &'a [&'a str])];
        // The headers, what they say to Mirascope, what they say here, and the rule.
        let rows: &[(Lines, Option<&str>, Option<&str>, &str)] = &[
            (&[(id, &["s1"])], Some("s1"), Some("s1"), ""),
            (
                &[("mirascope-session-id", &["s1"])],
                Some("s1"),
                Some("s1"),
                "",
            ),
            (
                &[("MIRASCOPE-SESSION-ID", &["s1"])],
                Some("s1"),
                Some("s1"),
                "",
            ),
            (&[("X-Mirascope-Session-Id", &["s1"])], None, Some("s1"), X),
            (&[("Other", &["v"])], None, None, ""),
            (&[], None, None, ""),
            (&[(id, &["a", "b"])], Some("a"), None, DIFFER),
            (&[(id, &[])], None, None, ""),
            (&[(id, &["", "b"])], Some(""), Some("b"), BLANK),
            (&[(id, &[""])], None, None, ""),
            (&[(id, &["   "])], Some("   "), None, BLANK),
            (&[(id, &[" s1 "])], Some(" s1 "), Some("s1"), TRIMMED),
            // A comma is part of an id, and does not part two.
            (&[(id, &["a, b"])], Some("a, b"), Some("a, b"), ""),
            (
                &[(id, &["séance-你"])],
                Some("séance-你"),
                Some("séance-你"),
                "",
            ),
            (&[(id, &["a\r\nX: y"])], Some("a\r\nX: y"), None, VALID),
            (
                &[(id, &["first"]), ("mirascope-session-id", &["second"])],
                Some("second"),
                None,
                DIFFER,
            ),
            (&[(id, &[&long])], Some(&long), None, VALID),
        ];
        for (lines, mirascope, ours, rule) in rows {
            let values = |values: &[&str]| values.iter().map(|&value| value.to_owned()).collect();
            let line = |&(name, of): &(&str, &[&str])| (name.to_owned(), values(of));
            let headers: HashMap<String, Vec<String>> = lines.iter().map(line).collect();
            assert_eq!(extract_session_id(&headers).as_deref(), *ours, "{lines:?}");
            assert_eq!(mirascope == ours, rule.is_empty(), "{lines:?}");
        }
    }

    #[test]
    fn id_to_the_header() {
        const VALID: &str = "no such id can be made";
        const TRIMMED: &str = "ids are trimmed";
        const ASCII: &str = "a plain header is ASCII";
        let long = "x".repeat(300);
        for (id, mirascope, ours, rule) in [
            (
                "only-session",
                Some("only-session"),
                Some("only-session"),
                "",
            ),
            (&*long, Some(&*long), Some(&*long), ""),
            ("", Some(""), None, VALID),
            ("  ", Some("  "), None, VALID),
            ("a\r\nEvil: 1", Some("a\r\nEvil: 1"), None, VALID),
            ("  pad  ", Some("  pad  "), Some("pad"), TRIMMED),
            ("séance", Some("séance"), None, ASCII),
        ] {
            set_propagator();
            let sent = Session::new(id).map(|session| session.in_scope(injected));
            let sent = sent.unwrap_or_default();
            let header = sent.get(SESSION_HEADER_NAME).map(String::as_str);
            assert_eq!(header, ours, "{id:?}");
            assert_eq!(sent.len(), usize::from(ours.is_some()), "{sent:?}");
            assert_eq!(mirascope == ours, rule.is_empty(), "{id:?}");
        }
    }

    /// There, a header of another spelling is left beside the new one.
    #[test]
    fn header_of_another_spelling_is_overwritten() {
        set_propagator();
        let mut sent = headers(&[("mirascope-session-id", "old")]);
        session("over").in_scope(|| inject_context(&mut sent));
        assert_eq!(sent, headers(&[("Mirascope-Session-Id", "over")]));
    }

    #[test]
    fn nothing_in_force_is_no_header() {
        set_propagator();
        assert_eq!(injected(), Headers::new());
    }

    #[test]
    fn values_of_the_headers_of_each_format() {
        let Some(format) = in_format("observed::values_of_the_headers_of_each_format") else {
            return;
        };
        let _app = App::new();
        let (sent, span) =
            session("sid").in_scope(|| info_span!("client").in_scope(|| (injected(), here())));
        let (trace, span) = (span.trace_id().to_string(), span.span_id().to_string());
        // Mirascope names the parent and sets a second flag, which Jaeger's format has for debugging.
        let jaeger = ("uber-trace-id", format!("{trace}:{span}:0:1"));
        let tracecontext = ("traceparent", format!("00-{trace}-{span}-01"));
        let b3 = ("b3", format!("{trace}-{span}-1"));
        let multi = [
            ("x-b3-traceid", trace.clone()),
            ("x-b3-spanid", span.clone()),
            ("x-b3-sampled", "1".to_owned()),
        ];
        let mut expected = vec![("Mirascope-Session-Id", "sid".to_owned())];
        match &*format {
            "tracecontext" => expected.push(tracecontext),
            "b3" => expected.push(b3),
            "b3multi" => expected.extend(multi),
            "jaeger" => expected.push(jaeger),
            _ => {
                expected.extend([tracecontext, b3, jaeger]);
                expected.extend(multi);
            }
        }
        for (name, value) in expected {
            assert_eq!(sent[name], value);
        }
    }

    #[test]
    fn headers_as_mirascope_writes_them_are_read() {
        let Some(format) = in_format("observed::headers_as_mirascope_writes_them_are_read") else {
            return;
        };
        let span = "b7ad6b7169203331";
        let jaeger = format!("{TRACE_ID}:{span}:00f067aa0ba902b7:03");
        let b3 = format!("{TRACE_ID}-{span}-1");
        let of_format: &[(&str, &str)] = &[
            ("traceparent", &format!("00-{TRACE_ID}-{span}-03")),
            ("b3", &b3),
            ("x-b3-traceid", TRACE_ID),
            ("x-b3-spanid", span),
            ("x-b3-sampled", "1"),
            ("uber-trace-id", &jaeger),
        ];
        let of_format: &[(&str, &str)] = match &*format {
            "tracecontext" => &of_format[..1],
            "b3" => &of_format[1..2],
            "b3multi" => &of_format[2..5],
            "jaeger" => &of_format[5..],
            _ => of_format,
        };
        let lines = [of_format, &[("mirascope-session-id", "sid")]].concat();
        propagated_context(&headers(&lines)).in_scope(|| {
            let here = here();
            assert_eq!(here.trace_id().to_string(), TRACE_ID);
            assert_eq!(here.span_id().to_string(), span);
            assert!(here.is_sampled());
            assert_eq!(current_session_id().as_deref(), Some("sid"));
        });
    }

    #[test]
    fn headers_to_the_session_in_force_inside_another() {
        const BLANK: &str = "blank is nothing";
        set_propagator();
        let id = SESSION_HEADER_NAME;
        for (lines, mirascope, ours, rule) in [
            (vec![], "ambient", "ambient", ""),
            (vec![(id, "")], "ambient", "ambient", ""),
            (vec![(id, "   ")], "   ", "ambient", BLANK),
            (vec![(id, "remote")], "remote", "remote", ""),
            (vec![("traceparent", TRACEPARENT)], "ambient", "ambient", ""),
            (vec![("traceparent", "invalid")], "ambient", "ambient", ""),
        ] {
            let inside = || propagated_context(&headers(&lines)).in_scope(current_session_id);
            let found = session("ambient").in_scope(inside);
            assert_eq!(found.as_deref(), Some(ours), "{lines:?}");
            assert_eq!(mirascope == ours, rule.is_empty(), "{lines:?}");
        }
    }

    /// There, the span in force is lost if `traceparent` is invalid. Here it stays.
    #[test]
    fn invalid_traceparent_leaves_the_span_in_force() {
        set_propagator();
        let _app = App::new();
        info_span!("ambient").in_scope(|| {
            let ambient = here();
            let invalid = headers(&[("traceparent", "invalid")]);
            let inside = propagated_context(&invalid).in_scope(here);
            assert_eq!(inside, ambient);
        });
    }

    /// There, a span of OpenTelemetry's own carries nothing. A span that is open already is not
    /// marked, and what a span says itself stays.
    #[test]
    fn spans_that_carry_the_session() {
        let app = App::new();
        info_span!("before").in_scope(|| {
            session("S").in_scope(|| {
                info_span!("child").in_scope(|| {});
                let tracer = app.provider.tracer("lib");
                tracer
                    .start_with_context("plain", &Context::current())
                    .end();
                session("INNER").in_scope(|| info_span!("inner-child").in_scope(|| {}));
                info_span!("after-inner").in_scope(|| {});
                info_span!("own", session.id = "explicit").in_scope(|| {});
            });
            info_span!("after-session").in_scope(|| {});
        });
        app.exports(
            "
            before
              child session.id=S
              plain session.id=S
              inner-child session.id=INNER
              after-inner session.id=S
              own session.id=explicit
              after-session
            ",
        );
        assert_eq!(values(&app.span("own"), "session.id"), ["explicit"]);
    }

    /// There it is of version 4.
    #[test]
    fn id_that_is_generated() {
        let session = Session::generate();
        let id = session.id().unwrap();
        let uuid = uuid::Uuid::parse_str(id).unwrap();
        assert_eq!(uuid.get_version_num(), 7);
        assert_eq!(
            uuid.as_hyphenated().to_string(),
            id,
            "36 characters, in lower case"
        );
    }

    /// A task inherits there, from where it was made; here it does where it is said.
    #[tokio::test]
    async fn threads_and_tasks() {
        use tracing_session::InSession;
        let guard = session("as").attach();
        assert_eq!(std::thread::spawn(current_session_id).join().unwrap(), None);
        let said = tokio::spawn(async { current_session_id() }.in_session(session("as")));
        drop(guard);
        assert_eq!(said.await.unwrap().as_deref(), Some("as"));
        let unsaid = tokio::spawn(async { current_session_id() });
        assert_eq!(unsaid.await.unwrap(), None);
    }
}
