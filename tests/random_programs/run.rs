//! Does with the crate what a program says.

use super::program::{
    Given, KEYS, Kind, NONE, Name, Op, Parent, SESSION, Step, USER, Value, Values,
};
use crate::support::{self, App};
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, ContextGuard};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use tracing::span::EnteredSpan;
use tracing::subscriber::DefaultGuard;
use tracing::{Instrument, dispatcher, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_session::current::SessionGuard;
use tracing_session::session::Part;
use tracing_session::{InSession, Session, current_session, set_session_id, set_user_id};

/// Spans of this target are filtered out.
pub const HIDDEN: &str = "hidden";
pub const LIBRARY: &str = "library";

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer {
    /// Whether `set_*` returned Ok, and the current values afterwards.
    Set(bool, Values),
    /// Whether there is a current session, and its values.
    Read(bool, Values),
    /// Whether `set_parent` returned Ok.
    Parent(bool),
}

#[derive(Default)]
pub struct Outcome {
    /// By the number of the step.
    pub answers: HashMap<usize, Answer>,
    /// All values of each exported span, by its name.
    pub spans: HashMap<Name, [Vec<String>; KEYS]>,
    /// The exported spans with a parent.
    pub children: Vec<Name>,
}

/// Applications, and what reloads the layer of the first.
pub struct World {
    pub apps: Vec<App>,
    pub reload: Option<Reload>,
}

pub type Reload = Box<dyn Fn(&App) + Send + Sync>;

/// Shared by the threads of one program.
#[derive(Default)]
struct Shared {
    spans: HashMap<Name, tracing::Span>,
    read: HashMap<Name, Option<Session>>,
    kept: HashMap<Name, Context>,
    futures: HashMap<Name, Work>,
}

struct Work {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    next: Arc<Mutex<Option<(Name, Kind)>>>,
    dropped: Arc<Mutex<Name>>,
}

/// Of one thread: the guards in the order in which they were made.
struct Local<'a> {
    world: &'a World,
    shared: &'a Mutex<Shared>,
    guards: Vec<(Name, Guard)>,
    app: usize,
}

#[expect(dead_code, reason = "some are only dropped")]
enum Guard {
    Session(SessionGuard),
    Context(ContextGuard),
    Span(EnteredSpan),
    Plain(ContextGuard, Context),
    Switch(DefaultGuard, ContextGuard),
}

/// Runs a program.
pub fn run(world: &World, program: &[Step]) -> Outcome {
    let shared = Mutex::default();
    let local = || Local {
        world,
        shared: &shared,
        guards: vec![],
        app: 0,
    };
    let mut outcome = Outcome::default();
    let has_other = program.iter().any(|it| it.thread == 1);
    std::thread::scope(|scope| {
        let (send, receive) = mpsc::channel::<&Op>();
        let (answer, answers) = mpsc::channel();
        if has_other {
            let dispatch = &world.apps[0].dispatch;
            scope.spawn(move || {
                let _default = dispatcher::set_default(dispatch);
                let mut local = local();
                for op in receive {
                    answer.send(local.run(op)).unwrap();
                }
            });
        }
        let _default = dispatcher::set_default(&world.apps[0].dispatch);
        let mut here = local();
        for (index, step) in program.iter().enumerate() {
            let answer = match step.thread {
                0 => here.run(&step.op),
                _ => {
                    send.send(&step.op).unwrap();
                    answers.recv().expect("the other thread panicked")
                }
            };
            outcome.answers.extend(answer.map(|it| (index, it)));
        }
    });
    for app in &world.apps {
        for span in app.spans() {
            let name = span.name.parse().unwrap();
            let metadata = support::values(&span, "metadata");
            let metadata = metadata.iter().map(|text| {
                let json: serde_json::Value = serde_json::from_str(text).unwrap();
                json["m"].as_str().unwrap().to_owned()
            });
            let values = [
                support::values(&span, "session.id"),
                support::values(&span, "user.id"),
                metadata.collect(),
            ];
            outcome.spans.insert(name, values);
            if span.parent_span_id != opentelemetry::trace::SpanId::INVALID {
                outcome.children.push(name);
            }
        }
        app.exporter.reset();
    }
    outcome
}

