//! `SessionLayer`: how it is configured, and what it is where there is no OpenTelemetry layer.

pub(crate) mod around;
pub(crate) mod fields;
pub(crate) mod filtered;
pub(crate) mod given;
pub(crate) mod heard;
pub(crate) mod opening;
pub(crate) mod tracking;

use crate::format::redaction::{register_id_field, register_id_span};
use crate::layer::around::AroundLayer;
use crate::layer::filtered::FilteredSessionLayer;
use crate::layer::opening::Shared;
use crate::scope::{Role, Scope};
use crate::session::Session;
use std::any::TypeId;
use std::borrow::Cow;
use std::sync::Arc;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Watches for spans that say a session or user, and puts what they say in force for everything
/// below them.
///
/// Put it [around](Self::around) the OpenTelemetry layer. By itself it is a layer too, for people
/// who only log: [`current_session`](crate::current_session) then answers, and nothing is exported.
///
/// These spans open a scope:
///
/// - a span named `session` or `user` with a field `id`;
/// - a span of any name with a field `session.id` or `user.id`, also one that is declared
///   [empty](tracing::field::Empty) and recorded later;
/// - the spans of [`session!`](crate::session) and [`user!`](crate::user).
///
/// The names are the layer's to choose; the spans of the macros it always knows. A span that opens
/// a scope by its fields has the [`Session`] in its extensions, for other layers to read.
///
/// Cost: a look at the names of a span's fields, some 50 instructions. A span that opens a scope
/// costs about 6,000 more than one that does not, which costs 9,500.
///
/// ```
/// use opentelemetry::trace::TracerProvider;
/// use opentelemetry_sdk::trace::SdkTracerProvider;
/// use tracing_session::{SessionLayer, SessionTracerProvider};
/// use tracing_subscriber::prelude::*;
///
/// let provider = SessionTracerProvider::new(SdkTracerProvider::builder().build());
/// let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("chat"));
/// let subscriber = tracing_subscriber::registry().with(SessionLayer::new().around(otel));
/// # drop(subscriber);
/// ```
#[derive(Debug)]
pub struct SessionLayer {
    pub(crate) shared: Arc<Shared>,
}

impl SessionLayer {
    /// A layer with the default names.
    ///
    /// ```
    /// use tracing_session::SessionLayer;
    /// use tracing_subscriber::prelude::*;
    ///
    /// // Without OpenTelemetry, for people who only log.
    /// let subscriber = tracing_subscriber::registry().with(SessionLayer::new());
    /// # drop(subscriber);
    /// ```
    pub fn new() -> Self {
        Self {
            shared: Arc::default(),
        }
    }

    /// The names of spans whose field `id` is a session id. Default: `session`. An empty list
    /// switches this off.
    ///
    /// ```
    /// # use tracing_session::SessionLayer;
    /// let layer = SessionLayer::new().with_session_spans(["conversation"]);
    /// ```
    pub fn with_session_spans<N>(self, names: impl IntoIterator<Item = N>) -> Self
    where
        N: Into<Cow<'static, str>>,
    {
        let names = list(names);
        names
            .iter()
            .for_each(|name| register_id_span(name, Role::Session));
        self.configure(|shared| shared.names.set_spans(Role::Session, names))
    }

    /// The fields that hold a session id, on spans of any name. Default: `session.id`. An empty
    /// list switches this off.
    ///
    /// A field of another name is exported under its own name too.
    ///
    /// ```
    /// # use tracing_session::SessionLayer;
    /// let layer = SessionLayer::new().with_session_fields(["session.id", "conversation_id"]);
    /// ```
    pub fn with_session_fields<N>(self, names: impl IntoIterator<Item = N>) -> Self
    where
        N: Into<Cow<'static, str>>,
    {
        let names = list(names);
        names
            .iter()
            .for_each(|name| register_id_field(name, Role::Session));
        self.configure(|shared| shared.names.set_fields(Role::Session, names))
    }

    /// The names of spans whose field `id` is a user id. Default: `user`. An empty list switches
    /// this off.
    ///
    /// ```
    /// # use tracing_session::SessionLayer;
    /// let layer = SessionLayer::new().with_user_spans(["customer"]);
    /// ```
    pub fn with_user_spans<N>(self, names: impl IntoIterator<Item = N>) -> Self
    where
        N: Into<Cow<'static, str>>,
    {
        let names = list(names);
        names
            .iter()
            .for_each(|name| register_id_span(name, Role::User));
        self.configure(|shared| shared.names.set_spans(Role::User, names))
    }

    /// The fields that hold a user id, on spans of any name. Default: `user.id`. An empty list
    /// switches this off.
    ///
    /// ```
    /// # use tracing_session::SessionLayer;
    /// let layer = SessionLayer::new().with_user_fields(["user.id", "enduser.id"]);
    /// ```
    pub fn with_user_fields<N>(self, names: impl IntoIterator<Item = N>) -> Self
    where
        N: Into<Cow<'static, str>>,
    {
        let names = list(names);
        names
            .iter()
            .for_each(|name| register_id_field(name, Role::User));
        self.configure(|shared| shared.names.set_fields(Role::User, names))
    }

