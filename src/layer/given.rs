//! What a `Session` says that `session!` was given, besides its ids: fields cannot hold it. It waits
//! here while the macro makes its span.
//!
//! A field of the macro may make spans of its own, or await: then other spans are made on this thread
//! meanwhile. So what is given is known by its place in the code and, where several are given there at
//! once, by their ids.

use crate::layer::fields;
use crate::scope::inherited::Said;
use crate::session::{Id, Session};
use std::cell::RefCell;
use std::marker::PhantomData;
use tracing::Metadata;

struct Given {
    number: u64,
    file: &'static str,
    line: u32,
    id: Option<Id>,
    user_id: Option<Id>,
    said: Said,
}

#[derive(Default)]
struct Waiting {
    last: u64,
    given: Vec<Given>,
}

thread_local! {
    static WAITING: RefCell<Waiting> = const {
        RefCell::new(Waiting { last: 0, given: Vec::new() })
    };
}

/// What the session said that the macro was given which is making this span with these ids.
pub(crate) fn given(span: &Metadata<'_>, id: Option<&Id>, user_id: Option<&Id>) -> Option<Said> {
    if !fields::is_of_macro(span) {
        return None;
    }
    let find = |waiting: &RefCell<Waiting>| {
        let waiting = waiting.borrow();
        let is_here =
            |given: &&Given| Some(given.line) == span.line() && Some(given.file) == span.file();
        let here = || waiting.given.iter().filter(is_here);
        let is_it = |given: &&Given| given.id.as_ref() == id && given.user_id.as_ref() == user_id;
        // A field `user.id` of one's own stands for the one that was given.
        let found = only(here().filter(is_it))
            .or_else(|| only(here()).filter(|given| given.id.as_ref() == id));
        found.map(|given| given.said.clone())
    };
    WAITING.try_with(find).ok().flatten()
}

/// Two that cannot be told from each other may be those of two tasks.
fn only<'a>(mut given: impl Iterator<Item = &'a Given>) -> Option<&'a Given> {
    given.next().filter(|_| given.next().is_none())
}

/// Gives it to the span that is made while this lives.
#[derive(Debug)]
pub(crate) struct Giving {
    number: u64,
    /// It is to end on the thread that it was made on.
    _not_send: PhantomData<*const ()>,
}

impl Giving {
    pub(crate) fn new(session: &Session, file: &'static str, line: u32) -> Self {
        let give = |waiting: &RefCell<Waiting>| {
            let mut waiting = waiting.borrow_mut();
            waiting.last += 1;
            let number = waiting.last;
            waiting.given.push(Given {
                number,
                file,
                line,
                id: session.id.clone(),
                user_id: session.user_id.clone(),
                said: session.into(),
            });
            number
        };
        Self {
            number: WAITING.try_with(give).unwrap_or_default(),
            _not_send: PhantomData,
        }
    }
}

impl Drop for Giving {
    fn drop(&mut self) {
        let take = |waiting: &RefCell<Waiting>| {
            let given = &mut waiting.borrow_mut().given;
            let is_it = |given: &Given| given.number == self.number;
            given.iter().rposition(is_it).map(|at| given.remove(at))
        };
        // What was given is dropped after it was let go: it may hold more than text.
        let _taken = WAITING.try_with(take);
    }
}
