//! One application under test: its subscriber, what it exports, and what is said to its author.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

pub mod carrier;

use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{SpanId, TracerProvider};
use opentelemetry::{Array, KeyValue, StringValue, Value, global};
use opentelemetry_sdk::trace::{
    InMemorySpanExporter, SdkTracer, SdkTracerProvider, SpanData, SpanExporter,
    TracerProviderBuilder,
};
use std::cell::Cell;
use std::fmt::{Debug, Write};
use std::io;
use std::sync::{Arc, Mutex, Once};
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Event, dispatcher};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_session::{
    Dialect, Session, SessionExporter, SessionLayer, SessionTracerProvider, tracer::SessionTracer,
};
use tracing_subscriber::layer::{Context, Layered};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, Registry};

/// What the layer under test stands on: the registry, and the layer that listens for diagnostics.
pub type Base = Layered<Diagnostics, Registry>;
pub type Otel = OpenTelemetryLayer<Base, SessionTracer<SdkTracer>>;
pub type Provider = SessionTracerProvider<SdkTracerProvider>;

/// An application with its own provider and subscriber, which is the default of this thread.
pub struct App {
    pub provider: SessionTracerProvider<SdkTracerProvider>,
    pub exporter: InMemorySpanExporter,
    pub diagnostics: Diagnostics,
    pub dispatch: Dispatch,
    _default: DefaultGuard,
}

impl App {
    /// With a `SessionLayer` as it comes.
    pub fn new() -> Self {
        Self::with(|layer| layer)
    }

    /// With a `SessionLayer` that is set up by `configure`.
    pub fn with(configure: impl FnOnce(SessionLayer) -> SessionLayer) -> Self {
        Self::with_layer(|otel| configure(SessionLayer::new()).wrap(otel))
    }

    /// With any layer that is made of the OpenTelemetry layer.
    pub fn with_layer<L: Layer<Base> + Send + Sync>(make: impl FnOnce(Otel) -> L) -> Self {
        Self::with_provider(|builder| builder, make)
    }

    /// With a provider that is built by `build`.
    pub fn with_provider<L: Layer<Base> + Send + Sync>(
        build: impl FnOnce(TracerProviderBuilder) -> TracerProviderBuilder,
        make: impl FnOnce(Otel) -> L,
    ) -> Self {
        let exporter = InMemorySpanExporter::default();
        let builder = SdkTracerProvider::builder().with_simple_exporter(exporter.clone());
        let provider = SessionTracerProvider::new(build(builder).build());
        let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
        let diagnostics = Diagnostics::default();
        let base = tracing_subscriber::registry().with(diagnostics.clone());
        let dispatch = Dispatch::new(base.with(make(otel)));
        Self {
            provider,
            exporter,
            diagnostics,
            _default: dispatcher::set_default(&dispatch),
            dispatch,
        }
    }

    /// With a `SessionTracerProvider` that is set up by `configure`.
    pub fn with_format(configure: impl FnOnce(Provider) -> Provider) -> Self {
        Self::exporting(|exporter| exporter, configure)
    }

    /// With an exporter that speaks `dialect`.
    pub fn with_dialect(dialect: Dialect) -> Self {
        Self::exporting(
            |exporter| SessionExporter::new(exporter).with_dialect(dialect),
            |provider| provider,
        )
    }

