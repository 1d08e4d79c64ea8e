//! Programs as plain data, and what has to come of them.
//!
//! [`expected`] is the oracle: it knows the rules, and neither `tracing` nor OpenTelemetry nor the
//! crate under test.

use std::fmt;

/// A session and a user, or one of them, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Values {
    pub session: Option<&'static str>,
    pub user: Option<&'static str>,
}

/// The key of an attribute that identifies a session or a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Session,
    User,
}

impl Key {
    pub const BOTH: [Key; 2] = [Key::Session, Key::User];

    pub fn name(self) -> &'static str {
        match self {
            Key::Session => "session.id",
            Key::User => "user.id",
        }
    }
}

impl Values {
    pub fn get(&self, key: Key) -> Option<&'static str> {
        match key {
            Key::Session => self.session,
            Key::User => self.user,
        }
    }

    /// Each value with its key.
    pub fn iter(self) -> impl Iterator<Item = (Key, &'static str)> {
        let value = move |key| Some((key, self.get(key)?));
        Key::BOTH.into_iter().filter_map(value)
    }
}

pub type Name = &'static str;

/// One thing that a program does.
#[derive(Clone, Debug)]
pub enum Step {
    /// Makes a span.
    Open(Span),
    /// Does this with a span entered.
    Within(Name, Vec<Step>),
    /// Does this with a `Session` value in force.
    InSession(Hold, Values, Vec<Step>),
    /// Does this on a thread of its own.
    OnThread(Vec<Step>),
    /// Records fields that a span was made without.
    Record(Name, Values),
    /// Sets values on the current span.
    Set(Values),
    /// The author of a span sets `session.id` and `user.id` on it with OpenTelemetry's API.
    SetAttributes(Name, Values),
    /// Makes a span with OpenTelemetry's API, with these attributes in its builder and these set after it has
    /// started, and does this with the span current.
    OtelSpan {
        name: Name,
        built: Values,
        later: Values,
        inside: Vec<Step>,
    },
    /// Asks for the session in force.
    Ask,
    /// Lets go of a span.
    Close(Name),
}

#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub name: Name,
    pub parent: Parent,
    pub way: Way,
    /// What it says when it is made, or may be told later if its way is late.
    pub says: Values,
    /// A filter keeps it from the OpenTelemetry layer.
    pub hidden: bool,
    pub set_parent: SetParent,
}

impl Span {
    /// The field that sets the value of this key.
    pub fn field(&self, key: Key) -> &'static str {
        let is_named = matches!(self.way, Way::Named | Way::LateNamed);
        match key {
            Key::Session if is_named => "id",
            Key::User if is_named && self.says.session.is_none() => "id",
            _ => key.name(),
        }
    }

    /// Only the built-in name `session` makes the span an opener.
    fn is_implicit(&self) -> bool {
        matches!(self.way, Way::Named | Way::LateNamed) && self.says.session.is_some()
    }

    /// What the fields set when the span is made.
    fn sets(&self) -> Values {
        match self.way {
            Way::LateNamed | Way::LateDotted => Values::default(),
            _ => self.says,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    Contextual,
    Explicit(Name),
    None,
}

/// How a span says what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Not at all.
    Plain,
    /// `session!`, `user!`.
    Macro,
    /// `info_span!("session", id = ..)`, which is implicit, or `info_span!("user", id = ..)`, whose name is added.
    Named,
    /// `info_span!("..", session.id = ..)`.
    Dotted,
    /// As `Named`, with empty fields.
    LateNamed,
    /// As `Dotted`, with empty fields.
    LateDotted,
}

/// The `Context` given to `set_parent`, right after the span was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetParent {
    No,
    /// That of a span of another process.
    Remote,
    /// The same, with a `Session` value in force in it.
    RemoteIn(Values),
    /// Extracted from headers that contain these values.
    Extracted(Values),
}

/// How a `Session` value is held in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    Attach,
    InScope,
    /// With a future, by `in_session`.
    Future,
}

/// What came of a program.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Sorted.
    pub spans: Vec<Exported>,
    /// In the order of the program.
    pub answers: Vec<Answer>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exported {
    pub name: String,
    /// The name of the parent if it is a span of this process.
    pub parent: Option<String>,
    /// The values of `session.id`, in their order.
    pub sessions: Vec<String>,
    /// The values of `user.id`.
    pub users: Vec<String>,
    /// The values of `id`.
    pub ids: Vec<String>,
    /// Other keys that are there twice.
    pub keys_too_many: Vec<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// To `Set`: whether there was a span to set the values on.
    Was(bool),
    /// To `Ask`.
    InForce(Option<String>, Option<String>),
}

