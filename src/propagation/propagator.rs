//! The session in the headers of a call: from the `Context` into them, and back.

use crate::diagnostic::{self, Message, Once};
use crate::error::{Error, ErrorKind};
use crate::format::privacy::Privacy;
use crate::propagation::baggage::{self, Member};
use crate::propagation::inbound::InboundPolicy;
use crate::scope::Scope;
use crate::session::IdKind;
use crate::session::Session;
use crate::session::keys::{SESSION_ID, USER_HASH, USER_ID};
use crate::session::text::is_id;
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::{Context, Value};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use std::sync::{Arc, LazyLock};

/// The header that Mirascope sends and reads. Its documentation also writes
/// `X-Mirascope-Session-Id`: where this header is read, that one is too.
///
/// ```
/// use tracing_session::{SESSION_HEADER_NAME, SessionPropagator};
///
/// let propagator = SessionPropagator::new().with_header(SESSION_HEADER_NAME)?;
/// # Ok::<(), tracing_session::Error>(())
/// ```
pub const SESSION_HEADER_NAME: &str = "Mirascope-Session-Id";

/// Carries the session of a `Context` in the headers of a call, to be composed with
/// `TraceContextPropagator` and others.
///
/// By default it writes and reads the member `session.id` of W3C baggage. It takes the place of
/// `BaggagePropagator`, as a header can have one writer only: the other baggage of the `Context` goes
/// along. Headers of their own are [added](Self::with_header) or put
/// [in its place](Self::with_baggage).
///
/// Only the session's id leaves the process; the user's id does where it is
/// [asked for](Self::with_user).
///
/// What comes in is not trusted: an id has to obey the rule of [`Session::new`](crate::Session::new), several that differ
/// are ignored, and [`with_inbound`](Self::with_inbound) may refuse it. An accepted one replaces, for
/// what runs under the extracted `Context`, whatever is in force outside it.
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
pub struct SessionPropagator {
    baggage: bool,
    pub(crate) headers: Vec<String>,
    pub(crate) percent_encoded: bool,
    pub(crate) user: bool,
    privacy: Privacy,
    inbound: InboundPolicy,
    /// The names of all of these.
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
            headers: Vec::new(),
            percent_encoded: false,
            user: false,
            privacy: Privacy::new(),
            inbound: InboundPolicy::accept(),
            fields: vec![baggage::HEADER.to_owned()],
        }
    }

    /// Whether W3C baggage is written and read. Default: true.
    ///
    /// An id survives the way there and back byte for byte. Python's OpenTelemetry sends a space as
    /// `+`, which the recommendation does not know: it arrives as `+`, unless a header of its own
    /// brings the same id with the space. Properties of the member `session.id` are not sent on.
    ///
    /// ```
    /// # use tracing_session::{SESSION_HEADER_NAME, SessionPropagator};
    /// let as_mirascope = SessionPropagator::new()
    ///     .with_baggage(false)
    ///     .with_header(SESSION_HEADER_NAME)?;
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn with_baggage(mut self, baggage: bool) -> Self {
        self.baggage = baggage;
        self.name_fields()
    }

    /// A header of its own for the session's id. It may be called several times. Default: none.
    ///
    /// The value of a header is visible ASCII and spaces. An id that is not cannot be sent so: it
    /// is left out, and told of once, unless it is
    /// [percent-encoded](Self::with_percent_encoded_headers).
    ///
    /// # Errors
    ///
    /// When this is no name of a header.
    ///
    /// ```
    /// # use tracing_session::SessionPropagator;
    /// let propagator = SessionPropagator::new().with_header("X-TraceCtrl-Session")?;
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn with_header(mut self, name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty()
            || !name.bytes().all(is_token)
            || name.eq_ignore_ascii_case(baggage::HEADER)
        {
            return Err(ErrorKind::HeaderName.into());
        }
        self.headers.push(name);
        Ok(self.name_fields())
    }

    /// Whether the id in a header of its own is percent-encoded, and decoded when it is read: then
    /// every id can be sent, to those who know. Default: false.
    ///
    /// ```
    /// # use tracing_session::SessionPropagator;
    /// let propagator = SessionPropagator::new()
    ///     .with_header("x-session")?
    ///     .with_percent_encoded_headers(true);
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn with_percent_encoded_headers(self, percent_encoded: bool) -> Self {
        Self {
            percent_encoded,
            ..self
        }
    }

    /// Whether the user's id is sent and taken too, as the member `user.id` of W3C baggage. Default:
    /// false.
    ///
    /// Who is heard has to be trusted with it: an [`InboundPolicy`] is asked about the session alone.
    ///
    /// ```
    /// # use tracing_session::SessionPropagator;
    /// let among_our_own_services = SessionPropagator::new().with_user(true);
    /// ```
    pub fn with_user(self, user: bool) -> Self {
        Self { user, ..self }
    }

    /// Redacts the ids in outgoing headers. Default: none.
    ///
    /// A hashed session id replaces the id. A hashed user id is sent as the member `user.hash`, if
    /// [`with_user`](Self::with_user) sends the user. A service that receives `user.hash` exports it on its
    /// spans and sends it on. Such a service must not hash the ids again: use [`IdPolicy::plain`] there.
    ///
    /// [`IdPolicy::plain`]: crate::IdPolicy::plain
    ///
    /// ```
    /// # use tracing_session::{IdPolicy, Privacy, SessionPropagator};
    /// let privacy = Privacy::new().with_session_ids(IdPolicy::omitted());
    /// let propagator = SessionPropagator::new().with_privacy(privacy);
    /// ```
    pub fn with_privacy(self, privacy: Privacy) -> Self {
        Self { privacy, ..self }
    }

    /// What comes in is taken under this policy. Default: [`InboundPolicy::accept`].
    ///
    /// ```
    /// # use tracing_session::{InboundPolicy, SessionPropagator};
    /// let propagator = SessionPropagator::new().with_inbound(InboundPolicy::ignore());
    /// ```
    pub fn with_inbound(self, inbound: InboundPolicy) -> Self {
        Self { inbound, ..self }
    }

    fn name_fields(mut self) -> Self {
        let baggage = self.baggage.then(|| baggage::HEADER.to_owned());
        self.fields = baggage.into_iter().chain(self.headers.clone()).collect();
        self
    }

    /// Whether it is hidden in the application's own baggage, too.
    fn hides(&self, key: &str, value: &str, session: &Session) -> bool {
        IdKind::BOTH.into_iter().any(|role| {
            let is_held = || role.text(session).is_some_and(|id| is_id(value, id));
            let mut added = self.privacy.keys.iter();
            let mut is_added = || added.any(|added| added.0 == key && added.1 == role);
            !self.privacy.id_policy(role).is_plain()
                && (key == role.key() || is_added() || is_held())
        })
    }

    /// What is sent of the user, and as what.
    fn user(&self, session: &Session) -> Option<(&'static str, Arc<str>)> {
        let policy = &self.privacy.user_ids;
        match (&session.user_id, session.attribute(USER_HASH)) {
            (Some(id), _) if policy.hashes() => Some((USER_HASH, policy.redact_id(id)?)),
            (Some(id), _) => Some((USER_ID, policy.redact_id(id)?)),
            (None, Some(Value::String(hash))) => Some((USER_HASH, hash.as_str().into())),
            (None, _) => None,
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
        if self.baggage {
            let user = self.user.then(|| self.user(&session)).flatten();
            let id = id.as_deref().map(|id| (SESSION_ID, id));
            let user = user.as_ref().map(|(key, user)| (*key, &**user));
            let ours: Vec<_> = id.into_iter().chain(user).collect();
            let hides = |key: &str, value: &str| self.hides(key, value, &session);
            if let Some((header, fits)) = baggage::header(cx, &ours, hides) {
                if !fits {
                    tell(diagnostic::header_too_small(baggage::HEADER));
                }
                injector.set(baggage::HEADER, header);
            }
        }
        let Some(id) = id else { return };
        for header in &self.headers {
            if self.percent_encoded {
                let value = utf8_percent_encode(&id, NOT_IN_A_HEADER).to_string();
                injector.set(header, value);
            } else if id.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
                injector.set(header, id.to_string());
            } else {
                tell(diagnostic::header_not_ascii(header));
            }
        }
    }

    fn extract_with_context(&self, cx: &Context, extractor: &dyn Extractor) -> Context {
        let headers = match self.baggage {
            true => extractor.get_all(baggage::HEADER).unwrap_or_default(),
            false => Vec::new(),
        };
        let cx = match headers.as_slice() {
            [] => cx.clone(),
            headers => {
                let ours = [SESSION_ID, USER_ID, USER_HASH];
                let is_ours = |member: &Member<'_>| ours.iter().any(|key| member.is(key));
                let others = baggage::members(headers).filter(|member| !is_ours(member));
                baggage::with_baggage(cx, others)
            }
        };
        match self.read(extractor, &headers) {
            Ok(session) if !session.is_empty() && self.inbound.takes(session.id(), &()) => {
                Scope::nested(None, &session.replaceable()).entered(&cx)
            }
            Ok(_) => cx,
            Err(refused) => {
                tell(refused);
                cx
            }
        }
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(&self.fields)
    }
}

/// All but visible ASCII, and what would be taken for an encoding.
const NOT_IN_A_HEADER: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// Once for each header and mistake.
pub(crate) fn tell(message: Message) {
    static TOLD: LazyLock<Once<Message>> = LazyLock::new(Once::default);
    if TOLD.first(message.clone()) {
        diagnostic::tell(&message);
    }
}