    /// With an exporter that `wrap` wraps, and a provider that is set up by `configure`.
    pub fn exporting<E: SpanExporter + 'static>(
        wrap: impl FnOnce(InMemorySpanExporter) -> E,
        configure: impl FnOnce(Provider) -> Provider,
    ) -> Self {
        let exporter = InMemorySpanExporter::default();
        let builder = SdkTracerProvider::builder().with_simple_exporter(wrap(exporter.clone()));
        let provider = configure(SessionTracerProvider::new(builder.build()));
        let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("app"));
        Self {
            exporter,
            provider,
            ..Self::with_layer(|_| SessionLayer::new().wrap(otel))
        }
    }

    /// Runs `f` in this application, of which nothing is exported or said yet. For one that lives as
    /// long as its thread.
    pub fn anew<T>(&self, f: impl FnOnce(&Self) -> T) -> T {
        self.exporter.reset();
        self.diagnostics.0.lock().unwrap().clear();
        dispatcher::with_default(&self.dispatch, || f(self))
    }

    /// Runs `f` on another thread of this application.
    pub fn on_thread<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        let dispatch = &self.dispatch;
        let propagator = PROPAGATOR.get();
        let run = move || {
            let _default = dispatcher::set_default(dispatch);
            PROPAGATOR.set(propagator);
            f()
        };
        std::thread::scope(|scope| scope.spawn(run).join()).unwrap()
    }

    /// A multi-threaded runtime of this application.
    pub fn runtime(&self) -> tokio::runtime::Runtime {
        let dispatch = self.dispatch.clone();
        let propagator = PROPAGATOR.get();
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            // For the whole life of the thread: a span may be closed after the task that made it.
            .on_thread_start(move || {
                std::mem::forget(dispatcher::set_default(&dispatch));
                PROPAGATOR.set(propagator);
            })
            .build()
            .unwrap()
    }

    /// The spans that were exported so far, in the order in which they ended.
    pub fn spans(&self) -> Vec<SpanData> {
        self.exporter.get_finished_spans().unwrap()
    }

    /// The exported span of that name.
    #[track_caller]
    pub fn span(&self, name: &str) -> SpanData {
        let mut named = self.spans().into_iter().filter(|span| span.name == name);
        let span = named
            .next()
            .unwrap_or_else(|| panic!("no span {name} in\n{}", self.tree()));
        assert!(
            named.next().is_none(),
            "more than one span {name} in\n{}",
            self.tree()
        );
        span
    }

    /// The exported spans as trees, with every attribute that isn't the OpenTelemetry layer's.
    pub fn tree(&self) -> String {
        tree(&self.spans())
    }

    /// Asserts the exported spans, and that there were no diagnostics.
    #[track_caller]
    pub fn exports(&self, expected: &str) {
        self.exports_with_diagnostics(expected, &[""; 0]);
    }

    /// Asserts the exported spans and the diagnostics.
    #[track_caller]
    pub fn exports_with_diagnostics(
        &self,
        expected: &str,
        diagnostics: &[impl AsRef<str> + Debug],
    ) {
        let expected = expected
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect::<Vec<_>>();
        let indent = |line: &&str| line.len() - line.trim_start().len();
        let margin = expected.iter().map(indent).min().unwrap_or(0);
        let expected = expected
            .iter()
            .map(|line| format!("{}\n", line[margin..].trim_end()));
        assert_eq!(self.tree(), expected.collect::<String>());
        let diagnostics: Vec<_> = diagnostics.iter().map(AsRef::as_ref).collect();
        assert_eq!(self.diagnostics.messages(), diagnostics);
    }
}

/// Spans as an indented tree, in the order in which they started.
pub fn tree(spans: &[SpanData]) -> String {
    fn below(
        out: &mut String,
        spans: &[&SpanData],
        parent: &dyn Fn(&SpanData) -> bool,
        depth: usize,
    ) {
        for span in spans.iter().filter(|span| parent(span)) {
            let _ = writeln!(out, "{}{}", "  ".repeat(depth), line(span));
            let id = span.span_context.span_id();
            below(out, spans, &|child| child.parent_span_id == id, depth + 1);
        }
    }
    let mut sorted: Vec<_> = spans.iter().collect();
    sorted.sort_by_key(|span| span.start_time);
    let has_parent_here = |child: &SpanData| {
        let is_parent = |span: &SpanData| span.span_context.span_id() == child.parent_span_id;
        child.parent_span_id != SpanId::INVALID && spans.iter().any(is_parent)
    };
    let mut out = String::new();
    below(&mut out, &sorted, &|span| !has_parent_here(span), 0);
    out
}

/// A span as one line: its name, and the attributes that are not the OpenTelemetry layer's.
fn line(span: &SpanData) -> String {
    let mut line = span.name.to_string();
    for attribute in attributes(span) {
        let key = &attribute.key;
        let _ = match &attribute.value {
            Value::String(text) => write!(line, " {key}={text}"),
            other => write!(line, " {key}={other:?}"),
        };
    }
    line
}

/// The values of all attributes of a span with this key.
pub fn values(span: &SpanData, key: &str) -> Vec<String> {
    let found = span
        .attributes
        .iter()
        .filter(|attribute| attribute.key.as_str() == key);
    found.map(|attribute| attribute.value.to_string()).collect()
}

/// Collects the messages of diagnostics.
#[derive(Clone, Default)]
pub struct Diagnostics(Arc<Mutex<Vec<String>>>);

impl Diagnostics {
    pub fn messages(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl<S: tracing::Subscriber> Layer<S> for Diagnostics {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                if field.name() == "message" {
                    self.0 = format!("{value:?}");
                }
            }
            fn record_str(&mut self, field: &Field, value: &str) {
                if field.name() == "message" {
                    self.0 = value.to_owned();
                }
            }
        }
        if event.metadata().target() == "tracing_session" {
            let mut message = Message(String::new());
            event.record(&mut message);
            self.0.lock().unwrap().push(message.0);
        }
    }
}

