//! Functions that inject the current context into a carrier, or extract a context from a carrier. Propagators for spans (B3,
//! Jaeger), which `propagator_from_env` combines with `SessionPropagator`.

use crate::base::diagnostic;
use crate::base::diagnostic::NO_PROPAGATOR;
use crate::base::error::{Error, ErrorKind, variable};
use crate::propagation::headers::{Adapter, Carrier};
use crate::propagation::propagator::{SESSION_HEADER_NAME, SessionPropagator};
use crate::scope::{Scope, context, thread};
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{
    Extractor, Injector, TextMapCompositePropagator, TextMapPropagator,
};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use percent_encoding::percent_decode_str;
use std::sync::LazyLock;

/// Injects the current context into the headers of a call or a message.
///
/// OpenTelemetry's global propagator decides which headers to write: the trace, the session and other baggage if you set it
/// with [`propagator_from_env`](crate::propagator_from_env). The global propagator does nothing until you set it. Until then,
/// this function writes nothing and warns once.
///
/// Cost: one call of the propagator.
///
/// ```
/// use std::collections::HashMap;
/// use tracing_session::{Session, propagator_from_env, propagation::inject_context};
///
/// opentelemetry::global::set_text_map_propagator(propagator_from_env()?);
/// let mut headers: HashMap<String, String> = HashMap::new();
/// Session::new("chat-42")?.in_scope(|| inject_context(&mut headers));
/// assert_eq!(headers["baggage"], "session.id=chat-42");
/// # Ok::<(), tracing_session::Error>(())
/// ```
pub fn inject_context(carrier: &mut (impl Carrier + ?Sized)) {
    let Some(cx) = thread::map_current(Context::clone) else {
        return;
    };
    let mut carrier = Adapter(carrier);
    with_propagator(|propagator| propagator.inject_context(&cx, &mut carrier));
}

/// Extracts a `Context` from the headers of a call or a message, on top of the current one.
///
/// Attach the `Context`, or set it as the parent of a span. Extraction needs OpenTelemetry's global propagator: see
/// [`inject_context`].
///
/// ```
/// use std::collections::HashMap;
/// use tracing::info_span;
/// use tracing_opentelemetry::OpenTelemetrySpanExt;
/// use tracing_session::propagation::extract_context;
///
/// # fn handle(headers: HashMap<String, String>) {
/// let request = info_span!("request");
/// let _too_late = request.set_parent(extract_context(&headers));
/// request.in_scope(|| { /* in the caller's session */ });
/// # }
/// ```
#[must_use = "it applies only where you set it: `let _guard = context.attach()` or `span.set_parent(context)`"]
pub fn extract_context(carrier: &(impl Carrier + ?Sized)) -> Context {
    extract_accepted(carrier, |_| true)
}

/// Does the same as [`extract_context`], but uses the extracted session only if `is_accepted` returns true.
pub(crate) fn extract_accepted(
    carrier: &(impl Carrier + ?Sized),
    is_accepted: impl FnOnce(&Scope) -> bool,
) -> Context {
    let Some(outer) = thread::map_current(Context::clone) else {
        return Context::new();
    };
    let cx =
        with_propagator(|propagator| propagator.extract_with_context(&outer, &Adapter(carrier)));
    match context::extracted_scope(&cx, &outer) {
        Some(scope) if is_accepted(&scope) => cx,
        // Headers without a session can replace the outer span, whose id may be the key of the current scope.
        _ => context::with_outer_scope(cx, &outer),
    }
}

/// Reads the session id from headers: from [`SESSION_HEADER_NAME`] or from W3C baggage.
///
/// Returns `None` if the headers contain no valid id, only a placeholder such as `None`, or several different ids. Use this
/// function in code without a propagator. With a propagator, use [`extract_context`].
///
/// ```
/// use std::collections::HashMap;
/// use tracing_session::propagation::extract_session_id;
///
/// let headers = HashMap::from([("mirascope-session-id".to_owned(), "chat-42".to_owned())]);
/// assert_eq!(extract_session_id(&headers).as_deref(), Some("chat-42"));
/// ```
pub fn extract_session_id(carrier: &(impl Carrier + ?Sized)) -> Option<String> {
    let reader = SessionPropagator::new().with_header(SESSION_HEADER_NAME);
    let cx = (reader.ok()?).extract_with_context(&Context::new(), &Adapter(carrier));
    let id = Scope::of(&cx)?.id()?;
    Some(id.as_str().to_owned())
}

