//! Spans: from their creation to the close.

use super::{Context, Data, Found, Model, Node, Span};
use crate::random_programs::program::{KEYS, Kind, NONE, Name, Parent, SESSION, Values, Way};

impl Model {
    pub(super) fn new_span(
        &mut self,
        thread: usize,
        name: Name,
        parent: Parent,
        kind: Option<Kind>,
    ) -> Node {
        let hidden = kind.is_some_and(|it| it.hidden) || !self.rules.exports;
        let outer = match parent {
            Parent::Contextual => self.here(thread).scope,
            Parent::Explicit(name) => {
                let node = self.spans[&name];
                // The OpenTelemetry layer doesn't see a child that is filtered out.
                if !hidden || kind.is_some_and(|it| it.way != Way::Plain) {
                    self.start(node);
                }
                Some(node)
            }
            Parent::Root => None,
        };
        let is_hidden_parent = |it| self.is_hidden(it) && !self.nodes[it].opens();
        let explicit = outer.filter(|_| matches!(parent, Parent::Explicit(_)));
        self.open_if(!self.rules.hidden_inherit && explicit.is_some_and(is_hidden_parent));
        if let Some(parent) = explicit {
            self.start_outer(parent);
        }
        let is_library = kind.is_some_and(|it| it.way == Way::Library);
        let is_excluded = is_library && self.rules.excludes_libraries;
        let is_implicit = kind.is_some_and(|it| it.way.is_implicit());
        let keys = kind.map_or([false; KEYS], |it| it.way.keys());
        let sets = kind.map_or(NONE, |it| it.sets);
        // Explicit beats implicit.
        let inherited = self.value_in(outer, SESSION, self.now, self.now);
        let ignores =
            |it: &Option<Found>| it.is_some_and(|it| !it.is_implicit && sets[0] != Some(it.text));
        let is_ignored = is_implicit && inherited.iter().any(ignores);
        self.open_if(is_implicit && is_ignored != inherited.iter().all(ignores));
        let opens = keys != [false; KEYS] && !is_ignored && !is_excluded;
        let explicit = |it: &Option<Found>| it.is_some_and(|it| !it.is_implicit);
        let is_explicit = inherited.iter().any(explicit);
        self.open_if(is_implicit && is_explicit && !inherited.iter().all(explicit));
        let place = self.here(thread).scope;
        let applied = [0, 1, 2].map(|key| {
            let found = self.value_in(place, key, self.now, self.now);
            found.iter().any(Option::is_some)
        });
        let registry_parent = match parent {
            _ if kind.is_none() => None,
            Parent::Contextual => self.current(thread),
            Parent::Explicit(name) => Some(self.spans[&name]),
            Parent::Root => None,
        };
        if let Some(parent) = registry_parent {
            self.span(parent).children += 1;
        }
        // What inherits from a filtered-out span is settled when it is created.
        let below_hidden = outer.is_some_and(|it| {
            let data = &self.nodes[it];
            let mut outers = data.outers.iter().flatten();
            self.is_hidden(it) || data.is_choice && outers.any(|it| self.is_hidden(*it))
        });
        let now = Some(self.now);
        let settled = match (opens || hidden, below_hidden) {
            (false, false) => vec![None],
            (true, _) if opens => vec![now],
            _ => vec![now, None],
        };
        let node = self.add(Data {
            outers: vec![outer],
            is_implicit: is_implicit && !is_explicit,
            settled,
            span: Some(Span {
                name,
                parent,
                kind,
                applied,
                opens,
                hidden,
                own: vec![],
                started: None,
                closed: None,
                has_handle: kind.is_some(),
                entered: 0,
                children: 0,
                registry_parent,
                is_any: false,
                adopted: vec![],
                was_adopted: false,
            }),
            ..Data::default()
        });
        self.spans.insert(name, node);
        self.record(node, sets);
        node
    }

    pub(super) fn create(&mut self, thread: usize, name: Name, parent: Parent, kind: Kind) -> Node {
        self.new_span(thread, name, parent, Some(kind))
    }