/// The attributes of a span, in their order, but for those that the OpenTelemetry layer adds to every span.
pub fn attributes(span: &SpanData) -> impl Iterator<Item = &KeyValue> {
    let of_layer = |key: &str| {
        ["code.", "thread."].iter().any(|it| key.starts_with(it))
            || ["target", "busy_ns", "idle_ns"].contains(&key)
    };
    let attributes = span.attributes.iter();
    attributes.filter(move |it| !of_layer(it.key.as_str()))
}

/// The same, each as `key=value`.
pub fn shown(span: &SpanData) -> Vec<String> {
    let text = |it: &KeyValue| format!("{}={}", it.key, it.value);
    attributes(span).map(text).collect()
}

/// The value of an attribute that is a list of texts.
pub fn list<const N: usize>(texts: [&'static str; N]) -> Value {
    Value::Array(Array::String(texts.map(StringValue::from).into()))
}

/// A session with this id.
pub fn session(id: &str) -> Session {
    Session::new(id).unwrap()
}

/// What is said where an id is set on a span that has started with another one.
pub fn kept(file: &str, span: &str, line: u32, key: &str) -> String {
    format!(
        "span `{span}` at {file}:{line} started with another `{key}` and is exported with it, so only its \
         descendants get the new value: declare the field Empty and record it once, instead of starting with a \
         placeholder"
    )
}

/// Whether an id may contain this character: it is neither a control character, a bidirectional one among them, nor a
/// byte-order mark.
pub fn may_be_in_an_id(c: char) -> bool {
    let bidirectional = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
    );
    !c.is_control() && !bidirectional && !matches!(c, '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A `Context` as a server extracts it from the headers of a request.
pub fn remote() -> opentelemetry::Context {
    use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceId, TraceState};
    opentelemetry::Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from(7),
        SpanId::from(8),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    ))
}

/// What was printed.
#[derive(Clone, Default)]
pub struct Printed(pub Arc<Mutex<Vec<u8>>>);

impl io::Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Propagator = dyn TextMapPropagator + Send + Sync;

thread_local! {
    static PROPAGATOR: Cell<Option<&'static Propagator>> = const { Cell::new(None) };
}

/// Texts that other languages write for a missing value.
pub const PLACEHOLDERS: [&str; 6] = ["None", "null", "undefined", "nil", "NaN", "[object Object]"];

/// Sets the global propagator, but for this thread and those of its `App`s only: other tests of the process use
/// others.
pub fn propagate(propagator: impl TextMapPropagator + Send + Sync + 'static) {
    static SET: Once = Once::new();
    SET.call_once(|| global::set_text_map_propagator(OfThread));
    PROPAGATOR.set(Some(Box::leak(Box::new(propagator))));
}

/// The propagator that the current thread has set. Without one it does nothing, as OpenTelemetry's default.
#[derive(Debug)]
struct OfThread;

impl TextMapPropagator for OfThread {
    fn inject_context(&self, cx: &opentelemetry::Context, injector: &mut dyn Injector) {
        if let Some(propagator) = PROPAGATOR.get() {
            propagator.inject_context(cx, injector);
        }
    }

    fn extract_with_context(
        &self,
        cx: &opentelemetry::Context,
        extractor: &dyn Extractor,
    ) -> opentelemetry::Context {
        match PROPAGATOR.get() {
            Some(propagator) => propagator.extract_with_context(cx, extractor),
            None => cx.clone(),
        }
    }

    fn fields(&self) -> FieldIter<'_> {
        match PROPAGATOR.get() {
            Some(propagator) => propagator.fields(),
            None => FieldIter::new(&[]),
        }
    }
}

/// The name of the test that it is written in, as the test runner knows it.
#[allow(
    unused_macros,
    reason = "not every crate that uses this module has such tests"
)]
macro_rules! test_name {
    () => {{
        fn here() {}
        $crate::support::test_of(std::any::type_name_of_val(&here))
    }};
}

/// The test in which a function `here` is declared.
pub fn test_of(here: &'static str) -> &'static str {
    let (_, path) = here.split_once("::").unwrap();
    let path = path.strip_suffix("::here").unwrap();
    path.trim_end_matches("::{{closure}}")
}

/// Runs the rest of a test in a separate process with these variables, because the tests share global state. True in
/// that process.
pub fn alone(test: &str, variables: &[(&str, &str)]) -> bool {
    output_alone(test, variables).is_none()
}

/// The same, and returns the output of that process. None in that process.
pub fn output_alone(test: &str, variables: &[(&str, &str)]) -> Option<String> {
    const ALONE: &str = "TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return None;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture"])
        .env(ALONE, "1");
    for variable in [
        "TRACING_SESSION_ID",
        "TRACECTRL_SESSION_ID",
        "MIRASCOPE_PROPAGATOR",
        "RUST_LOG",
    ] {
        command.env_remove(variable);
    }
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with("OTEL_")) {
        command.env_remove(name);
    }
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
    Some(text.into_owned())
}
