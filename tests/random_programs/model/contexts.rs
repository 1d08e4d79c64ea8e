//! `Context`s that are attached or given to `set_parent`.

use super::{Context, Data, Model, Node};
use crate::random_programs::program::{Given, KEYS, NONE, Value, Values};

impl Model {
    pub(super) fn given(&mut self, given: Given) -> Context {
        match given {
            Given::Remote | Given::Empty => Context::default(),
            Given::RemoteIn(values) => {
                let node = self.value_node(values, vec![]);
                let scope = Some(node);
                Context {
                    scope,
                    ..Context::default()
                }
            }
            Given::Of(name) => {
                let node = self.spans[&name];
                self.start(node);
                Context::of(node)
            }
            Given::Kept(name) => self.kept[&name],
        }
    }

    pub(super) fn value_node(&mut self, values: Values, outers: Vec<Option<Node>>) -> Node {
        self.add(Data {
            outers,
            fields: vec![(self.now, values)],
            settled: vec![Some(self.now)],
            ..Data::default()
        })
    }

    /// The `Context` of a session that is attached here.
    pub(super) fn session(&mut self, thread: usize, value: Value) -> Context {
        let here = self.here(thread);
        let (values, blocks, is_implicit) = match value {
            Value::New(values, blocks) => {
                let own = [0, 1, 2].map(|key| values[key].filter(|_| !blocks[key]));
                (own, blocks, false)
            }
            Value::Exact(values) => (values, [true; KEYS], false),
            Value::Kept(name) => match self.read[&name] {
                Some((values, is_implicit)) => (values, [true; KEYS], is_implicit),
                None => (NONE, [false; KEYS], false),
            },
        };
        let node = self.value_node(values, vec![here.scope]);
        self.nodes[node].blocks = blocks;
        self.nodes[node].is_implicit = is_implicit;
        Context {
            span: here.span,
            scope: Some(node),
            inside: true,
            is_value: true,
            ..Context::default()
        }
    }
}