    pub(super) fn record(&mut self, node: Node, mut values: Values) {
        // Open: an adopted span inherits the values of the time when it was adopted.
        let is_adopted = |it: &Node| {
            self.nodes[*it]
                .span
                .as_ref()
                .is_some_and(|it| it.was_adopted)
        };
        let mut adopted = (0..self.nodes.len()).filter(is_adopted);
        let is_of_future = |it: Node| {
            let span = self.nodes[it].span.as_ref();
            let mut futures = span.into_iter().flat_map(|it| &it.adopted);
            futures.any(|(future, _)| self.inherits(*future, node))
        };
        let is_inherited =
            adopted.any(|it| it != node && (self.inherits(it, node) || is_of_future(it)));
        self.open_if(is_inherited);
        let now = self.now;
        let is_implicit = self.span(node).kind.is_some_and(|it| it.way.is_implicit());
        let data = &self.nodes[node];
        // Inside an explicit session with the same id, the id has become explicit: the field doesn't replace it.
        let has_id = data.fields.iter().any(|it| it.1[SESSION].is_some());
        if is_implicit && !data.is_implicit && has_id {
            values[SESSION] = None;
        }
        let span = self.span(node);
        if span.opens {
            self.nodes[node].fields.push((now, values));
        } else {
            // The field `id` is an attribute `id`.
            values[SESSION] = None;
            values[2] = None;
            span.own.push(values);
        }
    }

    pub(super) fn start(&mut self, node: Node) {
        let now = self.now;
        if self.is_hidden(node) {
            return;
        }
        let span = self.span(node);
        if span.started.is_some() {
            return;
        }
        span.started = Some(now);
        for settled in &mut self.nodes[node].settled {
            settled.get_or_insert(now);
        }
    }

    pub(super) fn enter(&mut self, thread: usize, name: Name, node: Node) {
        let was_started = self.span(node).started.is_some();
        self.start_outer(node);
        self.start(node);
        if self.is_hidden(node) && self.nodes[node].settled.contains(&None) {
            // Open: it inherits what applies when it is entered first.
            let now = self.now;
            self.nodes[node].settled.push(Some(now));
        }
        self.span(node).entered += 1;
        let app = self.threads[thread].app;
        self.threads[thread].entered.push((node, app));
        let here = self.here(thread);
        let Span { hidden, opens, .. } = *self.span(node);
        let context = match hidden {
            false => (self.adopted(node, here, was_started)).unwrap_or(Context::of(node)),
            true if opens => Context {
                span: here.span,
                scope: Some(node),
                inside: true,
                ..Context::default()
            },
            true => {
                // In no session when it was created: open, whether the place where it is entered applies.
                let created = self.nodes[node].settled[0].unwrap_or(self.now);
                let found =
                    |outer: &Option<Node>, key| self.value_in(*outer, key, self.now, created);
                let outers = self.nodes[node].outers.iter();
                let mut in_session =
                    outers.filter(|it| (0..KEYS).any(|key| !found(it, key).contains(&None)));
                let is_open = !self.rules.hidden_inherit || in_session.next().is_none();
                let choice = is_open.then(|| Data {
                    outers: vec![Some(node), here.scope],
                    settled: vec![None],
                    is_choice: true,
                    ..Data::default()
                });
                Context {
                    scope: Some(choice.map_or(node, |choice| self.add(choice))),
                    inside: true,
                    is_choice: is_open,
                    span: here.span,
                    ..Context::default()
                }
            }
        };
        self.push(thread, name, context);
    }

    pub(super) fn exit(&mut self, thread: usize, name: Name, node: Node) {
        self.pop(thread, name);
        self.threads[thread].entered.retain(|it| it.0 != node);
        self.span(node).entered -= 1;
        self.close(node);
    }

    pub(super) fn has_hidden_child(&self, node: Node) -> bool {
        let mut spans = 0..self.nodes.len();
        spans.any(|it| self.is_hidden(it) && self.nodes[it].outers.contains(&Some(node)))
    }

    /// Starts the span that a filtered-out one inherits from: only its `Context` tells which values apply.
    fn start_outer(&mut self, node: Node) {
        let mut next = Some(node).filter(|it| self.is_hidden(*it));
        while let Some(at) = next.filter(|it| self.is_hidden(*it) && !self.nodes[*it].opens()) {
            next = self.nodes[at].outers.first().copied().flatten();
        }
        let is_span = |it: &Node| self.nodes[*it].span.is_some();
        if let Some(outer) = next.filter(is_span).filter(|_| self.rules.exports) {
            self.start(outer);
        }
    }

    /// Closes a span if nothing keeps it open, and then its parent.
    pub(super) fn close(&mut self, node: Node) {
        let now = self.now;
        let span = self.span(node);
        let is_kept = span.has_handle || span.entered > 0 || span.children > 0;
        if is_kept || span.closed.is_some() {
            return;
        }
        span.closed = Some(now);
        let parent = span.registry_parent;
        self.start(node);
        if let Some(parent) = parent {
            self.span(parent).children -= 1;
            self.close(parent);
        }
    }
}
