//! Assertions that your own spans are in their session (feature `testing`).
//!
//! ```
//! use tracing::{Instrument, info_span, instrument};
//! use tracing_session::{InSession, Session, testing};
//!
//! #[instrument]
//! async fn answer() {
//!     let saved = tokio::spawn(async {}.instrument(info_span!("save")));
//!     saved.await.unwrap();
//! }
//!
//! #[tokio::main] // or `#[tokio::test]`
//! async fn main() -> Result<(), tracing_session::Error> {
//!     let session = Session::new("chat-42")?;
//!     let captured = testing::capture(async { answer().in_session(session).await }).await;
//!     captured.assert_all_in_session("chat-42");
//!     Ok(())
//! }
//! ```
//!
//! If a span is in no session or in another one, the assertion panics with the tree of all spans. The tree marks each such
//! span, with the place in the code and the likely reason.
//!
//! With [`Capture`], you can use your own subscriber, or capture only this thread.

mod captured;

pub use captured::Captured;

use crate::integrations::testing::captured::Spans;
use crate::layer::SessionLayer;
use crate::scope::thread;
use crate::tracer::coverage::Counters;
use crate::tracer::{SessionTracer, SessionTracerProvider};
use opentelemetry::Context;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, TraceContextExt, TraceId, TracerProvider,
};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span, SpanData, SpanProcessor};
use pin_project_lite::pin_project;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll};
use std::time::Duration;
use tokio::runtime::{self, Handle};
use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, Subscriber, dispatcher};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// Runs a future, and captures its spans: [`Capture::run`] with the default settings.
///
/// ```
/// use tracing::info_span;
/// use tracing_session::{Session, testing};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), tracing_session::Error> {
/// let session = Session::new("chat-42")?;
/// let work = async { session.in_scope(|| info_span!("answer").in_scope(|| 42)) };
/// let captured = testing::capture(work).await;
/// captured.assert_all_in_session("chat-42");
/// assert_eq!(captured.output, 42);
/// # Ok(()) }
/// ```
pub async fn capture<F: Future>(future: F) -> Captured<F::Output> {
    Capture::new().run(future).await
}

/// Captures the spans of a closure or future, and of the tasks and blocking closures of its `tokio` runtime.
///
/// It captures until the closure returns, or the future is ready. The captured spans don't reach other subscribers. Captures
/// that run at the same time, such as those of parallel tests, don't capture each other's spans. There is one exception: two
/// captures in one `tokio` runtime both capture the spans of tasks that inherited nothing from either.
///
/// By default, the subscriber has a [`SessionLayer`] and receives spans of the level INFO and above.
///
/// ```
/// use tracing::info_span;
/// use tracing_session::{Session, testing::Capture};
///
/// let session = Session::new("chat-42")?;
/// let captured = Capture::new().in_scope(|| {
///     session.in_scope(|| info_span!("answer").in_scope(|| {}));
///     info_span!("clean-up").in_scope(|| {});
/// });
/// captured.except(["clean-up"]).assert_all_in_session("chat-42");
/// # Ok::<(), tracing_session::Error>(())
/// ```
#[must_use = "it captures nothing until you call `run` or `in_scope`"]
pub struct Capture {
    /// `None`: the shared subscriber.
    dispatch: Option<Dispatch>,
    is_on_this_thread: bool,
    state: Arc<State>,
}

/// The OpenTelemetry layer that [`Capture::with_subscriber`] passes to your function.
pub type CaptureLayer<S> = OpenTelemetryLayer<S, SessionTracer<SdkTracer>>;

impl Default for Capture {
    fn default() -> Self {
        Self::new()
    }
}

impl Capture {
    /// Captures with the default settings.
    ///
    /// ```
    /// # use tracing_session::testing::Capture;
    /// let captured = Capture::new().in_scope(|| tracing::info_span!("work").in_scope(|| {}));
    /// assert_eq!(captured.spans().len(), 1);
    /// ```
    pub fn new() -> Self {
        Self {
            dispatch: None,
            is_on_this_thread: false,
            state: Arc::default(),
        }
    }

