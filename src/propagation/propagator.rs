//! The propagator: it injects the session of a `Context` into headers, and extracts it from headers.

use crate::base::diagnostic;
use crate::base::diagnostic::{BAGGAGE_TOO_LARGE, Message};
use crate::base::error::{Error, ErrorKind};
use crate::export::privacy::Privacy;
use crate::propagation::headers::{
    BAGGAGE_HEADER, ENCODED, InboundPolicy, MAX_BAGGAGE_BYTES, MAX_MEMBERS, members, properties,
};
use crate::scope::Scope;
use crate::session::details::Details;
use crate::session::id::is_id;
use crate::session::keys::{SESSION_ID, USER_HASH, USER_ID};
use crate::session::{Id, IdKind, Session};
use opentelemetry::baggage::{Baggage, BaggageExt};
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::{Context, KeyValue, Value};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;
use std::sync::Arc;

/// The header that Mirascope sends and reads. Its documentation also writes
/// `X-Mirascope-Session-Id`: where this header is read, that one is too.
///
/// ```
/// use tracing_session::{SessionPropagator, propagation::SESSION_HEADER_NAME};
///
/// let propagator = SessionPropagator::new().with_header(SESSION_HEADER_NAME)?;
/// # Ok::<(), tracing_session::Error>(())
/// ```
pub const SESSION_HEADER_NAME: &str = "Mirascope-Session-Id";

/// The name of this header in Mirascope's documentation.
const X_SESSION_HEADER_NAME: &str = "X-Mirascope-Session-Id";

/// The characters that a percent-encoded header encodes: all but visible ASCII, and `%`.
const NOT_IN_A_HEADER: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// Carries the session of a `Context` in the headers of a call. Compose it with `TraceContextPropagator` and others.
///
/// By default it injects and extracts the member `session.id` of W3C baggage. It replaces `BaggagePropagator`, because
/// only one propagator can write a header, and carries the other baggage of the `Context` too. You can
/// [add](Self::with_header) separate headers, and [turn the baggage off](Self::without_baggage).
///
/// Only the session id leaves the process, unless you [send the user](Self::with_user) too.
///
/// Extracted ids have to follow the rules of [`Session::new`](crate::Session::new). The propagator ignores ids that
/// differ from one another, placeholders such as `None` or `null`, and ids that [`with_inbound`](Self::with_inbound)
/// refuses. Under the extracted `Context`, an accepted session replaces the current one.
///
/// OpenTelemetry's global propagator does nothing until it is set.
/// [`propagator_from_env`](crate::propagator_from_env) makes one of this and of those that the
/// environment names.
///
/// Cost: about that of `BaggagePropagator`.
///
/// ```
/// use opentelemetry::propagation::TextMapCompositePropagator;
/// use opentelemetry_sdk::propagation::TraceContextPropagator;
/// use tracing_session::SessionPropagator;
///
/// opentelemetry::global::set_text_map_propagator(TextMapCompositePropagator::new(vec![
///     Box::new(TraceContextPropagator::new()),
///     Box::new(SessionPropagator::new()),
/// ]));
/// ```
#[derive(Clone, Debug)]
#[must_use = "a propagator does nothing until you set it: `global::set_text_map_propagator(propagator)`"]
pub struct SessionPropagator {
    baggage: bool,
    percent_encoded: bool,
    user: bool,
    privacy: Privacy,
    inbound: InboundPolicy,
    /// The names of all headers.
    fields: Vec<String>,
}

impl SessionPropagator {
    /// A propagator of W3C baggage.
    ///
    /// ```
    /// # use tracing_session::SessionPropagator;
    /// let propagator = SessionPropagator::new();
    /// ```
    pub fn new() -> Self {
        Self {
            baggage: true,
            percent_encoded: false,
            user: false,
            privacy: Privacy::new(),
            inbound: InboundPolicy::accept(),
            fields: vec![BAGGAGE_HEADER.to_owned()],
        }
    }

    /// Neither writes nor reads W3C baggage: the session is in [separate headers](Self::with_header) only. Default: baggage
    /// is written and read.
    ///
    /// An id arrives byte for byte. But Python's OpenTelemetry encodes a space as `+`, against the recommendation: the id
    /// arrives with `+`, unless a [separate header](Self::with_header) contains it with the space. The propagator drops
    /// the properties of the member `session.id`.
    ///
    /// ```
    /// # use tracing_session::{SessionPropagator, propagation::SESSION_HEADER_NAME};
    /// let as_mirascope = SessionPropagator::new()
    ///     .without_baggage()
    ///     .with_header(SESSION_HEADER_NAME)?;
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn without_baggage(mut self) -> Self {
        self.fields.retain(|field| field != BAGGAGE_HEADER);
        self.baggage = false;
        self
    }