/// What has to come of a program.
pub fn expected(program: &[Step]) -> Outcome {
    let mut oracle = Oracle::default();
    oracle.run(program, Here::default());
    oracle.outcome()
}

/// Something that has values for what is in it: a span, or a `Session` value.
#[derive(Default)]
struct Node {
    name: Name,
    exported: bool,
    /// The parent in the exported tree.
    parent: Option<usize>,
    /// Where it takes the values from that it does not have itself.
    outer: Option<usize>,
    opens: bool,
    /// An implicit opener replaces the session id that is set here.
    is_replaceable: bool,
    /// The keys whose fields have the key itself as their name.
    fields_of_keys: Vec<Key>,
    fields: Vec<(Time, Values)>,
    set: Vec<(Time, Values)>,
    /// The author's own attributes. The fields of an ignored opener are among them.
    attributes: Vec<(Time, &'static str, &'static str)>,
    /// A filter keeps it from the OpenTelemetry layer.
    hidden: bool,
    is_tracked: bool,
    /// When it is settled what it inherits: when it starts, or earlier, when it is created.
    settled: Option<Time>,
    /// When the span of OpenTelemetry exists.
    started: Option<Time>,
    closed: Time,
    /// The parent was given where a session applied, or any value.
    is_apart: bool,
    is_apart_from_session: bool,
    /// Inside this span, which a future has adopted.
    inside: Option<usize>,
    /// The node inside, by the first future that has adopted the span.
    adopted: Option<usize>,
}

impl Node {
    fn add_attributes(&mut self, now: Time, values: Values) {
        let attribute = |(key, value): (Key, _)| (now, key.name(), value);
        self.attributes.extend(values.iter().map(attribute));
    }

    /// The author's attributes with this name.
    fn own(&self, name: &str) -> impl Iterator<Item = (Time, &'static str)> {
        let own = self.attributes.iter().filter(move |own| own.1 == name);
        own.map(|(time, _, value)| (*time, *value))
    }
}

/// A value, and whether an implicit opener may replace it.
#[derive(Clone, Copy)]
struct Value {
    text: &'static str,
    is_replaceable: bool,
}

/// The number of the step.
type Time = usize;

/// What is in force at one place of a program: indices of nodes.
#[derive(Clone, Copy, Default)]
struct Here {
    /// The current span of `tracing`.
    current: Option<usize>,
    /// The current span of OpenTelemetry.
    exported: Option<usize>,
    /// The innermost node that has a say in what is made here.
    scope: Option<usize>,
    /// The session of a future that is polled directly here.
    polled: Option<usize>,
    /// The innermost of the `Oracle`'s adoptions that are entered here.
    adopted: Option<usize>,
}

/// A span that a future has adopted, and that is entered.
#[derive(Clone, Copy)]
struct Adoption {
    span: usize,
    inside: usize,
    around: Option<usize>,
}

#[derive(Default)]
struct Oracle {
    now: Time,
    nodes: Vec<Node>,
    /// The spans of `tracing` by their nodes.
    spans: Vec<(usize, Span)>,
    answers: Vec<Answer>,
    adoptions: Vec<Adoption>,
}

impl Oracle {
    fn run(&mut self, program: &[Step], here: Here) {
        for step in program {
            self.now += 1;
            self.step(step, here);
        }
    }

