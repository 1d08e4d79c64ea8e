//! Requests and answers of `tower` services carry the session: axum, tonic, hyper.
//!
//! [`server`] puts what came in with a request in force, and [`client`] writes what is in force into
//! a request. Both go by OpenTelemetry's global propagator, which does nothing until it is set: see
//! [`inject_context`](crate::inject_context).

use crate::propagation::extract_accepted;
use crate::propagation::hosts::{AllowedHosts, inject_for_host};
use crate::propagation::propagator::InboundPolicy;
use http::request::Parts;
use http::uri::Authority;
use http::{Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use opentelemetry::Context;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, ready};
use tower_layer::Layer;
use tower_service::Service;

/// Layer for a server: what the headers of a request say is in force while it is answered.
///
/// That is while the service runs, and while the body of the request and that of the answer are
/// read: an answer that is streamed stays in the session to its end. What the service spawns
/// takes the session along as any other task does, with
/// [`in_session`](crate::InSession::in_session) or a span.
///
/// It makes no span. Put it outside what makes one for the request, or that span is not in the
/// session; and inside what says whose request it is, if a [policy](ServerLayer::with_inbound) asks
/// for that. In axum the layer that is given last is the outermost.
///
/// The service gets the body of the request in a [`ServerBody`]. One that takes a body of one type
/// only, as axum's `from_fn` does, is given to the `Router` by a `layer(..)` of its own.
///
/// ```
/// use axum::Router;
/// use axum::routing::post;
///
/// # async fn chat() {}
/// let app: Router = Router::new()
///     .route("/api", post(chat))
///     .layer(tracing_session::tower::server());
/// ```
pub fn server() -> ServerLayer {
    ServerLayer {
        inbound: InboundPolicy::accept(),
    }
}

/// See [`server`].
///
/// ```
/// use tracing_session::tower::{ServerLayer, server};
///
/// let layer: ServerLayer = server();
/// ```
#[derive(Clone, Debug)]
pub struct ServerLayer {
    inbound: InboundPolicy<Parts>,
}

impl ServerLayer {
    /// A session that comes in with a request is taken under this policy. Default:
    /// [`InboundPolicy::accept`].
    ///
    /// Where it is refused, what is in force outside stays in force, and the trace goes on as it
    /// came in. The policy of a [`SessionPropagator`](crate::SessionPropagator) is asked first.
    ///
    /// ```
    /// use http::request::Parts;
    /// use tracing_session::InboundPolicy;
    ///
    /// # #[derive(Clone)] struct User;
    /// # impl User { fn owns(&self, id: &str) -> bool { true } }
    /// // What the layer outside has found out about the request.
    /// fn owns(request: &Parts, id: &str) -> bool {
    ///     request.extensions.get::<User>().is_some_and(|user| user.owns(id))
    /// }
    ///
    /// let layer = tracing_session::tower::server()
    ///     .with_inbound(InboundPolicy::verify(|id, request| owns(request, id)));
    /// ```
    pub fn with_inbound(self, inbound: InboundPolicy<Parts>) -> Self {
        Self { inbound }
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = Server<S>;

    fn layer(&self, inner: S) -> Server<S> {
        Server {
            inner,
            inbound: self.inbound.clone(),
        }
    }
}

/// A service of which each request is answered in the session that came in with it: see [`server`].
///
/// Cost: that of the propagator, and a `Context` that is attached for each poll.
///
/// ```
/// use tower_layer::Layer;
/// use tracing_session::tower::{Server, server};
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
        let session = extract_accepted(&parts.headers, |scope| {
            self.inbound.accepts(scope.to_session().id(), &parts)
        });
        let body = ServerBody {
            inner,
            session: session.clone(),
        };
        let _attached = session.clone().attach();
        ServerFuture {
            inner: self.inner.call(Request::from_parts(parts, body)),
            session,
        }
    }
}

