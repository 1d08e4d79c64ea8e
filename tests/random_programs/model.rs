//! The model: which values a span may be exported with. It knows the rules, and neither `tracing` nor OpenTelemetry nor
//! the crate under test.
//!
//! A *node* has values for the spans inside it: it is a span or an attached `Session`. Where the rules leave a value open,
//! the model has several.

use super::program::{Given, KEYS, Kind, NONE, Name, Op, Parent, SESSION, Step, USER, Value, Values, Way};
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
    is_implicit: bool,
    /// When it is settled what it inherits: alternatives. None: when its child starts.
    settled: Vec<Option<Time>>,
    span: Option<Span>,
    /// Other values that it may be exported with.
    perhaps: Vec<Values>,
    has_set_parent: bool,
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
    /// It is that of a filtered-out span that opens nothing.
    is_hidden_plain: bool,
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
    last: Option<Node>,
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
        Some(now) => Err(now - 1),
        None => Ok(model.differences),
    }
}

impl Model {
    fn differs(&mut self, what: String) {
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
        let is_below_hidden = above.any(|it| it.1.is_hidden_plain);
        self.open_if(is_below_hidden && !self.rules.hidden_inherit);
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
                if works {
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
                let is_implicit = found.iter().flatten().any(|it| it.is_implicit);
                let kept = is_some.then_some((values, is_implicit));
                self.read.insert(name, kept);
            }
            Op::Keep(name) => {
                self.kept.insert(name, self.here(thread).kept());
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

    fn given(&mut self, given: Given) -> Context {
        match given {
            Given::Remote | Given::Empty => Context::default(),
            Given::RemoteIn(values) => {
                let node = self.value_node(values, vec![]);
                let scope = Some(node);
                Context {
                    scope,
                    ..Context::default()
                }
            }
            Given::Of(name) => {
                let node = self.spans[&name];
                self.start(node);
                Context::of(node)
            }
            Given::Kept(name) => self.kept[&name],
        }
    }

    fn value_node(&mut self, values: Values, outers: Vec<Option<Node>>) -> Node {
        self.add(Data {
            outers,
            fields: vec![(self.now, values)],
            settled: vec![Some(self.now)],
            ..Data::default()
        })
    }

    /// The `Context` of a session that is attached here.
    fn session(&mut self, thread: usize, value: Value) -> Context {
        let here = self.here(thread);
        let (values, blocks, is_implicit) = match value {
            Value::New(values, blocks) => {
                let own = [0, 1, 2].map(|key| values[key].filter(|_| !blocks[key]));
                (own, blocks, false)
            }
            Value::Exact(values) => (values, [true; KEYS], false),
            Value::Kept(name) => match self.read[&name] {
                Some((values, is_implicit)) => (values, [true; KEYS], is_implicit),
                None => (NONE, [false; KEYS], false),
            },
        };
        let node = self.value_node(values, vec![here.scope]);
        self.nodes[node].blocks = blocks;
        self.nodes[node].is_implicit = is_implicit;
        Context {
            span: here.span,
            scope: Some(node),
            inside: true,
            is_value: true,
            ..Context::default()
        }
    }

    fn new_span(&mut self, thread: usize, name: Name, parent: Parent, kind: Option<Kind>) -> Node {
        let hidden = kind.is_some_and(|it| it.hidden) || !self.rules.exports;
        let outer = match parent {
            Parent::Contextual => self.here(thread).scope,
            Parent::Explicit(name) => {
                let node = self.spans[&name];
                // The OpenTelemetry layer doesn't see a child that is filtered out.
                if !hidden || kind.is_some_and(|it| it.way != Way::Plain) {
                    self.start(node);
                }
                Some(node)
            }
            Parent::Root => None,
        };
        let is_hidden_parent = |it| self.is_hidden(it) && !self.nodes[it].opens();
        let explicit = outer.filter(|_| matches!(parent, Parent::Explicit(_)));
        self.open_if(!self.rules.hidden_inherit && explicit.is_some_and(is_hidden_parent));
        let is_library = kind.is_some_and(|it| it.way == Way::Library);
        let is_excluded = is_library && self.rules.excludes_libraries;
        let is_implicit = kind.is_some_and(|it| it.way.is_implicit());
        let keys = kind.map_or([false; KEYS], |it| it.way.keys());
        let sets = kind.map_or(NONE, |it| it.sets);
        // Explicit beats implicit.
        let inherited = self.value_in(outer, SESSION, self.now, self.now);
        let ignores =
            |it: &Option<Found>| it.is_some_and(|it| !it.is_implicit && sets[0] != Some(it.text));
        let is_ignored = is_implicit && inherited.iter().any(ignores);
        self.open_if(is_implicit && is_ignored != inherited.iter().all(ignores));
        let opens = keys != [false; KEYS] && !is_ignored && !is_excluded;
        let explicit = |it: &Option<Found>| it.is_some_and(|it| !it.is_implicit);
        let place = self.here(thread).scope;
        let applied = [0, 1, 2].map(|key| {
            let found = self.value_in(place, key, self.now, self.now);
            found.iter().any(Option::is_some)
        });
        let registry_parent = match parent {
            _ if kind.is_none() => None,
            Parent::Contextual => self.current(thread),
            Parent::Explicit(name) => Some(self.spans[&name]),
            Parent::Root => None,
        };
        if let Some(parent) = registry_parent {
            self.span(parent).children += 1;
        }
        // What inherits from a filtered-out span is settled when it is created.
        let below_hidden = outer.is_some_and(|it| self.is_hidden(it));
        let now = Some(self.now);
        let settled = match (opens || hidden, below_hidden) {
            (false, false) => vec![None],
            (true, _) if opens => vec![now],
            _ => vec![now, None],
        };
        let node = self.add(Data {
            outers: vec![outer],
            is_implicit: is_implicit && !inherited.iter().any(explicit),
            settled,
            span: Some(Span {
                name,
                parent,
                kind,
                applied,
                opens,
                hidden,
                own: vec![],
                started: None,
                closed: None,
                has_handle: kind.is_some(),
                entered: 0,
                children: 0,
                registry_parent,
                is_any: false,
                adopted: vec![],
            }),
            ..Data::default()
        });
        self.spans.insert(name, node);
        self.record(node, sets);
        node
    }

    fn create(&mut self, thread: usize, name: Name, parent: Parent, kind: Kind) -> Node {
        self.new_span(thread, name, parent, Some(kind))
    }

    fn record(&mut self, node: Node, mut values: Values) {
        let now = self.now;
        let is_implicit = self.span(node).kind.is_some_and(|it| it.way.is_implicit());
        let data = &self.nodes[node];
        // Inside an explicit session with the same id, the id has become explicit: the field doesn't replace it.
        let has_id = data.fields.iter().any(|it| it.1[SESSION].is_some());
        if is_implicit && !data.is_implicit && has_id {
            values[SESSION] = None;
        }
        let span = self.span(node);
        if span.opens {
            self.nodes[node].fields.push((now, values));
        } else {
            // The field `id` is an attribute `id`.
            values[SESSION] = None;
            values[2] = None;
            span.own.push(values);
        }
    }

    fn start(&mut self, node: Node) {
        let now = self.now;
        if self.is_hidden(node) {
            return;
        }
        let span = self.span(node);
        if span.started.is_some() {
            return;
        }
        span.started = Some(now);
        for settled in &mut self.nodes[node].settled {
            settled.get_or_insert(now);
        }
    }

    fn enter(&mut self, thread: usize, name: Name, node: Node) {
        self.start(node);
        self.span(node).entered += 1;
        let app = self.threads[thread].app;
        self.threads[thread].entered.push((node, app));
        let here = self.here(thread);
        let Span { hidden, opens, .. } = *self.span(node);
        let context = match hidden {
            false => self.adopted(node, here).unwrap_or(Context::of(node)),
            true if opens => Context {
                span: here.span,
                scope: Some(node),
                inside: true,
                ..Context::default()
            },
            true => {
                let places = [Some(node), here.scope];
                let is_same = (0..KEYS).all(|key| {
                    let [own, others] =
                        places.map(|place| self.value_in(place, key, self.now, self.now));
                    own == others
                });
                self.open_if(!self.rules.hidden_inherit && !is_same);
                let value = |key| self.value(node, key, self.now, self.now);
                let scope = match (0..KEYS).all(|key| value(key).contains(&None)) {
                    // In no session: open.
                    true => Some(self.add(Data {
                        outers: vec![Some(node), here.scope],
                        settled: vec![None],
                        ..Data::default()
                    })),
                    false => Some(node),
                };
                Context {
                    scope,
                    inside: true,
                    is_hidden_plain: true,
                    span: here.span,
                    ..Context::default()
                }
            }
        };
        self.push(thread, name, context);
    }

    fn exit(&mut self, thread: usize, name: Name, node: Node) {
        self.pop(thread, name);
        self.threads[thread].entered.retain(|it| it.0 != node);
        self.span(node).entered -= 1;
        self.close(node);
    }

    /// Closes a span if nothing keeps it open, and then its parent.
    fn close(&mut self, node: Node) {
        let now = self.now;
        let span = self.span(node);
        let is_kept = span.has_handle || span.entered > 0 || span.children > 0;
        if is_kept || span.closed.is_some() {
            return;
        }
        span.closed = Some(now);
        let parent = span.registry_parent;
        self.start(node);
        if let Some(parent) = parent {
            self.span(parent).children -= 1;
            self.close(parent);
        }
    }

    fn set(&mut self, thread: usize, values: Values, answer: &Answer) {
        let &Answer::Set(works, after) = answer else {
            panic!("set has {answer:?}")
        };
        let here = self.here(thread);
        let current = self.current(thread);
        // Whether it has to work; and where it is set.
        let (expected, at) = match current {
            Some(span) if here.is_of(span) => (Some(true), Some(span)),
            Some(span) if self.is_hidden(span) => match here.scope {
                Some(scope) if scope == span => (Some(true), Some(span)),
                _ if here.is_value && self.is_shadowed(thread, span) => (Some(false), None),
                _ => (None, None),
            },
            Some(span) if here.span == Some(span) && here.inside => (Some(false), None),
            None if here.span.is_none() => (Some(false), None),
            None if here.inside => (Some(false), None),
            None => {
                let plain = here.span.filter(|it| self.nodes[*it].is_open_plain());
                (plain.map(|_| true), plain.or(here.own_span()))
            }
            // Another span's `Context` is attached.
            Some(_) => (None, here.own_span().filter(|_| self.rules.set_applies)),
        };
        // Inside a future, a span that it polls may have no session of its own.
        let expected = expected.filter(|_| !self.rules.ambiguous_ids || !works);
        if current.is_some_and(|it| self.is_hidden(it)) && !self.rules.tracked_refuse {
            self.open_if(works && here.is_value);
        } else if expected.is_some_and(|it| it != works) {
            self.differs(format!("set should return Ok: {}", !works));
        }
        if !works {
            self.compare_read(here.scope, after);
            return;
        }
        let hidden = current.filter(|it| self.is_hidden(*it));
        let opens = |it: Node| self.nodes[it].opens();
        self.open_if(hidden.is_some_and(|it| !self.rules.hidden_inherit && !opens(it)));
        let top = self.threads[thread].contexts.last().map(|it| it.0);
        let name = |it: Node| self.nodes[it].span.as_ref().map(|it| it.name);
        self.open_if(hidden.is_some_and(|it| name(it) != top));
        if let Some(current) = current.filter(|it| Some(*it) != at && hidden.is_none()) {
            self.nodes[current].perhaps.push(values);
        }
        match at {
            Some(node) => self.nodes[node].set.push((self.now, values)),
            None if !self.rules.set_applies && hidden.is_none() => {
                if let Some(node) = current.or(here.span) {
                    self.nodes[node].set.push((self.now, values));
                }
                return;
            }
            // It is in force here, whatever it was set on.
            None => {
                let node = self.value_node(values, vec![here.scope]);
                let top = self.threads[thread].contexts.last_mut();
                if let Some((_, context)) = top {
                    context.scope = Some(node);
                }
                for span in [current, here.span].into_iter().flatten() {
                    match self.is_hidden(span) {
                        true => self.nodes[span].set.push((self.now, values)),
                        false => self.nodes[span].perhaps.push(values),
                    }
                }
            }
        }
        let scope = self.here(thread).scope;
        self.compare_read(scope, after);
    }

    /// Only sessions are attached inside a filtered-out span that is entered.
    fn is_shadowed(&self, thread: usize, span: Node) -> bool {
        let name = self.nodes[span].span.as_ref().map(|it| it.name);
        let contexts = self.threads[thread].contexts.iter().rev();
        let mut inside = contexts.skip_while(|it| it.1.is_value);
        inside.next().map(|it| it.0) == name
    }

    fn compare_read(&mut self, scope: Option<Node>, actual: Values) {
        for (key, actual) in actual.into_iter().enumerate() {
            let allowed = self.value_in(scope, key, self.now, self.now);
            let allowed: Vec<_> = allowed.iter().map(|it| it.map(|it| it.text)).collect();
            if !allowed.contains(&actual) {
                self.differs(format!("current {}: {actual:?} is none of {allowed:?}", NAMES[key]));
            }
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
        is_hidden_plain: false,
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
        self.span.filter(|_| self.scope == self.span && !self.inside)
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

mod futures;
mod values;
