//! poem: a middleware continues the session and the trace of the caller. poem's headers are those of `http` 1, which carry sessions
//! with the feature `http` of `tracing-session`.

use crate::Outcome;
use crate::report::Trace;
use poem::listener::TcpAcceptor;
use poem::{Endpoint, EndpointExt, IntoEndpoint, Request, Route, Server, handler, post};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tracing::instrument;
use tracing_session::propagation::{WithPropagated, inject_context};
use tracing_session::{InSession, Session};

/// A streamed body is polled after this future: put `in_session` around its stream too.
async fn continue_session<E: Endpoint>(next: Arc<E>, request: Request) -> poem::Result<E::Output> {
    let headers = request.headers().clone();
    next.call(request).with_propagated(&headers).await
}

#[handler]
async fn chat(question: String) -> String {
    answer(&question).await
}

#[instrument(skip_all)]
async fn answer(_question: &str) -> String {
    "Sunny.".to_owned()
}

/// The caller.
#[instrument(skip_all)]
async fn ask(url: &str) -> Outcome<String> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut request = client.post(url).body("What is the weather?").build()?;
    inject_context(request.headers_mut());
    let response = client.execute(request).await?;
    Ok(response.error_for_status()?.text().await?)
}

pub(crate) const SPANS: &[Trace] = &[
    &["ask session.id=chat-1", "answer session.id=chat-1"],
    &["ask", "answer"],
];

pub(crate) async fn run() -> Outcome {
    let app = Route::new()
        .at("/chat", post(chat))
        .around(continue_session);
    let (url, server) = serve(app).await?;
    let url = format!("{url}/chat");
    ask(&url).in_session(Session::new("chat-1")?).await?;
    ask(&url).await?;
    server.abort();
    Ok(())
}

/// Serves on a free port: the URL, and the task.
pub(crate) async fn serve<E>(app: E) -> Outcome<(String, JoinHandle<std::io::Result<()>>)>
where
    E: IntoEndpoint<Endpoint: 'static> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let server = Server::new_with_acceptor(TcpAcceptor::from_tokio(listener)?);
    Ok((url, tokio::spawn(server.run(app))))
}