pin_project! {
    /// The future of a [`Server`].
    ///
    /// ```
    /// use http::Request;
    /// use tower_service::Service;
    /// use tracing_session::tower::{Server, ServerBody, ServerFuture};
    ///
    /// fn answer<S, B, A>(server: &mut Server<S>, request: Request<B>) -> ServerFuture<S::Future>
    /// where
    ///     S: Service<Request<ServerBody<B>>, Response = http::Response<A>>,
    /// {
    ///     server.call(request)
    /// }
    /// ```
    #[derive(Debug)]
    #[must_use = "futures do nothing unless they are polled"]
    pub struct ServerFuture<F> {
        #[pin]
        inner: F,
        session: Context,
    }
}

impl<F, A, E> Future for ServerFuture<F>
where
    F: Future<Output = Result<Response<A>, E>>,
{
    type Output = Result<Response<ServerBody<A>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _attached = this.session.clone().attach();
        let response = ready!(this.inner.poll(cx))?;
        let session = this.session.clone();
        Poll::Ready(Ok(response.map(|inner| ServerBody { inner, session })))
    }
}

pin_project! {
    /// The body of a request or an answer of a [`Server`]: the session is in force whenever it is
    /// polled.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tracing_session::tower::ServerBody;
    ///
    /// async fn handle<B>(request: Request<ServerBody<B>>) -> Response<String> {
    ///     Response::default()
    /// }
    /// ```
    #[derive(Debug)]
    pub struct ServerBody<B> {
        #[pin]
        inner: B,
        session: Context,
    }
}

impl<B: Body> Body for ServerBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let _attached = this.session.clone().attach();
        this.inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Layer for a client: what is in force is written into the headers of each request, that is the
/// trace, the session, and what else the global propagator carries.
///
/// What is in force is asked when the service is called. Headers of the propagator that are on the
/// request already are overwritten.
///
/// ```
/// use hyper_util::client::legacy::Client;
/// use hyper_util::rt::TokioExecutor;
/// use tower::ServiceBuilder;
///
/// let http_client = Client::builder(TokioExecutor::new()).build_http::<String>();
/// let client = ServiceBuilder::new().layer(tracing_session::tower::client()).service(http_client);
/// # drop(client);
/// ```
pub fn client() -> ClientLayer {
    ClientLayer {
        hosts: AllowedHosts::default(),
    }
}

/// See [`client`].
///
/// ```
/// use tracing_session::tower::{ClientLayer, client};
///
/// let layer: ClientLayer = client();
/// ```
#[derive(Clone, Debug)]
pub struct ClientLayer {
    hosts: AllowedHosts,
}

impl ClientLayer {
    /// Only these hosts get the session and the user. Default: all.
    ///
    /// `agents.internal` is that host, and `.agents.internal` also every host below it. Case and
    /// port make no difference. Others get the trace and the other baggage. A header that the
    /// application put on the request itself is left to it.
    ///
    /// The host is that of the request's URI, or else of its header `Host`. A request that names
    /// none gets no session. That is so for those of tonic, unless the client is told its origin:
    /// `HealthClient::with_origin(channel, "http://agents.internal".parse()?)`.
    ///
    /// What follows redirects belongs outside this layer, so that each request is asked for its own
    /// host.
    ///
    /// ```
    /// let layer = tracing_session::tower::client().only_to(["agents.internal", ".corp.internal"]);
    /// ```
    pub fn only_to<H>(self, hosts: impl IntoIterator<Item = H>) -> Self
    where
        H: Into<String>,
    {
        Self {
            hosts: AllowedHosts::only(hosts),
        }
    }
}

impl<S> Layer<S> for ClientLayer {
    type Service = Client<S>;

    fn layer(&self, inner: S) -> Client<S> {
        Client {
            inner,
            hosts: self.hosts.clone(),
        }
    }
}

/// A service whose requests carry what is in force where it is called: see [`client`].
///
/// Cost: that of the propagator.
///
/// ```
/// use tower_layer::Layer;
/// use tracing_session::tower::{Client, client};
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
