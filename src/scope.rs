//! The values in force for a piece of work. What carries them is in `in_force.rs`.

pub(crate) mod in_force;
pub(crate) mod inherited;
pub(crate) mod recorded;

use crate::scope::inherited::{Inherited, Said};
use crate::scope::recorded::Recorded;
use crate::session::details::{Details, Part, Parts};
use crate::session::{Id, Session};
use std::fmt;
use std::sync::Arc;

/// The values in force for a piece of work. Scopes nest, and each value is inherited on its own.
pub(crate) struct Scope {
    ids: Ids,
    details: Inherited,
    /// Some of the details are declared by the span that opens the scope.
    says_details: bool,
    /// Inside a turn of this session: a trace has begun with it.
    in_turn: bool,
    /// What was recorded on the span that opens the scope, when it was there already.
    recorded: Recorded,
    /// Asked for a value that is declared here and not known yet. Kept only where there is one, so
    /// that scopes that follow one another form no chain.
    outer: Option<Arc<Scope>>,
}

/// Which of the ids that a scope can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Role {
    Session,
    User,
}

/// What one scope says.
#[derive(Default)]
pub(crate) struct Values {
    pub(crate) ids: Ids,
    pub(crate) details: Said,
    /// A turn of the session begins here.
    pub(crate) is_turn: bool,
}

/// One for each role.
#[derive(Default)]
pub(crate) struct Ids {
    pub(crate) id: Value,
    pub(crate) user_id: Value,
}

#[derive(Default)]
pub(crate) enum Value {
    #[default]
    Unsaid,
    /// There is none, whatever it is around.
    Cleared,
    Fixed(Id),
    /// A field of the span that opens the scope, and what it said from the start: it may be
    /// recorded at any time.
    Late(Option<Id>),
    /// The same, and until then there is none.
    LateCleared,
    /// The value that is `Late` in that scope, declared here as well.
    LateOf(Arc<Scope>),
    /// Whatever the value is in that scope, which declares it.
    In(Arc<Scope>),
}

impl Scope {
    /// The scope that says `values` inside `outer`.
    pub(crate) fn nested(outer: Option<Arc<Scope>>, values: Values) -> Arc<Self> {
        let around = outer.as_ref().map(|outer| &outer.details);
        let says_details = values.details.declared;
        let details = Inherited::nested(around, values.details);
        Self::with_ids(outer, values.ids, details, says_details, values.is_turn)
    }

    fn with_ids(
        outer: Option<Arc<Scope>>,
        ids: Ids,
        details: Inherited,
        says_details: bool,
        is_turn: bool,
    ) -> Arc<Self> {
        let around = outer.as_deref();
        let in_turn = is_turn || around.is_some_and(|outer| outer.in_turn && ids.stay_in(outer));
        let mut scope = Self {
            ids,
            details,
            says_details,
            in_turn,
            recorded: Recorded::default(),
            outer: None,
        };
        if let Some(outer) = outer {
            scope.ids.id.inherit(&outer, Role::Session);
            scope.ids.user_id.inherit(&outer, Role::User);
            if scope.awaits(Role::Session) || scope.awaits(Role::User) {
                scope.outer = Some(outer);
            }
        }
        Arc::new(scope)
    }

    /// The scope that says there is nothing: not even a default session.
    pub(crate) fn empty() -> Arc<Self> {
        Self::nested(None, Values::default())
    }

    /// What this scope says itself, inside another one.
    pub(crate) fn moved_into(self: &Arc<Self>, outer: Option<Arc<Scope>>) -> Arc<Self> {
        if outer.is_none() && !self.inherits() {
            return self.clone();
        }
        let said = |role| match self.value(role) {
            Value::Late(_) | Value::LateCleared => Value::LateOf(self.clone()),
            _ => Value::Unsaid,
        };
        let ids = Ids {
            id: said(Role::Session),
            user_id: said(Role::User),
        };
        let around = outer.as_ref().map(|outer| &outer.details);
        // What is not said here is that of the scope that this one was made in.
        let details = match self.says_details {
            true => self.details.moved_into(around),
            false => around.cloned().unwrap_or_default(),
        };
        Self::with_ids(outer, ids, details, self.says_details, self.in_turn)
    }

    fn inherits(&self) -> bool {
        let is_own = |role| {
            use Value::{Late, LateCleared, Unsaid};
            matches!(self.value(role), Late(_) | LateCleared | Unsaid)
        };
        self.outer.is_some()
            || !is_own(Role::Session)
            || !is_own(Role::User)
            || if self.says_details {
                self.details.inherits()
            } else {
                !self.details.are_none()
            }
    }

    /// Tells what was recorded at once on the span that opens the scope.
    pub(crate) fn record(&self, id: Option<Id>, user_id: Option<Id>) {
        let is_late = |role| matches!(self.value(role), Value::Late(_) | Value::LateCleared);
        let id = id.filter(|_| is_late(Role::Session));
        let user_id = user_id.filter(|_| is_late(Role::User));
        if id.is_none() && user_id.is_none() {
            return;
        }
        self.recorded.record(id, user_id);
    }

    /// The same, of what is no id.
    pub(crate) fn record_detail(&self, change: impl FnOnce(&mut Details)) {
        self.details.record(change);
    }

    #[inline]
    pub(crate) fn id(&self) -> Option<Id> {
        self.get(Role::Session)
    }

    #[inline]
    pub(crate) fn user_id(&self) -> Option<Id> {
        self.get(Role::User)
    }

