//! ADK-Rust: the layer reads the ids in the spans of the library. Your code sets no session.
//!
//! `adk-runner` 2.3 writes the session into `gen_ai.conversation.id`, and the user into `adk.user_id`. Other libraries that follow
//! OpenTelemetry's conventions for generative AI write the first of them too.

use crate::Outcome;
use crate::report::Trace;
use tracing_session::SessionLayer;

/// For the set-up. `session.id` and `user.id` are read too.
pub(crate) fn layer() -> SessionLayer {
    SessionLayer::new()
        .with_session_field("gen_ai.conversation.id")
        .with_user_field("adk.user_id")
}

/// The spans of `adk-runner`, as it makes them. The spans of the model and the tools contain no ids.
mod runner {
    use tracing::{info_span, instrument};

    pub(super) fn run(user_id: &str, session_id: &str) {
        let span = info_span!(
            "agent.execute",
            "gcp.vertex.agent.session_id" = session_id,
            "gen_ai.conversation.id" = session_id,
            "adk.user_id" = user_id,
        );
        span.in_scope(|| {
            call_llm();
            execute_tool();
        });
    }

    #[instrument]
    fn call_llm() {}

    #[instrument]
    fn execute_tool() {}
}

pub(crate) const SPANS: &[Trace] = &[
    &[
        "agent.execute session.id=chat-1 user.id=u-7",
        "call_llm session.id=chat-1 user.id=u-7",
        "execute_tool session.id=chat-1 user.id=u-7",
    ],
    &[
        "agent.execute session.id=chat-2 user.id=u-8",
        "call_llm session.id=chat-2 user.id=u-8",
        "execute_tool session.id=chat-2 user.id=u-8",
    ],
];

pub(crate) fn run() -> Outcome {
    runner::run("u-7", "chat-1");
    runner::run("u-8", "chat-2");
    Ok(())
}
