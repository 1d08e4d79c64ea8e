//! Does with the real library what a program says.

use crate::permutations::oracle::{
    Answer, Exported, Hold, Key, Name, Outcome, Parent, SetParent, Span, Step, Values, Way,
};
use crate::support::{self, App};
use futures_util::FutureExt;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span as _, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SpanData;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use tracing::field::Empty;
use tracing::info_span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::{
    Error, InSession, Session, SessionPropagator, current_session, session, set_session_id,
    set_user_id, user,
};

/// Spans of this target are to be hidden from the OpenTelemetry layer.
pub const HIDDEN: &str = "hidden";

/// What comes of a program in an application.
pub fn actual(app: &App, program: &[Step]) -> Outcome {
    let runner = Runner {
        app,
        spans: Mutex::default(),
        answers: Mutex::default(),
    };
    runner.run(program);
    let spans = app.spans();
    let mut spans: Vec<_> = spans.iter().map(|span| exported(span, &spans)).collect();
    spans.sort();
    Outcome {
        spans,
        answers: runner.answers.into_inner().unwrap(),
    }
}

struct Runner<'a> {
    app: &'a App,
    spans: Mutex<HashMap<Name, (Span, tracing::Span)>>,
    answers: Mutex<Vec<Answer>>,
}

impl Runner<'_> {
    fn run(&self, program: &[Step]) {
        for step in program {
            self.step(step);
        }
    }

    fn step(&self, step: &Step) {
        match step {
            Step::Open(span) => {
                let parent = match span.parent {
                    Parent::Contextual => None,
                    Parent::Explicit(name) => Some(self.span(name).1.id()),
                    Parent::None => Some(None),
                };
                let made = make(span, parent);
                if let Some(given) = given(span.set_parent) {
                    made.set_parent(given).unwrap();
                }
                self.spans.lock().unwrap().insert(span.name, (*span, made));
            }
            Step::Within(name, steps) => self.span(name).1.in_scope(|| self.run(steps)),
            Step::InSession(Hold::Attach, values, steps) => {
                let _guard = session_of(*values).attach();
                self.run(steps);
            }
            Step::InSession(Hold::InScope, values, steps) => {
                session_of(*values).in_scope(|| self.run(steps));
            }
            Step::InSession(Hold::Future, values, steps) => {
                let future = async { self.run(steps) };
                let done = future.in_session(session_of(*values)).now_or_never();
                done.unwrap();
            }
            Step::OnThread(steps) => self.app.on_thread(|| self.run(steps)),
            Step::Record(name, values) => {
                let (description, span) = self.span(name);
                for (key, value) in values.iter() {
                    span.record(description.field(key), value);
                }
            }
            Step::SetAttributes(name, values) => {
                let (_, span) = self.span(name);
                for (key, value) in values.iter() {
                    span.set_attribute(key.name(), value);
                }
            }
            Step::OtelSpan {
                name,
                built,
                later,
                inside,
            } => {
                let attribute = |(key, value): (Key, _)| KeyValue::new(key.name(), value);
                let tracer = self.app.provider.tracer("library");
                let builder = tracer.span_builder(*name);
                let mut span = tracer.build(builder.with_attributes(built.iter().map(attribute)));
                later
                    .iter()
                    .for_each(|it| span.set_attribute(attribute(it)));
                let _attached = Context::current_with_span(span).attach();
                self.run(inside);
            }
            Step::Set(values) => self.answer(Answer::Was(set(*values).is_ok())),
            Step::Ask => {
                let here = current_session().unwrap_or_default();
                let [id, user_id] = [here.id(), here.user_id()].map(|id| id.map(str::to_owned));
                self.answer(Answer::InForce(id, user_id));
            }
            Step::Close(name) => {
                let span = self.spans.lock().unwrap().remove(name);
                drop(span);
            }
        }
    }

    fn span(&self, name: &str) -> (Span, tracing::Span) {
        self.spans.lock().unwrap()[name].clone()
    }

    fn answer(&self, answer: Answer) {
        self.answers.lock().unwrap().push(answer);
    }
}

