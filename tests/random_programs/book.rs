//! Which operations are possible after others, and how a program ends.

use super::program::{Given, Kind, NONE, Name, Op, Parent, Step, Value, Way};

/// What is there after the operations so far.
#[derive(Default)]
pub struct Book {
    /// With the application.
    pub spans: Vec<(Name, usize, Kind)>,
    entered: Vec<(Name, usize)>,
    /// Guards of sessions and contexts, plain spans and switches, in the order in which they were made.
    pub guards: Vec<(Name, usize, Guard)>,
    pub reads: Vec<Name>,
    pub contexts: Vec<Name>,
    pub futures: Vec<(Name, usize)>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Guard {
    Session,
    Plain,
    Switch,
    Span,
}

impl Book {
    /// The application that is current on the thread.
    pub fn app(&self, thread: usize) -> usize {
        let switches = self.guards.iter();
        switches
            .filter(|it| it.1 == thread && it.2 == Guard::Switch)
            .count()
            % 2
    }

    fn has_span(&self, name: Name, thread: usize) -> bool {
        let app = self.app(thread);
        self.spans.iter().any(|it| it.0 == name && it.1 == app)
    }

    fn has_given(&self, given: Given, thread: usize) -> bool {
        match given {
            Given::Of(span) => self.has_span(span, thread) && !self.kind(span).hidden,
            Given::Kept(name) => self.contexts.contains(&name),
            _ => true,
        }
    }

    fn has_value(&self, value: Value) -> bool {
        !matches!(value, Value::Kept(name) if !self.reads.contains(&name))
    }

    pub fn kind(&self, name: Name) -> Kind {
        self.spans.iter().find(|it| it.0 == name).unwrap().2
    }

    /// Guards inside a switch are dropped before it.
    fn may_drop(&self, name: Name, thread: usize, kind: Guard) -> bool {
        let mut of_thread = self.guards.iter().filter(|it| it.1 == thread);
        let after_switch: Vec<_> = of_thread
            .clone()
            .rev()
            .take_while(|it| it.2 != Guard::Switch)
            .collect();
        match kind {
            Guard::Switch => {
                after_switch.is_empty() && of_thread.next_back().is_some_and(|it| it.0 == name)
            }
            _ => after_switch.iter().any(|it| it.0 == name && it.2 == kind),
        }
    }

    /// Notes the operation. False if it is impossible.
    pub fn apply(&mut self, step: &Step) -> bool {
        let thread = step.thread;
        let push = |book: &mut Self, name, guard| book.guards.push((name, thread, guard));
        let possible = match &step.op {
            Op::Span(_, Parent::Explicit(name), _) => self.has_span(*name, thread),
            Op::Enter(name) => {
                self.has_span(*name, thread) && !self.entered.iter().any(|it| it.0 == *name)
            }
            Op::Exit(name) => self.may_drop(*name, thread, Guard::Span),
            Op::Close(name) | Op::Record(name, _) => self.has_span(*name, thread),
            Op::SetParent(name, given) => {
                self.has_span(*name, thread)
                    && !self.kind(*name).hidden
                    && *given != Given::Of(*name)
                    && self.has_given(*given, thread)
            }
            Op::Attach(_, value) => self.has_value(*value),
            Op::Detach(name) => {
                self.may_drop(*name, thread, Guard::Session)
                    || self.may_drop(*name, thread, Guard::Switch)
            }
            Op::EndPlain(name) => self.may_drop(*name, thread, Guard::Plain),
            Op::AttachContext(_, given) => self.has_given(*given, thread),
            Op::Future(_, value, span) => {
                self.has_value(*value)
                    && span.is_none_or(|span| {
                        self.has_span(span, thread) && !self.entered.iter().any(|it| it.0 == span)
                    })
            }
            Op::Poll(name, ..) | Op::DropFuture(name, _) => {
                let app = self.app(thread);
                self.futures.iter().any(|it| it.0 == *name && it.1 == app)
            }
            _ => true,
        };
        if !possible {
            return false;
        }
        let app = self.app(thread);
        match &step.op {
            Op::Span(name, _, kind) => self.spans.push((*name, app, *kind)),
            Op::Enter(name) => {
                self.entered.push((*name, thread));
                push(self, *name, Guard::Span);
            }
            Op::Close(name) => self.spans.retain(|it| it.0 != *name),
            Op::Exit(name) => {
                self.entered.retain(|it| it.0 != *name);
                self.guards.retain(|it| it.0 != *name);
            }
            Op::Detach(name) | Op::EndPlain(name) => self.guards.retain(|it| it.0 != *name),
            Op::Attach(name, _) | Op::AttachContext(name, _) => push(self, *name, Guard::Session),
            Op::Plain(name) => push(self, *name, Guard::Plain),
            Op::Switch(name) => push(self, *name, Guard::Switch),
            Op::Read(name) => self.reads.push(*name),
            Op::Keep(name) => self.contexts.push(*name),
            Op::Future(name, _, span) => {
                self.futures.push((*name, app));
                // The future has the handle.
                self.spans.retain(|it| Some(it.0) != *span);
            }
            Op::DropFuture(name, _) => self.futures.retain(|it| it.0 != *name),
            _ => {}
        }
        true
    }
}

/// The names that `completed` gives begin here.
const LAST: Name = 1 << 20;

/// The possible operations of a program, and others that undo all that is left. Then nothing is in a session.
pub fn completed(program: &[Step]) -> Vec<Step> {
    let mut book = Book::default();
    let is_own = |it: &&Step| it.op.name() < LAST;
    let possible = program.iter().filter(is_own).filter(|it| book.apply(it));
    let mut steps: Vec<_> = possible.cloned().collect();
    let mut last = LAST;
    let mut add = |book: &mut Book, thread, op| {
        let step = Step { thread, op };
        assert!(book.apply(&step), "{step:?}");
        steps.push(step);
    };
    while let Some(&(name, thread, guard)) = book.guards.last() {
        let op = match guard {
            Guard::Session | Guard::Switch => Op::Detach(name),
            Guard::Plain => Op::EndPlain(name),
            Guard::Span => Op::Exit(name),
        };
        add(&mut book, thread, op);
    }
    for app in 0..2 {
        let of_app = |it: &&(Name, usize)| it.1 == app;
        let futures: Vec<_> = book.futures.iter().filter(of_app).map(|it| it.0).collect();
        let spans = book.spans.iter().filter(|it| it.1 == app);
        let spans: Vec<_> = spans.map(|it| it.0).collect();
        let switch = last + 1;
        if app == 1 && futures.len() + spans.len() > 0 {
            add(&mut book, 0, Op::Switch(switch));
        }
        for future in futures {
            last += 2;
            add(&mut book, 0, Op::DropFuture(future, last));
        }
        for span in spans {
            add(&mut book, 0, Op::Close(span));
        }
        if !book.guards.is_empty() {
            add(&mut book, 0, Op::Detach(switch));
        }
        last += 2;
    }
    for thread in 0..2 {
        let kind = Kind {
            way: Way::Plain,
            sets: NONE,
            hidden: false,
        };
        add(&mut book, thread, Op::Read(last));
        add(
            &mut book,
            thread,
            Op::Span(last + 1, Parent::Contextual, kind),
        );
        add(&mut book, thread, Op::Close(last + 1));
        last += 2;
    }
    steps
}
