//! [`SessionLayer`], and the types that it returns or adds to spans.

pub(crate) mod adopted;
pub(crate) mod fields;
#[macro_use]
pub(crate) mod filtered;
pub(crate) mod openers;
pub(crate) mod spans;
pub(crate) mod tracked;
pub(crate) mod wrapped;

pub use self::spans::SessionExtension;
pub use self::wrapped::WrappedLayer;

use crate::layer::spans::LayerState;
use crate::scope::thread;
use crate::session::IdKind;
use crate::session::keys::{self, NameOf};
use std::any::TypeId;
use std::borrow::Cow;
use std::sync::Arc;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

/// A layer that sets the session and user from the fields of spans. All descendants of such a span inherit them.
///
/// [Wrap](Self::wrap) the OpenTelemetry layer in it. Without OpenTelemetry, add it to the subscriber by itself: then
/// [`current_session`](crate::current_session) works, and nothing is exported.
///
/// A span that sets a session or user is called an *opener*. These spans are openers:
///
/// - spans of [`session!`](crate::session!) and [`user!`](crate::user);
/// - spans with a field `session.id` or `user.id`. You can declare the field [empty](tracing::field::Empty) and record
///   it later;
/// - spans named `session` with a field `id`, such as `info_span!("session", id = "chat-42")`, unless you set the
///   session [explicitly](#spans-named-session).
///
/// You can add names and fields, drop the defaults, or choose spans [by callsite](Self::with_opener_filter). Spans
/// named `user` set nothing by default, because `#[instrument] fn user(id: u64)` is usually a look-up, not a login.
///
/// Every span inherits from its parent, which is the current span or an explicit `parent: &span`. A span that sets a
/// session or user inherits all other values. A span with `parent: None` inherits only the default session.
///
/// A span that sets a session or user has a [`SessionExtension`], which other layers can read.
///
/// Cost: about 15 ns for each span, and about 0.5 µs for each span that sets a session or user.
///
/// # Spans named `session`
///
/// Other code may use the name `session`, so the field `id` of such a span sets the session *implicitly*. An implicit
/// id replaces the id of another implicit span, an id from headers, and the id of the [default
/// session](crate::Session::set_global_default). It never replaces an id that you set explicitly: with a
/// [`Session`](crate::Session) value, a macro, a field `session.id`, [`set_session_id`](crate::set_session_id), or a
/// name or field that you add to the layer.
///
/// When a span is created, the layer decides whether its `id` sets the session. If not, the fields of the span stay
/// plain attributes, and a warning names the span. If the span has a field `session.id` too, this field wins, and is
/// explicit.
///
/// ```
/// use opentelemetry::trace::TracerProvider;
/// use opentelemetry_sdk::trace::SdkTracerProvider;
/// use tracing_session::{SessionLayer, SessionTracerProvider};
/// use tracing_subscriber::prelude::*;
///
/// let provider = SessionTracerProvider::new(SdkTracerProvider::builder().build());
/// let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("chat"));
/// let subscriber = tracing_subscriber::registry().with(SessionLayer::new().wrap(otel));
/// # drop(subscriber);
/// ```
#[doc(alias = "using_session", alias = "propagate_attributes")]
#[derive(Debug)]
#[must_use = "a layer does nothing until a subscriber has it: `registry().with(SessionLayer::new().wrap(otel))`"]
pub struct SessionLayer {
    pub(crate) state: Arc<LayerState>,
}

