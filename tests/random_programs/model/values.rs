//! Which values apply in a node, and which a span may be exported with.

use super::{Found, KEYS, Model, NAMES, Node, Time, Values};
use crate::random_programs::run::Outcome;

impl Model {
    /// The values that may apply in a node at a time `at`, for something that started at the time `started`.
    ///
    /// A field is in force in the whole life of its span. A value that is set on a span is in force for the span itself,
    /// and for what starts below it afterwards.
    pub(super) fn value(
        &self,
        node: Node,
        key: usize,
        at: Time,
        started: Time,
    ) -> Vec<Option<Found>> {
        let data = &self.nodes[node];
        let text = |text| Found {
            text,
            is_implicit: false,
        };
        let set = latest(&data.set, started.min(at), key).map(|it| Some(text(it.1)));
        // Where span ids are ambiguous, a value that needs a look-up by span id may be missing.
        let may_miss = self.rules.ambiguous_ids && (set.is_some() || data.has_set_parent);
        if may_miss {
            let others = self.inherited(node, key, at, started).into_iter();
            let field = latest(&data.fields, at, key).map(|it| Some(text(it.1)));
            return others.chain(set).chain(field).chain([None]).collect();
        }
        if let Some(set) = set {
            return vec![set];
        }
        if let Some((_, field)) = latest(&data.fields, at, key) {
            let is_implicit = data.is_implicit && key == super::SESSION;
            return vec![Some(Found {
                is_implicit,
                ..text(field)
            })];
        }
        if data.blocks[key] {
            return vec![None];
        }
        let mut found = self.inherited(node, key, at, started);
        if let Some(otherwise) = data.otherwise {
            // Where a session blocks a part, the span's own value applies, and none that the span inherits.
            let polled = data.outers.first().copied().flatten();
            let is_blocked = polled.is_some_and(|polled| self.nodes[polled].blocks[key]);
            let own = &self.nodes[otherwise];
            let has_own = latest(&own.fields, at, key).is_some() || !own.set.is_empty();
            let other = match is_blocked && !has_own {
                true => vec![None],
                false => self.value(otherwise, key, at, started),
            };
            let missing = found.contains(&None) || found.is_empty();
            found.retain(|it| it.is_some());
            // Open, where both have a value.
            if missing || other != [None] {
                found.extend(other);
            }
        }
        if found.is_empty() {
            found.push(None);
        }
        found.dedup();
        found
    }

    fn inherited(&self, node: Node, key: usize, at: Time, started: Time) -> Vec<Option<Found>> {
        let data = &self.nodes[node];
        let mut found = Vec::new();
        for outer in &data.outers {
            for settled in &data.settled {
                found.extend(self.value_in(*outer, key, at, settled.unwrap_or(started)));
            }
        }
        found
    }

    pub(super) fn value_in(
        &self,
        node: Option<Node>,
        key: usize,
        at: Time,
        started: Time,
    ) -> Vec<Option<Found>> {
        node.map_or(vec![None], |node| self.value(node, key, at, started))
    }

    pub(super) fn inherits(&self, node: Node, ancestor: Node) -> bool {
        let data = &self.nodes[node];
        let outers = data.outers.iter().copied().flatten();
        let mut outers = outers.chain(data.otherwise);
        node == ancestor || outers.any(|outer| self.inherits(outer, ancestor))
    }

    /// The nearest node that has a value of its own.
    pub(super) fn nearest(&self, node: Option<Node>) -> Option<Node> {
        let mut node = node;
        while let Some(at) = node {
            let data = &self.nodes[at];
            if data.opens() || !data.set.is_empty() {
                break;
            }
            node = data.outers.first().copied().flatten();
        }
        node
    }

    /// The values that a span may be exported with.
    fn exported(&self, node: Node, key: usize) -> Vec<Option<&'static str>> {
        let data = &self.nodes[node];
        let span = data.span.as_ref().unwrap();
        let own: Vec<_> = span.own.iter().filter_map(|it| it[key]).map(Some).collect();
        if !own.is_empty() {
            return own;
        }
        let closed = span.closed.unwrap();
        let at_start = latest(&data.fields, span.started.unwrap_or(closed), key);
        // A span that started with an id of its own keeps it.
        if let (Some((_, text)), true) = (at_start, key < 2) {
            return vec![Some(text)];
        }
        let found = self.value(node, key, closed, closed);
        let mut texts: Vec<_> = found.iter().map(|it| it.map(|it| it.text)).collect();
        texts.extend(data.perhaps.iter().filter_map(|it| it[key]).map(Some));
        if data.may_lack {
            texts.push(None);
        }
        self.add_adopted(span, key, &mut texts);
        texts
    }

    pub(super) fn compare(&mut self, outcome: &Outcome) {
        if self.opened.is_some() || !self.rules.exports {
            return;
        }
        let is_exported = |node: &Node| {
            let span = self.nodes[*node].span.as_ref();
            span.is_some_and(|it| !it.hidden)
        };
        let nodes: Vec<_> = (0..self.nodes.len()).filter(is_exported).collect();
        if nodes.len() != outcome.spans.len() {
            let count = outcome.spans.len();
            let expected = nodes.len();
            self.differs(format!("{count} spans are exported, not {expected}"));
        }
        for node in nodes {
            let name = self.nodes[node].span.as_ref().unwrap().name;
            let Some(actual) = outcome.spans.get(&name) else {
                self.differs(format!("span {name} is not exported"));
                continue;
            };
            if self.nodes[node].span.as_ref().unwrap().is_any {
                continue;
            }
            for key in 0..KEYS {
                let allowed = self.exported(node, key);
                let is_allowed = match actual[key].as_slice() {
                    [] => allowed.contains(&None),
                    values => values
                        .iter()
                        .all(|value| allowed.contains(&Some(value.as_str()))),
                };
                let owned = &self.nodes[node].span.as_ref().unwrap().own;
                let is_own = owned.iter().any(|it| it[key].is_some());
                if !is_allowed || (actual[key].len() > 1 && !is_own) {
                    let (actual, key) = (&actual[key], NAMES[key]);
                    self.differs(format!(
                        "span {name} {key}: {actual:?} is none of {allowed:?}"
                    ));
                }
            }
        }
    }
}

/// The value that was last, until then, and when.
fn latest(set: &[(Time, Values)], until: Time, key: usize) -> Option<(Time, &'static str)> {
    let known = set.iter().filter(|(time, _)| *time <= until);
    let value = |(time, values): &(Time, Values)| Some((*time, values[key]?));
    known.filter_map(value).next_back()
}