    /// The id and the user's, as they were in force at one moment.
    #[inline(always)]
    pub(crate) fn ids(&self) -> (Option<Id>, Option<Id>) {
        use Value::{In, Late, LateCleared, LateOf};
        match (&self.ids.id, &self.ids.user_id) {
            (In(one), In(other)) if Arc::ptr_eq(one, other) => one.late_ids(),
            (Late(_) | LateCleared | LateOf(_), Late(_) | LateCleared | LateOf(_)) => {
                self.late_ids()
            }
            _ => (self.id(), self.user_id()),
        }
    }

    #[inline(always)]
    fn late_ids(&self) -> (Option<Id>, Option<Id>) {
        if self.recorded.is_none() && self.outer.is_none() {
            if let (Value::Late(id), Value::Late(user_id)) = (&self.ids.id, &self.ids.user_id) {
                // Nearly always.
                return (id.clone(), user_id.clone());
            }
        }
        self.recorded_ids()
    }

    #[cold]
    fn recorded_ids(&self) -> (Option<Id>, Option<Id>) {
        let recorded = match &self.ids.id {
            Value::LateOf(scope) => &scope.recorded,
            _ => &self.recorded,
        };
        recorded.at_one_moment(|| (self.look_up(Role::Session), self.look_up(Role::User)))
    }

    #[inline]
    pub(crate) fn get(&self, role: Role) -> Option<Id> {
        match self.value(role) {
            Value::Unsaid | Value::Cleared => None,
            Value::Fixed(id) => Some(id.clone()),
            Value::Late(Some(id)) if self.recorded.is_none() => Some(id.clone()),
            Value::Late(_) | Value::LateCleared | Value::LateOf(_) | Value::In(_) => {
                self.look_up(role)
            }
        }
    }

    fn look_up(&self, role: Role) -> Option<Id> {
        // In a loop: spans that declare values can nest deeper than a stack is for.
        let mut scope = self;
        loop {
            match scope.value(role) {
                Value::Unsaid | Value::Cleared => return None,
                Value::Fixed(id) => return Some(id.clone()),
                Value::In(declaring) => scope = declaring,
                Value::Late(_) | Value::LateCleared | Value::LateOf(_) => match scope.late(role) {
                    Some(id) => return Some(id),
                    None if !scope.awaits(role) => return None,
                    None => scope = scope.outer.as_deref()?,
                },
            }
        }
    }

    /// Whether the value is that of the scope around, until one is recorded here.
    fn awaits(&self, role: Role) -> bool {
        match self.value(role) {
            Value::Late(_) => self.late(role).is_none(),
            Value::LateOf(scope) => scope.awaits(role),
            _ => false,
        }
    }

    /// What a value that is late here, or in the scope that this one was made of, is by now.
    fn late(&self, role: Role) -> Option<Id> {
        match self.value(role) {
            Value::Late(said) => self.recorded(role).or_else(|| said.clone()),
            Value::LateCleared => self.recorded(role),
            Value::LateOf(scope) => scope.late(role),
            _ => None,
        }
    }

    fn recorded(&self, role: Role) -> Option<Id> {
        match role {
            Role::Session => self.recorded.id(),
            Role::User => self.recorded.user_id(),
        }
    }

    #[inline]
    fn value(&self, role: Role) -> &Value {
        match role {
            Role::Session => &self.ids.id,
            Role::User => &self.ids.user_id,
        }
    }

    #[inline]
    pub(crate) fn details(&self) -> &Inherited {
        &self.details
    }

    /// What is in force now, as a value.
    pub(crate) fn to_session(&self) -> Session {
        let (id, user_id) = self.ids();
        Session {
            id,
            user_id,
            details: self.details.get(),
            cleared: Parts::default(),
        }
    }
}

/// In a loop, as in `get`.
impl Drop for Scope {
    fn drop(&mut self) {
        let mut next = self.outer.take();
        while let Some(mut scope) = next.and_then(Arc::into_inner) {
            next = scope.outer.take();
        }
    }
}

/// Whether a turn of this session has begun in `scope`.
pub(crate) fn is_in_turn(scope: Option<&Scope>, session: Option<&Id>) -> bool {
    scope.is_some_and(|scope| scope.in_turn && scope.id().as_ref() == session)
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_session().fmt(f)
    }
}

impl Ids {
    /// Whether no other session than that of `outer` is said.
    fn stay_in(&self, outer: &Scope) -> bool {
        match &self.id {
            Value::Fixed(id) | Value::Late(Some(id)) => outer.id().as_ref() == Some(id),
            Value::Cleared | Value::LateCleared => false,
            Value::Unsaid | Value::Late(None) | Value::LateOf(_) | Value::In(_) => true,
        }
    }
}

impl Value {
    #[inline]
    fn inherit(&mut self, outer: &Arc<Scope>, role: Role) {
        if let Self::Unsaid = self {
            *self = match outer.value(role) {
                Self::Unsaid => Self::Unsaid,
                Self::Fixed(id) => Self::Fixed(id.clone()),
                Self::Cleared => Self::Cleared,
                Self::Late(_) | Self::LateCleared | Self::LateOf(_) => Self::In(outer.clone()),
                Self::In(scope) => Self::In(scope.clone()),
            };
        }
    }
}

impl From<&Session> for Values {
    fn from(session: &Session) -> Self {
        let fixed = |id: &Option<Id>, part| match id {
            Some(id) => Value::Fixed(id.clone()),
            None if session.cleared.have(part) => Value::Cleared,
            None => Value::Unsaid,
        };
        Self {
            ids: Ids {
                id: fixed(&session.id, Part::Session),
                user_id: fixed(&session.user_id, Part::User),
            },
            details: session.into(),
            is_turn: false,
        }
    }
}
