//! Programs as plain data: what they do, how a seed makes one, and what stays of one when operations are dropped.

use std::fmt;

/// A session id, a user id and the metadata `m`.
pub type Values = [Option<&'static str>; 3];
pub const SESSION: usize = 0;
pub const USER: usize = 1;
pub const KEYS: usize = 3;
pub const NONE: Values = [None; KEYS];

/// The number that an operation gives to what it makes. An operation that names something that isn't there is dropped.
pub type Name = usize;

/// One operation, and the thread that does it.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub thread: usize,
    pub op: Op,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    Span(Name, Parent, Kind),
    Enter(Name),
    Exit(Name),
    /// Drops the handle: the span closes when it isn't entered and its children are closed.
    Close(Name),
    Record(Name, Values),
    SetParent(Name, Given),
    /// Attaches a `Session` value.
    Attach(Name, Value),
    /// Drops a guard, of a `Session` or of a `Context`.
    Detach(Name),
    SetSession(&'static str),
    SetUser(&'static str),
    /// `Session::set_on_current_span`.
    SetAll(Values),
    /// Compares `current_session` with the model, and keeps it for `Value::Kept`.
    Read(Name),
    /// Keeps `Context::current()` for `Given::Kept` and `AttachContext`.
    Keep(Name),
    /// Starts a span with OpenTelemetry's API and attaches its `Context`.
    Plain(Name),
    /// Detaches and ends it.
    EndPlain(Name),
    AttachContext(Name, Given),
    Future(Name, Value, Option<Name>),
    /// Polls the future: it creates and closes a span with this name inside, of this kind.
    Poll(Name, Name, Kind),
    /// Drops the future. A guard inside creates a span with this name.
    DropFuture(Name, Name),
    /// Switches to the other application, in an empty `Context`.
    Switch(Name),
    Reload,
}

impl Op {
    /// The name of what it makes.
    pub fn name(&self) -> Name {
        match *self {
            Op::Span(name, ..) | Op::Attach(name, _) | Op::Read(name) | Op::Keep(name) => name,
            Op::Plain(name) | Op::AttachContext(name, _) | Op::Future(name, ..) => name,
            Op::Poll(_, name, _) | Op::DropFuture(_, name) | Op::Switch(name) => name,
            _ => 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Parent {
    Contextual,
    Explicit(Name),
    Root,
}

/// The callsite of a span.
#[derive(Clone, Copy, PartialEq)]
pub struct Kind {
    pub way: Way,
    /// Of the fields. One that is `None` is declared empty.
    pub sets: Values,
    pub hidden: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Way {
    /// No fields.
    Plain,
    /// `session.id`, `user.id`, or both.
    SessionField,
    UserField,
    BothFields,
    /// A span named `session` with a field `id`, and another one with `user.id` too.
    Named,
    NamedWithUser,
    SessionMacro,
    UserMacro,
    /// `session!` with a `Session` value.
    ValueMacro,
    /// `session.id` by Debug of an `Option`, or as one of these texts.
    Debugged(Option<&'static str>),
    /// A span named `session` with `id = 7`, of the target `library`.
    Library,
}

impl Way {
    /// The keys that its fields may set, also later.
    pub fn keys(self) -> [bool; KEYS] {
        match self {
            Way::Plain => [false, false, false],
            Way::SessionField | Way::Named => [true, false, true],
            Way::UserField => [false, true, true],
            Way::Debugged(_) | Way::Library => [true, false, false],
            Way::BothFields | Way::NamedWithUser => [true, true, true],
            Way::SessionMacro => [true, true, true],
            Way::UserMacro => [false, true, true],
            Way::ValueMacro => [true, true, false],
        }
    }

    pub fn is_implicit(self) -> bool {
        matches!(self, Way::Named | Way::NamedWithUser | Way::Library)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Given {
    /// A remote span in no session.
    Remote,
    /// A remote span in a session.
    RemoteIn(Values),
    /// The `Context` of a span, which it starts.
    Of(Name),
    Kept(Name),
    Empty,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// And the parts that it doesn't inherit.
    New(Values, [bool; KEYS]),
    /// What `Read` kept.
    Kept(Name),
    Exact(Values),
}

/// Operations and rules that can be switched on. All other operations are in each program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Read-back and exact sessions replace everything outside.
    Exact,
    /// Futures `in_session`.
    Futures,
    /// What a future creates when it is dropped is in its session.
    Dropped,
    /// A span that was created in no session doesn't hide the session of the future that polls it.
    Adopted,
    /// Any `Context` is attached, and where `set_*` returns Ok, the values apply right there.
    Contexts,
    /// Spans of a library that are named `session`.
    Libraries,
    /// Ids by Debug of an `Option`, and placeholders.
    Options,
    /// Children of a filtered-out span inherit what it inherits.
    Hidden,
    /// A session that is attached inside a filtered-out span refuses `set_*` as one inside an exported span does.
    Refused,
    /// Two applications take turns on one thread.
    TwoApps,
    /// The layer is reloaded. Only the end is compared.
    Reload,
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.way, self.sets)?;
        f.write_str(if self.hidden { " hidden" } else { "" })
    }
}

/// One program in a readable form.
pub struct Listing<'a>(pub &'a [Step]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            writeln!(f, "  {index:2} thread {}: {:?}", step.thread, step.op)?;
        }
        Ok(())
    }
}
