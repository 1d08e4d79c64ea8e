use tracing::{Span, info_span, instrument};
use tracing_session::{Session, current_session_id, openinference::OpenInferenceSpanExt, otlp};

#[instrument]
fn answer(question: &str) {
    Span::current().set_input(question);
    info_span!("search").in_scope(|| println!("searching in {:?}", current_session_id()));
    Span::current().set_output("Sunny and 24 degrees.");
}

fn main() -> Result<(), tracing_session::Error> {
    let telemetry = otlp::pipeline("my-app").install()?;
    let chat = Session::new("chat-42")?.with_user("u-7")?;
    chat.in_scope(|| answer("What is the weather?"));
    telemetry.shutdown()
}