/// Text of any length of life: there are few.
fn leak(text: Option<&str>) -> Option<&'static str> {
    const TEXTS: &str = "A B C D E F ann bob cy dan eve fay x y z p q r 7 null undefined";
    let find = |text: &str| TEXTS.split(' ').find(|it| *it == text).unwrap_or("unknown");
    text.map(find)
}

fn current() -> (bool, Values) {
    let current = current_session();
    let metadata = |it: &Session| leak(it.metadata("m").map(|it| it.as_str().unwrap_or("?")));
    let values = |it: &Session| [leak(it.id()), leak(it.user_id()), metadata(it)];
    (current.is_some(), current.as_ref().map_or(NONE, values))
}

pub fn session_of(values: Values) -> Session {
    let mut session = values[SESSION].map_or_else(Session::default, support::session);
    if let Some(user) = values[USER] {
        session = session.with_user(user).unwrap();
    }
    match values[2] {
        Some(value) => session.with_metadata("m", value).unwrap(),
        None => session,
    }
}

const PARTS: [Part; KEYS] = [Part::Session, Part::User, Part::Metadata];

/// A session that inherits nothing of these parts.
fn without(values: Values, blocks: [bool; KEYS]) -> Session {
    let parts = PARTS.into_iter().zip(blocks).filter(|it| it.1);
    parts.fold(session_of(values), |session, (part, _)| {
        session.without(part)
    })
}

