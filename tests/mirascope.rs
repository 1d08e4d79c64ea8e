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

mod attributes;
mod observed;
mod test_propagation;

use crate::support::{self, App, values};
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::trace::{Span, SpanContext, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
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

/// What `MIRASCOPE_PROPAGATOR=tracecontext` makes.
fn set_propagator() {
    let mirascope = SessionPropagator::new().with_baggage(false);
    let propagators: Vec<Box<dyn TextMapPropagator + Send + Sync>> = vec![
        Box::new(TraceContextPropagator::new()),
        Box::new(mirascope.with_header(SESSION_HEADER_NAME).unwrap()),
    ];
    support::propagate(TextMapCompositePropagator::new(propagators));
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
        let app = App::with_dialect(Dialect::MIRASCOPE);
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
        let Some(format) = in_format(test_name!()) else {
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
