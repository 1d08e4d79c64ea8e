//! An MCP server. Each call of a tool runs in the trace and the session of the caller.

use crate::process::Outcome;
use axum::Router;
use rmcp::handler::server::tool::{ToolCallContext, ToolRouter};
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolRequestParams, CallToolResponse, JsonObject, ProgressNotificationParam};
use rmcp::schemars::{self, JsonSchema};
use rmcp::service::RequestContext;
use rmcp::transport::StreamableHttpServerConfig;
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::{ErrorData, RoleServer, ServerHandler, ServiceExt, tool, tool_handler, tool_router};
use serde::Deserialize;
use std::net::TcpListener;
use std::sync::Arc;
use tokio::io::DuplexStream;
use tracing::instrument;
use tracing_session::propagation::{WithPropagated, inject_context};

#[derive(Clone)]
struct Parcels {
    tools: ToolRouter<Self>,
}

#[tool_handler(router = self.tools)]
impl ServerHandler for Parcels {
    /// Runs each tool in the context of the client, which is in `_meta`. Without `with_propagated`, `#[tool_handler]` generates the
    /// same method.
    ///
    /// A layer of `tower` around the HTTP service can't do this, because `rmcp` runs the tools in tasks of the connection.
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let meta: JsonObject = context.meta.0.0.clone();
        let call = ToolCallContext::new(self, request, context);
        self.tools.call(call).with_propagated(&meta).await
    }
}

#[derive(Deserialize, JsonSchema)]
struct Order {
    order: String,
}

#[tool_router]
impl Parcels {
    fn new() -> Self {
        Self {
            tools: Self::tool_router(),
        }
    }

    #[tool(description = "Where an order is")]
    #[instrument(skip_all, fields(order = order.order))]
    async fn track(
        &self,
        Parameters(order): Parameters<Order>,
        context: RequestContext<RoleServer>,
    ) -> String {
        report_progress(&context, &order.order).await;
        find_van(&order.order).await
    }
}

/// The other direction: a notification carries the context to the client.
async fn report_progress(context: &RequestContext<RoleServer>, order: &str) {
    let Some(token) = context.meta.get_progress_token() else {
        return;
    };
    let mut progress = ProgressNotificationParam::new(token, 0.5).with_message(order);
    let meta: &mut JsonObject = progress.meta.get_or_insert_default();
    inject_context(meta);
    let _is_sent = context.peer.notify_progress(progress).await;
}

#[instrument]
async fn find_van(order: &str) -> String {
    tokio::task::yield_now().await;
    format!("{order} is in a van")
}

/// Serves one client over a pipe, such as standard input and output.
pub(crate) async fn serve_pipe(pipe: DuplexStream) -> Outcome {
    Parcels::new().serve(pipe).await?.waiting().await?;
    Ok(())
}

/// Serves all clients over HTTP: with a connection for each client if it is stateful, or else for each request.
pub(crate) async fn serve_http(listener: TcpListener, is_stateful: bool) -> Outcome {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let config = StreamableHttpServerConfig::default().with_legacy_session_mode(is_stateful);
    let parcels = Parcels::new();
    let sessions = Arc::new(LocalSessionManager::default());
    let service = StreamableHttpService::new(move || Ok(parcels.clone()), sessions, config);
    axum::serve(listener, Router::new().route_service("/mcp", service)).await?;
    Ok(())
}
