//! The trees. A case makes a difference in two places only: which fields a span has, and what says
//! the session above them all.

use super::{Case, SESSION, USER};
use futures_util::task::noop_waker_ref;
use opentelemetry::baggage::BaggageExt;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use opentelemetry::{Context, ContextGuard, KeyValue};
use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{self, Poll};
use tracing::{Instrument, Span, info_span, trace, trace_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{Session, current::SessionGuard, session};

macro_rules! span {
    ($case:expr, $name:literal) => {
        match $case {
            Case::HandWritten => info_span!(
                $name,
                model = "local",
                step = 1_u64,
                session.id = %black_box(SESSION),
                user.id = %black_box(USER)
            ),
            Case::HandWrittenStr => info_span!(
                $name,
                model = "local",
                step = 1_u64,
                session.id = black_box(SESSION),
                user.id = black_box(USER)
            ),
            _ => info_span!($name, model = "local", step = 1_u64),
        }
    };
}

/// The span above the others, and what is in force around it.
struct Turn {
    span: Span,
    around: Around,
}

#[expect(dead_code, reason = "they are dropped")]
enum Around {
    Nothing,
    Baggage(ContextGuard),
    Session(SessionGuard),
}

impl Turn {
    /// Says the session, in the way of the case.
    fn new(case: Case) -> Self {
        let around = match case {
            Case::BaggageProcessor => Around::Baggage(baggage().attach()),
            Case::SessionValue | Case::SpanProcessor => Around::Session(session().attach()),
            _ => Around::Nothing,
        };
        let span = match case {
            Case::TracingSession | Case::Hashed | Case::Coverage => session!(
                black_box(SESSION),
                user.id = black_box(USER),
                model = "local",
                step = 1_u64
            ),
            // The layer of this case reads the fields.
            Case::Extensions => span!(Case::HandWrittenStr, "turn"),
            _ => span!(case, "turn"),
        };
        Self { span, around }
    }

    fn run(self, f: impl FnOnce()) {
        self.span.in_scope(f);
        // The span is closed first.
        drop(self.span);
        drop(self.around);
    }
}

pub(super) fn session() -> Session {
    let session = Session::new(black_box(SESSION)).and_then(|it| it.with_user(black_box(USER)));
    session.unwrap_or_default()
}

fn baggage() -> Context {
    Context::current_with_baggage([
        KeyValue::new("session.id", black_box(SESSION)),
        KeyValue::new("user.id", black_box(USER)),
    ])
}

/// One span, three below it, and three below each of these.
pub(super) fn tree13(case: Case) {
    Turn::new(case).run(|| twelve(case));
}

fn twelve(case: Case) {
    for _ in 0..3 {
        let _step = span!(case, "step").entered();
        for _ in 0..3 {
            let _call = span!(case, "call").entered();
        }
    }
}

/// Each span below the one before.
pub(super) fn chain(case: Case, spans: u32) {
    fn below(case: Case, spans: u32) {
        if spans > 0 {
            let _step = span!(case, "step").entered();
            below(case, spans - 1);
        }
    }
    Turn::new(case).run(|| below(case, spans - 1));
}

/// So many spans below one.
pub(super) fn wide(case: Case, spans: u32) {
    Turn::new(case).run(|| {
        for _ in 0..spans {
            let _step = span!(case, "step").entered();
        }
    });
}

pub(super) const TAGS: &[&str] = &["beta", "web"];

/// The same, with three metadata and these tags.
pub(super) fn full(case: Case, spans: u32, tags: &[&str]) {
    const METADATA: &str = r#"{"tenant":"acme","plan":"pro","seats":12}"#;
    let json = serde_json::to_string(tags).unwrap_or_default();
    macro_rules! by_hand {
        ($name:literal) => {
            info_span!(
                $name,
                model = "local",
                step = 1_u64,
                session.id = %black_box(SESSION),
                user.id = %black_box(USER),
                metadata = black_box(METADATA),
                tag.tags = (!tags.is_empty()).then_some(black_box(json.as_str()))
            )
        };
    }
    let turn = match case {
        Case::HandWritten => Turn {
            span: by_hand!("turn"),
            around: Around::Nothing,
        },
        Case::TracingSession | Case::Hashed | Case::Coverage => Turn {
            span: session!(
                black_box(SESSION),
                user.id = black_box(USER),
                metadata.tenant = "acme",
                metadata.plan = "pro",
                metadata.seats = 12,
                tags = (!tags.is_empty()).then_some(json.as_str()),
                model = "local",
                step = 1_u64
            ),
            around: Around::Nothing,
        },
        Case::SessionValue => {
            let said = session().with_metadata("tenant", "acme");
            let said = said.and_then(|it| it.with_metadata("plan", "pro"));
            let said = said.and_then(|it| it.with_metadata("seats", 12));
            let said = said.and_then(|it| it.with_tags(tags)).unwrap_or_default();
            Turn {
                around: Around::Session(said.attach()),
                span: span!(case, "turn"),
            }
        }
        _ => Turn::new(case),
    };
    turn.run(|| {
        for _ in 0..spans {
            let _step = match case {
                Case::HandWritten => by_hand!("step").entered(),
                _ => span!(case, "step").entered(),
            };
        }
    });
}

/// Three times a turn with three spans below it.
pub(super) fn session_per_3(case: Case) {
    for _ in 0..3 {
        wide(case, 3);
    }
}

/// A turn that continues a trace from elsewhere.
pub(super) fn remote(case: Case) {
    let turn = Turn::new(case);
    // What is in force around the turn stays so.
    let parent = Context::map_current(|cx| cx.with_remote_span_context(elsewhere()));
    let _already_started = turn.span.set_parent(parent);
    turn.run(|| twelve(case));
}

pub(super) fn elsewhere() -> SpanContext {
    SpanContext::new(
        TraceId::from(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c),
        SpanId::from(0xb7ad_6b71_6920_3331),
        TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    )
}

/// A turn and twelve spans below it, each of which waits so many times.
pub(super) fn asynchronous(case: Case, polls: u32) {
    let Turn { span, around } = Turn::new(case);
    let steps = async {
        for _ in 0..12 {
            wait(polls).instrument(span!(case, "step")).await;
        }
    };
    let mut turn = pin!(steps.instrument(span));
    let mut cx = task::Context::from_waker(noop_waker_ref());
    while turn.as_mut().poll(&mut cx).is_pending() {}
    drop(around);
}

async fn wait(mut polls: u32) {
    std::future::poll_fn(|_| match polls {
        0 => Poll::Ready(()),
        _ => {
            polls -= 1;
            Poll::Pending
        }
    })
    .await;
}

/// Spans and events that the level filter turns off.
pub(super) fn disabled() {
    for _ in 0..13 {
        let _off = trace_span!("off", model = "local").entered();
        trace!(model = "local", "off");
    }
}
