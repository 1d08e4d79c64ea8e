//! An application in which a user logs in, and then has several conversations.
//!
//! The conversation is the session, because Phoenix, Langfuse and MLflow show one row for each `session.id`, with its turns. Backends that
//! follow OpenTelemetry's conventions for generative AI group by `gen_ai.conversation.id`: `Dialect::GEN_AI` exports the same id under
//! that key. All of them group by one id only, so the login is metadata, by which you can filter.

use crate::Outcome;
use crate::report::Trace;
use tracing::instrument;
use tracing_session::{InSession, Session};

/// The server loads this with the cookie of each request.
struct Login {
    id: &'static str,
    user: &'static str,
}

impl Login {
    /// A session without an id: each conversation inside inherits the user and the metadata.
    fn session(&self) -> Outcome<Session> {
        let session = Session::default().with_user(self.user)?;
        Ok(session.with_metadata("login", self.id)?)
    }
}

/// A handler, which runs in the session of the login.
#[instrument(skip_all)]
async fn open_page() {}

/// A handler that knows the conversation. The login's user and metadata apply in it too.
async fn chat(conversation: &str, question: &str) -> Outcome<String> {
    let session = Session::new(conversation)?;
    Ok(answer(question).in_session(session).await)
}

#[instrument(skip_all)]
async fn answer(_question: &str) -> String {
    "Sunny.".to_owned()
}

pub(crate) const SPANS: &[Trace] = &[
    &[r#"open_page user.id=u-7 metadata={"login":"login-1"}"#],
    &[r#"answer session.id=chat-1 user.id=u-7 metadata={"login":"login-1"}"#],
    &[r#"answer session.id=chat-2 user.id=u-7 metadata={"login":"login-1"}"#],
    &[r#"answer session.id=chat-1 user.id=u-7 metadata={"login":"login-2"}"#],
];

pub(crate) async fn run() -> Outcome {
    let [first, second] = ["login-1", "login-2"].map(|id| Login { id, user: "u-7" });
    open_page().in_session(first.session()?).await;
    for (login, conversation) in [(&first, "chat-1"), (&first, "chat-2"), (&second, "chat-1")] {
        chat(conversation, "And tomorrow?")
            .in_session(login.session()?)
            .await?;
    }
    Ok(())
}
