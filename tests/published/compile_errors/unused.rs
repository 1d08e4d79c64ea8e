//! Values that have no effect because they aren't used.

#![allow(dead_code)]

use std::collections::HashMap;
use tracing_session::export::IdPolicy;
use tracing_session::processors::SessionSpanProcessor;
use tracing_session::propagation::{
    InboundPolicy, WithPropagated, extract_context, propagated_context,
};
use tracing_session::session::Part;
use tracing_session::{
    Conversation, Dialect, Error, InSession, Privacy, Session, SessionExporter, SessionLayer,
    SessionPropagator, SessionTracerProvider, new_session, session, user,
};

fn sessions(session: Session) -> Result<(), Error> {
    session.attach();
    //~ the session is current only until the guard is dropped: `let _guard = ...`
    session!("x");
    //~ the id is set only in this span: use it with `.entered()`, `.in_scope(...)` or `.instrument(...)`
    user!("u-7");
    //~ the id is set only in this span
    Session::generate();
    //~ the session is current only where you set it
    async {}.in_session(&session);
    //~ futures and streams do nothing unless you `.await` or poll them
    session.clone().with_prompt_template("..");
    //~ it returns the changed session: `let session = ...`
    session.without(Part::User);
    //~ it returns the changed session: `let session = ...`
    new_session()?;
    Ok(())
}

fn conversations(mut chat: Conversation) {
    chat.turn("x");
    //~ the next turn follows this one only after `turn.finish()`
    chat.in_one_trace();
    //~ it returns the changed conversation: `let chat = ...`
}

fn propagation(headers: &HashMap<String, String>) {
    extract_context(headers);
    //~ `let _guard = context.attach()` or `span.set_parent(context)`
    propagated_context(headers);
    //~ it applies only where you attach it: `let _guard = context.attach()`
    async {}.with_propagated(headers);
    //~ futures do nothing unless you `.await` or poll them
    SessionPropagator::new().with_user();
    //~ `global::set_text_map_propagator(propagator)`
    InboundPolicy::<()>::ignore();
    //~ `.with_inbound(policy)`
}

fn set_up<P, L>(provider: SessionTracerProvider<P>, layer: L) {
    provider.with_privacy(Privacy::new());
    //~ it returns the changed provider: `let provider = provider.with_privacy(...)`
    SessionLayer::new().with_session_span("chat");
    //~ `registry().with(SessionLayer::new().wrap(otel))`
    SessionLayer::new().wrap(layer);
    //~ a layer does nothing until a subscriber has it: `registry().with(layer)`
    SessionExporter::new(()).with_dialect(Dialect::new());
    //~ `.with_batch_exporter(exporter)`
    Dialect::new();
    //~ `.with_dialect(dialect)`
    Privacy::new();
    //~ `.with_privacy(privacy)`
    IdPolicy::omitted();
    //~ `.with_user_ids(policy)`
    SessionSpanProcessor::new();
    //~ `.with_span_processor(processor)`
}
