//! `SessionLayer`: its configuration, and the layer by itself, without an OpenTelemetry layer.

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

/// Finds the spans whose fields set a session or user. All their descendants inherit it.
///
/// Put it [around](Self::wrap) the OpenTelemetry layer. By itself it is a layer too, for people who only log:
/// [`current_session`](crate::current_session) then works, and nothing is exported.
///
/// These spans set a session or user:
///
/// - the spans of [`session!`](crate::session!) and [`user!`](crate::user);
/// - a span of any name with a field `session.id` or `user.id`. You can declare the field
///   [empty](tracing::field::Empty) and record it later;
/// - a span named `session` with a field `id`, such as `info_span!("session", id = "chat-42")`. This name is
///   common, so it is only *implicit*: the `id` never replaces a session that your code set in any other way
///   (with a [`Session`](crate::Session) value, a macro, a field `session.id`, [`set_session_id`](crate::set_session_id), or
///   a name or field that you add here). It does replace the id of another implicit span, an id from headers (also
///   read back) and the [default session](crate::Session::set_global_default). The layer decides when the span is created.
///   If it ignores the span, all its fields stay plain attributes, and a warning names it. If the span has a field
///   `session.id` too, that field wins, and is explicit.
///
/// A span named `user` sets nothing by default: `#[instrument] fn user(id: u64)` is a look-up, not a login.
/// You can add names and fields, drop the defaults, or choose spans
/// [by callsite](Self::with_opener_filter). A span whose fields set a session or user has a
/// [`SessionExtension`] in its extensions, for other layers to read.
///
/// Descendants inherit whatever their parent is: a contextual one, or an explicit `parent: &span`. So does a span
/// that sets a session or user itself: it inherits the values that it doesn't set. With `parent: None` it inherits
/// only the default session.
///
/// Cost: about 15 ns for each span, to check the names of its fields. A span that sets a session or user costs about
/// 60 % more than another span.
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
#[derive(Debug)]
#[must_use = "a layer does nothing until a subscriber has it: `registry().with(SessionLayer::new().wrap(otel))`"]
pub struct SessionLayer {
    pub(crate) state: Arc<LayerState>,
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
            state: Arc::default(),
        }
    }

    /// Adds a name of spans whose field `id` sets the session. Call it once for each name.
    ///
    /// By default this is only so for spans named `session`, and their `id` is *implicit*: it never
    /// replaces a session that your code set in any other way. The `id` of a span whose name you add is as
    /// explicit as a [`Session`](crate::Session) value. So if spans named `session` set your session inside another one, add
    /// that name.
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

    /// Adds a field that sets the session, on spans of any name. Call it once for each field. Default:
    /// `session.id`.
    ///
    /// A field with another name is also exported under its own name.
    ///
    /// ```
    /// # use tracing_session::SessionLayer;
    /// let layer = SessionLayer::new().with_session_field("conversation_id");
    /// ```
    pub fn with_session_field(self, name: impl Into<Cow<'static, str>>) -> Self {
        let name = name.into();
        keys::register(NameOf::Key, &name, IdKind::Session);
        self.configure(|state| state.openers.names.add_field(IdKind::Session, name))
    }

    /// Adds a name of spans whose field `id` sets the user. Call it once for each name. Default: none.
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

    /// Adds a field that sets the user, on spans of any name. Call it once for each field. Default: `user.id`.
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

    /// Drops the default names: only names that you add make a span set a session or user, and the macros
    /// [`session!`](crate::session!) and [`user!`](crate::user).
    ///
    /// ```
    /// # use tracing_session::SessionLayer;
    /// let layer = SessionLayer::new().without_default_names().with_session_field("conversation_id");
    /// ```
    pub fn without_default_names(self) -> Self {
        self.configure(|state| state.openers.names.drop_defaults())
    }

    /// Chooses by callsite which spans may set a session or user: those for which `filter` returns true.
    /// Default: all.
    ///
    /// Use it when a library has spans or fields with the right names and another meaning: a field `session.id` of a
    /// connection, or a span named `session` with a field `id`. Such a span never replaces a session that your code
    /// set, but it replaces a session from headers. The spans of `session!` and `user!` always count.
    ///
    /// The filter is only called for spans that have such names or fields, for each span or once per callsite. So it has
    /// to be cheap and always give the same answer for the same metadata. A second filter replaces the first one.
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

    /// The level up to which [`wrap_filtered`](Self::wrap_filtered) enables spans that set a session or user. Default: its
    /// filter's.
    ///
    /// Such a span sets the session for its descendants although the filter disables it. If you filter at `WARN`, for
    /// example, and your session spans have the level `INFO`, name the level `INFO`.
    ///
    /// Cost: the most verbose level of the subscriber, which is `log::max_level()` too, is at least this one. If it is above
    /// the level of your filters, each disabled span or event in between costs about 2 ns, and up to 1 µs beside a layer
    /// that is `None`.
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

    /// Makes each turn the root of its own trace: each span whose fields set a session id, unless an ancestor span has
    /// set the same id. Default: the span is a child of its parent.
    ///
    /// For applications whose root spans are HTTP server spans, or spans of another process. Phoenix shows the
    /// root spans of a session as its turns, and takes first input and last output from them. The root has a span link
    /// to the span that would have been its parent, and still inherits its session.
    ///
    /// The id has to be known when the span is created. An id that is recorded later, or set with
    /// [`set_session_id`](crate::set_session_id), can't make a span a root any more. A span that is filtered out
    /// starts no trace. The sampler is called for each root. It receives the session, the baggage and the
    /// link, and nothing else of the parent `Context`.
    ///
    /// Cost: about 0.5 µs for each such span.
    ///
    /// ```
    /// # use tracing_session::SessionLayer;
    /// let layer = SessionLayer::new().with_root_turns();
    /// ```
    pub fn with_root_turns(self) -> Self {
        self.configure(|state| state.openers.root_turns = true)
    }

    /// Exports no session spans: they only set the session. Default: they are exported.
    ///
    /// For session spans that last as long as a connection or an actor, such as `info_span!("session", id = "chat-42")` around
    /// all messages of a WebSocket. Exported, such a span would be the parent of the whole conversation, in one trace that
    /// arrives when the connection ends.
    ///
    /// Session spans are the spans of [`session!`](crate::session!), and spans whose *name* makes them set the session. Other spans
    /// are still exported, even if they have a field `session.id`. A session span is in no trace. Each span directly inside
    /// is the root of its own trace, and has a span link to the span that was current when the session span was created.
    /// OpenTelemetry gets no events of a session span. Other layers still receive the span and its events. `tracing` keeps the
    /// parent of a span open until the span closes, so create the span of a connection outside the span of its request.
    ///
    /// Inside a session span there is no OpenTelemetry span, so headers contain no trace, and values that you put into a `Context`
    /// outside aren't current. The span's own [`Context`](tracing_opentelemetry::OpenTelemetrySpanExt::context) has the session
    /// that its fields set, and none that [`set_session_id`](crate::set_session_id) sets later. This needs a
    /// [`SessionTracerProvider`](crate::SessionTracerProvider).
    ///
    /// ```
    /// # use tracing_session::SessionLayer;
    /// let layer = SessionLayer::new().with_unexported_session_spans();
    /// ```
    pub fn with_unexported_session_spans(self) -> Self {
        self.configure(|state| state.openers.unexported_session_spans = true)
    }

    /// Wraps the OpenTelemetry layer. Add the result to the subscriber in place of that layer.
    ///
    /// `otel` may also be wrapped in `Option`, `Box`, a filter, or `reload::Layer`. Its tracer has to come from a
    /// [`SessionTracerProvider`](crate::SessionTracerProvider). Behind `reload::Layer` spans inherit too, but
    /// `tracing` can't reach the current span there, so [`set_session_id`](crate::set_session_id) and its like return
    /// an error. Never reload it to `None` while spans are entered: their session and trace stay current on the thread.
    ///
    /// Layers inside, as in `wrap(otel.and_then(other))`, see the spans that set a session or user as *contextual*,
    /// even if they have an explicit `parent:`. The OpenTelemetry layer inherits a session only from the current
    /// `Context`, so this layer makes the parent's `Context` current and passes contextual attributes on. A
    /// layer that needs the explicit parent belongs beside this one, on the subscriber.
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

    /// [Wraps](Self::wrap) the OpenTelemetry layer, and filters spans and events for it. A span that is filtered out
    /// isn't exported, but it still sets the session for its descendants.
    ///
    /// Spans set a session up to the most verbose level of `filter`: with a filter at `INFO`, a span that the filter
    /// disables because of its target counts, and a span of the level `DEBUG` doesn't.
    /// [`with_opener_level`](Self::with_opener_level) raises this level. A filter without a level, such as a plain `filter_fn`,
    /// has no limit.
    ///
    /// This filter enables nothing else that would be disabled otherwise, beside any other layer. So
    /// [`LevelFilter::current`](tracing::level_filters::LevelFilter::current) and `log::max_level()` are those of
    /// `otel.with_filter(filter)`.
    ///
    /// If you put the filter on the OpenTelemetry layer itself, spans that it filters out can't set a session. In both cases
    /// such a span is transparent: if it exists for another layer, its children inherit the session that it inherited when it
    /// was created, or that [`set_session_id`](crate::set_session_id) set in it. If you put the filter on the result of
    /// [`wrap`](Self::wrap), its children inherit the session that is current where they are created.
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
        // It is state only when it is made into another layer, which consumes this one.
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
