//! An agent, which calls a tool of an MCP server in each turn of its conversations.

use crate::process::Outcome;
use crate::server;
use rmcp::model::{
    CallToolRequestParams, JsonObject, NotificationMetaObject, ProgressNotificationParam,
};
use rmcp::service::{NotificationContext, RunningService};
use rmcp::transport::{StreamableHttpClientTransport, TokioChildProcess};
use rmcp::{ClientHandler, RoleClient, ServiceExt};
use tokio::process::Command;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tracing::instrument;
use tracing_session::InSession;
use tracing_session::propagation::{WithPropagated, inject_context};

type Connection = RunningService<RoleClient, Agent>;

/// Where the server is.
pub(crate) enum Address {
    /// At the other end of a pipe, in this runtime.
    Pipe(Handle),
    /// At the other end of standard input and output of a child process.
    Command([String; 2]),
    Http(String),
}

/// The first turn that needs the connection opens it, and all conversations use it.
pub(crate) struct Client {
    address: Address,
    connection: OnceCell<Connection>,
}

impl Client {
    pub(crate) fn new(address: Address) -> Self {
        Self {
            address,
            connection: OnceCell::new(),
        }
    }

    /// Calls the tool, with the current trace and session in `_meta`.
    #[instrument(skip(self))]
    pub(crate) async fn call_tool(&self, order: &str) -> Outcome<String> {
        // Detached, because `serve` starts tasks in the current span. They would be in this turn's session and trace until
        // the connection is closed.
        let connection = (self.connection)
            .get_or_try_init(|| self.connect().detached())
            .await?;
        let arguments = JsonObject::from_iter([("order".to_owned(), order.into())]);
        let mut call = CallToolRequestParams::new("track").with_arguments(arguments);
        let meta: &mut JsonObject = call.meta.get_or_insert_default();
        inject_context(meta);
        let result = connection.call_tool(call).await?;
        let text = result.content.first().and_then(|it| it.as_text());
        Ok(text.map(|it| it.text.clone()).unwrap_or_default())
    }

    async fn connect(&self) -> Outcome<Connection> {
        Ok(match &self.address {
            Address::Pipe(runtime) => {
                let (pipe, other_end) = tokio::io::duplex(4096);
                runtime.spawn(server::serve_pipe(other_end));
                Agent.serve(pipe).await?
            }
            Address::Command([program, script]) => {
                let mut command = Command::new(program);
                command.arg(script);
                Agent.serve(TokioChildProcess::new(command)?).await?
            }
            Address::Http(url) => {
                let transport = StreamableHttpClientTransport::from_uri(url.as_str());
                Agent.serve(transport).await?
            }
        })
    }

    pub(crate) async fn close(self) -> Outcome {
        if let Some(connection) = self.connection.into_inner() {
            connection.cancel().await?;
        }
        Ok(())
    }
}

struct Agent;

impl ClientHandler for Agent {
    /// The server injects its context into notifications too. Without it, this runs in no session: a task of the
    /// connection calls it.
    async fn on_progress(
        &self,
        progress: ProgressNotificationParam,
        context: NotificationContext<RoleClient>,
    ) {
        let order = progress.message.unwrap_or_default();
        // `context.meta` is empty in `rmcp` 3.11, although the notification has `_meta`.
        let meta: Option<&NotificationMetaObject> = context.extensions.get();
        let meta = meta.cloned().unwrap_or_default();
        show_progress(&order).with_propagated(&meta.0.0).await;
    }
}

#[instrument]
async fn show_progress(order: &str) {}