    fn step(&mut self, step: &Step, here: Here) {
        match step {
            Step::Open(span) => self.open(span, here),
            Step::Within(name, steps) => {
                let span = self.find(name);
                self.start(span);
                let adopted = self.adopted(span, here);
                let adoption = adopted.map(|inside| Adoption {
                    span,
                    inside,
                    around: here.adopted,
                });
                self.adoptions.extend(adoption);
                let last = self.adoptions.len().checked_sub(1);
                let here = Here {
                    adopted: adoption.and(last).or(here.adopted),
                    ..here
                };
                let inside = match &self.nodes[span] {
                    Node { exported: true, .. } => Here {
                        current: Some(span),
                        exported: Some(span),
                        scope: adopted.or(Some(span)),
                        polled: adopted,
                        ..here
                    },
                    // A hidden span changes nothing for OpenTelemetry, except by what it sets or inherits.
                    _ => Here {
                        current: Some(span),
                        scope: adopted.or(Some(span)),
                        polled: adopted,
                        ..here
                    },
                };
                self.run(steps, inside);
            }
            Step::InSession(hold, values, steps) => {
                let scope = Some(self.session(*values, here.scope, false));
                let polled = scope.filter(|_| *hold == Hold::Future);
                let inside = Here {
                    scope,
                    polled,
                    ..here
                };
                self.run(steps, inside);
            }
            Step::OnThread(steps) => self.run(steps, Here::default()),
            Step::Record(name, values) => {
                let span = self.find(name);
                self.record(span, *values);
            }
            Step::SetAttributes(name, values) => {
                let span = self.find(name);
                self.nodes[span].add_attributes(self.now, *values);
            }
            Step::OtelSpan {
                name,
                built,
                later,
                inside,
            } => {
                let mut span = Node {
                    name,
                    exported: true,
                    parent: here.exported,
                    outer: here.scope,
                    settled: Some(self.now),
                    started: Some(self.now),
                    ..Node::default()
                };
                span.add_attributes(self.now, *built);
                span.add_attributes(self.now, *later);
                let index = self.nodes.len();
                self.nodes.push(span);
                let span = Some(index);
                let inside_span = Here {
                    exported: span,
                    scope: span,
                    polled: None,
                    ..here
                };
                self.run(inside, inside_span);
                self.nodes[index].closed = self.now;
            }
            Step::Set(values) => {
                let current = here.current.map(|span| &mut self.nodes[span]);
                let bound = current.filter(|span| span.exported || span.is_tracked);
                self.answers.push(Answer::Was(bound.is_some()));
                if let Some(span) = bound {
                    span.set.push((self.now, *values));
                }
            }
            Step::Ask => {
                let value = |key| Some(self.value_now(here.scope?, key)?.text.to_owned());
                let answer = Answer::InForce(value(Key::Session), value(Key::User));
                self.answers.push(answer);
            }
            Step::Close(name) => {
                let span = self.find(name);
                self.start(span);
                self.nodes[span].closed = self.now;
            }
        }
    }

    /// The node inside a span that the future which is polled here adopts: it was created in no session.
    fn adopted(&mut self, span: usize, here: Here) -> Option<usize> {
        let future = here.polled?;
        let node = &self.nodes[span];
        let is_apart = match self.value_now(future, Key::Session) {
            Some(_) => node.is_apart_from_session,
            None => node.is_apart,
        };
        if is_apart || self.value_now(span, Key::Session).is_some() {
            return None;
        }
        let inside = self.nodes.len();
        self.nodes.push(Node {
            outer: Some(future),
            settled: Some(self.now),
            inside: Some(span),
            ..Node::default()
        });
        self.nodes[span].adopted.get_or_insert(inside);
        Some(inside)
    }

    fn open(&mut self, span: &Span, here: Here) {
        let (parent, outer) = match span.parent {
            Parent::Contextual => (here.exported, here.scope),
            Parent::Explicit(name) => {
                let parent = self.find(name);
                self.start(parent);
                // The child of a hidden span is a root of the exported tree, with its scope.
                let exported = self.nodes[parent].exported;
                let adoption = |at: usize| self.adoptions[at];
                let innermost = here.adopted.map(adoption);
                let around = |it: &Adoption| it.around.map(adoption);
                let mut entered = std::iter::successors(innermost, around);
                let inside = entered.find(|it| it.span == parent).map(|it| it.inside);
                (exported.then_some(parent), inside.or(Some(parent)))
            }
            Parent::None => (None, None),
        };
        // Explicit beats implicit, by the parent that the span is made with.
        let sets = span.sets();
        let inherited = outer.filter(|_| span.is_implicit());
        let inherited = inherited.and_then(|outer| self.value_now(outer, Key::Session));
        let explicit = inherited.filter(|id| !id.is_replaceable);
        let is_ignored = explicit.is_some_and(|id| sets.session != Some(id.text));
        // The given `Context` takes the place of the parent.
        let (parent, outer) = match span.set_parent {
            SetParent::No => (parent, outer),
            SetParent::Remote => (None, None),
            SetParent::RemoteIn(values) => (None, Some(self.session(values, None, false))),
            SetParent::Extracted(values) => (None, Some(self.session(values, None, true))),
        };
        let opens = span.way != Way::Plain && !is_ignored;
        // A hidden span passes on what applies where it is created.
        let is_settled =
            opens || span.hidden || outer.is_some_and(|outer| self.nodes[outer].hidden);
        // A hidden span that neither sets nor inherits anything leaves no trace.
        let applies = |key| outer.is_some_and(|outer| self.value_now(outer, key).is_some());
        let is_tracked = opens
            || !matches!(span.parent, Parent::Contextual)
            || Key::BOTH.into_iter().any(applies);
        let is_given = !matches!(span.parent, Parent::Contextual);
        let is_apart_from = |key| {
            let here = here.scope.filter(|_| is_given);
            here.is_some_and(|scope| self.value_now(scope, key).is_some())
        };
        let is_apart_from_session = is_apart_from(Key::Session);
        let is_apart = is_apart_from_session || is_apart_from(Key::User);
        let has_own_name = |key: &Key| span.field(*key) == key.name();
        let made = self.nodes.len();
        self.nodes.push(Node {
            name: span.name,
            exported: !span.hidden,
            parent,
            outer,
            opens,
            hidden: span.hidden,
            is_tracked,
            is_replaceable: span.is_implicit() && explicit.is_none(),
            fields_of_keys: Key::BOTH.into_iter().filter(has_own_name).collect(),
            settled: is_settled.then_some(self.now),
            is_apart,
            is_apart_from_session,
            ..Node::default()
        });
        self.spans.push((made, *span));
        self.record(made, sets);
    }

