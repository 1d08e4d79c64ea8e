//! actix-web: a middleware continues the session and the trace of the caller.
//!
//! actix-web has its own `HeaderMap`, with the names and values of `http` 0.2. So `Headers` adapts the map. It works in
//! both directions: a handler that calls another service passes it to `inject_context`.

use crate::Outcome;
use crate::report::Trace;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, Error, HttpServer, web};
use std::net::TcpListener;
use std::sync::Arc;
use tokio::sync::Barrier;
use tracing::instrument;
use tracing_session::Session;
use tracing_session::propagation::{Carrier, WithPropagated, inject_context};

struct Headers(HeaderMap);

impl Carrier for Headers {
    fn set(&mut self, name: &str, value: String) {
        let name = HeaderName::try_from(name);
        if let (Ok(name), Ok(mut value)) = (name, HeaderValue::try_from(value)) {
            // `Debug` doesn't print the id.
            value.set_sensitive(true);
            self.0.insert(name, value);
        }
    }

    fn get_all(&self, name: &str) -> Vec<&str> {
        let values = self.0.get_all(name);
        values
            .filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
            .collect()
    }

    fn names(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

/// A streamed body is polled after this future: put `in_session` around its stream too.
async fn continue_session(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let headers = Headers(request.headers().clone());
    next.call(request).with_propagated(&headers).await
}

#[instrument(skip_all)]
async fn chat(all_are_here: web::Data<Barrier>, question: String) -> String {
    all_are_here.wait().await;
    answer(&question).await
}

#[instrument(skip_all)]
async fn answer(_question: &str) -> String {
    "Sunny.".to_owned()
}

pub(crate) const SPANS: &[Trace] = &[
    &["chat session.id=chat-1", "answer session.id=chat-1"],
    &["chat session.id=chat-2", "answer session.id=chat-2"],
    &["chat", "answer"],
];

/// Three requests at once on one thread: none is answered before all have arrived.
pub(crate) async fn run() -> Outcome {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let url = format!("http://{}/chat", listener.local_addr()?);
    let all_are_here = web::Data::from(Arc::new(Barrier::new(3)));
    let app = move || {
        App::new()
            .wrap(from_fn(continue_session))
            .app_data(all_are_here.clone())
            .route("/chat", web::post().to(chat))
    };
    let server = HttpServer::new(app).workers(1).listen(listener)?.run();
    let handle = server.handle();
    let server = tokio::spawn(server);

    tokio::try_join!(
        ask(&url, Session::new("chat-1")?),
        ask(&url, Session::new("chat-2")?),
        ask(&url, Session::nothing())
    )?;
    handle.stop(true).await;
    Ok(server.await??)
}

async fn ask(url: &str, session: Session) -> Outcome<String> {
    let mut headers = Headers(HeaderMap::new());
    session.in_scope(|| inject_context(&mut headers));
    let mut request = reqwest::Client::builder().no_proxy().build()?.post(url);
    for (name, value) in headers.0.iter() {
        request = request.header(name.as_str(), value.as_bytes());
    }
    let response = request.body("What is the weather?").send().await?;
    Ok(response.error_for_status()?.text().await?)
}
