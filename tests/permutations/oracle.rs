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
    /// `info_span!("session", id = ..)`.
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
    pub session: Option<String>,
    pub user: Option<String>,
    /// A key that stands there twice, or `id`: that is exported as `session.id` or `user.id`.
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
    fields: Vec<(Time, Values)>,
    set: Vec<(Time, Values)>,
    /// When it is settled what it is in: a span may be made earlier than it is started. What
    /// OpenTelemetry does not know, or finds in a hidden span, is settled when it is made.
    started: Option<Time>,
    closed: Time,
}

impl Node {
    fn is_hidden(&self) -> bool {
        !self.exported && self.opens
    }
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
}

#[derive(Default)]
struct Oracle {
    now: Time,
    nodes: Vec<Node>,
    answers: Vec<Answer>,
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
                let inside = match &self.nodes[span] {
                    Node { exported: true, .. } => Here {
                        current: Some(span),
                        exported: Some(span),
                        scope: Some(span),
                    },
                    // A hidden span changes nothing for OpenTelemetry, except by what it says.
                    hidden => Here {
                        current: Some(span),
                        scope: if hidden.opens { Some(span) } else { here.scope },
                        ..here
                    },
                };
                self.run(steps, inside);
            }
            Step::InSession(_, values, steps) => {
                let scope = Some(self.session(*values, here.scope));
                self.run(steps, Here { scope, ..here });
            }
            Step::OnThread(steps) => self.run(steps, Here::default()),
            Step::Record(name, values) => {
                let span = self.find(name);
                self.nodes[span].fields.push((self.now, *values));
            }
            Step::Set(values) => {
                let current = here.current.map(|span| &mut self.nodes[span]);
                let bound = current.filter(|span| span.exported || span.opens);
                self.answers.push(Answer::Was(bound.is_some()));
                if let Some(span) = bound {
                    span.set.push((self.now, *values));
                }
            }
            Step::Ask => {
                let value = |which| {
                    let scope = here.scope?;
                    self.value(scope, which, self.now, self.now)
                };
                let answer = Answer::InForce(value(SESSION), value(USER));
                self.answers.push(answer);
            }
            Step::Close(name) => {
                let span = self.find(name);
                self.start(span);
                self.nodes[span].closed = self.now;
            }
        }
    }

    fn open(&mut self, span: &Span, here: Here) {
        let (parent, outer) = match span.parent {
            Parent::Contextual => (here.exported, here.scope),
            Parent::Explicit(name) => {
                let parent = self.find(name);
                self.start(parent);
                // The child of a hidden span is a root of the exported tree, with its scope.
                let exported = self.nodes[parent].exported;
                (exported.then_some(parent), Some(parent))
            }
            Parent::None => (None, None),
        };
        // The given `Context` takes the place of the parent.
        let (parent, outer) = match span.set_parent {
            SetParent::No => (parent, outer),
            SetParent::Remote => (None, None),
            SetParent::RemoteIn(values) => (None, Some(self.session(values, None))),
        };
        let is_settled = span.hidden || outer.is_some_and(|outer| self.nodes[outer].is_hidden());
        let is_known = !matches!(span.way, Way::LateNamed | Way::LateDotted);
        self.nodes.push(Node {
            name: span.name,
            exported: !span.hidden,
            parent,
            outer,
            opens: span.way != Way::Plain,
            fields: is_known
                .then_some((self.now, span.says))
                .into_iter()
                .collect(),
            started: is_settled.then_some(self.now),
            ..Node::default()
        });
    }

    fn session(&mut self, values: Values, outer: Option<usize>) -> usize {
        self.nodes.push(Node {
            outer,
            fields: vec![(self.now, values)],
            started: Some(self.now),
            ..Node::default()
        });
        self.nodes.len() - 1
    }

    fn find(&self, name: &str) -> usize {
        let found = self.nodes.iter().position(|node| node.name == name);
        found.unwrap_or_else(|| panic!("the program has no span {name} yet"))
    }

    fn start(&mut self, span: usize) {
        self.nodes[span].started.get_or_insert(self.now);
    }

    /// A value in a node, as known at a time `at`, for something that started at the time `started`.
    ///
    /// What a field says is in force in the whole life of its span. What is set on a span is in
    /// force for the span itself, and for what starts below it afterwards.
    fn value(&self, node: usize, which: Which, at: Time, started: Time) -> Option<String> {
        let node = &self.nodes[node];
        let own = latest(&node.set, started.min(at), which);
        let own = own.or_else(|| latest(&node.fields, at, which));
        let inherited = || self.value(node.outer?, which, at, node.started?);
        own.map(str::to_owned).or_else(inherited)
    }

    /// The value that a span is exported with: the one that its fields had set when it started, or else the
    /// one that applies when it ends.
    fn exported(&self, index: usize, which: Which) -> Option<String> {
        let node = &self.nodes[index];
        let started = node.started.unwrap_or(node.closed);
        let first = latest(&node.fields, started, which).map(str::to_owned);
        first.or_else(|| self.value(index, which, node.closed, node.closed))
    }

    fn outcome(self) -> Outcome {
        let exported = |(index, node): (usize, &Node)| Exported {
            name: node.name.to_owned(),
            parent: node.parent.map(|parent| self.nodes[parent].name.to_owned()),
            session: self.exported(index, SESSION),
            user: self.exported(index, USER),
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

/// What was set last until then.
fn latest(set: &[(Time, Values)], until: Time, which: Which) -> Option<&'static str> {
    let known = set.iter().filter(|(time, _)| *time <= until);
    known.filter_map(|(_, values)| which(values)).next_back()
}

type Which = fn(&Values) -> Option<&'static str>;

const SESSION: Which = |values| values.session;
const USER: Which = |values| values.user;

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
            for (key, value) in [("session", &span.session), ("user", &span.user)] {
                if let Some(value) = value {
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
