//! What the instrumentors test of propagation. Each library here is one that knows sessions of its
//! own, or none.

use super::{EVERYTHING, everything, work};
use crate::support::{App, session, shown, values};
use tracing::{Instrument, Span, info_span};
use tracing_session::{
    InSession, Session, SessionLayer, current_session, current_session_id, set_session_id,
};

/// Whose id counts: that of the application, or that of a library which has ids of its own. There, the
/// application's always does. Here a span's author has the last word on that span (C2), so it is for
/// the library to ask; and if it does not ask, only the spans that it says an id on have its id.
mod precedence {
    use super::*;
    use opentelemetry::trace::{Span as _, Tracer, TracerProvider};
    use opentelemetry::{Context, KeyValue};
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SpanData, SpanProcessor};
    use std::time::Duration;

    const CLI: &str = "4e00c355-0cb1-4a44-a7ec-50739f9aabcd";

    /// A library that asks.
    fn query(fails: bool) -> Result<(), &'static str> {
        info_span!("query").in_scope(|| {
            if current_session_id().is_none() {
                set_session_id(CLI).unwrap();
            }
            info_span!("tool").in_scope(|| {});
            if fails { Err("boom") } else { Ok(()) }
        })
    }

    /// `claude-agent-sdk`: `propagated_session_id_not_overwritten_by_sdk_session`, `.._on_error_result`,
    /// `sdk_session_id_set_when_none_propagated`.
    #[test]
    fn library_that_checks_sets_its_id_only_outside_any_session() {
        for (app_session, fails, id) in [
            (session("app"), false, "app"),
            (session("app"), true, "app"),
            (Session::default(), false, CLI),
        ] {
            let app = App::new();
            let result = app_session.in_scope(|| query(fails));
            assert_eq!(result.is_err(), fails);
            app.exports(&format!("query session.id={id}\n  tool session.id={id}"));
        }
    }

    /// An agent inside another, with an id of its own that it sets by OpenTelemetry's API. It goes no
    /// further than its span: what is below is the application's.
    #[test]
    fn sub_agent_session_id_stays_on_its_own_span() {
        let app = App::new();
        session("app").in_scope(|| {
            info_span!("root_agent").in_scope(|| {
                let tracer = app.provider.tracer("adk");
                tracer.in_span("sub_agent", |cx| {
                    use opentelemetry::trace::TraceContextExt;
                    cx.span().set_attribute(KeyValue::new("session.id", CLI));
                    info_span!("tool").in_scope(|| {});
                });
            });
        });
        app.exports(&format!(
            "
            root_agent session.id=app
              sub_agent session.id={CLI}
                tool session.id=app
            "
        ));
    }

    /// A library that says it by a field of its span means all below (A2), unless the application
    /// tells the layer not to listen: then it is an attribute of that span.
    #[test]
    fn field_of_a_library_opens_a_scope_unless_default_names_are_off() {
        let library = || info_span!("sub_agent", session.id = CLI).in_scope(work);
        let app = App::new();
        session("app").in_scope(library);
        app.exports(&format!(
            "
            sub_agent session.id={CLI}
              work session.id={CLI}
                step session.id={CLI}
            "
        ));
        drop(app);
        let app = App::with(|layer| layer.without_default_names());
        session("app").in_scope(library);
        app.exports(&format!(
            "
            sub_agent session.id={CLI}
              work session.id=app
                step session.id=app
            "
        ));
    }

    #[derive(Debug)]
    struct SessionOnStart;

    impl SpanProcessor for SessionOnStart {
        fn on_start(&self, span: &mut opentelemetry_sdk::trace::Span, _: &Context) {
            span.set_attribute(KeyValue::new("session.id", "app"));
        }
        fn on_end(&self, _: SpanData) {}
        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }
        fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    /// What a processor of the application's adds passes us by: the library cannot see it, and both
    /// are exported. A `Session` is what it can see.
    #[test]
    fn receive_response_session_id_set_by_span_processor_is_added() {
        let app = App::with_provider(
            |builder| builder.with_span_processor(SessionOnStart),
            |otel| SessionLayer::new().wrap(otel),
        );
        query(false).unwrap();
        assert_eq!(values(&app.span("query"), "session.id"), ["app", CLI]);
    }

    /// `openai-agents`: what a connection knows, it says on a span of its own.
    fn realtime(connection: &Span, provider: &str) {
        connection.in_scope(|| {
            if current_session_id().is_none() {
                set_session_id(provider).unwrap();
            }
        });
        connection.in_scope(|| info_span!("speech").in_scope(|| {}));
        info_span!(parent: connection, "response").in_scope(|| {});
    }

    #[test]
    fn realtime_spans_inherit_session_context_from_session_creation() {
        let app = App::new();
        let connection = session("user-session-1").in_scope(|| info_span!("connection"));
        session("of somebody else").in_scope(|| {
            connection.in_scope(|| info_span!("speech").in_scope(|| {}));
            info_span!(parent: &connection, "response").in_scope(|| {});
        });
        drop(connection);
        app.exports(
            "
            connection session.id=user-session-1
              speech session.id=user-session-1
              response session.id=user-session-1
            ",
        );
    }

    /// The same without a span: the session is taken where the object is made.
    #[test]
    fn realtime_callbacks_may_keep_the_session() {
        let app = App::new();
        let state = everything().in_scope(|| current_session().unwrap());
        app.on_thread(|| state.in_scope(|| info_span!("speech").in_scope(|| {})));
        let expected = EVERYTHING.map(|(key, value)| format!("{key}={value}"));
        assert_eq!(shown(&app.span("speech")), expected);
    }

    /// And `realtime_spans_use_provider_session_id_when_context_has_none`.
    #[test]
    fn realtime_context_session_id_takes_precedence_over_provider_session_id() {
        let user = session("user-session-1");
        for (context, id) in [
            (user, "user-session-1"),
            (Session::default(), "sess_provider_1"),
        ] {
            let app = App::new();
            let connection = context.in_scope(|| info_span!("connection"));
            realtime(&connection, "sess_provider_1");
            drop(connection);
            app.exports(&format!(
                "
                connection session.id={id}
                  speech session.id={id}
                  response session.id={id}
                "
            ));
        }
    }

    /// `langchain`. There, the first of three names counts. Here the layer is told the names, a span
    /// says one of them, and if it says several, the last counts.
    #[test]
    fn read_session_from_metadata() {
        let names = ["session_id", "conversation_id", "thread_id"];
        let app = App::with(|layer| {
            names
                .into_iter()
                .fold(layer, SessionLayer::with_session_field)
        });
        let outer = session("outer").with_metadata("env", "prod").unwrap();
        let outer = outer.with_metadata("category", "news").unwrap();
        outer.in_scope(|| {
            info_span!("chain", session_id = "s", metadata.category = "jokes").in_scope(|| {});
            info_span!("chain", conversation_id = "c").in_scope(|| {});
            info_span!("chain", thread_id = "t").in_scope(|| {});
            info_span!("chain", thread_id = "t", session_id = "s").in_scope(|| {});
        });
        let metadata = r#"metadata={"env":"prod","category":"news"}"#;
        app.exports(&format!(
            "
            chain session_id=s session.id=s metadata={{\"env\":\"prod\",\"category\":\"jokes\"}}
            chain conversation_id=c session.id=c {metadata}
            chain thread_id=t session.id=t {metadata}
            chain thread_id=t session_id=s session.id=s {metadata}
            "
        ));
    }
}

/// `crewai`. What a span inherits is decided where it starts, not where it ends; what its own scope
/// is told late reaches it (C3).
#[test]
fn context_attributes_are_captured_at_start_time() {
    let app = App::new();
    let span = session("captured").in_scope(|| {
        let span = info_span!("started", otel.name = "started");
        span.in_scope(|| {});
        span
    });
    session("at its end").in_scope(|| drop(span));
    app.exports("started session.id=captured");
}

/// `agno`: the work goes on after the scope has ended.
mod background {
    use super::*;
    use futures_util::{StreamExt, stream};
    use tokio::sync::oneshot;

    fn tags() -> Session {
        let tags = ["detached", "background"];
        Session::default().with_tags(tags).unwrap()
    }

    const TAGGED: &str = r#"tag.tags=["detached","background"]"#;

    async fn run(started: oneshot::Receiver<()>) {
        started.await.unwrap();
        let step = async {
            tokio::task::yield_now().await;
        };
        step.instrument(info_span!("step")).await;
    }

    #[test]
    fn background_run_captures_detached_context_attributes() {
        let app = App::new();
        app.runtime().block_on(async {
            let (ended, has_ended) = oneshot::channel();
            let execute = || run(has_ended).instrument(info_span!("execute"));
            let by_span = tokio::spawn(tags().in_scope(execute));
            ended.send(()).unwrap();
            by_span.await.unwrap();
        });
        let execute = app.span("execute");
        assert_eq!(shown(&execute), [TAGGED]);
        assert_eq!(shown(&app.span("step")), [TAGGED]);
        app.exporter.reset();
        app.runtime().block_on(async {
            let (ended, has_ended) = oneshot::channel();
            let by_value = tokio::spawn(run(has_ended).in_session(tags()));
            ended.send(()).unwrap();
            by_value.await.unwrap();
        });
        assert_eq!(shown(&app.span("step")), [TAGGED]);
    }

    #[test]
    fn background_stream_has_executor_span_and_context() {
        let app = App::new();
        let runtime = app.runtime();
        let chunks = stream::iter(0..3).then(|chunk| {
            let made = async move { chunk };
            made.instrument(info_span!("step", chunk))
        });
        let chunks = tags().in_scope(|| chunks.in_session(current_session().unwrap()));
        let executor = async move {
            let chunks = std::pin::pin!(chunks);
            chunks.count().await
        };
        let executor = tags().in_scope(|| executor.instrument(info_span!("execute")));
        assert_eq!(runtime.block_on(runtime.spawn(executor)).unwrap(), 3);
        for span in app.spans() {
            let tags = values(&span, "tag.tags");
            assert_eq!(tags, [r#"["detached","background"]"#], "{}", span.name);
        }
        assert_eq!(app.spans().len(), 4);
    }
}
