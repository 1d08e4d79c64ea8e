//! The propagator: it injects the session of a `Context` into headers, and extracts it from headers.

use crate::base::diagnostic;
use crate::base::diagnostic::BAGGAGE_TOO_LARGE;
use crate::base::error::{Error, ErrorKind};
use crate::export::privacy::Privacy;
use crate::propagation::headers::{
    BAGGAGE_HEADER, ENCODED, InboundPolicy, MAX_BAGGAGE_BYTES, MAX_MEMBERS, Member, members,
    properties,
};
use crate::scope::Scope;
use crate::session::id::is_id;
use crate::session::keys::{SESSION_ID, USER_HASH, USER_ID};
use crate::session::{IdKind, Session};
use opentelemetry::baggage::{Baggage, BaggageExt};
use opentelemetry::propagation::text_map_propagator::FieldIter;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::{Context, Value};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
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
pub(super) const X_SESSION_HEADER_NAME: &str = "X-Mirascope-Session-Id";

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
/// Where a call contains no `session.id`, the propagator reads the keys of baggage that other systems write
/// ([`langfuse_session_id` and `gen_ai.conversation.id`](Self::with_baggage_key)) and then the header of
/// [Mirascope](SESSION_HEADER_NAME).
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
    pub(super) baggage: bool,
    pub(super) percent_encoded: bool,
    pub(super) user: bool,
    privacy: Privacy,
    inbound: InboundPolicy,
    /// The names of all headers.
    fields: Vec<String>,
    /// Further keys of baggage, by the kind of their id.
    pub(super) keys: Vec<(String, IdKind)>,
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
            keys: Vec::new(),
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
    /// Headers that agents and their hosts send: `X-Claude-Code-Session-Id` (Claude Code),
    /// `X-Amzn-Bedrock-AgentCore-Runtime-Session-Id` (Amazon Bedrock AgentCore), `X-TraceCtrl-Session` (TraceCtrl). `Mcp-Session-Id` is
    /// the id of an MCP connection, which is rarely that of a conversation.
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
        if !is_token(&name) || name.eq_ignore_ascii_case(BAGGAGE_HEADER) {
            return Err(ErrorKind::HeaderName.into());
        }
        self.fields.push(name);
        Ok(self)
    }

    /// Writes the session id under this key of baggage too, for receivers that read another one than `session.id`. You can add
    /// several. Default: none.
    ///
    /// Langfuse's SDKs read `langfuse_session_id`. Mistral's SDK for Python and others read `gen_ai.conversation.id`. A propagator always
    /// reads the two, and the keys that you add, where baggage contains no `session.id`. It passes them on only if you add them.
    ///
    /// # Errors
    ///
    /// If it isn't a valid key of baggage.
    ///
    /// ```
    /// # use tracing_session::SessionPropagator;
    /// let propagator = SessionPropagator::new().with_baggage_key("langfuse_session_id")?;
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn with_baggage_key(self, key: impl Into<String>) -> Result<Self, Error> {
        self.with_key(key.into(), IdKind::Session)
    }

    /// Writes the user id under this key of baggage too, such as `langfuse_user_id`, and under `user.id` as
    /// [`with_user`](Self::with_user) does. You can add several. Default: none.
    ///
    /// A hashed user id is sent as `user.hash` only.
    ///
    /// # Errors
    ///
    /// If it isn't a valid key of baggage.
    ///
    /// ```
    /// # use tracing_session::SessionPropagator;
    /// let propagator = SessionPropagator::new().with_user_baggage_key("langfuse_user_id")?;
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn with_user_baggage_key(self, key: impl Into<String>) -> Result<Self, Error> {
        self.with_user().with_key(key.into(), IdKind::User)
    }

    fn with_key(mut self, key: String, kind: IdKind) -> Result<Self, Error> {
        if !is_token(&key) {
            return Err(ErrorKind::BaggageKey.into());
        }
        let is_written = [SESSION_ID, USER_ID, USER_HASH].contains(&key.as_str())
            || self.keys.iter().any(|it| it.0 == key);
        if !is_written {
            self.keys.push((key, kind));
        }
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
    pub(super) fn headers(&self) -> &[String] {
        &self.fields[usize::from(self.baggage)..]
    }

    /// Whether a member of the application's own baggage contains an id that the privacy settings redact.
    fn redacts(&self, key: &str, value: &str, session: &Session) -> bool {
        IdKind::BOTH.into_iter().any(|role| {
            let is_id_here = || role.text(session).is_some_and(|id| is_id(value, id));
            let mut added = self.privacy.keys.iter();
            let mut is_added = || added.any(|added| added.0 == key && added.1 == role);
            !self.privacy.id_policy(role).is_plain()
                && (self.kind_of_key(key) == Some(role) || is_added() || is_id_here())
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

    /// Whether a member of the application's own baggage contains the id of another session or user: it was there before this
    /// one was set.
    fn is_of_another_session(&self, key: &str, value: &str, session: &Session) -> bool {
        let kind = self.kind_of_key(key);
        kind.is_some_and(|kind| kind.text(session).is_some_and(|id| !is_id(value, id)))
    }

    /// The header with the session, and the other baggage of `cx` except members that are redacted. `None` if it would be
    /// empty. Reports members that don't fit.
    fn baggage_header(&self, cx: &Context, session: &Session, id: Option<&str>) -> Option<String> {
        let user = self.user.then(|| self.user(session)).flatten();
        let user = user.as_ref().map(|(key, user)| (*key, &**user, ""));
        let user_id = user.filter(|it| it.0 == USER_ID);
        let further = self.keys.iter().filter_map(|(key, kind)| {
            let value = match kind {
                IdKind::Session => id,
                IdKind::User => user_id.map(|it| it.1),
            };
            Some((key.as_str(), value?, ""))
        });
        let own = id.map(|id| (SESSION_ID, id, "")).into_iter().chain(user);
        let own: Vec<_> = own.chain(further).collect();
        let others = cx.baggage().iter();
        let others = others.map(|(key, (value, it))| (key.as_str(), value.as_str(), it.as_str()));
        let others = others.filter(|(key, value, _)| {
            own.iter().all(|(own, ..)| own != key)
                && !self.redacts(key, value, session)
                && !self.is_of_another_session(key, value, session)
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
}

/// Whether `name` is a token of HTTP, which names of headers and keys of baggage have to be.
fn is_token(name: &str) -> bool {
    let symbols = b"!#$%&'*+-.^_`|~";
    let is_of_token = |byte: u8| byte.is_ascii_alphanumeric() || symbols.contains(&byte);
    !name.is_empty() && name.bytes().all(is_of_token)
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
            // Ids under the keys of other systems are the session's, or refused: they are written anew, or not at all.
            let is_own = |it: &Member<'_>| {
                let own = [SESSION_ID, USER_ID, USER_HASH].into_iter();
                let all = own.chain(self.further_keys().map(|it| it.0));
                all.into_iter().any(|key| it.is(key))
            };
            let mut others = Baggage::new();
            for member in members(&headers).filter(|it| !is_own(it)) {
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
