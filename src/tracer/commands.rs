//! The commands to a started span (`scope/bridge.rs`): set a session on it, mark it, enter it in another future.

use crate::scope::Scope;
use crate::session::{IdKind, Session};
use crate::tracer::attributes::{Adopted, SpanAttributes};
use std::sync::Arc;

impl SpanAttributes {
    /// Sets a session on the started span. Returns the new scope.
    pub(crate) fn bind(&mut self, session: &Session) -> Arc<Scope> {
        if let Some(opener) = &self.opener {
            opener.warn_of_kept_ids(session);
        }
        // Set outside the future that has adopted the span: the span is no longer exported with the future's session.
        self.end_adoption();
        let scope = Scope::nested(self.scope.clone(), session);
        // The span may already have attributes with the keys that are new. Which ones isn't known, so it writes none.
        for attribute in session.details.iter().flat_map(|it| &it.attributes) {
            let key = &attribute.key;
            if scope.has_attribute(key.as_str()) && !self.scope_has_attribute(key.as_str()) {
                self.add_key(key);
            }
        }
        self.scope = Some(scope.clone());
        scope
    }

    fn end_adoption(&mut self) {
        let adopted = self.more.as_mut().and_then(|more| more.adopted.take());
        if let Some(Adopted { own, .. }) = adopted {
            self.scope = own;
        }
    }

    /// The span is entered in another session. It keeps the session if that is the same one, and everything if the user is
    /// the same too.
    pub(crate) fn enter_in(&mut self, session: &Session) {
        let adopted = self.more.as_mut().and_then(|more| more.adopted.as_mut());
        let Some(adopted) = adopted else { return };
        if adopted.first.id != session.id {
            self.end_adoption();
        } else if adopted.first.user_id != session.user_id {
            adopted.has_two_users = true;
            let id = Session {
                id: session.id.clone(),
                ..Session::default()
            };
            self.scope = Some(Scope::nested(adopted.own.clone(), &id));
        }
    }

    /// Sets a session inside the future in which the span started.
    pub(crate) fn set_inside(&mut self, session: &Session) {
        let adopted = self.more.as_mut().and_then(|more| more.adopted.as_mut());
        if let Some(adopted) = adopted.filter(|it| !it.has_two_users) {
            adopted.first = session.inside(&adopted.first);
            self.scope = Some(Scope::nested(self.scope.take(), session));
        }
    }

    /// The span is adopted, and `own` is the scope that it has outside the future.
    pub(crate) fn set_adopted(&mut self, own: Option<Arc<Scope>>) {
        let first = self.scope_values();
        self.more().adopted = Some(Adopted {
            own,
            first,
            has_two_users: false,
        });
    }

    /// Marks the span with the values of `session` that it lacks, if it has no other session and no other user. True if it was
    /// marked with these ids before.
    pub(crate) fn mark(&mut self, session: Session) -> bool {
        let marked = self.more().marked.clone();
        let was_marked = |kind: IdKind| !kind.differs(&session, &marked);
        if IdKind::BOTH.into_iter().all(was_marked) {
            return true;
        }
        let present = self.scope_values().or(marked.clone());
        if self.agrees(&present, &session) {
            self.more().marked = match marked == Session::default() {
                // It isn't known which other keys the span has.
                true => session.without_attributes(),
                // A second mark adds no more than the user of the same session.
                false if marked.id == session.id => Session {
                    user_id: marked.user_id.or(session.user_id),
                    ..marked
                },
                false => marked,
            };
        }
        false
    }

    /// Whether a mark has no other session and no other user than the span. Asked again when the span ends: its ids may
    /// have been set since.
    pub(super) fn agrees(&self, present: &Session, mark: &Session) -> bool {
        IdKind::BOTH.into_iter().all(|kind| {
            let opener = self.opener.as_ref().filter(|it| !it.has_kept_id());
            let own = match opener {
                _ if !self.ids.have(kind.part()) => kind.id(present).clone(),
                Some(opener) => match opener.with_values(|set| kind.id(set).clone()) {
                    None => return false,
                    own => own,
                },
                // The value of an attribute that the author set is not known here.
                None => return false,
            };
            own.is_none() || own == *kind.id(mark)
        })
    }
}