    /// The fields of an ignored opener are the author's attributes.
    fn record(&mut self, index: usize, values: Values) {
        let node = &mut self.nodes[index];
        if node.opens {
            node.fields.push((self.now, values));
        } else {
            let (_, span) = self.spans.iter().find(|(at, _)| *at == index).unwrap();
            let attribute = |(key, value)| (self.now, span.field(key), value);
            node.attributes.extend(values.iter().map(attribute));
        }
    }

    fn session(&mut self, values: Values, outer: Option<usize>, is_replaceable: bool) -> usize {
        self.nodes.push(Node {
            outer,
            is_replaceable,
            fields: vec![(self.now, values)],
            settled: Some(self.now),
            ..Node::default()
        });
        self.nodes.len() - 1
    }

    fn find(&self, name: &str) -> usize {
        let found = self.nodes.iter().position(|node| node.name == name);
        found.unwrap_or_else(|| panic!("the program has no span {name} yet"))
    }

    fn start(&mut self, span: usize) {
        let span = &mut self.nodes[span];
        span.settled.get_or_insert(self.now);
        span.started.get_or_insert(self.now);
    }

    /// A value in a node, as known at a time `at`, for something that started at the time `started`.
    ///
    /// What a field says is in force in the whole life of its span. What is set on a span is in
    /// force for the span itself, and for what starts below it afterwards.
    fn value(&self, node: usize, key: Key, at: Time, started: Time) -> Option<Value> {
        let node = &self.nodes[node];
        if let Some(span) = node.inside {
            let own = self.nodes[span].outer.is_none_or(|outer| {
                let inherited = self.value(outer, key, at, started).map(|it| it.text);
                inherited != self.value(span, key, at, started).map(|it| it.text)
            });
            let of_span = self.value(span, key, at, started);
            let of_future = || self.value(node.outer?, key, at, node.settled?);
            return match own {
                true => of_span.or_else(of_future),
                false => of_future().or(of_span),
            };
        }
        let set = latest(&node.set, started.min(at), key).map(|(_, text)| Value {
            text,
            is_replaceable: false,
        });
        let field = || {
            let (_, text) = latest(&node.fields, at, key)?;
            let is_replaceable = node.is_replaceable;
            Some(Value {
                text,
                is_replaceable,
            })
        };
        let inherited = || self.value(node.outer?, key, at, node.settled?);
        set.or_else(field).or_else(inherited)
    }

    /// A value in a node, for something that starts now.
    fn value_now(&self, node: usize, key: Key) -> Option<Value> {
        self.value(node, key, self.now, self.now)
    }

    /// The values that a span is exported with: the author's own and the one that its fields had set when it
    /// started, or else the one that applies when it ends.
    fn exported(&self, index: usize, key: Key) -> Vec<String> {
        let node = &self.nodes[index];
        let started = node.started.unwrap_or(node.closed);
        let at_start = latest(&node.fields, started, key);
        // Before the start, the last value under the name of a field is that of the field.
        let recorded = at_start.filter(|_| node.fields_of_keys.contains(&key));
        let is_earlier = |time| recorded.is_some_and(|(last, _)| time < last);
        let is_field = |time: Time, text| {
            let field = latest(&node.fields, time, key);
            node.fields_of_keys.contains(&key) && field.is_some_and(|(_, field)| field == text)
        };
        let own = || node.own(key.name()).filter(|own| !is_field(own.0, own.1));
        let before = own().filter(|own| own.0 <= started && !is_earlier(own.0));
        let mut values: Vec<_> = before.map(|own| own.1).collect();
        if values.is_empty() {
            values.extend(at_start.map(|(_, text)| text));
        }
        values.extend(own().filter(|own| own.0 > started).map(|own| own.1));
        if values.is_empty() {
            let value = self.value(node.adopted.unwrap_or(index), key, node.closed, node.closed);
            values.extend(value.map(|value| value.text));
        }
        values.into_iter().map(str::to_owned).collect()
    }