    /// Adds a separate header for the session id. You can add several. Default: none.
    ///
    /// A header can contain visible ASCII and spaces. An id with other characters isn't sent, and one warning says so,
    /// unless it is [percent-encoded](Self::with_percent_encoded_headers).
    ///
    /// # Errors
    ///
    /// If the name isn't valid for a header, or is `baggage`.
    ///
    /// ```
    /// # use tracing_session::SessionPropagator;
    /// let propagator = SessionPropagator::new().with_header("X-TraceCtrl-Session")?;
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn with_header(mut self, name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        let symbols = b"!#$%&'*+-.^_`|~";
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || symbols.contains(&byte);
        let is_baggage = name.eq_ignore_ascii_case(BAGGAGE_HEADER);
        if name.is_empty() || is_baggage || !name.bytes().all(is_token) {
            return Err(ErrorKind::HeaderName.into());
        }
        self.fields.push(name);
        Ok(self)
    }

    /// Percent-encodes ids in [separate headers](Self::with_header). Then every id can be sent, but the
    /// receiver has to decode it, as this propagator does with the same setting. Default: ids are not encoded.
    ///
    /// ```
    /// # use tracing_session::SessionPropagator;
    /// let propagator = SessionPropagator::new()
    ///     .with_header("x-session")?
    ///     .with_percent_encoded_headers();
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn with_percent_encoded_headers(mut self) -> Self {
        self.percent_encoded = true;
        self
    }

    /// Injects and extracts the user id too, as the member `user.id` of W3C baggage. Default: the user id is not sent.
    ///
    /// Use it only among services that you trust: an [`InboundPolicy`] checks the session id only.
    ///
    /// ```
    /// # use tracing_session::SessionPropagator;
    /// let among_our_own_services = SessionPropagator::new().with_user();
    /// ```
    pub fn with_user(self) -> Self {
        Self { user: true, ..self }
    }

    /// Redacts the ids in outgoing headers. Default: none.
    ///
    /// A hashed session id replaces the id. A hashed user id is sent as the member `user.hash`, if
    /// [`with_user`](Self::with_user) sends the user. A service that receives `user.hash` exports it on its
    /// spans and sends it on. Such a service must not hash the ids again: use [`IdPolicy::plain`] there.
    ///
    /// [`IdPolicy::plain`]: crate::export::IdPolicy::plain
    ///
    /// ```
    /// # use tracing_session::{Privacy, SessionPropagator, export::IdPolicy};
    /// let privacy = Privacy::new().with_session_ids(IdPolicy::omitted());
    /// let propagator = SessionPropagator::new().with_privacy(privacy);
    /// ```
    pub fn with_privacy(self, privacy: Privacy) -> Self {
        Self { privacy, ..self }
    }

    /// Sets the policy that accepts or refuses an extracted session. Default: [`InboundPolicy::accept`].
    ///
    /// ```
    /// # use tracing_session::{SessionPropagator, propagation::InboundPolicy};
    /// let propagator = SessionPropagator::new().with_inbound(InboundPolicy::ignore());
    /// ```
    pub fn with_inbound(self, inbound: InboundPolicy) -> Self {
        Self { inbound, ..self }
    }

    /// The separate headers for the session id.
    fn headers(&self) -> &[String] {
        &self.fields[usize::from(self.baggage)..]
    }

    /// Whether a member of the application's own baggage contains an id that the privacy settings redact.
    fn redacts(&self, key: &str, value: &str, session: &Session) -> bool {
        IdKind::BOTH.into_iter().any(|role| {
            let is_id_here = || role.text(session).is_some_and(|id| is_id(value, id));
            let mut added = self.privacy.keys.iter();
            let mut is_added = || added.any(|added| added.0 == key && added.1 == role);
            !self.privacy.id_policy(role).is_plain()
                && (key == role.key() || is_added() || is_id_here())
        })
    }

    /// The member of the user.
    fn user(&self, session: &Session) -> Option<(&'static str, Arc<str>)> {
        let policy = &self.privacy.user_ids;
        match (&session.user_id, session.attribute(USER_HASH)) {
            (Some(id), _) if policy.hashes() => Some((USER_HASH, policy.redact_id(id)?)),
            (Some(id), _) => Some((USER_ID, policy.redact_id(id)?)),
            (None, Some(Value::String(hash))) => Some((USER_HASH, hash.as_str().into())),
            (None, _) => None,
        }
    }