    /// The session of everything that is outside any other: a command-line agent is one process
    /// with one session. Default: none.
    ///
    /// Cost: about 1,900 instructions for each span that is outside any other scope, 4,500 for the
    /// first of a trace: each is looked after by itself, whatever its parent becomes.
    ///
    /// ```
    /// use tracing_session::{Session, SessionLayer};
    ///
    /// let layer = SessionLayer::new().with_default_session(Session::from_env_or_generate()?);
    /// # Ok::<(), tracing_session::Error>(())
    /// ```
    pub fn with_default_session(self, session: Session) -> Self {
        let scope = (!session.is_empty()).then(|| Scope::nested(None, (&session).into()));
        self.configure(|shared| shared.default = scope)
    }

    /// Makes each turn the root of a trace of its own: each span that says the id of a session, unless
    /// it is inside another one that says the same. Default: it is a child of the span that it is in.
    ///
    /// For applications that are traced from end to end. Phoenix shows the root spans of a session
    /// as its turns, and takes first input and last output from them; under the span of an HTTP server,
    /// or that of a caller elsewhere, a session has none. The root has a span link to the span that
    /// would have been its parent, and whatever is in force there still is.
    ///
    /// The id has to be there when the span is made: what is recorded later, or set by
    /// [`set_session_id`](crate::set_session_id), finds the span started. A span that a filter hides
    /// begins no trace. The sampler is asked anew for each root; it gets to see the session, the
    /// baggage and the link, and nothing else of what surrounds the turn.
    ///
    /// Cost: some 1,500 instructions for each such span.
    ///
    /// ```
    /// # use tracing_session::SessionLayer;
    /// let layer = SessionLayer::new().with_root_turns();
    /// ```
    pub fn with_root_turns(self) -> Self {
        self.configure(|shared| shared.root_turns = true)
    }

    /// A filter for the OpenTelemetry layer, under which the spans that it hides still open their
    /// scopes.
    ///
    /// A span that a filter hides from the OpenTelemetry layer is not exported. With a filter put
    /// on that layer itself, or on the whole subscriber, such a span does not exist, and neither
    /// does the session that it says. With the filter given here it does, for the spans below it
    /// that are exported. Nothing else becomes enabled that was not. Default: no filter.
    ///
    /// Cost: about 300 instructions for each span, and 7 for each span or event that a level filter
    /// turns off: a span that opens a scope may be of any level, so each callsite has to be asked.
    ///
    /// ```
    /// # use opentelemetry::trace::TracerProvider;
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::{SessionLayer, SessionTracerProvider};
    /// use tracing_subscriber::filter::LevelFilter;
    /// use tracing_subscriber::prelude::*;
    ///
    /// # let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    /// # let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("chat"));
    /// let layer = SessionLayer::new().with_filter(LevelFilter::WARN).around(otel);
    /// let subscriber = tracing_subscriber::registry().with(layer);
    /// # drop(subscriber);
    /// ```
    pub fn with_filter<F>(self, filter: F) -> FilteredSessionLayer<F> {
        FilteredSessionLayer::new(self.shared, filter)
    }

    /// The OpenTelemetry layer with this one around it: the layer to give to the subscriber.
    ///
    /// `otel` may also be wrapped in `Option`, `Box`, a filter, or `reload::Layer`. Its tracer has
    /// to come from a [`SessionTracerProvider`](crate::SessionTracerProvider). Behind
    /// `reload::Layer` spans inherit as ever, but `tracing` offers no way to reach the current span
    /// there, so [`set_session_id`](crate::set_session_id) and its like give an error.
    ///
    /// ```
    /// # use opentelemetry::trace::TracerProvider;
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::{SessionLayer, SessionTracerProvider};
    /// # use tracing_subscriber::prelude::*;
    /// # let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    /// let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("chat"));
    /// let subscriber = tracing_subscriber::registry().with(SessionLayer::new().around(otel));
    /// # drop(subscriber);
    /// ```
    pub fn around<L>(self, otel: L) -> AroundLayer<L> {
        AroundLayer::new(self.shared, otel)
    }

    fn configure(mut self, change: impl FnOnce(&mut Shared)) -> Self {
        // It is shared only when it is made into another layer, which consumes this one.
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            change(shared);
        }
        self
    }
}

fn list<N: Into<Cow<'static, str>>>(names: impl IntoIterator<Item = N>) -> Vec<Cow<'static, str>> {
    names.into_iter().map(Into::into).collect()
}

impl Default for SessionLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for SessionLayer
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        self.shared.on_register_dispatch(dispatch);
    }

    fn on_layer(&mut self, _: &mut S) {
        self.shared.on_layer::<S>();
    }

    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        self.shared.track_new_span(attrs, id, &ctx);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        self.shared.track_record(id, values, &ctx);
    }

    fn event_enabled(&self, _: &Event<'_>, _: Context<'_, S>) -> bool {
        self.shared.before_event();
        true
    }

    fn on_enter(&self, id: &Id, _: Context<'_, S>) {
        self.shared.track_enter(id);
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        self.shared.track_exit(id);
    }

    fn on_close(&self, _: Id, _: Context<'_, S>) {
        self.shared.track_close();
    }

    // SAFETY: the pointers are to `self` and to what it owns, so they live as long as it does.
    #[allow(unsafe_code)]
    unsafe fn downcast_raw(&self, id: TypeId) -> Option<*const ()> {
        reached(id, self, &self.shared)
    }
}

/// The answer of a layer of ours to being looked for.
pub(crate) fn reached<T: 'static>(id: TypeId, layer: &T, shared: &Shared) -> Option<*const ()> {
    if id == TypeId::of::<T>() {
        Some(std::ptr::from_ref(layer).cast())
    } else if id == TypeId::of::<Shared>() {
        Some(std::ptr::from_ref(shared).cast())
    } else {
        None
    }
}
