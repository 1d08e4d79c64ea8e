//! The session that comes in with headers, and why it is not used.

use crate::diagnostic::{self, Message};
use crate::error::ErrorKind;
use crate::propagation::baggage;
use crate::propagation::propagator::{SESSION_HEADER_NAME, SessionPropagator};
use crate::session::details::Details;
use crate::session::keys::{SESSION_ID, USER_HASH, USER_ID};
use crate::session::{Id, Session};
use opentelemetry::KeyValue;
use opentelemetry::propagation::Extractor;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// What Mirascope's documentation calls its header, beside [`SESSION_HEADER_NAME`].
const X_SESSION_HEADER_NAME: &str = "X-Mirascope-Session-Id";

impl SessionPropagator {
    /// The session that the headers name, or why it is not to be used.
    pub(crate) fn read(
        &self,
        extractor: &dyn Extractor,
        members: &[&str],
    ) -> Result<Session, Message> {
        let in_baggage = |what| refused(baggage::HEADER, what);
        let mut session = Session::default();
        let mut user_hash = None;
        let mut with_spaces = None;
        for member in baggage::members(members) {
            let value = member.value.as_deref();
            if member.is(SESSION_ID) {
                take(&mut session.id, value).map_err(in_baggage("a `session.id`"))?;
                with_spaces = member.with_spaces();
            } else if self.user && member.is(USER_ID) {
                take(&mut session.user_id, value).map_err(in_baggage("a `user.id`"))?;
            } else if self.user && member.is(USER_HASH) {
                take(&mut user_hash, value).map_err(in_baggage("a `user.hash`"))?;
            }
        }
        for header in &self.headers {
            let is_mirascopes = header.eq_ignore_ascii_case(SESSION_HEADER_NAME);
            let other = is_mirascopes.then_some(X_SESSION_HEADER_NAME);
            for name in [header.as_str()].into_iter().chain(other) {
                for value in extractor.get_all(name).unwrap_or_default() {
                    if value.len() > baggage::MAX_BYTES {
                        // It would be decoded for nothing.
                        return Err(refused(name, "an id")(ErrorKind::TooLong));
                    }
                    let value = match self.percent_encoded {
                        true => percent_decode_str(value).decode_utf8().ok(),
                        false => Some(Cow::Borrowed(value)),
                    };
                    // A Python service that sends both means the same by them.
                    let with_spaces = with_spaces.take();
                    if with_spaces.is_some() && value.as_deref() == with_spaces.as_deref() {
                        session.id = None;
                    }
                    take(&mut session.id, value.as_deref()).map_err(refused(name, "an id"))?;
                }
            }
        }
        if let Some(hash) = user_hash {
            let hash = KeyValue::new(USER_HASH, hash.shared());
            Details::change(&mut session.details, |it| it.set_attribute(hash));
        }
        Ok(session)
    }
}

/// That what a header brings is ignored, for this error.
fn refused(header: &str, what: &str) -> impl Fn(ErrorKind) -> Message {
    move |error| diagnostic::header_ignored(header, what, error)
}

/// Takes what a header says. Blank is nothing.
fn take(taken: &mut Option<Id>, value: Option<&str>) -> Result<(), ErrorKind> {
    let value = value.ok_or(ErrorKind::NotUnicode)?;
    // Before an id is made: thousands of headers may say the same.
    if taken.as_ref().is_some_and(|taken| taken.as_str() == value) {
        return Ok(());
    }
    match (Id::new(value), &taken) {
        (Err(ErrorKind::Blank), _) => Ok(()),
        (Err(error), _) => Err(error),
        (Ok(id), Some(other)) if id != *other => Err(ErrorKind::Conflict),
        (Ok(id), _) => {
            *taken = Some(id);
            Ok(())
        }
    }
}