    /// The header with the session, and the other baggage of `cx` except members that are redacted. `None` if it would be
    /// empty. Reports members that don't fit.
    fn baggage_header(&self, cx: &Context, session: &Session, id: Option<&str>) -> Option<String> {
        let user = self.user.then(|| self.user(session)).flatten();
        let user = user.as_ref().map(|(key, user)| (*key, &**user, ""));
        let id = id.map(|id| (SESSION_ID, id, ""));
        let own: Vec<_> = id.into_iter().chain(user).collect();
        let others = cx.baggage().iter();
        let others = others.map(|(key, (value, it))| (key.as_str(), value.as_str(), it.as_str()));
        let others = others.filter(|(key, value, _)| {
            own.iter().all(|(own, ..)| own != key) && !self.redacts(key, value, session)
        });
        let mut header = String::new();
        let mut members = 0;
        for (key, value, metadata) in own.iter().copied().chain(others) {
            let before = header.len();
            header.extend([if before > 0 { "," } else { "" }, key, "="]);
            header.extend(utf8_percent_encode(value, ENCODED));
            header.extend(properties(metadata).flat_map(|property| [";", property]));
            if header.len() <= MAX_BAGGAGE_BYTES && members < MAX_MEMBERS {
                members += 1;
            } else {
                header.truncate(before);
                diagnostic::emit_once(BAGGAGE_TOO_LARGE);
            }
        }
        (members > 0).then_some(header)
    }

    /// The session in the headers, or the diagnostic why it is ignored.
    fn read(&self, extractor: &dyn Extractor, baggage: &[&str]) -> Result<Session, Message> {
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
            let is_mirascopes = header.eq_ignore_ascii_case(SESSION_HEADER_NAME);
            let other = is_mirascopes.then_some(X_SESSION_HEADER_NAME);
            for name in [header.as_str()].into_iter().chain(other) {
                for value in extractor.get_all(name).unwrap_or_default() {
                    // Checked first, so that a long value isn't decoded.
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
        if let Some(hash) = user_hash {
            let hash = KeyValue::new(USER_HASH, hash.shared());
            Details::change(&mut session.details, |it| _ = it.set_attribute(hash));
        }
        Ok(session)
    }
}

/// The diagnostic that a header's value is ignored because of an error.
fn ignored(header: &str, what: &str) -> impl Fn(ErrorKind) -> Message {
    move |error| diagnostic::header_ignored(header, what, error)
}

/// Sets an id from a header. A blank value sets nothing, and a second value must be the same.
fn set_id(id: &mut Option<Id>, value: Option<Cow<'_, str>>) -> Result<(), ErrorKind> {
    let value = &*value.ok_or(ErrorKind::NotUnicode)?;
    // Compared first, so that thousands of equal headers don't allocate thousands of ids.
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

impl Default for SessionPropagator {
    fn default() -> Self {
        Self::new()
    }
}

impl TextMapPropagator for SessionPropagator {
    fn inject_context(&self, cx: &Context, injector: &mut dyn Injector) {
        let session = Scope::of(cx).map(|scope| scope.to_session());
        let session = session.unwrap_or_default();
        let id = session.id.as_ref();
        let id = id.and_then(|id| self.privacy.session_ids.redact_id(id));
        let baggage = (self.baggage).then(|| self.baggage_header(cx, &session, id.as_deref()));
        if let Some(header) = baggage.flatten() {
            injector.set(BAGGAGE_HEADER, header);
        }
        let Some(id) = id else { return };
        for header in self.headers() {
            if self.percent_encoded {
                let value = utf8_percent_encode(&id, NOT_IN_A_HEADER).to_string();
                injector.set(header, value);
            } else if id.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
                injector.set(header, id.to_string());
            } else {
                diagnostic::emit_once(diagnostic::header_not_ascii(header));
            }
        }
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        let headers = self.baggage.then(|| extractor.get_all(BAGGAGE_HEADER));
        let headers = headers.flatten().unwrap_or_default();
        let mut cx = cx.clone();
        if !headers.is_empty() {
            let own = [SESSION_ID, USER_ID, USER_HASH];
            let mut others = Baggage::new();
            for member in members(&headers).filter(|it| !own.iter().any(|key| it.is(key))) {
                if let Some(value) = member.value() {
                    // Ignores members with an invalid key, and members over the limits.
                    let (key, value) = (member.key.to_owned(), value.into_owned());
                    others.insert_with_metadata(key, value, member.metadata);
                }
            }
            cx = cx.with_baggage(others);
        }
        match self.read(extractor, &headers) {
            Ok(session) if !session.is_empty() && self.inbound.accepts(session.id(), &()) => {
                Scope::nested(None, &session.replaceable()).entered(&cx)
            }
            Ok(_) => cx,
            Err(ignored) => {
                diagnostic::emit_once(ignored);
                cx
            }
        }
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&self.fields)
    }
}
