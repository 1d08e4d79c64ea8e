//! Arguments that `session!` and `user!` don't take.

use tracing_session::{session, user};

fn named(id: u64) {
    session!(id = "x").in_scope(|| ());
    //~ `session!` takes the id first, without a name: write `session!("x")`
    //~ For fields beside a new id, write `session!(Session::generate(), ...)`
    session!(target: "chat", session.id = %id, plan = "pro").in_scope(|| ());
    //~ write `session!(id, plan = "pro")`
    session!("session.id" = ?id).in_scope(|| ());
    //~ write `session!(id)`
    user!(user.id = "u-7").in_scope(|| ());
    //~ `user!` takes the id first, without a name: write `user!("u-7")`
}

fn sigils(id: u64) {
    session!(%id).in_scope(|| ());
    //~ `session!` formats the id with `Display`, without a sigil: write `session!(id)`
    session!(?id, plan = "pro").in_scope(|| ());
    //~ write `session!(id, plan = "pro")`
    user!(%id).in_scope(|| ());
    //~ `user!` formats the id with `Display`, without a sigil: write `user!(id)`
}

fn options(id: u64) {
    session!(target: "chat").in_scope(|| ());
    //~ `target:` can't be here: `session!` takes `target:`, `parent:` and `level:`, in this order
    session!(parent: None, target: "chat", id).in_scope(|| ());
    //~ `target:` can't be here
    user!(name: "chat", id).in_scope(|| ());
    //~ `name:` can't be here: `user!` takes
    session!(id: id).in_scope(|| ());
    //~ and then the id without a name
}

fn none() {
    session!().in_scope(|| ());
    user!().in_scope(|| ());
    //~ `user!` needs an id: write `user!("u-7")` or `user!(user_id)`
    user!(target: "chat",).in_scope(|| ());
    //~ `user!` needs an id
}
