//! An agent, which calls a tool of an MCP server in each turn of its conversations.

use crate::process::Outcome;
use crate::server;
use rmcp::model::{CallToolRequestParams, JsonObject, NotificationMetaObject, ProgressNotificationParam};
use rmcp::service::{NotificationContext, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientHandler, RoleClient, ServiceExt};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tracing::instrument;
use tracing_session::InSession;
use tracing_session::propagation::{WithPropagated, inject_context};

type Connection = RunningService<RoleClient, Agent>;

/// Where the server is.
pub(crate) enum Address {
    /// At the other end of a pipe, in this runtime. Usually it is a child process.
    Pipe(Handle),
    Http(String),
}

/// Opened by the first turn that needs it, and used by all conversations.
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

    /// Calls the tool. The current trace and session go along in `_meta`.
    #[instrument(skip(self))]
    pub(crate) async fn call_tool(&self, order: &str) -> Outcome {
        // Detached, or the connection's tasks would be in the session and the trace of this turn for as long as they run.
        let connection = (self.connection)
            .get_or_try_init(|| self.connect().detached())
            .await?;
        let arguments = JsonObject::from_iter([("order".to_owned(), order.into())]);
        let mut call = CallToolRequestParams::new("track").with_arguments(arguments);
        let meta: &mut JsonObject = call.meta.get_or_insert_default();
        inject_context(meta);
        connection.call_tool(call).await?;
        Ok(())
    }

    async fn connect(&self) -> Outcome<Connection> {
        Ok(match &self.address {
            Address::Pipe(runtime) => {
                let (pipe, other_end) = tokio::io::duplex(4096);
                runtime.spawn(server::serve_pipe(other_end));
                Agent.serve(pipe).await?
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
    /// The server sends its context along too: this runs in a task of the connection.
    async fn on_progress(
        &self,
        progress: ProgressNotificationParam,
        context: NotificationContext<RoleClient>,
    ) {
        let order = progress.message.unwrap_or_default();
        // `context.meta` should have it, but is empty in `rmcp` 3.11.
        if let Some(NotificationMetaObject(meta)) = context.extensions.get() {
            show_progress(&order).with_propagated(&meta.0).await;
        }
    }
}

#[instrument]
async fn show_progress(order: &str) {}
