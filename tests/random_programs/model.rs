//! The model: which values a span may be exported with. It knows the rules, and neither `tracing` nor OpenTelemetry nor
//! the crate under test.
//!
//! A *node* has values for the spans inside it: it is a span or an attached `Session`. Where the rules leave a value open,
//! the model has several.

mod contexts;
mod futures;
mod set;
mod spans;
mod values;

use super::program::{KEYS, Kind, Name, Op, Parent, SESSION, Step, Value, Values};
use super::run::{Answer, Outcome};
use std::collections::HashMap;

/// The number of the step.
type Time = usize;
type Node = usize;

/// The rules that depend on the set-up.
#[derive(Clone, Copy)]
pub struct Rules {
    /// There is an OpenTelemetry layer.
    pub exports: bool,
    /// Only the end is compared.
    pub only_end: bool,
    /// Children of a filtered-out span inherit what it inherits.
    pub hidden_inherit: bool,
    /// A span that was created in no session doesn't hide the session of the future that polls it.
    pub adopts: bool,
    /// `with_opener_filter` excludes the target `library`.
    pub excludes_libraries: bool,
    /// What a future creates when it is dropped is in its session.
    pub drops_in_session: bool,
    /// Where `set_*` returns Ok, the values apply right there.
    pub set_applies: bool,
    /// A session that is attached inside a filtered-out span refuses `set_*` as one inside an exported span does.
    pub tracked_refuse: bool,
    /// Span ids may be ambiguous.
    pub ambiguous_ids: bool,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Found {
    text: &'static str,
    /// An implicit opener may replace it.
    is_implicit: bool,
}

#[derive(Default)]
struct Data {
    /// Where it inherits from: alternatives.
    outers: Vec<Option<Node>>,
    blocks: [bool; KEYS],
    fields: Vec<(Time, Values)>,
    set: Vec<(Time, Values)>,
    /// Values were set on it while it was not the current span of `tracing`.
    is_set_outside: bool,
    is_implicit: bool,
    /// When it is settled what it inherits: alternatives. None: when its child starts.
    settled: Vec<Option<Time>>,
    span: Option<Span>,
    /// Other values that it may be exported with.
    perhaps: Vec<Values>,
    /// Or it may have none.
    may_lack: bool,
    has_set_parent: bool,
    /// It is only one of its outers.
    is_choice: bool,
    /// A node whose values apply where the outers have none.
    otherwise: Option<Node>,
}

/// What only spans have.
struct Span {
    name: Name,
    parent: Parent,
    kind: Option<Kind>,
    /// The values that applied where it was created.
    applied: [bool; KEYS],
    /// An opener that is not ignored.
    opens: bool,
    hidden: bool,
    /// The values of the fields of an ignored opener.
    own: Vec<Values>,
    started: Option<Time>,
    closed: Option<Time>,
    has_handle: bool,
    entered: usize,
    children: usize,
    registry_parent: Option<Node>,
    /// Its values aren't compared.
    is_any: bool,
    /// The future's nodes and times in which it was entered.
    adopted: Vec<(Node, Time)>,
    /// A future has adopted it, also after it was started.
    was_adopted: bool,
}

/// A `Context`.
#[derive(Clone, Copy, Default)]
struct Context {
    /// The span of OpenTelemetry.
    span: Option<Node>,
    scope: Option<Node>,
    /// The scope was attached inside the span.
    inside: bool,
    /// The scope that a future's session replaced, right inside its poll.
    polled: Option<Option<Node>>,
    is_switch: bool,
    /// A filtered-out span that opens nothing was entered, and the place may apply.
    is_choice: bool,
    /// The scope is an attached session.
    is_value: bool,
}

#[derive(Default)]
struct Thread {
    contexts: Vec<(Name, Context)>,
    /// The entered spans, with their applications.
    entered: Vec<(Node, usize)>,
    app: usize,
}

struct Future {
    value: Value,
    span: Option<Node>,
    last: Option<(Node, Time)>,
}

pub struct Model {
    rules: Rules,
    now: Time,
    nodes: Vec<Data>,
    threads: [Thread; 2],
    spans: HashMap<Name, Node>,
    kept: HashMap<Name, Context>,
    read: HashMap<Name, Option<(Values, bool)>>,
    futures: HashMap<Name, Future>,
    differences: Vec<String>,
    /// The first operation whose effect the rules leave open.
    opened: Option<Time>,
}

/// What is wrong with the outcome of a program. An error is the number of a step whose effect the rules leave open.
pub fn differences(
    rules: Rules,
    program: &[Step],
    outcome: &Outcome,
) -> Result<Vec<String>, usize> {
    if rules.only_end {
        return Ok(vec![]);
    }
    let mut model = Model {
        rules,
        now: 0,
        nodes: vec![],
        threads: Default::default(),
        spans: HashMap::new(),
        kept: HashMap::new(),
        read: HashMap::new(),
        futures: HashMap::new(),
        differences: vec![],
        opened: None,
    };
    for (index, step) in program.iter().enumerate() {
        model.now = index + 1;
        let answer = outcome.answers.get(&index);
        model.step(step.thread, &step.op, answer);
    }
    model.now += 1;
    model.compare(outcome);
    match model.opened {
        Some(now) if model.differences.is_empty() => Err(now - 1),
        _ => Ok(model.differences),
    }
}

impl Model {
    fn differs(&mut self, what: String) {
        if self.opened.is_some() {
            return;
        }
        let step = self.now - 1;
        self.differences.push(format!("step {step}: {what}"));
    }

