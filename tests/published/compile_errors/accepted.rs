//! Arguments of `session!` and `user!` that resemble the mistakes in `macros.rs`. All of them compile.

use tracing_session::{Session, session, user};

pub struct Chat {
    id: i64,
}

pub fn accepted(id: i64, other: i64, chat: Chat, make: fn() -> i64) {
    session!(-id).in_scope(|| ());
    session!(!id).in_scope(|| ());
    session!(*&id).in_scope(|| ());
    session!(chat.id).in_scope(|| ());
    session!(id == other).in_scope(|| ());
    session!(chat.id == other, plan = "pro").in_scope(|| ());
    session!(id <= other).in_scope(|| ());
    session!(id % other).in_scope(|| ());
    session!(i64::MAX).in_scope(|| ());
    session!(make()).in_scope(|| ());
    session!(id as u8).in_scope(|| ());
    session!("x",).in_scope(|| ());
    session!("x", %id, ?other, session.id = 7, chat.id = other,).in_scope(|| ());
    session!(if id == other { "same" } else { "other" }).in_scope(|| ());
    session!(Session::generate(), id = "x").in_scope(|| ());
    session!(target: "chat", parent: None, id).in_scope(|| ());
    session!(target: "chat",).in_scope(|| ());
    user!(chat.id + 7, plan = "pro").in_scope(|| ());
    user!(format_args!("{id}")).in_scope(|| ());
}
