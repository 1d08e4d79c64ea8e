//! Captured spans: the assertions, and the tree in their messages.

use crate::session::keys::SESSION_ID;
use crate::tracer::Reason;
use crate::tracer::coverage::REASON_KEY;
use opentelemetry::trace::SpanId;
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;
use std::fmt::{self, Write};

/// The spans that end while a capture runs.
#[derive(Default)]
pub(super) struct Spans {
    /// The number of spans that haven't ended.
    pub(super) open: usize,
    ended: Vec<SpanData>,
    /// For each ended span, the reason why it is in no session.
    reasons: Vec<Option<Reason>>,
}

impl Spans {
    pub(super) fn end(&mut self, mut span: SpanData) {
        let is_reason = |it: &KeyValue| it.key.as_str() == REASON_KEY;
        let at = span.attributes.iter().position(is_reason);
        let found = at.map(|at| span.attributes.remove(at).value);
        let is_it = |reason: &Reason| found == Some(Value::I64(*reason as i64));
        self.reasons.push(Reason::ALL.into_iter().find(is_it));
        self.ended.push(span);
        self.open = self.open.saturating_sub(1);
    }
}

/// The spans of a [`Capture`](crate::testing::Capture) that have ended, and the output of its closure or future.
///
/// `Display` prints the spans as a tree, and marks spans in no session. It prints no attributes.
///
/// ```
/// # use tracing_session::testing::Capture;
/// let captured = Capture::new().in_scope(|| tracing::info_span!("work").in_scope(|| 42));
/// assert_eq!(captured.output, 42);
/// println!("{captured}");
/// ```
pub struct Captured<T> {
    /// The output of the closure or future.
    pub output: T,
    spans: Spans,
    except: Vec<String>,
}

impl<T> Captured<T> {
    pub(super) fn new(output: T, spans: Spans) -> Self {
        Self {
            output,
            spans,
            except: Vec::new(),
        }
    }

    /// Returns the spans, in the order in which they ended.
    ///
    /// ```
    /// # use tracing_session::testing::Capture;
    /// let captured = Capture::new().in_scope(|| tracing::info_span!("work").in_scope(|| {}));
    /// assert_eq!(captured.spans()[0].name, "work");
    /// ```
    pub fn spans(&self) -> &[SpanData] {
        &self.spans.ended
    }