/// A contextual span without a given parent; a root if the given parent is none.
fn make(span: &Span, parent: Option<Option<tracing::span::Id>>) -> tracing::Span {
    // One callsite for each form that an application would write.
    macro_rules! make {
        ($span:ident!($($before:expr,)* ; $($fields:tt)*)) => {
            match (span.hidden, parent) {
                (false, None) => $span!($($before,)* otel.name = span.name, $($fields)*),
                (false, Some(parent)) => {
                    $span!(parent: parent, $($before,)* otel.name = span.name, $($fields)*)
                }
                (true, None) => {
                    $span!(target: HIDDEN, $($before,)* otel.name = span.name, $($fields)*)
                }
                (true, Some(parent)) => $span!(
                    target: HIDDEN, parent: parent, $($before,)* otel.name = span.name, $($fields)*
                ),
            }
        };
    }
    let Values { session, user } = span.says;
    match (span.way, session, user) {
        (Way::Plain, ..) => make!(info_span!("plain",;)),
        (_, None, None) => panic!("{} says nothing", span.name),

        (Way::Macro, Some(session), None) => make!(session!(session,;)),
        (Way::Macro, None, Some(user)) => make!(user!(user,;)),
        (Way::Macro, Some(_), Some(_)) => make!(session!(session_of(span.says),;)),

        (Way::Named, Some(id), None) => make!(info_span!("session",; id)),
        (Way::Named, None, Some(id)) => make!(info_span!("user",; id)),
        (Way::Named, Some(id), Some(user)) => make!(info_span!("session",; id, user.id = user)),

        (Way::Dotted, Some(id), None) => make!(info_span!("work",; session.id = id)),
        (Way::Dotted, None, Some(id)) => make!(info_span!("work",; user.id = id)),
        (Way::Dotted, Some(session), Some(user)) => {
            make!(info_span!("work",; session.id = session, user.id = user))
        }

        (Way::LateNamed, Some(_), None) => make!(info_span!("session",; id = Empty)),
        (Way::LateNamed, None, Some(_)) => make!(info_span!("user",; id = Empty)),
        (Way::LateNamed, Some(_), Some(_)) => {
            make!(info_span!("session",; id = Empty, user.id = Empty))
        }

        (Way::LateDotted, Some(_), None) => make!(info_span!("work",; session.id = Empty)),
        (Way::LateDotted, None, Some(_)) => make!(info_span!("work",; user.id = Empty)),
        (Way::LateDotted, Some(_), Some(_)) => {
            make!(info_span!("work",; session.id = Empty, user.id = Empty))
        }
    }
}

fn session_of(values: Values) -> Session {
    let session = values.session.map_or(Ok(Session::default()), Session::new);
    match values.user {
        Some(user) => session.unwrap().with_user(user).unwrap(),
        None => session.unwrap(),
    }
}

fn set(values: Values) -> Result<(), Error> {
    values.session.map_or(Ok(()), set_session_id)?;
    values.user.map_or(Ok(()), set_user_id)
}

/// The `Context` for `set_parent`, as a propagator would make it.
fn given(set_parent: SetParent) -> Option<Context> {
    // Without the current session.
    let _empty = Context::new().attach();
    match set_parent {
        SetParent::No => None,
        SetParent::Remote => Some(support::remote()),
        SetParent::RemoteIn(values) => Some(session_of(values).in_scope(|| {
            let remote = support::remote().span().span_context().clone();
            Context::current().with_remote_span_context(remote)
        })),
        SetParent::Extracted(values) => {
            let members = values
                .iter()
                .map(|(key, value)| format!("{}={value}", key.name()));
            let baggage = members.collect::<Vec<_>>().join(",");
            let headers = HashMap::from([("baggage".to_owned(), baggage)]);
            let propagator = SessionPropagator::new().with_user();
            Some(propagator.extract_with_context(&support::remote(), &headers))
        }
    }
}

fn exported(span: &SpanData, all: &[SpanData]) -> Exported {
    let parent = all
        .iter()
        .find(|other| other.span_context.span_id() == span.parent_span_id);
    const COMPARED: [&str; 3] = ["session.id", "user.id", "id"];
    let mut keys = HashSet::new();
    let keys_too_many = span
        .attributes
        .iter()
        .map(|attribute| attribute.key.as_str())
        .filter(|key| !COMPARED.contains(key) && !keys.insert(*key));
    let [sessions, users, ids] = COMPARED.map(|key| support::values(span, key));
    Exported {
        name: span.name.to_string(),
        parent: parent.map(|parent| parent.name.to_string()),
        sessions,
        users,
        ids,
        keys_too_many: keys_too_many.map(str::to_owned).collect(),
    }
}
