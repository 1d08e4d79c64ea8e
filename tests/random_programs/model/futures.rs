//! Futures in a session, and spans that they poll.

use super::{Context, Data, Found, KEYS, Model, Node, Span};
use crate::random_programs::program::USER;
use crate::random_programs::program::{Kind, NONE, Name, Parent, SESSION, Value, Way};

/// The names of the guards of a poll.
const POLLED: Name = usize::MAX;
const POLLED_SPAN: Name = usize::MAX - 1;

impl Model {
    pub(super) fn poll(&mut self, thread: usize, name: Name, child: Name, kind: Kind) {
        let (value, span) = (self.futures[&name].value, self.futures[&name].span);
        let replaced = self.here(thread).scope;
        let context = Context {
            polled: Some(replaced),
            ..self.session(thread, value)
        };
        let now = self.now;
        self.futures.get_mut(&name).unwrap().last = context.scope.map(|scope| (scope, now));
        self.push(thread, POLLED, context);
        if let Some(span) = span {
            self.enter(thread, POLLED_SPAN, span);
        }
        let node = self.create(thread, child, Parent::Contextual, kind);
        self.enter(thread, child, node);
        self.exit(thread, child, node);
        self.span(node).has_handle = false;
        self.close(node);
        if let Some(span) = span {
            self.exit(thread, POLLED_SPAN, span);
        }
        self.pop(thread, POLLED);
    }

    pub(super) fn drop_future(&mut self, thread: usize, name: Name, child: Name) {
        let future = self.futures.remove(&name).unwrap();
        let here = self.here(thread).scope;
        let session = self.session(thread, future.value).scope.unwrap();
        let own = match future.value {
            Value::New(values, _) | Value::Exact(values) => values[SESSION],
            Value::Kept(_) => None,
        };
        let place = self.value_in(here, SESSION, self.now, self.now);
        let is_other = |text: Option<&str>| text.is_some() && text != own;
        let is_other = |it: &Option<Found>| is_other(it.map(|it| it.text));
        let in_another = place.iter().any(is_other);
        self.open_if(in_another && !place.iter().all(is_other));
        let last = future.last.map(|(last, at)| {
            // Open: values that were set outside since the last poll.
            self.nodes[session].settled = vec![Some(at), None];
            self.nodes[last].outers.clone()
        });
        self.nodes[session].outers = match (last, in_another) {
            (Some(last), true) => last,
            (Some(last), false) => [last, vec![here]].concat(),
            (None, true) => vec![None],
            (None, false) => vec![None, here],
        };
        let span = self.here(thread).span;
        let context = Context {
            span: span.filter(|_| !in_another),
            scope: Some(session),
            inside: true,
            polled: Some(here),
            ..Context::default()
        };
        self.push(thread, POLLED, context);
        if let Some(span) = future.span {
            self.enter(thread, POLLED_SPAN, span);
        }
        let kind = Kind {
            way: Way::Plain,
            sets: NONE,
            hidden: false,
        };
        let node = self.create(thread, child, Parent::Contextual, kind);
        self.span(node).is_any = !self.rules.drops_in_session;
        self.span(node).has_handle = false;
        self.close(node);
        if let Some(span) = future.span {
            self.exit(thread, POLLED_SPAN, span);
        }
        self.pop(thread, POLLED);
        if let Some(span) = future.span {
            self.span(span).has_handle = false;
            self.close(span);
        }
    }