    fn outcome(self) -> Outcome {
        let exported = |(index, node): (usize, &Node)| Exported {
            name: node.name.to_owned(),
            parent: node.parent.map(|parent| self.nodes[parent].name.to_owned()),
            sessions: self.exported(index, Key::Session),
            users: self.exported(index, Key::User),
            ids: node.own("id").map(|own| own.1.to_owned()).collect(),
            keys_too_many: vec![],
        };
        let nodes = self.nodes.iter().enumerate();
        let mut spans: Vec<_> = nodes
            .filter(|(_, node)| node.exported)
            .map(exported)
            .collect();
        spans.sort();
        Outcome {
            spans,
            answers: self.answers,
        }
    }
}

/// The value that was set last until then, and when.
fn latest(set: &[(Time, Values)], until: Time, key: Key) -> Option<(Time, &'static str)> {
    let known = set.iter().filter(|(time, _)| *time <= until);
    let value = |(time, values): &(Time, Values)| Some((*time, values.get(key)?));
    known.filter_map(value).next_back()
}

/// The spans as a tree, and the answers.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list(f, None, 1)?;
        writeln!(f, "  {:?}", self.answers)
    }
}

impl Outcome {
    fn list(&self, f: &mut fmt::Formatter<'_>, parent: Option<&str>, depth: usize) -> fmt::Result {
        let is_below = |span: &&Exported| span.parent.as_deref() == parent;
        for span in self.spans.iter().filter(is_below) {
            write!(f, "{}{}", "  ".repeat(depth), span.name)?;
            let lists = [
                ("session", &span.sessions),
                ("user", &span.users),
                ("id", &span.ids),
            ];
            for (key, values) in lists {
                for value in values {
                    write!(f, " {key}={value}")?;
                }
            }
            for key in &span.keys_too_many {
                write!(f, " and {key}!")?;
            }
            writeln!(f)?;
            self.list(f, Some(&span.name), depth + 1)?;
        }
        Ok(())
    }
}

/// A program, one step a line.
pub struct Listing<'a>(pub &'a [Step]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, self.0, 1)
    }
}

fn list(f: &mut fmt::Formatter<'_>, steps: &[Step], depth: usize) -> fmt::Result {
    for step in steps {
        write!(f, "{}", "  ".repeat(depth))?;
        let inside: &[Step] = match step {
            Step::Within(name, steps) => {
                writeln!(f, "within {name}")?;
                steps
            }
            Step::InSession(hold, values, steps) => {
                writeln!(f, "by {hold:?} in {values}")?;
                steps
            }
            Step::OnThread(steps) => {
                writeln!(f, "on another thread")?;
                steps
            }
            Step::Open(span) => {
                writeln!(f, "open {span}")?;
                &[]
            }
            Step::Record(name, values) => {
                writeln!(f, "record on {name} {values}")?;
                &[]
            }
            Step::Set(values) => {
                writeln!(f, "set {values}")?;
                &[]
            }
            Step::SetAttributes(name, values) => {
                writeln!(f, "set attributes on {name} {values}")?;
                &[]
            }
            Step::OtelSpan {
                name,
                built,
                later,
                inside,
            } => {
                writeln!(f, "within plain {name}, built with {built}, later {later}")?;
                inside
            }
            Step::Ask => {
                writeln!(f, "ask")?;
                &[]
            }
            Step::Close(name) => {
                writeln!(f, "close {name}")?;
                &[]
            }
        };
        list(f, inside, depth + 1)?;
    }
    Ok(())
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        match self.parent {
            Parent::Contextual => {}
            Parent::Explicit(parent) => write!(f, " below {parent}")?,
            Parent::None => write!(f, " below nothing")?,
        }
        if self.way != Way::Plain {
            write!(f, ", {:?} {}", self.way, self.says)?;
        }
        if self.hidden {
            write!(f, ", hidden")?;
        }
        match self.set_parent {
            SetParent::No => Ok(()),
            SetParent::Remote => write!(f, ", set below another process"),
            SetParent::RemoteIn(values) => write!(f, ", set below another process in {values}"),
            SetParent::Extracted(values) => write!(f, ", set below headers with {values}"),
        }
    }
}

impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.session, self.user) {
            (Some(session), Some(user)) => write!(f, "session={session} user={user}"),
            (Some(session), None) => write!(f, "session={session}"),
            (None, Some(user)) => write!(f, "user={user}"),
            (None, None) => write!(f, "nothing"),
        }
    }
}