    fn open_if(&mut self, is_open: bool) {
        if is_open {
            self.opened.get_or_insert(self.now);
        }
    }

    fn here(&self, thread: usize) -> Context {
        let top = self.threads[thread].contexts.last();
        top.map(|it| it.1).unwrap_or_default()
    }

    /// The current span of `tracing`.
    fn current(&self, thread: usize) -> Option<Node> {
        let Thread { entered, app, .. } = &self.threads[thread];
        entered.iter().rev().find(|it| it.1 == *app).map(|it| it.0)
    }

    fn push(&mut self, thread: usize, name: Name, context: Context) {
        self.threads[thread].contexts.push((name, context));
    }

    fn pop(&mut self, thread: usize, name: Name) {
        let contexts = self.threads[thread].contexts.iter().rev();
        let mut above = contexts.take_while(|it| it.0 != name);
        // The place where a filtered-out span was entered.
        let is_below_hidden = above.any(|it| it.1.is_choice);
        self.open_if(is_below_hidden);
        self.threads[thread].contexts.retain(|it| it.0 != name);
    }

    fn add(&mut self, data: Data) -> Node {
        self.nodes.push(data);
        self.nodes.len() - 1
    }

    fn span(&mut self, node: Node) -> &mut Span {
        self.nodes[node].span.as_mut().unwrap()
    }

    fn is_hidden(&self, node: Node) -> bool {
        self.nodes[node].span.as_ref().is_some_and(|it| it.hidden)
    }

