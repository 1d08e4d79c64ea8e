//! Values of the wrong type. The lines without a comment compile.

use std::collections::{BTreeMap, HashMap};
use tracing_session::propagation::{
    TraceHeaders, WithPropagated, extract_context, extract_session_id, inject_context,
    propagated_context,
};
use tracing_session::{InSession, Session, current_session, session, user};

async fn in_session(id: String, session: &Session) {
    async {}.in_session(session).await;
    async {}.in_session(Session::generate()).await;
    async {}.in_session("id").await;
    //~ `&str` is not a session: write `Session::new(id)?`
    //~ expected a `Session` or `&Session`
    async {}.in_session(id).await;
    //~ `String` is not a session: write `Session::new(id)?`
    async {}.in_session(Session::new("id")).await;
    //~ is not a session: write `Session::new(id)?`
    //~ a `Result<Session, Error>` with `?`
    async {}.in_session(current_session()).await;
    //~ `current_session().unwrap_or_else(Session::nothing)`
}

fn macros(id: Option<String>, shown: &dyn std::fmt::Display) {
    session!(shown).in_scope(|| ());
    session!(id).in_scope(|| ());
    //~ `Option<String>` is not an id: pass a value that implements `Display`
    //~ an id in an `Option` or a `Result` has to be unwrapped first
    session!(Session::new("id")).in_scope(|| ());
    //~ `session!(Session::new(id)?)`
    user!([1, 2]).in_scope(|| ());
    //~ is not an id: pass a value that implements `Display`
    //~ `session!(format!("{id:?}"))`
}

fn carriers(map: &mut HashMap<String, String>, list: &mut Vec<u8>) {
    inject_context(map);
    inject_context(&mut BTreeMap::new());
    inject_context(&mut TraceHeaders::default());
    inject_context(list);
    //~ `Vec<u8>` is not a carrier of headers
    //~ carriers are `HashMap<String, String>`
    //~ `BTreeMap<String, String>`
    //~ `TraceHeaders`
    //~ `http::HeaderMap` with the feature `http`
    let _cx = extract_context(&"x");
    //~ `&str` is not a carrier of headers
    let _id = extract_session_id(&HashMap::<&str, &str>::new());
    //~ HashMap<&str, &str>` is not a carrier of headers: pass a `HashMap<String, String>`
    propagated_context(&7).in_scope(|| ());
    //~ is not a carrier of headers
    drop(async {}.with_propagated(&"x"));
    //~ `&str` is not a carrier of headers
}

fn turns(chat: &mut tracing_session::Conversation) {
    chat.turn("weather").finish();
    chat.turn(String::from("weather")).finish();
    //~ `String` can't start a turn: pass its name, or a closure that creates its span
}
