//! `set_*`, and the current session.

use super::{Model, NAMES, Node};
use crate::random_programs::program::Values;
use crate::random_programs::run::Answer;

impl Model {
    pub(super) fn set(&mut self, thread: usize, values: Values, answer: &Answer) {
        let &Answer::Set(works, after) = answer else {
            panic!("set has {answer:?}")
        };
        let here = self.here(thread);
        let current = self.current(thread);
        // Whether it has to work; and where it is set.
        let (expected, at) = match current {
            Some(span) if here.is_of(span) => (Some(true), Some(span)),
            Some(span) if self.is_hidden(span) => match here.scope {
                Some(scope) if scope == span => {
                    (self.nodes[span].opens().then_some(true), Some(span))
                }
                // Open, if the very scope that the span is in is attached inside it again.
                _ if self.nodes[span].outers.contains(&here.scope) => (None, None),
                _ if here.is_value && self.is_shadowed(thread, span) => (Some(false), None),
                _ => (None, None),
            },
            Some(span) if here.span == Some(span) && here.inside => (Some(false), None),
            None if here.span.is_none() => (Some(false), None),
            // Open, whether a `Context` that was kept inside a filtered-out span is that of the place.
            None if here.is_choice => (None, None),
            None if here.inside => (Some(false), None),
            None => {
                let plain = here.span.filter(|it| self.nodes[*it].is_open_plain());
                (plain.map(|_| true), plain.or(here.own_span()))
            }
            // Another span's `Context` is attached.
            Some(_) => (None, here.own_span().filter(|_| self.rules.set_applies)),
        };
        // Inside a future, a span that it polls may have no session of its own.
        let expected = expected.filter(|_| !self.rules.ambiguous_ids || !works);
        if current.is_some_and(|it| self.is_hidden(it)) && !self.rules.tracked_refuse {
            self.open_if(works && here.is_value);
        } else if expected.is_some_and(|it| it != works) {
            self.differs(format!("set should return Ok: {}", !works));
        }
        if !works {
            // Open, what a filtered-out span in no session shows of the place where it is entered.
            if current.is_none_or(|it| !self.is_hidden(it)) {
                self.compare_read(here.scope, after);
            }
            return;
        }
        let hidden = current.filter(|it| self.is_hidden(*it));
        let opens = |it: Node| self.nodes[it].opens();
        self.open_if(hidden.is_some_and(|it| !self.rules.hidden_inherit && !opens(it)));
        let top = self.threads[thread].contexts.last().map(|it| it.0);
        let name = |it: Node| self.nodes[it].span.as_ref().map(|it| it.name);
        self.open_if(hidden.is_some_and(|it| name(it) != top));
        if let Some(current) = current.filter(|it| Some(*it) != at && hidden.is_none()) {
            self.nodes[current].perhaps.push(values);
        }
        if let Some(node) = at.filter(|_| expected.is_none()) {
            // Open, whether this span has the values itself.
            let old = |key| self.value(node, key, self.now, self.now)[0];
            let old = [0, 1, 2].map(|key| old(key).map(|it| it.text));
            self.nodes[node].perhaps.push(old);
            self.nodes[node].may_lack = true;
        }
        match at {
            Some(node) => {
                self.nodes[node].is_set_outside |= current != Some(node);
                self.nodes[node].set.push((self.now, values));
            }
            None if !self.rules.set_applies && hidden.is_none() => {
                if let Some(node) = current.or(here.span) {
                    self.nodes[node].set.push((self.now, values));
                }
                return;
            }
            // It is in force here, whatever it was set on.
            None => {
                let node = self.value_node(values, vec![here.scope]);
                let top = self.threads[thread].contexts.last_mut();
                if let Some((_, context)) = top {
                    context.scope = Some(node);
                }
                for span in [current, here.span].into_iter().flatten() {
                    match self.is_hidden(span) {
                        true => self.nodes[span].set.push((self.now, values)),
                        false => self.nodes[span].perhaps.push(values),
                    }
                }
            }
        }
        let scope = self.here(thread).scope;
        self.compare_read(scope, after);
    }

    /// Only sessions are attached inside a filtered-out span that is entered.
    fn is_shadowed(&self, thread: usize, span: Node) -> bool {
        let name = self.nodes[span].span.as_ref().map(|it| it.name);
        let contexts = self.threads[thread].contexts.iter().rev();
        let mut inside = contexts.skip_while(|it| it.1.is_value);
        inside.next().map(|it| it.0) == name
    }

    pub(super) fn compare_read(&mut self, scope: Option<Node>, actual: Values) {
        for (key, actual) in actual.into_iter().enumerate() {
            let allowed = self.value_in(scope, key, self.now, self.now);
            let allowed: Vec<_> = allowed.iter().map(|it| it.map(|it| it.text)).collect();
            if !allowed.contains(&actual) {
                self.differs(format!(
                    "current {}: {actual:?} is none of {allowed:?}",
                    NAMES[key]
                ));
            }
        }
    }
}