    fn step(&mut self, thread: usize, op: &Op, answer: Option<&Answer>) {
        match *op {
            Op::Span(name, parent, kind) => {
                self.create(thread, name, parent, kind);
            }
            Op::Enter(name) => self.enter(thread, name, self.spans[&name]),
            Op::Exit(name) => self.exit(thread, name, self.spans[&name]),
            Op::Close(name) => {
                let node = self.spans[&name];
                self.span(node).has_handle = false;
                self.close(node);
            }
            Op::Record(name, values) => self.record(self.spans[&name], values),
            Op::SetParent(name, given) => {
                let node = self.spans[&name];
                let context = self.given(given);
                let works = self.rules.exports && self.span(node).started.is_none();
                if *answer.unwrap() != Answer::Parent(works) {
                    self.differs(format!("set_parent should return Ok: {works}"));
                }
                // A filtered-out child doesn't start its parent, which may become a descendant of its own.
                let is_own = context.scope.is_some_and(|it| self.inherits(it, node));
                self.open_if(works && (is_own || self.has_hidden_child(node)));
                if works && !is_own {
                    let opens = self.span(node).opens;
                    let now = Some(self.now);
                    let data = &mut self.nodes[node];
                    data.outers = vec![context.scope];
                    data.has_set_parent = true;
                    // Open, for a value that is set on the parent before the span starts.
                    data.settled = if opens { vec![now, None] } else { vec![None] };
                }
            }
            Op::Attach(name, value) => {
                let context = self.session(thread, value);
                self.push(thread, name, context);
            }
            Op::AttachContext(name, given) => {
                let context = self.given(given);
                self.push(thread, name, context);
            }
            Op::Detach(name) => {
                self.pop(thread, name);
                // The guard of a switch.
                let app = self.threads[thread].contexts.iter();
                self.threads[thread].app = app.filter(|it| it.1.is_switch).count() % 2;
            }
            Op::Switch(name) => {
                self.push(thread, name, Context::SWITCH);
                self.threads[thread].app ^= 1;
            }
            Op::SetSession(id) => self.set(thread, [Some(id), None, None], answer.unwrap()),
            Op::SetUser(id) => self.set(thread, [None, Some(id), None], answer.unwrap()),
            Op::SetAll(values) => self.set(thread, values, answer.unwrap()),
            Op::Read(name) => {
                let &Answer::Read(is_some, values) = answer.unwrap() else {
                    panic!("{op:?} has {answer:?}")
                };
                let scope = self.here(thread).scope;
                self.compare_read(scope, values);
                let found = self.value_in(scope, SESSION, self.now, self.now);
                let mut is_implicit = found.iter().flatten().map(|it| it.is_implicit);
                let (is_any, is_every) =
                    (is_implicit.clone().any(|it| it), is_implicit.all(|it| it));
                self.open_if(is_any && !is_every);
                let is_implicit = is_any;
                let kept = is_some.then_some((values, is_implicit));
                self.read.insert(name, kept);
            }
            Op::Keep(name) => {
                let mut context = self.here(thread).kept();
                // Open: values that are set on a filtered-out span afterwards.
                let is_open = |it: &Node| self.is_hidden(*it) || self.nodes[*it].is_choice;
                if let Some(scope) = context.scope.filter(is_open) {
                    context.scope = Some(self.add(Data {
                        outers: vec![Some(scope)],
                        settled: vec![Some(self.now), None],
                        is_choice: true,
                        ..Data::default()
                    }));
                }
                self.kept.insert(name, context);
            }
            Op::Plain(name) => {
                let node = self.new_span(thread, name, Parent::Contextual, None);
                self.start(node);
                self.push(thread, name, Context::of(node));
            }
            Op::EndPlain(name) => {
                let node = self.spans[&name];
                self.span(node).closed = Some(self.now);
                self.pop(thread, name);
            }
            Op::Future(name, value, span) => {
                let span = span.map(|name| self.spans[&name]);
                let last = None;
                let future = Future { value, span, last };
                self.futures.insert(name, future);
            }
            Op::Poll(name, child, kind) => self.poll(thread, name, child, kind),
            Op::DropFuture(name, child) => self.drop_future(thread, name, child),
            Op::Reload => {}
        }
    }
}

pub const NAMES: [&str; KEYS] = ["session.id", "user.id", "metadata.m"];

impl Context {
    const SWITCH: Self = Self {
        span: None,
        scope: None,
        inside: false,
        polled: None,
        is_switch: true,
        is_choice: false,
        is_value: false,
    };

    fn of(node: Node) -> Self {
        Self {
            span: Some(node),
            scope: Some(node),
            ..Self::default()
        }
    }

    fn is_of(&self, node: Node) -> bool {
        self.own_span() == Some(node)
    }

    /// The span, if nothing is attached inside it.
    fn own_span(&self) -> Option<Node> {
        self.span
            .filter(|_| self.scope == self.span && !self.inside)
    }

    fn kept(self) -> Self {
        Self {
            polled: None,
            is_switch: false,
            ..self
        }
    }
}

impl Data {
    fn opens(&self) -> bool {
        self.span.as_ref().is_none_or(|it| it.opens)
    }

    fn is_open_plain(&self) -> bool {
        let plain = self.span.as_ref().filter(|it| it.kind.is_none());
        plain.is_some_and(|it| it.closed.is_none())
    }
}