/// Runs `f` with the global propagator. Warns once if there is none.
fn with_propagator<T>(mut f: impl FnMut(&dyn TextMapPropagator) -> T) -> T {
    let mut is_set = true;
    let result = global::get_text_map_propagator(|propagator| {
        is_set = propagator.fields().next().is_some();
        f(propagator)
    });
    // Emit outside `get_text_map_propagator`, which holds a lock.
    if !is_set {
        diagnostic::emit_once(NO_PROPAGATOR);
    }
    result
}

/// Creates the propagator that environment variables configure, including the propagator for sessions.
///
/// It reads `OTEL_PROPAGATORS`, a list of `tracecontext`, `baggage`, `b3`, `b3multi`, `jaeger` and `none`. If that variable
/// isn't set, it reads `MIRASCOPE_PROPAGATOR`: `tracecontext`, `b3`, `b3multi`, `jaeger`, or `composite` for all four. If
/// neither is set, the default is `tracecontext,baggage`. A blank variable counts as not set.
///
/// The propagator for sessions uses W3C baggage if `baggage` is in the list, and otherwise the header
/// [`SESSION_HEADER_NAME`].
///
/// Every client that uses the global propagator then sends the session id to each host that it calls.
///
/// # Errors
///
/// Returns an error if a variable names an unknown propagator. The error lists the valid names.
///
/// ```
/// use tracing_session::propagator_from_env;
///
/// // OpenTelemetry's global propagator does nothing until you set it.
/// opentelemetry::global::set_text_map_propagator(propagator_from_env()?);
/// # Ok::<(), tracing_session::Error>(())
/// ```
pub fn propagator_from_env() -> Result<TextMapCompositePropagator, Error> {
    with_propagators_from_env(SessionPropagator::new())
}

/// Does the same as [`propagator_from_env`], with this propagator for sessions.
pub(crate) fn with_propagators_from_env(
    mut session: SessionPropagator,
) -> Result<TextMapCompositePropagator, Error> {
    const OTEL: &str = "OTEL_PROPAGATORS";
    const MIRASCOPE: &str = "MIRASCOPE_PROPAGATOR";
    let (source, value) = if let Some(list) = variable(OTEL)? {
        (OTEL, list)
    } else if let Some(name) = variable(MIRASCOPE)? {
        (MIRASCOPE, name)
    } else {
        (OTEL, "tracecontext,baggage".to_owned())
    };
    let (valid, names): (_, Vec<_>) = match (source, value.as_str()) {
        (OTEL, list) => (
            "tracecontext, baggage, b3, b3multi, jaeger, none",
            list.split(',').map(str::trim).collect(),
        ),
        (_, "composite") => ("", vec!["tracecontext", "b3", "b3multi", "jaeger"]),
        (_, name) => ("tracecontext, b3, b3multi, jaeger, composite", vec![name]),
    };
    let mut propagators: Vec<Box<dyn TextMapPropagator + Send + Sync>> = Vec::new();
    let mut baggage = false;
    for name in names {
        match name {
            "" | "none" if source == OTEL => {}
            // The session's propagator carries all of the baggage.
            "baggage" if source == OTEL => baggage = true,
            "tracecontext" => propagators.push(Box::new(TraceContextPropagator::new())),
            "b3" => propagators.push(Box::new(SpanHeaders::B3Single)),
            "b3multi" => propagators.push(Box::new(SpanHeaders::B3Multi)),
            "jaeger" => propagators.push(Box::new(SpanHeaders::Jaeger)),
            name => {
                let error = Error::from(ErrorKind::Propagator(valid));
                return Err(error.of_variable(source).about(name));
            }
        }
    }
    if !baggage {
        session = session.without_baggage().with_header(SESSION_HEADER_NAME)?;
    }
    propagators.push(Box::new(session));
    Ok(TextMapCompositePropagator::new(propagators))
}

const B3: &str = "b3";
const B3_TRACE_ID: &str = "x-b3-traceid";
const B3_SPAN_ID: &str = "x-b3-spanid";
const B3_SAMPLED: &str = "x-b3-sampled";
const JAEGER: &str = "uber-trace-id";