impl Local<'_> {
    fn value(&self, value: Value) -> Session {
        match value {
            Value::New(values, blocks) => without(values, blocks),
            Value::Exact(values) => session_of(values).exact(),
            Value::Kept(name) => {
                let kept = self.shared.lock().unwrap().read[&name].clone();
                kept.unwrap_or_default()
            }
        }
    }

    fn span(&self, name: Name) -> tracing::Span {
        self.shared.lock().unwrap().spans[&name].clone()
    }

    fn given(&self, given: Given) -> Context {
        match given {
            Given::Empty => Context::new(),
            Given::Remote => support::remote(),
            Given::RemoteIn(values) => {
                let _empty = Context::new().attach();
                session_of(values).in_scope(|| {
                    let remote = support::remote().span().span_context().clone();
                    Context::current().with_remote_span_context(remote)
                })
            }
            Given::Of(name) => self.span(name).context(),
            Given::Kept(name) => self.shared.lock().unwrap().kept[&name].clone(),
        }
    }

    fn drop_guard(&mut self, name: Name) {
        let index = self.guards.iter().position(|it| it.0 == name).unwrap();
        let (_, guard) = self.guards.remove(index);
        if let Guard::Switch(..) = guard {
            self.app ^= 1;
        }
        if let Guard::Plain(guard, context) = guard {
            drop(guard);
            context.span().end();
        }
    }

    fn run(&mut self, op: &Op) -> Option<Answer> {
        let push = |local: &mut Self, name, guard| local.guards.push((name, guard));
        match *op {
            Op::Span(name, parent, kind) => {
                let parent = match parent {
                    Parent::Contextual => None,
                    Parent::Explicit(name) => Some(self.span(name).id()),
                    Parent::Root => Some(None),
                };
                let span = create(name, kind, parent);
                self.shared.lock().unwrap().spans.insert(name, span);
            }
            Op::Enter(name) => {
                let entered = self.span(name).entered();
                push(self, name, Guard::Span(entered));
            }
            Op::Exit(name) | Op::Detach(name) | Op::EndPlain(name) => self.drop_guard(name),
            Op::Close(name) => {
                let span = self.shared.lock().unwrap().spans.remove(&name);
                drop(span);
            }
            Op::Record(name, values) => {
                let span = self.span(name);
                let is_named = span
                    .metadata()
                    .is_some_and(|it| it.fields().field("id").is_some());
                let fields = [
                    if is_named { "id" } else { "session.id" },
                    "user.id",
                    "metadata.m",
                ];
                for (field, value) in fields.into_iter().zip(values) {
                    if let Some(value) = value {
                        span.record(field, value);
                    }
                }
            }
            Op::SetParent(name, given) => {
                let span = self.span(name);
                let works = span.set_parent(self.given(given)).is_ok();
                return Some(Answer::Parent(works));
            }
            Op::Attach(name, value) => {
                let guard = self.value(value).attach();
                push(self, name, Guard::Session(guard));
            }
            Op::AttachContext(name, given) => {
                let guard = self.given(given).attach();
                push(self, name, Guard::Context(guard));
            }
            Op::SetSession(id) => return Some(answer(set_session_id(id).is_ok())),
            Op::SetUser(id) => return Some(answer(set_user_id(id).is_ok())),
            Op::SetAll(values) => {
                return Some(answer(session_of(values).set_on_current_span().is_ok()));
            }
            Op::Read(name) => {
                let session = current_session();
                self.shared.lock().unwrap().read.insert(name, session);
                let (is_some, values) = current();
                return Some(Answer::Read(is_some, values));
            }
            Op::Keep(name) => {
                let context = Context::current();
                self.shared.lock().unwrap().kept.insert(name, context);
            }
            Op::Plain(name) => {
                let tracer = self.world.apps[self.app].provider.tracer("plain");
                let context = Context::current_with_span(tracer.start(name.to_string()));
                let guard = context.clone().attach();
                push(self, name, Guard::Plain(guard, context));
            }
            Op::Future(name, value, span) => {
                let session = self.value(value);
                let span =
                    span.map(|name| self.shared.lock().unwrap().spans.remove(&name).unwrap());
                let work = Work::new(session, span);
                self.shared.lock().unwrap().futures.insert(name, work);
            }
            Op::Poll(name, child, kind) => {
                let mut work = self.shared.lock().unwrap().futures.remove(&name).unwrap();
                *work.next.lock().unwrap() = Some((child, kind));
                let mut context = std::task::Context::from_waker(Waker::noop());
                let polled = work.future.as_mut().poll(&mut context);
                assert!(polled.is_pending());
                self.shared.lock().unwrap().futures.insert(name, work);
            }
            Op::DropFuture(name, child) => {
                let work = self.shared.lock().unwrap().futures.remove(&name).unwrap();
                *work.dropped.lock().unwrap() = child;
                drop(work);
            }
            Op::Switch(name) => {
                self.app ^= 1;
                let default = dispatcher::set_default(&self.world.apps[self.app].dispatch);
                let guard = Context::new().attach();
                push(self, name, Guard::Switch(default, guard));
            }
            Op::Reload => {
                if let Some(reload) = &self.world.reload {
                    reload(&self.world.apps[0]);
                }
            }
        }
        None
    }
}

fn answer(works: bool) -> Answer {
    Answer::Set(works, current().1)
}

impl Work {
    /// A future that creates a span whenever it is polled, and one when it is dropped.
    fn new(session: Session, span: Option<tracing::Span>) -> Self {
        struct AtDrop(Arc<Mutex<Name>>);
        impl Drop for AtDrop {
            fn drop(&mut self) {
                let name = self.0.lock().map_or(0, |it| *it);
                drop(info_span!("dropped", otel.name = name.to_string()));
            }
        }
        let next = Arc::new(Mutex::new(None::<(Name, Kind)>));
        let dropped = Arc::new(Mutex::new(0));
        let at_drop = AtDrop(dropped.clone());
        let mine = next.clone();
        let future = std::future::poll_fn(move |_| {
            let _ = &at_drop;
            let next = mine.lock().unwrap().take();
            if let Some((name, kind)) = next {
                create(name, kind, None).in_scope(|| {});
            }
            Poll::<()>::Pending
        });
        let future: Pin<Box<dyn Future<Output = ()> + Send>> = match span {
            Some(span) => Box::pin(future.instrument(span).in_session(session)),
            None => Box::pin(future.in_session(session)),
        };
        Self {
            future,
            next,
            dropped,
        }
    }
}

mod callsites;
use callsites::create;
