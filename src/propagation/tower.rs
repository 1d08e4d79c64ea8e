//! Layers for `tower` services, such as those of axum, tonic and hyper.
//!
//! [`server`] extracts the session from each request, and [`client`] injects the current session into each request.
//! Both use OpenTelemetry's global propagator, which does nothing until you set it: see
//! [`inject_context`](crate::propagation::inject_context).

use crate::current::WithSession;
use crate::propagation::clients::{AllowedHosts, inject_for_host};
use crate::propagation::functions::extract_accepted;
use crate::propagation::headers::InboundPolicy;
use crate::scope::{Scope, thread};
use http::request::Parts;
use http::uri::Authority;
use http::{Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// Creates a layer for servers, which makes the session in a request's headers current while the service handles the request.
///
/// The session is current while the service runs, and while the bodies of the request and the response are polled or dropped.
/// So a streamed response is in the session until its end. Tasks that the service spawns need
/// [`in_session`](crate::InSession::in_session) or a span, like any other task.
///
/// The layer creates no span. Add it outside the layer that creates the request's span, so that this span is in the session.
/// If a [policy](ServerLayer::with_inbound) needs the authenticated user, add this layer inside the layer that authenticates.
/// In axum, the layer that you add last is the outermost.
///
/// The service receives the request's body as a [`ServerBody`]. If an inner layer accepts only one type of body, such as
/// axum's `from_fn`, add that layer to the `Router` in a separate call of `layer(..)`.
///
/// ```
/// use axum::Router;
/// use axum::routing::post;
///
/// # async fn chat() {}
/// let app: Router = Router::new()
///     .route("/api", post(chat))
///     .layer(tracing_session::propagation::tower::server());
/// ```
pub fn server() -> ServerLayer {
    let inbound = InboundPolicy::accept();
    ServerLayer { inbound }
}

/// The layer that [`server`] creates.
///
/// ```
/// use tracing_session::propagation::tower::{ServerLayer, server};
///
/// let layer: ServerLayer = server();
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a service has it: `.layer(tower::server())`"]
pub struct ServerLayer {
    inbound: InboundPolicy<Parts>,
}

impl ServerLayer {
    /// Sets the policy that accepts or refuses the session of a request. Default: [`InboundPolicy::accept`].
    ///
    /// If the policy refuses a session, the outer session stays current, and the request still continues its trace. The
    /// policy of a [`SessionPropagator`](crate::SessionPropagator) decides first.
    ///
    /// ```
    /// use http::request::Parts;
    /// use tracing_session::propagation::InboundPolicy;
    ///
    /// # #[derive(Clone)] struct User;
    /// # impl User { fn owns(&self, id: &str) -> bool { true } }
    /// // An outer layer has added the authenticated user to the extensions.
    /// fn owns(request: &Parts, id: &str) -> bool {
    ///     request.extensions.get::<User>().is_some_and(|user| user.owns(id))
    /// }
    ///
    /// let layer = tracing_session::propagation::tower::server()
    ///     .with_inbound(InboundPolicy::verify(|id, request| owns(request, id)));
    /// ```
    pub fn with_inbound(self, inbound: InboundPolicy<Parts>) -> Self {
        Self { inbound }
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = Server<S>;

    fn layer(&self, inner: S) -> Server<S> {
        let inbound = self.inbound.clone();
        Server { inner, inbound }
    }
}

/// The service that a [`ServerLayer`] creates: it handles each request in the request's session.
///
/// Cost: one call of the global propagator per request, and one attached `Context` per poll.
///
/// ```
/// use tower_layer::Layer;
/// use tracing_session::propagation::tower::{Server, server};
///
/// fn serve<S>(service: S) -> Server<S> {
///     server().layer(service)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Server<S> {
    inner: S,
    inbound: InboundPolicy<Parts>,
}

impl<S, B, A> Service<Request<B>> for Server<S>
where
    S: Service<Request<ServerBody<B>>, Response = Response<A>>,
{
    type Response = Response<ServerBody<A>>;
    type Error = S::Error;
    type Future = ServerFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (parts, inner) = request.into_parts();
        let is_accepted = |scope: &Scope| self.inbound.accepts(scope.to_session().id(), &parts);
        let cx = extract_accepted(&parts.headers, is_accepted);
        let body = ServerBody {
            inner: WithSession::in_context(inner, &cx),
        };
        let attached = thread::attach(cx.clone());
        let inner = self.inner.call(Request::from_parts(parts, body));
        drop(attached);
        ServerFuture {
            inner: WithSession::in_context(inner, &cx),
        }
    }
}

