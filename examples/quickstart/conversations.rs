//! The conversations, and the ways to set their session and user.
//!
//! Every turn is a root span and so a separate trace, which backends show as a turn.

use crate::agent::{MOMENT, Outcome, Step, Turn, show, work};
use tokio::runtime::Handle;
use tokio::task;
use tokio::time::sleep;
use tracing::{Instrument, Span, info_span, instrument};
use tracing_session::{
    Error, InSession, Session, mark_trace, session, set_session_id, set_user_id,
};

#[derive(Clone)]
pub(crate) struct Conversation {
    pub(crate) session: Session,
    said: Said,
    pub(crate) turns: &'static [Turn],
}

/// The way in which the session is set.
#[derive(Clone, Copy)]
enum Said {
    AsValue,
    OnThread,
    WithMacro,
    BySpan,
    ByFields,
    FromInside,
}

impl Conversation {
    pub(crate) async fn hold(self) -> Outcome {
        for turn in self.turns {
            self.take(*turn).await?;
        }
        Ok(())
    }

    async fn take(&self, turn: Turn) -> Outcome {
        let session = self.session.clone();
        let (id, user) = (session.id().unwrap_or_default(), session.user_id());
        let (tenant, tags) = (self.tenant(), self.tags());
        match self.said {
            // A value around a future. It needs no span.
            Said::AsValue => answer(turn).in_session(session).await,

            // The same in synchronous code, until the guard is dropped.
            Said::OnThread => {
                let runtime = Handle::current();
                let blocking = move || {
                    let _guard = session.attach();
                    runtime.block_on(answer(turn));
                };
                task::spawn_blocking(blocking).await?;
            }

            // A span that sets the session. It is the span of the turn, because each turn is a trace.
            Said::WithMacro => show(turn, work(turn)).instrument(session!(session)).await,

            // Spans that an application may already have.
            Said::BySpan => {
                let span = info_span!(
                    "session", id = %id, user.id = user, metadata.tenant = tenant, tags = ?tags
                );
                show(turn, work(turn)).instrument(span).await;
            }
            Said::ByFields => chat_with_fields(id, user, tenant, &tags, turn).await,

            // The session is known only in the handler, when the server has created the request's span. The tenant is
            // known before.
            Said::FromInside => {
                let known = Session::default().with_metadata("tenant", tenant)?;
                let request = known.with_tags(&tags)?.in_scope(|| info_span!("request"));
                show(turn, chat(id, user, turn)).instrument(request).await;
            }
        }
        Ok(())
    }
}

#[instrument(skip_all)]
async fn answer(turn: Turn) {
    show(turn, work(turn)).await;
}

/// The user is known after the login: early enough for this span and the spans after it.
#[instrument(name = "chat", skip_all, fields(
    session.id = %id,
    user.id,
    metadata.tenant = tenant,
    tags = ?tags,
))]
async fn chat_with_fields(
    id: &str,
    user: Option<&str>,
    tenant: Option<&str>,
    tags: &[&str],
    turn: Turn,
) {
    let user = login(user).await;
    Span::current().record("user.id", user);
    show(turn, work(turn)).await;
}

#[instrument(skip_all)]
async fn chat(id: &str, user: Option<&str>, turn: Turn) -> Outcome {
    set_session_id(id)?;
    if let Some(user) = login(user).await {
        set_user_id(user)?;
    }
    // The request's span is an ancestor of this one. `mark_trace` adds the session to it.
    mark_trace()?;
    work(turn).await
}

#[instrument(skip_all)]
async fn login(user: Option<&str>) -> Option<&str> {
    sleep(MOMENT).await;
    user
}

/// The conversations to run.
pub(crate) fn list() -> Result<Vec<Conversation>, Error> {
    let list = [
        (acme()?.with_user("ada")?, Said::AsValue, WEATHER),
        (globex()?.with_user("ben")?, Said::AsValue, PARCEL),
        (acme()?, Said::OnThread, WEATHER),
        (globex()?.with_user("cleo")?, Said::WithMacro, TRIP),
        (acme()?.with_user("dan")?, Said::BySpan, WEATHER),
        (globex()?.with_user("eve")?, Said::ByFields, WEATHER),
        (acme()?.with_user("finn")?, Said::FromInside, TRIP),
    ];
    let conversation = |(session, said, turns)| Conversation {
        session,
        said,
        turns,
    };
    Ok(list.map(conversation).into())
}

/// Two conversations, with users of two tenants.
fn acme() -> Result<Session, Error> {
    let session = Session::generate().with_metadata("tenant", "acme")?;
    session.with_tags(["web"])
}

fn globex() -> Result<Session, Error> {
    let session = Session::generate().with_metadata("tenant", "globex")?;
    session.with_tags(["phone", "beta"])
}

const WEATHER: &[Turn] = &[
    Turn {
        question: "What is the weather like here?",
        answer: "Sunny and 24 degrees.",
        steps: &[Step::Locate, Step::Search, Step::AskModel],
    },
    Turn {
        question: "And tomorrow?",
        answer: "Rain, take an umbrella.",
        steps: &[Step::Search, Step::AskModel],
    },
    Turn {
        question: "Thank you!",
        answer: "You are welcome.",
        steps: &[Step::AskModel],
    },
];

const TRIP: &[Turn] = &[
    Turn {
        question: "I would like to go to the sea.",
        answer: "How about Trieste, by train?",
        steps: &[Step::Remember, Step::Locate, Step::Search, Step::AskModel],
    },
    Turn {
        question: "Which train?",
        answer: "The one at nine.",
        steps: &[Step::Search, Step::AskModel, Step::Remember],
    },
];

/// Its second turn fails.
const PARCEL: &[Turn] = &[
    Turn {
        question: "Where is my parcel?",
        answer: "It was lost, sorry.",
        steps: &[Step::Search, Step::AskModel],
    },
    Turn {
        question: "Then I want my money back.",
        answer: "I cannot reach the bank.",
        steps: &[Step::AskModel, Step::Refund],
    },
];

/// An expected span.
pub(crate) struct Expected<'a> {
    /// The names on the path to it.
    pub(crate) path: Vec<&'static str>,
    pub(crate) user: Option<&'a str>,
    pub(crate) failed: bool,
}

impl Conversation {
    pub(crate) fn tenant(&self) -> Option<&str> {
        self.session.metadata("tenant")?.as_str()
    }

    pub(crate) fn tags(&self) -> Vec<&str> {
        self.session.tags().collect()
    }

    pub(crate) fn spans(&self) -> impl Iterator<Item = Expected<'_>> {
        self.turns.iter().flat_map(|turn| self.spans_of(turn))
    }

    fn spans_of<'a>(&'a self, turn: &'a Turn) -> impl Iterator<Item = Expected<'a>> {
        let (above, logs_in): (&[&str], _) = match self.said {
            Said::AsValue | Said::OnThread => (&["answer"], false),
            Said::WithMacro | Said::BySpan => (&["session"], false),
            Said::ByFields => (&["chat"], true),
            Said::FromInside => (&["request", "chat"], true),
        };
        let user = self.session.user_id();
        let of_turn = (1..=above.len()).map(move |depth| Expected {
            path: above[..depth].to_vec(),
            user,
            failed: depth == 1 && turn.fails(),
        });
        // It ends before the user is known.
        let login = logs_in.then(|| Expected {
            path: [above, &["login"]].concat(),
            user: None,
            failed: false,
        });
        let of_work = turn.spans().map(move |names| Expected {
            path: [above, &names].concat(),
            user,
            failed: false,
        });
        of_turn.chain(login).chain(of_work)
    }
}