    /// Excludes spans with these names from the assertions.
    ///
    /// ```
    /// # use tracing_session::{Session, testing::Capture};
    /// # let session = Session::new("chat-42")?;
    /// # let work = || { session.in_scope(|| tracing::info_span!("answer").in_scope(|| {})); tracing::info_span!("clean-up"); };
    /// let captured = Capture::new().in_scope(work);
    /// captured.except(["clean-up"]).assert_all_in_session("chat-42");
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    #[must_use = "it returns the changed value: call an assertion on it"]
    pub fn except<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.except.extend(names.into_iter().map(Into::into));
        self
    }

    /// Asserts that all spans are in the session with this id.
    ///
    /// # Panics
    ///
    /// Panics if a span is in no session or in another one, or if no span was captured. The message contains the tree of all
    /// spans, and no ids.
    ///
    /// ```
    /// # use tracing_session::{Session, testing::Capture};
    /// # let session = Session::new("chat-42")?;
    /// # let work = || session.in_scope(|| tracing::info_span!("answer").in_scope(|| {}));
    /// Capture::new().in_scope(work).assert_all_in_session("chat-42");
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    #[track_caller]
    pub fn assert_all_in_session(&self, id: &str) {
        self.assert_all(Some(id));
    }

    /// Asserts that each span is in a session, with any id.
    ///
    /// # Panics
    ///
    /// Panics in the same cases as [`assert_all_in_session`](Self::assert_all_in_session), except that spans may be in
    /// different sessions.
    ///
    /// ```
    /// # use tracing_session::{Session, testing::Capture};
    /// # let session = Session::generate();
    /// # let work = || session.in_scope(|| tracing::info_span!("answer").in_scope(|| {}));
    /// Capture::new().in_scope(work).assert_all_in_a_session();
    /// ```
    #[track_caller]
    pub fn assert_all_in_a_session(&self) {
        self.assert_all(None);
    }

    #[track_caller]
    fn assert_all(&self, id: Option<&str>) {
        let checked = |span: &&SpanData| !self.except.iter().any(|name| *name == span.name);
        let checked: Vec<_> = self.spans().iter().filter(checked).collect();
        assert!(
            !checked.is_empty(),
            "No span was captured, so none is in the session. Enable the spans (the default level is INFO), and end \
             them before the captured closure or future ends.{}",
            self.open()
        );
        let wrong = checked.iter().filter(|it| !is_in(it, id)).count();
        assert!(
            wrong == 0,
            "{wrong} of {} spans are in no session, or in another one:\n{}",
            checked.len(),
            self.tree(id)
        );
    }

    fn open(&self) -> String {
        match self.spans.open {
            0 => String::new(),
            open => format!("\n{open} spans haven't ended, and aren't captured."),
        }
    }

    /// The spans as a tree, in which spans that aren't in this session are marked.
    fn tree(&self, id: Option<&str>) -> String {
        let mut started: Vec<_> = (0..self.spans().len()).collect();
        started.sort_by_key(|at| self.spans()[*at].start_time);
        let mut text = String::new();
        let is_root = |at: &usize| {
            let parent = self.spans()[*at].parent_span_id;
            parent == SpanId::INVALID
                || !self
                    .spans()
                    .iter()
                    .any(|it| it.span_context.span_id() == parent)
        };
        // A stack instead of recursion, because a trace can be deep.
        let mut next: Vec<_> = started
            .iter()
            .rev()
            .copied()
            .filter(is_root)
            .map(|at| (at, 0))
            .collect();
        while let Some((at, depth)) = next.pop() {
            self.write_span(&mut text, at, depth, id);
            let own = self.spans()[at].span_context.span_id();
            let children = started
                .iter()
                .rev()
                .filter(|it| self.spans()[**it].parent_span_id == own);
            next.extend(children.map(|it| (*it, depth + 1)));
        }
        text + &self.open() + &self.reasons()
    }

    fn write_span(&self, text: &mut String, at: usize, depth: usize, id: Option<&str>) {
        let span = &self.spans()[at];
        let (indent, name) = ("  ".repeat(depth), &span.name);
        let _ = write!(text, "\n{indent}{name}");
        if is_in(span, id) {
            return;
        }
        let place = |key: &str| attribute(span, key).map(|it| it.as_str());
        if let (Some(file), Some(line)) = (place("code.file.path"), place("code.line.number")) {
            let _ = write!(text, " ({file}:{line})");
        }
        let _ = match self.spans.reasons[at] {
            Some(reason) => write!(text, "  <-- in no session ({reason:?})"),
            None => write!(text, "  <-- in another session"),
        };
    }

    /// The reasons, each once.
    fn reasons(&self) -> String {
        let found = |reason: &Reason| self.spans.reasons.contains(&Some(*reason));
        let all = Reason::ALL.into_iter().filter(found);
        all.map(|reason| format!("\n\n{reason:?}: {reason}"))
            .collect()
    }
}

fn attribute<'a>(span: &'a SpanData, key: &str) -> Option<&'a Value> {
    let mut found = span.attributes.iter().filter(|it| it.key.as_str() == key);
    Some(&found.next()?.value)
}

/// Whether a span is in the session with this id, or in any.
fn is_in(span: &SpanData, id: Option<&str>) -> bool {
    let found = attribute(span, SESSION_ID);
    found.is_some_and(|found| id.is_none_or(|id| found.as_str() == id))
}

impl<T> fmt::Display for Captured<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tree(None).trim_start())
    }
}

/// Omits attributes, because they may contain an id.
impl<T: fmt::Debug> fmt::Debug for Captured<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Captured")
            .field("output", &self.output)
            .field("spans", &self.spans.ended.len())
            .finish_non_exhaustive()
    }
}
