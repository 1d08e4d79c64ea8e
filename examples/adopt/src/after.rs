//! A support bot: `before.rs` before it adopts `tracing-session`, and `after.rs` afterwards. The guide has the diff.

mod demo;
mod queries;
mod spans;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use rig::message::Message;
use rig::providers::openai::OpenAIConfig;
use rig::tool::{Tool, ToolContext};
use rig::{Agent, AgentBuilder};
use rusqlite::Connection;
use serde::Deserialize;
use serde_json::{Value, json};
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio::task;
use tokio_util::task::TaskTracker;
use tower_http::trace::TraceLayer;
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, Span, error, info_span, instrument};
use tracing_session::{SessionLayer, SessionTracerProvider, mark_trace};
use tracing_subscriber::{fmt, prelude::*};

type BoxError = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A real bot exports over OTLP.
    let exporter = InMemorySpanExporter::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let provider = SessionTracerProvider::new(provider).with_coverage();
    let otel = tracing_opentelemetry::layer().with_tracer(provider.tracer("support-bot"));
    let otel = SessionLayer::new()
        .with_session_field("conversation_id")
        .with_user_field("user_id")
        .wrap(otel);
    tracing_subscriber::registry()
        .with(otel)
        .with(fmt::layer().with_filter(LevelFilter::WARN))
        .with(LevelFilter::INFO)
        .init();

    let bot = Bot::new(&demo::serve_model().await?)?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let customers = demo::hold_conversations(listener.local_addr()?);
    axum::serve(listener, routes(bot.clone()))
        .with_graceful_shutdown(customers)
        .await?;
    bot.tasks.close();
    bot.tasks.wait().await;

    provider.force_flush()?;
    let coverage = provider.coverage();
    println!("{coverage}");
    if coverage.ratio() < 0.95 {
        return Err("more than 5 % of the spans are in no session".into());
    }
    spans::check(&exporter.get_finished_spans()?)
}

fn routes(bot: Bot) -> Router {
    let trace = TraceLayer::new_for_http().make_span_with(|request: &Request| {
        info_span!("request", method = %request.method(), path = request.uri().path())
    });
    Router::new()
        .route("/conversations/{id}", post(answer).get(history))
        .route("/health", get(StatusCode::OK))
        .layer(trace)
        .with_state(bot)
}

/// Answers a message of a customer.
#[instrument(skip_all, fields(conversation_id = id, user_id))]
async fn answer(
    State(bot): State<Bot>,
    Path(id): Path<String>,
    headers: HeaderMap,
    question: String,
) -> Result<String, AppError> {
    let user = bot.authenticate(&headers).await?;
    Span::current().record("user_id", &user);
    mark_trace().ok();
    bot.moderate(&question).await?;
    let history = bot.database.history(id.clone()).await?;
    let run = bot.agent.prompt(&question).history(history).max_turns(3);
    let answer = run.await?.to_string();
    let messages = [Message::user(question), Message::assistant(&answer)];
    let insert = bot.database.query(move |db| {
        let mut messages = messages.iter();
        messages.try_for_each(|message| queries::insert_message(db, &id, message))
    });
    insert.await?;
    // The customer doesn't wait for the audit.
    bot.tasks.spawn(audit(bot.database, user).in_current_span());
    Ok(answer)
}

#[instrument(skip_all, fields(conversation_id = id, user_id))]
async fn history(
    State(bot): State<Bot>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Vec<Message>>, AppError> {
    let user = bot.authenticate(&headers).await?;
    Span::current().record("user_id", &user);
    mark_trace().ok();
    Ok(Json(bot.database.history(id).await?))
}

#[instrument(skip_all)]
async fn audit(database: Database, user: String) {
    let insert = database.query(move |db| queries::insert_audit(db, &user));
    if let Err(error) = insert.await {
        error!(%error, "an audit row is missing");
    }
}

#[derive(Clone)]
struct Bot {
    database: Database,
    http: reqwest::Client,
    model: String,
    agent: Agent,
    tasks: TaskTracker,
}

impl Bot {
    fn new(model: &str) -> Result<Self, BoxError> {
        let database = Database(Arc::new(Mutex::new(queries::open()?)));
        let openai = OpenAIConfig::new("key").with_base_url(model).client();
        let agent = AgentBuilder::new(openai.chat("gpt-4o-mini"))
            .preamble("You help customers with their orders.")
            .tool(FindOrder(database.clone()))
            .build();
        Ok(Self {
            database,
            http: reqwest::Client::new(),
            model: model.to_owned(),
            agent,
            tasks: TaskTracker::new(),
        })
    }

    #[instrument(skip_all)]
    async fn authenticate(&self, headers: &HeaderMap) -> Result<String, AppError> {
        let token = headers.get(header::AUTHORIZATION);
        let token = token.and_then(|token| token.to_str().ok());
        let token = token.ok_or(AppError(StatusCode::UNAUTHORIZED))?.to_owned();
        let user = self
            .database
            .query(move |db| queries::select_user(db, &token));
        user.await?.ok_or(AppError(StatusCode::UNAUTHORIZED))
    }

    #[instrument(skip_all)]
    async fn moderate(&self, text: &str) -> Result<(), AppError> {
        let url = format!("{}/moderations", self.model);
        let request = self.http.post(url).json(&json!({ "input": text }));
        let verdict: Value = request.send().await?.error_for_status()?.json().await?;
        match verdict["results"][0]["flagged"].as_bool() {
            Some(false) => Ok(()),
            _ => Err(AppError(StatusCode::UNPROCESSABLE_ENTITY)),
        }
    }
}

#[derive(Clone)]
struct Database(Arc<Mutex<Connection>>);

impl Database {
    /// Runs a query on a thread for blocking work.
    async fn query<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> rusqlite::Result<T> {
        let connection = self.0.clone();
        let span = Span::current();
        let run = move || {
            let _entered = span.enter();
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            query(&connection)
        };
        let result = task::spawn_blocking(run).await;
        result.expect("a query panicked")
    }

    async fn history(&self, id: String) -> rusqlite::Result<Vec<Message>> {
        self.query(move |db| queries::select_messages(db, &id))
            .await
    }
}

/// The agent's tool.
struct FindOrder(Database);

#[derive(Deserialize)]
struct Order {
    number: i64,
}

impl Tool for FindOrder {
    const NAME: &'static str = "find_order";
    type Args = Order;
    type Output = String;
    type Error = rusqlite::Error;

    fn description(&self) -> String {
        "Where an order is".to_owned()
    }

    fn parameters(&self) -> Value {
        json!({ "type": "object", "properties": { "number": { "type": "integer" } } })
    }

    async fn call(&self, _: &mut ToolContext, order: Order) -> rusqlite::Result<String> {
        let select = (self.0).query(move |db| queries::select_order(db, order.number));
        Ok(select.await?.unwrap_or_else(|| "unknown".to_owned()))
    }
}

struct AppError(StatusCode);

impl IntoResponse for AppError {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

impl<E: Into<BoxError>> From<E> for AppError {
    fn from(error: E) -> Self {
        error!(error = error.into(), "a request failed");
        Self(StatusCode::INTERNAL_SERVER_ERROR)
    }
}
