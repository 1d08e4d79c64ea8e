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

/// The header that Mirascope, a Python library, sends and reads. Its documentation also uses the name
/// `X-Mirascope-Session-Id`: a propagator that reads this header reads that one too.
///
/// ```
/// use tracing_session::{SessionPropagator, propagation::SESSION_HEADER_NAME};
///
/// let propagator = SessionPropagator::new().with_header(SESSION_HEADER_NAME)?;
/// # Ok::<(), tracing_session::Error>(())
/// ```
pub const SESSION_HEADER_NAME: &str = "Mirascope-Session-Id";

/// The other name of this header, in Mirascope's documentation.
pub(super) const X_SESSION_HEADER_NAME: &str = "X-Mirascope-Session-Id";

/// A percent-encoded header encodes `%`, and everything that isn't visible ASCII.
const NOT_IN_A_HEADER: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// Injects the session into headers, and extracts it from headers.
///
/// Combine it with `TraceContextPropagator` and others, or use [`propagator_from_env`](crate::propagator_from_env).
/// OpenTelemetry's global propagator does nothing until you set it.
///
/// By default, it uses the member `session.id` of W3C baggage. It also carries all other baggage of the `Context`, and so
/// replaces `BaggagePropagator`: only one propagator can write a header. You can [add](Self::with_header) separate headers,
/// and [turn the baggage off](Self::without_baggage).
///
/// It sends the session id, but no user unless you use [`with_user`](Self::with_user).
///
/// If a request contains no `session.id`, it reads the baggage keys of other systems ([`langfuse_session_id` and
/// `gen_ai.conversation.id`](Self::with_baggage_key)), and then [Mirascope's header](SESSION_HEADER_NAME).
///
/// Extracted ids must follow the rules of [`Session::new`](crate::Session::new). The propagator ignores ids that contradict
/// one another, placeholders such as `None` or `null`, and ids that [`with_inbound`](Self::with_inbound) refuses. In the
/// extracted `Context`, an accepted session replaces the current one.
///
/// Cost: about the same as `BaggagePropagator`.
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
#[doc(alias = "baggage", alias = "propagate_attributes")]
#[derive(Clone, Debug)]
#[must_use = "a propagator does nothing until you set it: `global::set_text_map_propagator(propagator)`"]
pub struct SessionPropagator {
    pub(super) baggage: bool,
    pub(super) percent_encoded: bool,
    pub(super) user: bool,
    privacy: Privacy,
    inbound: InboundPolicy,
    /// The names of all headers, starting with `baggage` if it is on.
    fields: Vec<String>,
    /// More baggage keys, each with the kind of its id.
    pub(super) keys: Vec<(String, IdKind)>,
}

impl SessionPropagator {
    /// Creates a propagator that uses W3C baggage.
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

    /// Turns W3C baggage off, so that only [separate headers](Self::with_header) carry the session. Default: on.
    ///
    /// With baggage, ids arrive unchanged, with one exception. Python's OpenTelemetry encodes a space as `+`, which the
    /// recommendation doesn't allow, so the id arrives with `+` unless a [separate header](Self::with_header) contains the
    /// space. The propagator drops the properties of the member `session.id`.
    ///
    /// ```
    /// # use tracing_session::{SessionPropagator, propagation::SESSION_HEADER_NAME};
    /// let like_mirascope = SessionPropagator::new()
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
    /// A header can only contain visible ASCII and spaces. Other ids aren't sent, and the crate warns once. To send them,
    /// turn on [percent-encoding](Self::with_percent_encoded_headers).
    ///
    /// Agents and their hosts send these headers: `X-Claude-Code-Session-Id` (Claude Code),
    /// `X-Amzn-Bedrock-AgentCore-Runtime-Session-Id` (Amazon Bedrock AgentCore) and `X-TraceCtrl-Session` (TraceCtrl).
    /// `Mcp-Session-Id` identifies an MCP connection, and rarely a conversation.
    ///
    /// # Errors
    ///
    /// Returns an error if the name isn't a valid header name, or is `baggage`.
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

