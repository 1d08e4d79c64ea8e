//! What is made once, and how much there may be.

use crate::details::{full, line, span, with_metadata};
use crate::support::{App, values};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;
use serde::{Serialize, Serializer};
use std::cell::Cell;
use tracing::field::Empty;
use tracing::info_span;
use tracing_session::{Session, session, set_user_id, user};

#[test]
fn text_is_encoded_once_for_all_spans_of_a_scope() {
    thread_local! {
        static MADE: Cell<usize> = const { Cell::new(0) };
    }
    struct Counts;
    impl Serialize for Counts {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            MADE.set(MADE.get() + 1);
            serializer.serialize_u8(7)
        }
    }
    let app = App::new();
    let value = with_metadata(full(), "count", Counts);
    value.in_scope(|| (0..3).for_each(|_| span("inside")));
    value.in_scope(|| user!("u-8").in_scope(|| span("inside")));
    assert_eq!(MADE.get(), 1);
    let texts = |spans: &[SpanData], key: &str| -> Vec<*const str> {
        let attributes = spans.iter().flat_map(|span| &span.attributes);
        let of_key = attributes.filter(|it| it.key.as_str() == key);
        let text = |it: &KeyValue| match &it.value {
            Value::String(text) => std::ptr::from_ref(text.as_str()),
            other => panic!("{other:?}"),
        };
        of_key.map(text).collect()
    };
    let shared = [
        "metadata",
        "llm.prompt_template.template",
        "llm.prompt_template.variables",
    ];
    let check = |spans: &[SpanData]| {
        for key in shared {
            let texts = texts(spans, key);
            assert_eq!(texts.len(), spans.len());
            assert!(
                texts.iter().all(|text| std::ptr::eq(*text, texts[0])),
                "{key}"
            );
        }
    };
    check(&app.spans());
    app.exporter.reset();
    session!(value, metadata.step = Empty).in_scope(|| {
        tracing::Span::current().record("metadata.step", 2);
        (0..3).for_each(|_| span("inside"));
    });
    assert_eq!(app.spans().len(), 4);
    check(&app.spans());
}

#[test]
fn spans_that_declare_metadata_may_nest_deeper_than_the_stack() {
    const DEPTH: usize = 20_000;
    let app = App::new();
    let mut spans: Vec<_> = Vec::new();
    let began = std::time::Instant::now();
    for depth in 0..DEPTH {
        let span = info_span!("session", id = depth, metadata.step = depth, tags = "a");
        let _id = span.id().map(|id| app.dispatch.enter(&id));
        spans.push(span);
    }
    spans[0].record("metadata.outermost", 1);
    while let Some(span) = spans.pop() {
        let _id = span.id().map(|id| app.dispatch.exit(&id));
        drop(span);
    }
    eprintln!("nested: {:?}", began.elapsed());
    let exported = app.spans();
    assert_eq!(exported.len(), DEPTH);
    for span in &exported {
        let id = values(span, "session.id").concat();
        assert_eq!(values(span, "metadata"), [format!(r#"{{"step":{id}}}"#)]);
    }
}

#[test]
fn scopes_that_declare_metadata_form_no_chain() {
    let app = App::new();
    let _outer = session!("chat-42", metadata.plan = Empty).entered();
    for step in 0..20_000 {
        with_metadata(Session::default(), "step", step).in_scope(|| {});
        drop(user!("u-7", metadata.step = step));
        app.exporter.reset();
        set_user_id(step).unwrap();
    }
    tracing::Span::current().record("metadata.plan", "pro");
    span("inside");
    let user = 19_999;
    assert_eq!(
        line(&app.span("inside")),
        format!(r#"inside metadata={{"plan":"pro"}} session.id=chat-42 user.id={user}"#)
    );
}