    /// The `Context` of a span that a future polls and that doesn't hide the session of the future.
    pub(super) fn adopted(
        &mut self,
        node: Node,
        here: Context,
        was_started: bool,
    ) -> Option<Context> {
        let replaced = here.polled.filter(|_| self.rules.adopts)?;
        let polled = here.scope?;
        let now = self.now;
        let found = self.value_in(Some(node), SESSION, now, now);
        let in_none = found.iter().all(Option::is_none);
        // Open: what was set under the span's `Context`, outside the span.
        self.open_if(self.nodes[node].is_set_outside);
        self.open_if(!in_none && found.contains(&None));
        let span = self.nodes[node].span.as_ref().unwrap();
        let is_plain = !span.opens && self.nodes[node].set.is_empty();
        let is_contextual = span.parent == Parent::Contextual;
        let applied = span.applied;
        let outer = self.nodes[node].outers[0];
        let nearest = self.nearest(replaced);
        // Open, whether what was set inside an exact session is exact.
        let outer_of = |it: &Node| self.nodes[*it].outers.first().copied().flatten();
        let mut around = std::iter::successors(outer, outer_of);
        let is_in_exact = around.any(|it| self.nodes[it].blocks == [true; KEYS]);
        self.open_if(is_in_exact && !self.nodes[node].set.is_empty());
        let in_replaced =
            is_plain && is_contextual && replaced.is_some() && self.nearest(outer) == nearest;
        // Open: the span was created before the values were set there.
        let is_set_there = nearest.is_some_and(|it| !self.nodes[it].set.is_empty());
        self.open_if(in_replaced && is_set_there);
        // Open: a span that was created elsewhere, and got this scope by `set_parent`.
        let is_moved = is_plain && !is_contextual && replaced.is_some();
        self.open_if(is_moved && self.nearest(outer) == self.nearest(replaced));
        let is_apart = !is_contextual && applied[SESSION];
        if is_apart || (!in_none && !in_replaced) {
            // Open, whether this future has adopted it before.
            let was_adopted = self.span(node).was_adopted;
            self.open_if(was_adopted);
            return None;
        }
        // A span of another user is a stranger.
        let users = [Some(node), Some(polled)].map(|it| self.value_in(it, USER, now, now));
        let users = users.map(|it| it.iter().map(|it| it.map(|it| it.text)).collect::<Vec<_>>());
        self.open_if(!in_replaced && users.iter().any(|it| it.len() > 1));
        let is_stranger = users[0] != users[1] && users.iter().all(|it| *it != [None]);
        if !in_replaced && is_stranger {
            let was_adopted = self.span(node).was_adopted;
            self.open_if(was_adopted);
            return None;
        }
        // Open: a span that was created apart from a user, and a future whose session sets no id.
        self.open_if(!is_contextual && applied != [false; KEYS]);
        let sets_id = self.nodes[polled].fields[0].1[SESSION].is_some();
        self.open_if(!sets_id);
        self.span(node).was_adopted = true;
        // A span that has started before is exported as it was.
        if !was_started || !self.span(node).adopted.is_empty() {
            self.span(node).adopted.push((polled, now));
        }
        let scope = self.add(Data {
            outers: vec![Some(polled)],
            settled: vec![Some(now)],
            otherwise: in_none.then_some(node),
            ..Data::default()
        });
        Some(Context {
            span: Some(node),
            scope: Some(scope),
            ..Context::default()
        })
    }

    /// The values of the futures that have polled a span, if they agree.
    pub(super) fn add_adopted(
        &self,
        span: &Span,
        key: usize,
        texts: &mut Vec<Option<&'static str>>,
    ) {
        let values = |key| {
            let of = move |(node, at): &(Node, usize)| self.value(*node, key, *at, *at);
            let texts = |it: Vec<Option<Found>>| it.iter().map(|it| it.map(|it| it.text)).collect();
            let all = span.adopted.iter().map(of).map(texts);
            all.collect::<Vec<Vec<_>>>()
        };
        let agree = |key| values(key).windows(2).all(|two| two[0] == two[1]);
        let of_key = values(key);
        let Some(first) = of_key.first() else { return };
        if !agree(SESSION) {
            texts.push(None);
        } else if agree(key) && (key <= USER || agree(USER)) {
            // Open, where the span has a value too.
            if key == SESSION || (*texts == [None] && *first != [None]) {
                texts.clear();
            }
            texts.extend(first);
        } else {
            texts.push(None);
            // Open: one future lacks a value, or another value of the two differs.
            let lacks = of_key.iter().any(|it| it.contains(&None));
            if lacks || key > USER {
                texts.extend(of_key.concat());
            }
        }
    }
}