/// Injects and extracts the current span. It extracts both of [B3's forms](https://github.com/openzipkin/b3-propagation), and
/// injects one.
#[derive(Clone, Copy, Debug)]
enum SpanHeaders {
    B3Single,
    B3Multi,
    Jaeger,
}

impl TextMapPropagator for SpanHeaders {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        let span = cx.span();
        let span = span.span_context();
        if !span.is_valid() {
            return;
        }
        let (trace, sampled) = (span.trace_id(), u8::from(span.is_sampled()));
        let span = span.span_id();
        match self {
            Self::B3Single => injector.set(B3, format!("{trace}-{span}-{sampled}")),
            Self::B3Multi => {
                injector.set(B3_TRACE_ID, trace.to_string());
                injector.set(B3_SPAN_ID, span.to_string());
                injector.set(B3_SAMPLED, sampled.to_string());
            }
            Self::Jaeger => injector.set(JAEGER, format!("{trace}:{span}:0:{sampled}")),
        }
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        let span = match self {
            Self::B3Single | Self::B3Multi => b3_single(extractor).or_else(|| b3_multi(extractor)),
            Self::Jaeger => extractor.get(JAEGER).and_then(jaeger),
        };
        match span {
            Some(span) => cx.with_remote_span_context(span),
            None => cx.clone(),
        }
    }

    fn fields(&self) -> FieldIter<'_> {
        static FIELDS: LazyLock<[String; 5]> =
            LazyLock::new(|| [B3, B3_TRACE_ID, B3_SPAN_ID, B3_SAMPLED, JAEGER].map(str::to_owned));
        FieldIter::new(match self {
            Self::B3Single => &FIELDS[..1],
            Self::B3Multi => &FIELDS[1..4],
            Self::Jaeger => &FIELDS[4..],
        })
    }
}

/// `{trace id}-{span id}-{sampled}-{parent's span id}`. The last two may be missing.
fn b3_single(extractor: &dyn Extractor) -> Option<SpanContext> {
    let mut parts = extractor.get(B3)?.trim().split('-');
    let (trace, span) = (parts.next()?, parts.next()?);
    b3(trace, span, parts.next())
}

fn b3_multi(extractor: &dyn Extractor) -> Option<SpanContext> {
    let debug = (extractor.get("x-b3-flags") == Some("1")).then_some("d");
    let sampled = debug.or_else(|| extractor.get(B3_SAMPLED));
    let (trace, span) = (extractor.get(B3_TRACE_ID)?, extractor.get(B3_SPAN_ID)?);
    b3(trace, span, sampled)
}

/// A missing decision (B3's "deferred") counts as not sampled.
fn b3(trace: &str, span: &str, sampled: Option<&str>) -> Option<SpanContext> {
    // Debug implies sampled. Older senders write `true` and `false`.
    let is_sampled = match sampled.map(str::trim) {
        Some("1" | "d" | "true") => true,
        Some("0" | "false") | None => false,
        Some(_) => return None,
    };
    let has_all_digits = matches!((trace.len(), span.len()), (16 | 32, 16));
    has_all_digits.then(|| remote(trace, span, is_sampled))?
}

/// `{trace id}:{span id}:{parent's span id, no longer used}:{flags}`, in hexadecimal digits.
fn jaeger(header: &str) -> Option<SpanContext> {
    /// More than any sender writes, even percent-encoded.
    const MAX_BYTES: usize = 256;
    if header.len() > MAX_BYTES {
        return None;
    }
    // Some senders percent-encode the colons.
    let header = percent_decode_str(header).decode_utf8().ok()?;
    let parts: Vec<&str> = header.trim().split(':').collect();
    let [trace, span, _parent, flags] = parts[..] else {
        return None;
    };
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    remote(trace, span, flags.is_sampled())
}

/// The span context in a header. Its ids may lack leading zeros.
fn remote(trace: &str, span: &str, is_sampled: bool) -> Option<SpanContext> {
    // `from_hex` would accept a sign.
    let may_be_id = |digits: &str, most| digits.len() <= most && !digits.starts_with('+');
    if !may_be_id(trace, 32) || !may_be_id(span, 16) {
        return None;
    }
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let flags = TraceFlags::default().with_sampled(is_sampled);
    let span = SpanContext::new(trace, span, flags, true, TraceState::NONE);
    span.is_valid().then_some(span)
}