    /// Writes the session id under this baggage key too, for receivers that don't read `session.id`. You can add several.
    /// Default: none.
    ///
    /// Langfuse's SDKs read `langfuse_session_id`. Mistral's SDK for Python and others read `gen_ai.conversation.id`. If the
    /// baggage contains no `session.id`, a propagator reads these two keys and the keys that you add. It writes only the keys
    /// that you add.
    ///
    /// # Errors
    ///
    /// Returns an error if the key isn't a valid baggage key.
    ///
    /// ```
    /// # use tracing_session::SessionPropagator;
    /// let propagator = SessionPropagator::new().with_baggage_key("langfuse_session_id")?;
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn with_baggage_key(self, key: impl Into<String>) -> Result<Self, Error> {
        self.with_key(key.into(), IdKind::Session)
    }

    /// Writes the user id under this baggage key too, such as `langfuse_user_id`. You can add several. Default: none.
    ///
    /// This turns on [`with_user`](Self::with_user). A hashed user id is sent only as `user.hash`.
    ///
    /// # Errors
    ///
    /// Returns an error if the key isn't a valid baggage key.
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

    /// Percent-encodes ids in [separate headers](Self::with_header), so that every id can be sent. Default: off.
    ///
    /// The receiver must decode the ids. A `SessionPropagator` with this setting does.
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

    /// Injects and extracts the user id too, as the member `user.id` of W3C baggage. Default: off.
    ///
    /// Use it only between services that trust each other, because an [`InboundPolicy`] checks only the session id.
    ///
    /// ```
    /// # use tracing_session::SessionPropagator;
    /// let between_our_services = SessionPropagator::new().with_user();
    /// ```
    pub fn with_user(self) -> Self {
        Self { user: true, ..self }
    }

    /// Redacts the ids in outgoing headers. Default: none.
    ///
    /// A hashed session id replaces the id. A hashed user id is sent as the member `user.hash`, if
    /// [`with_user`](Self::with_user) is on. A service that receives `user.hash` exports it on its spans and sends it on. Use
    /// [`IdPolicy::plain`] in that service, so that it doesn't hash the ids again.
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

    /// Whether a member of the application's other baggage contains an id that `privacy` redacts.
    fn redacts(&self, key: &str, value: &str, session: &Session) -> bool {
        IdKind::BOTH.into_iter().any(|role| {
            let is_id_here = || role.text(session).is_some_and(|id| is_id(value, id));
            let mut added = self.privacy.keys.iter();
            let mut is_added = || added.any(|added| added.0 == key && added.1 == role);
            !self.privacy.id_policy(role).is_plain()
                && (self.kind_of_key(key) == Some(role) || is_added() || is_id_here())
        })
    }

    /// The baggage member for the user.
    fn user(&self, session: &Session) -> Option<(&'static str, Arc<str>)> {
        let policy = &self.privacy.user_ids;
        match (&session.user_id, session.attribute(USER_HASH)) {
            (Some(id), _) if policy.hashes() => Some((USER_HASH, policy.redact_id(id)?)),
            (Some(id), _) => Some((USER_ID, policy.redact_id(id)?)),
            (None, Some(Value::String(hash))) => Some((USER_HASH, hash.as_str().into())),
            (None, _) => None,
        }
    }

    /// Whether a member of the application's other baggage contains the id of another session or user, because the
    /// application added the member before this session was set.
    fn is_of_another_session(&self, key: &str, value: &str, session: &Session) -> bool {
        let kind = self.kind_of_key(key);
        kind.is_some_and(|kind| kind.text(session).is_some_and(|id| !is_id(value, id)))
    }

    /// The header with the session and the other baggage of `cx`, except redacted members. `None` if it would be empty. Warns
    /// about members that don't fit.
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

/// Whether `name` is an HTTP token. Header names and baggage keys must be tokens.
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
            // Remove all ids from the other baggage: `inject_context` writes accepted ids again, and must not pass on refused
            // ids.
            let is_own = |it: &Member<'_>| {
                let own = [SESSION_ID, USER_ID, USER_HASH].into_iter();
                let all = own.chain(self.further_keys().map(|it| it.0));
                all.into_iter().any(|key| it.is(key))
            };
            let mut others = Baggage::new();
            for member in members(&headers).filter(|it| !is_own(it)) {
                if let Some(value) = member.value() {
                    // `Baggage` ignores members with an invalid key, and members over its limits.
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