pin_project! {
    /// The future of a [`Server`].
    ///
    /// ```
    /// use http::Request;
    /// use tower_service::Service;
    /// use tracing_session::propagation::tower::{Server, ServerBody, ServerFuture};
    ///
    /// fn answer<S, B, A>(server: &mut Server<S>, request: Request<B>) -> ServerFuture<S::Future>
    /// where
    ///     S: Service<Request<ServerBody<B>>, Response = http::Response<A>>,
    /// {
    ///     server.call(request)
    /// }
    /// ```
    #[derive(Debug)]
    #[must_use = "futures do nothing unless you `.await` or poll them"]
    pub struct ServerFuture<F> {
        #[pin]
        inner: WithSession<F>,
    }
}

impl<F, A, E> Future for ServerFuture<F>
where
    F: Future<Output = Result<Response<A>, E>>,
{
    type Output = Result<Response<ServerBody<A>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let mut inner = self.project().inner;
        let response = ready!(inner.as_mut().poll(cx))?;
        Poll::Ready(Ok(response.map(|body| ServerBody {
            inner: inner.with(body),
        })))
    }
}

pin_project! {
    /// The body of a request or response of a [`Server`]. The session is current while the body is polled or dropped.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tracing_session::propagation::tower::ServerBody;
    ///
    /// async fn handle<B>(request: Request<ServerBody<B>>) -> Response<String> {
    ///     Response::default()
    /// }
    /// ```
    #[derive(Debug)]
    pub struct ServerBody<B> {
        #[pin]
        inner: WithSession<B>,
    }
}

impl<B: Body> Body for ServerBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let frame = self.project().inner.poll_with(|body| body.poll_frame(cx));
        frame.unwrap_or(Poll::Ready(None))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.inner().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.inner().map(B::size_hint).unwrap_or_default()
    }
}

/// Creates a layer for clients, which injects the current context into the headers of each request.
///
/// The context contains the trace, the session, and everything else that the global propagator carries. The layer injects it
/// when the service is called, and replaces headers with the same names.
///
/// ```
/// use hyper_util::client::legacy::Client;
/// use hyper_util::rt::TokioExecutor;
/// use tower::ServiceBuilder;
///
/// let http_client = Client::builder(TokioExecutor::new()).build_http::<String>();
/// let client = ServiceBuilder::new().layer(tracing_session::propagation::tower::client()).service(http_client);
/// # drop(client);
/// ```
pub fn client() -> ClientLayer {
    let hosts = AllowedHosts::default();
    ClientLayer { hosts }
}

/// The layer that [`client`] creates.
///
/// ```
/// use tracing_session::propagation::tower::{ClientLayer, client};
///
/// let layer: ClientLayer = client();
/// ```
#[derive(Clone, Debug)]
#[must_use = "a layer does nothing until a service has it: `.layer(tower::client())`"]
pub struct ClientLayer {
    hosts: AllowedHosts,
}

impl ClientLayer {
    /// Sends the session and the user to these hosts only. Default: to all hosts.
    ///
    /// `agents.internal` matches that host, and `.agents.internal` also matches its subdomains. Matching ignores case and
    /// ports. Requests to other hosts carry the trace and the other baggage. The layer doesn't remove headers that you set on
    /// the request yourself.
    ///
    /// The layer reads the host from the request's URI, or else from its header `Host`. A request without a host gets no
    /// session. Requests of tonic have no host, unless you set the client's origin: `HealthClient::with_origin(channel,
    /// "http://agents.internal".parse()?)`.
    ///
    /// Add a layer that follows redirects outside this layer, so that this layer checks the host of each request.
    ///
    /// ```
    /// let layer = tracing_session::propagation::tower::client().only_to(["agents.internal", ".corp.internal"]);
    /// ```
    pub fn only_to<H>(self, hosts: impl IntoIterator<Item = H>) -> Self
    where
        H: Into<String>,
    {
        let hosts = AllowedHosts::only(hosts);
        Self { hosts }
    }
}

impl<S> Layer<S> for ClientLayer {
    type Service = Client<S>;

    fn layer(&self, inner: S) -> Client<S> {
        let hosts = self.hosts.clone();
        Client { inner, hosts }
    }
}

/// The service that a [`ClientLayer`] creates: it injects the current context into each request.
///
/// Cost: one call of the global propagator per request.
///
/// ```
/// use tower_layer::Layer;
/// use tracing_session::propagation::tower::{Client, client};
///
/// fn carrying<S>(http_client: S) -> Client<S> {
///     client().layer(http_client)
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Client<S> {
    inner: S,
    hosts: AllowedHosts,
}

impl<S, B> Service<Request<B>> for Client<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let is_allowed = self.hosts.allow(|| host(&request));
        inject_for_host(request.headers_mut(), is_allowed);
        self.inner.call(request)
    }
}

/// The host in the URI, or else in the header `Host`.
fn host<B>(request: &Request<B>) -> Option<String> {
    if let Some(host) = request.uri().host() {
        return Some(host.to_owned());
    }
    let host = request.headers().get(header::HOST)?;
    let host = Authority::try_from(host.as_bytes()).ok()?;
    Some(host.host().to_owned())
}
