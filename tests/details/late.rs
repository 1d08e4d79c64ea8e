//! Fields that are recorded late, at once, or with a panic.

use crate::details::{exports, full, line, span, with_metadata};
use crate::support::{App, values};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Barrier;
use tracing::field::{Empty, debug, display};
use tracing::info_span;
use tracing_session::{Session, session, session::Part};

#[test]
fn field_recorded_later_reaches_open_and_new_spans() {
    let app = App::new();
    let outer = with_metadata(Session::default(), "tenant", "acme");
    outer.in_scope(|| {
        let request = info_span!(
            "request",
            session.id = "chat-42",
            metadata.plan = Empty,
            metadata.step = 1,
            tags = Empty
        );
        let entered = request.enter();
        span("before");
        let inside = info_span!("inside").entered();
        let value = with_metadata(Session::default(), "tool", "search").attach();
        let below = info_span!("below").entered();
        request
            .record("metadata.plan", "pro")
            .record("metadata.step", 2)
            .record("tags", "a,b");
        request.record("metadata.plan", display("max"));
        drop(below);
        drop(value);
        drop(inside);
        span("after");
        drop(entered);
    });
    let end = r#" session.id=chat-42 tag.tags=["a","b"]"#;
    exports(
        &app,
        &[
            &format!(r#"request metadata={{"tenant":"acme","step":2,"plan":"max"}}{end}"#),
            r#"before metadata={"tenant":"acme","step":1} session.id=chat-42"#,
            &format!(r#"inside metadata={{"tenant":"acme","step":2,"plan":"max"}}{end}"#),
            &format!(
                r#"below metadata={{"tenant":"acme","step":2,"plan":"max","tool":"search"}}{end}"#
            ),
            &format!(r#"after metadata={{"tenant":"acme","step":2,"plan":"max"}}{end}"#),
        ],
    );
}

#[test]
fn field_recorded_later_on_an_outer_span_does_not_replace_inner_values() {
    let app = App::new();
    let request = info_span!("request", user.id = "u-7", metadata.step = Empty);
    request.in_scope(|| {
        with_metadata(Session::default(), "step", "value").in_scope(|| {
            let value = info_span!("in the value").entered();
            let said = session!("chat-42", metadata.step = "span").entered();
            let cleared = Session::default().without(Part::Metadata).attach();
            let inside = info_span!("cleared").entered();
            request.record("metadata.step", "late");
            drop((inside, cleared, said, value));
        });
    });
    drop(request);
    let step = |name| values(&app.span(name), "metadata");
    assert_eq!(step("request"), [r#"{"step":"late"}"#]);
    assert_eq!(step("in the value"), [r#"{"step":"value"}"#]);
    assert_eq!(step("session"), [r#"{"step":"span"}"#]);
    assert_eq!(step("cleared"), [""; 0]);
}

#[test]
fn field_that_is_never_recorded_sets_nothing() {
    let app = App::new();
    session!("chat-42", metadata.plan = Empty, tags = Empty).in_scope(|| span("inside"));
    exports(
        &app,
        &["session session.id=chat-42", "inside session.id=chat-42"],
    );
}

#[test]
fn two_threads_that_record_at_once_lose_nothing() {
    for _ in 0..200 {
        let app = App::new();
        let request = info_span!(
            "request",
            user.id = "u-7",
            metadata.a = Empty,
            metadata.b = Empty,
            tags = Empty
        );
        let below = info_span!(parent: &request, "below");
        let barrier = Barrier::new(2);
        std::thread::scope(|scope| {
            for field in ["metadata.a", "metadata.b"] {
                let (request, barrier, dispatch) = (&request, &barrier, &app.dispatch);
                scope.spawn(move || {
                    let _default = tracing::dispatcher::set_default(dispatch);
                    barrier.wait();
                    request.record(field, field).record("tags", field);
                });
            }
        });
        drop((below, request));
        for span in app.spans() {
            let metadata = values(&span, "metadata").concat();
            assert!(metadata.contains(r#""a":"metadata.a""#), "{metadata}");
            assert!(metadata.contains(r#""b":"metadata.b""#), "{metadata}");
            let tags = values(&span, "tag.tags").concat();
            assert_eq!(tags.matches("metadata.").count(), 2, "{tags}");
        }
    }
}

struct Panics;

impl fmt::Debug for Panics {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        resume_unwind(Box::new("in Debug"))
    }
}

#[test]
fn field_whose_debug_panics_breaks_nothing_afterwards() {
    let app = App::new();
    let said = full().without(Part::User);
    let make = || session!(said, metadata.plan = ?Panics, tags = ?Panics);
    assert!(catch_unwind(AssertUnwindSafe(make)).is_err());
    let request = session!("chat-43", metadata.plan = Empty, tags = "a");
    let record = || request.record("metadata.plan", debug(Panics)).clone();
    assert!(catch_unwind(AssertUnwindSafe(record)).is_err());
    request.record("metadata.plan", "pro");
    drop(request);
    drop(session!(Session::new("chat-44").unwrap()));
    let spans = app.spans();
    let lines: Vec<_> = spans.iter().map(line).collect();
    assert_eq!(
        lines[lines.len() - 2..],
        [
            r#"session metadata={"plan":"pro"} session.id=chat-43 tag.tags=["a"]"#,
            "session session.id=chat-44"
        ]
    );
}

#[test]
fn values_recorded_on_two_spans_since_the_last_read_all_apply() {
    let app = App::new();
    let outer = info_span!("outer", session.id = "chat-42", metadata.outer = Empty);
    let inner = outer.in_scope(|| info_span!("inner", user.id = "u-7", metadata.inner = Empty));
    for step in [1, 2] {
        outer.record("metadata.outer", step);
        inner.record("metadata.inner", step);
        inner.in_scope(|| span("span"));
    }
    let spans = app.spans();
    let metadata: Vec<_> = spans.iter().flat_map(|it| values(it, "metadata")).collect();
    assert_eq!(
        metadata,
        [r#"{"outer":1,"inner":1}"#, r#"{"outer":2,"inner":2}"#]
    );
}