    /// Uses your own subscriber for this thread or future. `make` receives an OpenTelemetry layer, which you wrap in a
    /// [`SessionLayer`].
    ///
    /// On other threads, the default subscriber captures the spans.
    ///
    /// ```
    /// use tracing::info_span;
    /// use tracing_session::{SessionLayer, testing::Capture};
    /// use tracing_subscriber::prelude::*;
    ///
    /// let layer = SessionLayer::new().with_session_field("conversation_id");
    /// let capture = Capture::new().with_subscriber(|otel| tracing_subscriber::registry().with(layer.wrap(otel)));
    /// let captured = capture.in_scope(|| info_span!("turn", conversation_id = "chat-42").in_scope(|| {}));
    /// captured.assert_all_in_session("chat-42");
    /// ```
    pub fn with_subscriber<S, T>(self, make: impl FnOnce(CaptureLayer<S>) -> T) -> Self
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
        T: Into<Dispatch>,
    {
        let otel = otel_layer(Some(self.state.clone()));
        Self {
            dispatch: Some(make(otel).into()),
            ..self
        }
    }

    /// Captures only the spans of this thread, and sets no subscriber for the process.
    ///
    /// By default, [`run`](Self::run) sets a subscriber for the process if there is none, so that it captures spans on other
    /// threads of the runtime too. Then `init()` of your own subscriber panics.
    ///
    /// ```
    /// # use tracing_session::testing::Capture;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let captured = Capture::new().on_this_thread().run(async {}).await;
    /// # assert!(captured.spans().is_empty());
    /// # }
    /// ```
    pub fn on_this_thread(self) -> Self {
        Self {
            is_on_this_thread: true,
            ..self
        }
    }

    /// Calls `f`, and captures its spans on this thread.
    ///
    /// ```
    /// # use tracing_session::testing::Capture;
    /// let captured = Capture::new().in_scope(|| 42);
    /// assert_eq!(captured.output, 42);
    /// ```
    pub fn in_scope<T>(self, f: impl FnOnce() -> T) -> Captured<T> {
        let output = self.enter(f);
        self.captured(output)
    }

    /// Runs a future, and captures its spans, on this thread and on all threads of its `tokio` runtime.
    ///
    /// ```
    /// # use tracing_session::testing::Capture;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let captured = Capture::new().run(async { 42 }).await;
    /// assert_eq!(captured.output, 42);
    /// # }
    /// ```
    pub async fn run<F: Future>(self, future: F) -> Captured<F::Output> {
        let runtime = Handle::try_current()
            .ok()
            .filter(|_| !self.is_on_this_thread);
        let running = runtime.map(|runtime| {
            // Fails if the application has set its own.
            let _is_set = dispatcher::set_global_default(SHARED.clone());
            Running::new(&self.state, runtime.id())
        });
        let captures = Captures {
            inner: Some(future),
            capture: &self,
        };
        let output = captures.await;
        drop(running);
        self.captured(output)
    }

    fn enter<T>(&self, f: impl FnOnce() -> T) -> T {
        let dispatch = self.dispatch.as_ref().unwrap_or(&SHARED);
        let state = self.state.clone();
        let _attached = thread::attach(thread::current().with_value(CaptureEntry(state)));
        dispatcher::with_default(dispatch, f)
    }

    fn captured<T>(self, output: T) -> Captured<T> {
        Captured::new(output, std::mem::take(&mut *locked(&self.state.spans)))
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capture").finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of a capture: it is polled and dropped in the capture.
    struct Captures<'a, F> {
        #[pin]
        inner: Option<F>,
        capture: &'a Capture,
    }

    impl<F> PinnedDrop for Captures<'_, F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            this.capture.enter(|| this.inner.set(None));
        }
    }
}

impl<F: Future> Future for Captures<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let capture = *this.capture;
        capture.enter(|| {
            let inner = this.inner.as_mut().as_pin_mut();
            let output = inner.map_or(Poll::Pending, |inner| inner.poll(cx));
            if output.is_ready() {
                this.inner.set(None);
            }
            output
        })
    }
}

