//! Reads the session from headers: from baggage, under several keys, or from separate headers.

use crate::base::diagnostic;
use crate::base::diagnostic::Message;
use crate::base::error::ErrorKind;
use crate::propagation::headers::{BAGGAGE_HEADER, MAX_BAGGAGE_BYTES, Member, members};
use crate::propagation::propagator::{
    SESSION_HEADER_NAME, SessionPropagator, X_SESSION_HEADER_NAME,
};
use crate::session::details::Details;
use crate::session::keys::{SESSION_ID, USER_HASH, USER_ID};
use crate::session::{Id, IdKind, Session};
use opentelemetry::KeyValue;
use opentelemetry::propagation::Extractor;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// Baggage keys that other systems write, in reading order. Sources: Langfuse's SDKs with
/// `propagate_attributes(as_baggage=True)`; OpenTelemetry's semantic conventions for generative AI, and Mistral's SDK for
/// Python.
const KNOWN_KEYS: [(&str, IdKind); 3] = [
    ("langfuse_session_id", IdKind::Session),
    ("gen_ai.conversation.id", IdKind::Session),
    ("langfuse_user_id", IdKind::User),
];

impl SessionPropagator {
    /// The kind of id that this baggage key contains.
    pub(super) fn kind_of_key(&self, key: &str) -> Option<IdKind> {
        let own = IdKind::BOTH.map(|kind| (kind.key(), kind)).into_iter();
        let mut all = own.chain(self.further_keys());
        all.find_map(|(known, kind)| (known == key).then_some(kind))
    }

    /// The keys that the application added, and then the keys of other systems. This is the reading order.
    pub(super) fn further_keys(&self) -> impl Iterator<Item = (&str, IdKind)> {
        let added = self.keys.iter().map(|(key, kind)| (key.as_str(), *kind));
        added.chain(KNOWN_KEYS)
    }

    /// Reads the session from the headers. The error is the diagnostic that explains why the session is ignored.
    pub(super) fn read(
        &self,
        extractor: &dyn Extractor,
        baggage: &[&str],
    ) -> Result<Session, Message> {
        let mut session = Session::default();
        let mut user_hash = None;
        let mut with_spaces = None;
        for member in members(baggage) {
            let (id, what) = if member.is(SESSION_ID) {
                with_spaces = member.value_with_spaces();
                (&mut session.id, "a `session.id`")
            } else if self.user && member.is(USER_ID) {
                (&mut session.user_id, "a `user.id`")
            } else if self.user && member.is(USER_HASH) {
                (&mut user_hash, "a `user.hash`")
            } else {
                continue;
            };
            set_id(id, member.value()).map_err(ignored(BAGGAGE_HEADER, what))?;
        }
        for header in self.headers() {
            for name in spellings(header) {
                for value in extractor.get_all(name).unwrap_or_default() {
                    // Check the length first, so that a long value isn't decoded.
                    if value.len() > MAX_BAGGAGE_BYTES {
                        return Err(ignored(name, "an id")(ErrorKind::TooLong));
                    }
                    let value = match self.percent_encoded {
                        true => percent_decode_str(value).decode_utf8().ok(),
                        false => Some(Cow::Borrowed(value)),
                    };
                    // Python writes a space as `+` in baggage, but not in this header, so these two don't conflict.
                    let with_spaces = with_spaces.take();
                    if with_spaces.is_some() && value.as_deref() == with_spaces.as_deref() {
                        session.id = None;
                    }
                    set_id(&mut session.id, value).map_err(ignored(name, "an id"))?;
                }
            }
        }
        self.read_further(extractor, baggage, &mut session, user_hash.is_some())?;
        if let Some(hash) = user_hash {
            let hash = KeyValue::new(USER_HASH, hash.shared());
            Details::change(&mut session.details, |it| _ = it.set_attribute(hash));
        }
        Ok(session)
    }

    /// Reads each missing id from the keys of other systems. The first key with an id wins, and different ids don't conflict,
    /// because a conversation and a session may have different ids.
    fn read_further(
        &self,
        extractor: &dyn Extractor,
        baggage: &[&str],
        session: &mut Session,
        has_user_hash: bool,
    ) -> Result<(), Message> {
        for (key, kind) in self.further_keys() {
            let id = match kind {
                IdKind::Session => &mut session.id,
                IdKind::User if self.user && !has_user_hash => &mut session.user_id,
                IdKind::User => continue,
            };
            if id.is_some() {
                continue;
            }
            let is_it = |it: &Member<'_>| it.is(key);
            for member in members(baggage).filter(is_it) {
                let what = format!("a `{key}`");
                set_id(id, member.value()).map_err(ignored(BAGGAGE_HEADER, &what))?;
            }
        }
        if session.id.is_none() && self.baggage {
            for name in spellings(SESSION_HEADER_NAME) {
                for value in extractor.get_all(name).unwrap_or_default() {
                    let value = Some(Cow::Borrowed(value));
                    set_id(&mut session.id, value).map_err(ignored(name, "an id"))?;
                }
            }
        }
        Ok(())
    }
}

/// The names of a separate header. Mirascope's header has two.
fn spellings(header: &str) -> impl Iterator<Item = &str> {
    let is_mirascopes = header.eq_ignore_ascii_case(SESSION_HEADER_NAME);
    let other = is_mirascopes.then_some(X_SESSION_HEADER_NAME);
    [header].into_iter().chain(other)
}

/// Creates the diagnostic for a header value that is ignored because of an error.
fn ignored(header: &str, what: &str) -> impl Fn(ErrorKind) -> Message {
    move |error| diagnostic::header_ignored(header, what, error)
}

/// Sets an id from a header. A blank value sets nothing, and a second value must be the same.
fn set_id(id: &mut Option<Id>, value: Option<Cow<'_, str>>) -> Result<(), ErrorKind> {
    let value = &*value.ok_or(ErrorKind::NotUnicode)?;
    // Compare first, so that thousands of equal headers don't allocate thousands of ids.
    if id.as_ref().is_some_and(|id| id.as_str() == value) {
        return Ok(());
    }
    match Id::received(value) {
        Err(ErrorKind::Blank) => Ok(()),
        Ok(new) if id.as_ref().is_some_and(|id| *id != new) => Err(ErrorKind::Conflict),
        new => {
            *id = Some(new?);
            Ok(())
        }
    }
}
