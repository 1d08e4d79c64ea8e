//! Who inherits, by which way.

use crate::details::{FULL, exports, full, lacks, line, span, with_metadata};
use crate::support::{App, remote, values};
use futures_util::StreamExt;
use opentelemetry::Context;
use opentelemetry::trace::{Span as _, Tracer, TracerProvider};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tracing::field::Empty;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::{Instrument, debug_span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    InSession, Session, SessionLayer, SessionPropagator, current_session, layer::SessionExtension,
    session, set_session_id, set_user_id, user,
};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context as LayerContext;
use tracing_subscriber::registry::LookupSpan;

#[test]
fn child_of_an_explicit_parent_inherits_nothing_from_the_current_session() {
    let app = App::new();
    let request = session!("chat-42", metadata.plan = "pro", tags = "a");
    session!("chat-43", metadata.tenant = "acme", tags = "b").in_scope(|| {
        info_span!(parent: &request, "plain").in_scope(|| span("inside"));
        let says_an_id = info_span!(parent: &request, "user", user.id = "u-7");
        says_an_id.in_scope(|| span("inside"));
        let says_more = session!(parent: &request, "chat-44", metadata.step = 2);
        says_more.in_scope(|| span("inside"));
        info_span!(parent: None, "root").in_scope(|| span("inside"));
        info_span!(parent: None, "user", user.id = "u-8").in_scope(|| span("inside"));
    });
    drop(request);
    let of_parent = r#" metadata={"plan":"pro"} session.id=chat-42 tag.tags=["a"]"#;
    let more = r#" metadata={"plan":"pro","step":2} session.id=chat-44 tag.tags=["a"]"#;
    exports(
        &app,
        &[
            &format!("session{of_parent}"),
            r#"session metadata={"tenant":"acme"} session.id=chat-43 tag.tags=["b"]"#,
            &format!("plain{of_parent}"),
            &format!("inside{of_parent}"),
            &format!("user{of_parent} user.id=u-7"),
            &format!("inside{of_parent} user.id=u-7"),
            &format!("session{more}"),
            &format!("inside{more}"),
            "root",
            "inside",
            "user user.id=u-8",
            "inside user.id=u-8",
        ],
    );
}