impl SessionLayer {
    /// Creates a layer with the default names.
    ///
    /// ```
    /// use tracing_session::SessionLayer;
    /// use tracing_subscriber::prelude::*;
    ///
    /// // Without OpenTelemetry, for logs only.
    /// let subscriber = tracing_subscriber::registry().with(SessionLayer::new());
    /// # drop(subscriber);
    /// ```
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
        }
    }

    /// Adds a span name: the field `id` of spans with this name sets the session. Default: `session`.
    ///
    /// Call it once for each name. An added name sets the session explicitly, and the default name sets it
    /// [implicitly](Self#spans-named-session). So if your spans named `session` must replace an outer session, add this
    /// name.
    ///
    /// ```
    /// # use tracing_session::SessionLayer;
    /// let layer = SessionLayer::new().with_session_span("conversation");
    /// ```
    pub fn with_session_span(self, name: impl Into<Cow<'static, str>>) -> Self {
        let name = name.into();
        keys::register(NameOf::Span, &name, IdKind::Session);
        self.configure(|state| state.openers.names.add_span(IdKind::Session, name))
    }

    /// Adds a field that sets the session, on spans of any name. Default: `session.id`.
    ///
    /// Call it once for each field. The value is also exported under the name of the field.
    ///
    /// ```
    /// # use tracing_session::SessionLayer;
    /// let layer = SessionLayer::new().with_session_field("conversation_id");
    /// ```
    #[doc(alias = "conversation_id", alias = "thread_id")]
    pub fn with_session_field(self, name: impl Into<Cow<'static, str>>) -> Self {
        let name = name.into();
        keys::register(NameOf::Key, &name, IdKind::Session);
        self.configure(|state| state.openers.names.add_field(IdKind::Session, name))
    }

    /// Adds a span name: the field `id` of spans with this name sets the user. Default: none.
    ///
    /// Call it once for each name.
    ///
    /// ```
    /// # use tracing_session::SessionLayer;
    /// let layer = SessionLayer::new().with_user_span("user");
    /// ```
    pub fn with_user_span(self, name: impl Into<Cow<'static, str>>) -> Self {
        let name = name.into();
        keys::register(NameOf::Span, &name, IdKind::User);
        self.configure(|state| state.openers.names.add_span(IdKind::User, name))
    }

    /// Adds a field that sets the user, on spans of any name. Default: `user.id`.
    ///
    /// Call it once for each field. The value is also exported under the name of the field.
    ///
    /// ```
    /// # use tracing_session::SessionLayer;
    /// let layer = SessionLayer::new().with_user_field("enduser.id");
    /// ```
    pub fn with_user_field(self, name: impl Into<Cow<'static, str>>) -> Self {
        let name = name.into();
        keys::register(NameOf::Key, &name, IdKind::User);
        self.configure(|state| state.openers.names.add_field(IdKind::User, name))
    }

    /// Drops the default names: only the macros, and the names and fields that you add, set a session or user.
    ///
    /// ```
    /// # use tracing_session::SessionLayer;
    /// let layer = SessionLayer::new().without_default_names().with_session_field("conversation_id");
    /// ```
    pub fn without_default_names(self) -> Self {
        self.configure(|state| state.openers.names.drop_defaults())
    }

    /// Sets a filter by callsite: only spans for which it returns true may set a session or user. Default: all spans.
    ///
    /// Use it if a library uses the same names with another meaning, such as a field `session.id` for a connection.
    /// Spans of `session!` and `user!` aren't filtered.
    ///
    /// The layer calls the filter for spans with such names or fields only, once per span or once per callsite. So the
    /// filter must be cheap, and return the same result for the same metadata. A second filter replaces the first one.
    ///
    /// ```
    /// # use tracing_session::SessionLayer;
    /// // The `session.id` of this library, and the `id` of its spans named `session`, identify a connection.
    /// let layer = SessionLayer::new().with_opener_filter(|span| !span.target().starts_with("websocket"));
    /// ```
    pub fn with_opener_filter(
        self,
        filter: impl Fn(&Metadata<'_>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.configure(|state| state.openers.names.set_filter(Box::new(filter)))
    }

    /// Sets the most verbose level at which disabled spans still set a session or user. Default: the filter's level.
    ///
    /// The filter of [`wrap_filtered`](Self::wrap_filtered) may disable a span. Up to this level, such a span still
    /// sets its session or user. For example, if you filter at `WARN` and your session spans have the level `INFO`, set
    /// `INFO`.
    ///
    /// Cost: the subscriber enables everything up to this level internally, so `log::max_level()` rises to it. Each
    /// disabled span or event between the level of your filters and this level costs about 2 ns, or up to 1 µs if the
    /// subscriber has a layer that is `None`.
    ///
    /// ```
    /// # use opentelemetry::trace::TracerProvider;
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::{SessionLayer, SessionTracerProvider, current_session_id, session};
    /// use tracing::{Level, level_filters::LevelFilter};
    /// use tracing_subscriber::prelude::*;
    ///
    /// # let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    /// # let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("chat"));
    /// let layer = SessionLayer::new()
    ///     .with_opener_level(Level::INFO)
    ///     .wrap_filtered(otel, LevelFilter::WARN);
    /// let _default = tracing_subscriber::registry().with(layer).set_default();
    /// // It isn't exported, but spans inside with the level `WARN` are.
    /// let _session = session!("chat-42").entered();
    /// assert_eq!(current_session_id().as_deref(), Some("chat-42"));
    /// ```
    pub fn with_opener_level(self, level: Level) -> Self {
        self.configure(|state| state.openers.level = level.into())
    }

    /// Makes the first span of each turn the root of its own trace. Default: it is a child of its parent.
    ///
    /// A turn begins with a span whose fields set a session id, unless an ancestor has set the same id. The root has a
    /// span link to the span that would have been its parent, and still inherits the parent's session.
    ///
    /// Use it if your root spans are spans of an HTTP server or of another process. Phoenix shows the root spans of a
    /// session as its turns, and takes the first input and last output from them.
    ///
    /// The id must be known when the span is created, so an id that is recorded later or set with
    /// [`set_session_id`](crate::set_session_id) makes no root. A span that is filtered out starts no trace. The
    /// sampler is called for each root. It receives the session, the baggage and the link, and no other values of the
    /// parent `Context`.
    ///
    /// Cost: about 0.5 µs for each turn.
    ///
    /// ```
    /// # use tracing_session::SessionLayer;
    /// let layer = SessionLayer::new().with_root_turns();
    /// ```
    pub fn with_root_turns(self) -> Self {
        self.configure(|state| state.openers.root_turns = true)
    }

    /// Stops exporting session spans: they only set the session. Default: they are exported.
    ///
    /// Use it for session spans that live as long as a connection or an actor, such as `info_span!("session", id =
    /// "chat-42")` around all messages of a WebSocket. If it were exported, such a span would put the whole
    /// conversation into one trace, whose root arrives when the connection ends.
    ///
    /// Session spans are the spans of [`session!`](crate::session!), and spans whose *name* makes them set the session.
    /// Other spans are still exported, even if they have a field `session.id`. This option needs a
    /// [`SessionTracerProvider`](crate::SessionTracerProvider).
    ///
    /// - A span directly inside a session span is the root of its own trace. It has a span link to the span that was
    ///   current when the session span was created.
    /// - No OpenTelemetry span is current in a session span, so headers contain no trace. Values that you put into a
    ///   `Context` outside aren't current inside.
    /// - OpenTelemetry gets no events of a session span. Other layers still receive the span and its events.
    /// - The span's own [`Context`](tracing_opentelemetry::OpenTelemetrySpanExt::context) has the session that its
    ///   fields set. It doesn't have a session that [`set_session_id`](crate::set_session_id) sets later.
    /// - A span stays open while it has open children. So give the connection's span `parent: None`, or create it
    ///   before the request's span.
    ///
    /// ```
    /// # use tracing_session::SessionLayer;
    /// let layer = SessionLayer::new().with_unexported_session_spans();
    /// ```
    pub fn with_unexported_session_spans(self) -> Self {
        self.configure(|state| state.openers.unexported_session_spans = true)
    }

    /// Wraps the OpenTelemetry layer. Add the result to the subscriber instead of that layer.
    ///
    /// The tracer of `otel` must come from a [`SessionTracerProvider`](crate::SessionTracerProvider). `otel` may be in
    /// an `Option`, a `Box`, a filter, or a `reload::Layer`.
    ///
    /// `tracing` can't reach the current span behind a `reload::Layer`. Spans still inherit there, but
    /// [`set_session_id`](crate::set_session_id) and similar functions return an error. Never reload it to `None` while
    /// spans are entered: their session and trace would stay current on the thread.
    ///
    /// Don't wrap other layers too, as in `wrap(otel.and_then(other))`, if they need the explicit `parent:` of spans.
    /// Add them to the subscriber. The OpenTelemetry layer inherits a session only from the current `Context`. So this
    /// layer makes the parent's `Context` current for a span that sets a session or user, and wrapped layers see this
    /// span as *contextual*.
    ///
    /// ```
    /// # use opentelemetry::trace::TracerProvider;
    /// # use opentelemetry_sdk::trace::SdkTracerProvider;
    /// # use tracing_session::{SessionLayer, SessionTracerProvider};
    /// # use tracing_subscriber::prelude::*;
    /// # let provider = SessionTracerProvider::new(SdkTracerProvider::default());
    /// let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("chat"));
    /// let subscriber = tracing_subscriber::registry().with(SessionLayer::new().wrap(otel));
    /// # drop(subscriber);
    /// ```
    pub fn wrap<L>(self, otel: L) -> WrappedLayer<L> {
        WrappedLayer::new(self.state, otel)
    }

    /// [Wraps](Self::wrap) the OpenTelemetry layer with a filter: spans that are filtered out aren't exported, but
    /// still set the session for their descendants.
    ///
    /// A filtered-out span sets a session only if its level is one that `filter` can enable for some target. With a
    /// filter at `INFO`, an `INFO` span sets the session even if the filter disables its target, and a `DEBUG` span
    /// sets nothing. To raise the level, use [`with_opener_level`](Self::with_opener_level). A filter without a level,
    /// such as a plain `filter_fn`, has no limit.
    ///
    /// No other spans or events become enabled, in any layer.
    /// [`LevelFilter::current`](tracing::level_filters::LevelFilter::current) and `log::max_level()` are the same as
    /// with `otel.with_filter(filter)`, unless you call [`with_opener_level`](Self::with_opener_level).
    ///
    /// You can also add a filter in two other places, but there, spans that are filtered out don't set a session:
    ///
    /// - On the OpenTelemetry layer, as in `wrap(otel.with_filter(filter))`. If another layer enables the span, its
    ///   children still inherit. They get the session that it inherited, or that
    ///   [`set_session_id`](crate::set_session_id) set in it.
    /// - On the result of [`wrap`](Self::wrap). The children of a span that is filtered out inherit the session that is
    ///   current where they are created.
    ///
    /// Cost: about 0.1 µs for each span.
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
    /// let layer = SessionLayer::new().wrap_filtered(otel, LevelFilter::WARN);
    /// let subscriber = tracing_subscriber::registry().with(layer);
    /// # drop(subscriber);
    /// ```
    #[must_use = "a layer does nothing until a subscriber has it: `registry().with(layer)`"]
    pub fn wrap_filtered<S, L, F>(self, otel: L, filter: F) -> impl Layer<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span>,
        L: Layer<S>,
        F: Filter<S> + Send + Sync + 'static,
    {
        filtered::wrap_filtered(self.state, otel, filter)
    }

    fn configure(mut self, change: impl FnOnce(&mut LayerState)) -> Self {
        // The state is shared only with the layers that `wrap` makes, and `wrap` consumes this value.
        if let Some(state) = Arc::get_mut(&mut self.state) {
            change(state);
        }
        self
    }
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
        self.state.on_register_dispatch(dispatch);
    }

    fn on_layer(&mut self, _: &mut S) {
        self.state.on_layer::<S>();
    }

    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        self.state.track_new_span(attrs, id, &ctx);
        self.state.keep_apart(attrs, id, &ctx);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        self.state.record(id, values, &ctx);
        self.state.subscriber.flush_diagnostics();
    }

    fn on_enter(&self, id: &Id, ctx: Context<'_, S>) {
        thread::note_enter(id);
        let future = self.state.adopting_future(id, &ctx);
        self.state.track_enter(id, &ctx, future);
    }

    fn on_exit(&self, id: &Id, _: Context<'_, S>) {
        self.state.track_exit(id);
        self.state.exited(id);
    }

    fn on_close(&self, _: Id, _: Context<'_, S>) {
        self.state.subscriber.flush_diagnostics();
    }

    // SAFETY: the pointers are to `self` and to the state that it owns, so they are valid as long as `self` is.
    #[allow(unsafe_code)]
    unsafe fn downcast_raw(&self, id: TypeId) -> Option<*const ()> {
        self.state.find(id, self)
    }
}