/// The state that a capture and its spans share.
#[derive(Default)]
struct State {
    /// The runtime of the future, while it runs.
    runtime: Mutex<Option<runtime::Id>>,
    spans: Mutex<Spans>,
}

/// In the `Context`: the capture that the spans belong to.
struct CaptureEntry(Arc<State>);

/// The captures that run in a runtime.
static RUNNING: Mutex<Vec<Arc<State>>> = Mutex::new(Vec::new());

/// Keeps a capture among those that run, also if its future panics or is dropped before it is ready.
struct Running<'a>(&'a Arc<State>);

impl<'a> Running<'a> {
    fn new(state: &'a Arc<State>, runtime: runtime::Id) -> Self {
        *locked(&state.runtime) = Some(runtime);
        locked(&RUNNING).push(state.clone());
        Self(state)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        locked(&RUNNING).retain(|it| !Arc::ptr_eq(it, self.0));
    }
}

/// The subscriber of all captures without their own.
static SHARED: LazyLock<Dispatch> = LazyLock::new(|| {
    let otel: CaptureLayer<Layered<LevelFilter, Registry>> = otel_layer(None);
    let registry = tracing_subscriber::registry().with(LevelFilter::INFO);
    Dispatch::new(registry.with(SessionLayer::new().wrap(otel)))
});

fn otel_layer<S>(only: Option<Arc<State>>) -> CaptureLayer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let collector = Collector {
        only,
        ..Collector::default()
    };
    let sdk = SdkTracerProvider::builder().with_span_processor(collector);
    let provider = SessionTracerProvider::new(sdk.build()).with_counters(Counters::new(true));
    tracing_opentelemetry::layer().with_tracer(provider.tracer("test"))
}

/// Adds each span to its captures: to the capture in its `Context`, or else to the captures of its runtime.
#[derive(Default)]
struct Collector {
    /// The capture of all spans.
    only: Option<Arc<State>>,
    /// The captures of the spans that haven't ended.
    open: Mutex<HashMap<SpanKey, Vec<Arc<State>>>>,
}

impl Collector {
    fn captures_of(&self, cx: &Context) -> Vec<Arc<State>> {
        let entry = |cx: &Context| Some(cx.get::<CaptureEntry>()?.0.clone());
        if let Some(state) = self.only.clone().or_else(|| entry(cx)) {
            return vec![state];
        }
        // A root made with `parent: None` has an empty `Context`, and so do its children.
        let parent = key(cx.span().span_context());
        if let Some(captures) = locked(&self.open).get(&parent) {
            return captures.clone();
        }
        if let Some(state) = thread::map_current(entry).flatten() {
            return vec![state];
        }
        let Ok(runtime) = Handle::try_current() else {
            return Vec::new();
        };
        let is_in_it = |it: &Arc<State>| *locked(&it.runtime) == Some(runtime.id());
        let running = locked(&RUNNING);
        let states = running.iter().filter(|it| is_in_it(it));
        states.cloned().collect()
    }
}

type SpanKey = (TraceId, SpanId);

fn key(span: &SpanContext) -> SpanKey {
    (span.trace_id(), span.span_id())
}

impl SpanProcessor for Collector {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        let captures = self.captures_of(cx);
        if !captures.is_empty() {
            captures.iter().for_each(|it| locked(&it.spans).open += 1);
            locked(&self.open).insert(key(span.span_context()), captures);
        }
    }

    fn on_end(&self, span: SpanData) {
        let captures = locked(&self.open).remove(&key(&span.span_context));
        for capture in captures.into_iter().flatten() {
            locked(&capture.spans).end(span.clone());
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Omits the spans, because their attributes may contain an id.
impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn capture_that_is_dropped_no_longer_runs() {
    let runtime = runtime::Builder::new_current_thread().build().unwrap();
    let pending = capture(std::future::pending::<()>());
    runtime.block_on(async { assert!(futures_util::FutureExt::now_or_never(pending).is_none()) });
    assert!(locked(&RUNNING).is_empty());
}