#[test]
fn set_parent_before_the_start_replaces_the_current_session() {
    let app = App::new();
    let elsewhere = full().in_scope(Context::current);
    let make: [fn() -> tracing::Span; 4] = [
        || info_span!("plain"),
        || session!("chat-44"),
        || user!("u-8", metadata.step = 2),
        || session!(with_metadata(Session::new("chat-45").unwrap(), "step", 3)),
    ];
    for around in [
        session!(
            "chat-43",
            user.id = "u-1",
            metadata.tenant = "secret",
            tags = "secret"
        ),
        session!(
            "chat-43",
            user.id = "u-1",
            metadata.tenant = Empty,
            tags = Empty
        ),
        session!(full()),
    ] {
        around.in_scope(|| {
            for make in make {
                let span = make();
                span.set_parent(elsewhere.clone()).unwrap();
                span.in_scope(|| info_span!("below").in_scope(|| {}));
                let span = make();
                span.set_parent(remote()).unwrap();
                span.in_scope(|| info_span!("below of remote").in_scope(|| {}));
            }
            around
                .record("metadata.tenant", "secret")
                .record("tags", "secret");
        });
    }
    for span in app.spans() {
        let shown = line(&span);
        if !shown.contains("chat-43") {
            assert!(!shown.contains("secret"), "{shown}\n{}", app.tree());
        }
        if span.name == "below of remote" {
            assert!(!shown.contains("acme"), "{shown}\n{}", app.tree());
            assert!(!shown.contains("u-1 "), "{shown}");
        }
        if span.name == "below" {
            assert!(shown.contains(r#""tenant":"acme""#), "{shown}");
        }
    }
}

#[test]
fn opener_of_ids_inherits_no_current_details_after_set_parent() {
    let app = App::new();
    let around = info_span!("around", session.id = "chat-43", metadata.tenant = "secret");
    around.in_scope(|| {
        let span = info_span!("inside", session.id = "chat-44");
        span.set_parent(remote()).unwrap();
        span.in_scope(|| info_span!("below").in_scope(|| {}));
    });
    for name in ["inside", "below"] {
        assert_eq!(line(&app.span(name)), format!("{name} session.id=chat-44"));
    }
}

#[test]
fn opener_of_everything_keeps_its_values_after_set_parent() {
    let app = App::new();
    let span = session!(full());
    span.set_parent(remote()).unwrap();
    span.in_scope(|| info_span!("below").in_scope(|| {}));
    drop(span);
    for name in ["session", "below"] {
        assert_eq!(line(&app.span(name)), format!("{name}{FULL}"));
    }
}

#[test]
fn session_of_a_context_belongs_to_this_context() {
    let elsewhere = full().in_scope(Context::current);
    Session::new("chat-43").unwrap().in_scope(|| {
        assert_eq!(Session::of(&elsewhere), Some(full()));
        assert_eq!(Session::of(&Context::new()), None);
    });
}

#[test]
fn filtered_out_span_still_sets_details() {
    let app = App::with_layer(|otel| {
        SessionLayer::new()
            .with_opener_level(tracing::Level::DEBUG)
            .wrap_filtered(otel, LevelFilter::INFO)
    });
    let hidden = debug_span!("session", id = "chat-42", metadata.plan = Empty, tags = "a");
    hidden.in_scope(|| {
        let open = info_span!("before").entered();
        hidden.record("metadata.plan", "pro");
        drop(open);
        span("inside");
        debug_span!("user", user.id = "u-7", metadata.step = 2).in_scope(|| {
            tracing::trace_span!("nothing").in_scope(|| span("after"));
        });
    });
    exports(
        &app,
        &[
            r#"before metadata={"plan":"pro"} session.id=chat-42 tag.tags=["a"]"#,
            r#"inside metadata={"plan":"pro"} session.id=chat-42 tag.tags=["a"]"#,
            r#"after metadata={"plan":"pro","step":2} session.id=chat-42 tag.tags=["a"] user.id=u-7"#,
        ],
    );
}

#[test]
fn tasks_polls_and_streams_keep_the_details() {
    let app = App::new();
    app.runtime().block_on(async {
        let work = || async {
            span("before");
            tokio::task::yield_now().await;
            span("after");
        };
        tokio::spawn(work().in_session(full())).await.unwrap();
        tokio::spawn(work().instrument(session!(full())))
            .await
            .unwrap();
        tokio::task::spawn_blocking(|| full().in_scope(|| span("inside")))
            .await
            .unwrap();
        let items = futures_util::stream::iter(0..2).then(|_| work());
        items.in_session(full()).collect::<Vec<_>>().await;
        // Two at once on one thread.
        let other = Session::new("chat-43").unwrap();
        let other = with_metadata(other, "tenant", "other");
        tokio::join!(work().in_session(full()), async {
            work().in_session(other).await;
        });
    });
    let spans = app.spans();
    assert_eq!(spans.len(), 14);
    for span in spans {
        match values(&span, "session.id").concat().as_str() {
            "chat-42" => lacks(&span, &[]),
            _ => assert!(
                line(&span).ends_with(r#" metadata={"tenant":"other"} session.id=chat-43"#),
                "{}",
                line(&span)
            ),
        }
    }
}

#[test]
fn plain_opentelemetry_spans_export_the_details() {
    let app = App::new();
    let tracer = app.provider.tracer("library");
    let work = || {
        tracer.in_span("plain", |cx| {
            tracer.start_with_context("below", &cx).end();
            span("inside");
        });
    };
    full().in_scope(work);
    session!(full()).in_scope(work);
    let spans = app.spans();
    assert_eq!(spans.len(), 7);
    spans.iter().for_each(|span| lacks(span, &[]));
}

#[test]
fn set_session_id_and_set_user_id_keep_the_details() {
    let app = App::new();
    full().in_scope(|| {
        info_span!("handler").in_scope(|| {
            set_session_id("chat-43").unwrap();
            span("before");
            set_user_id("u-8").unwrap();
            span("after");
        });
        session!("chat-1", metadata.step = Empty).in_scope(|| {
            set_session_id("chat-44").unwrap();
            tracing::Span::current().record("metadata.step", 2);
            span("inside");
        });
    });
    let line = |name| line(&app.span(name));
    let with = |id, user: &str| FULL.replace("chat-42", id).replace("u-7", user);
    assert_eq!(
        line("handler"),
        format!("handler{}", with("chat-43", "u-8"))
    );
    assert_eq!(line("before"), format!("before{}", with("chat-43", "u-7")));
    assert_eq!(line("after"), format!("after{}", with("chat-43", "u-8")));
    let step = with("chat-44", "u-7").replace(r#""acme""#, r#""acme","step":2"#);
    // It has started with an id of its own.
    let session = step.replace("chat-44", "chat-1");
    assert_eq!(line("session"), format!("session{session}"));
    assert_eq!(line("inside"), format!("inside{step}"));
}

#[test]
fn everything_can_be_read_back() {
    #[derive(Clone, Default)]
    struct Reads(Arc<Mutex<Vec<Session>>>);
    impl<S: tracing::Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Reads {
        fn on_new_span(&self, _: &Attributes<'_>, id: &Id, ctx: LayerContext<'_, S>) {
            let span = ctx.span(id).unwrap();
            if let Some(opened) = span.extensions().get::<SessionExtension>() {
                self.0.lock().unwrap().push(opened.session());
            }
        }
    }
    #[track_caller]
    fn is_full(session: &Session) {
        assert_eq!(
            (session.id(), session.user_id()),
            (Some("chat-42"), Some("u-7"))
        );
        assert_eq!(session.metadata("tenant").unwrap(), "acme");
        assert_eq!(session.all_metadata().count(), 1);
        assert!(session.tags().eq(["beta"]));
        assert_eq!(session.prompt_template(), Some("Say {word}"));
        assert_eq!(session.prompt_template_version(), Some("v1"));
        let word = &session.prompt_template_variables().unwrap()["word"];
        assert_eq!(word, "hello");
        assert_eq!(session.attribute("ring"), Some(&2.into()));
        let mut attributes: Vec<_> = session
            .attributes()
            .map(|it| format!(" {}={}", it.key, it.value))
            .collect();
        attributes.sort();
        assert_eq!(attributes.concat(), FULL);
        assert_eq!(*session, full());
    }
    let reads = Reads::default();
    let app = App::with_layer(|otel| SessionLayer::new().wrap(otel).and_then(reads.clone()));
    full().in_scope(|| is_full(&current_session().unwrap()));
    session!(full()).in_scope(|| {
        is_full(&current_session().unwrap());
        span("inside");
    });
    session!("chat-42", user.id = "u-7", metadata.tenant = Empty).in_scope(|| {
        tracing::Span::current().record("metadata.tenant", "acme");
        let here = current_session().unwrap();
        assert_eq!(here.metadata("tenant").unwrap(), "acme");
    });
    let read = reads.0.lock().unwrap();
    assert_eq!(read.len(), 2);
    is_full(&read[0]);
    assert_eq!(read[1].id(), Some("chat-42"));
    drop(app);
}

#[test]
fn headers_replace_the_whole_current_session() {
    use opentelemetry::propagation::TextMapPropagator;
    let app = App::new();
    let headers: HashMap<_, _> = [("baggage".to_owned(), "session.id=chat-43".to_owned())].into();
    let inside = || {
        let cx = SessionPropagator::new().extract(&headers);
        let _attached = cx.attach();
        span("inside");
        session!("chat-44", metadata.step = 2).in_scope(|| span("after"));
    };
    full().in_scope(inside);
    session!("chat-1", user.id = "u-1", metadata.plan = Empty, tags = "a").in_scope(|| {
        inside();
        tracing::Span::current().record("metadata.plan", "pro");
    });
    for span in app.spans() {
        match &*span.name {
            "inside" => assert_eq!(line(&span), "inside session.id=chat-43"),
            "after" => assert_eq!(
                line(&span),
                r#"after metadata={"step":2} session.id=chat-44"#
            ),
            _ => {}
        }
    }
}

#[test]
fn details_of_an_opener_after_set_parent_are_not_merged_with_the_current_session() {
    let app = App::new();
    let around = with_metadata(Session::default(), "tenant", "secret");
    around.in_scope(|| {
        let span = info_span!(
            "inside",
            session.id = "chat-44",
            user.id = "u-7",
            metadata.plan = "pro"
        );
        span.set_parent(remote()).unwrap();
        span.in_scope(|| info_span!("below").in_scope(|| {}));
    });
    for name in ["inside", "below"] {
        let expected =
            format!(r#"{name} metadata={{"plan":"pro"}} session.id=chat-44 user.id=u-7"#);
        assert_eq!(line(&app.span(name)), expected);
    }
}

#[test]
fn fields_recorded_later_reach_spans_after_set_parent() {
    let app = App::new();
    let span = info_span!("inside", session.id = "chat-44", metadata.plan = Empty);
    span.set_parent(remote()).unwrap();
    span.in_scope(|| {
        let below = info_span!("below").entered();
        span.record("metadata.plan", "pro");
        drop(below);
    });
    drop(span);
    for name in ["inside", "below"] {
        let expected = format!(r#"{name} metadata={{"plan":"pro"}} session.id=chat-44"#);
        assert_eq!(line(&app.span(name)), expected);
    }
}
