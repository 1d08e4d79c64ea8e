//! The generator.

use super::book::{Book, Guard};
use super::program::{Given, Group, KEYS, Kind, Name, Op, Parent, Step, Value, Values, Way};

/// A generator of pseudorandom numbers: xorshift64*.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Self((seed ^ 0x5DEE_CE66).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        random.below(2);
        random
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(high).unwrap() % end
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())].clone())
    }
}

/// What a set-up makes programs of.
#[derive(Clone, Copy)]
pub struct Choices<'a> {
    pub groups: &'a [Group],
    pub threads: usize,
    pub hides: bool,
    /// There is an OpenTelemetry layer.
    pub exports: bool,
}

pub fn generate(seed: u64, choices: Choices<'_>) -> Vec<Step> {
    let mut maker = Maker {
        random: Random::new(seed),
        book: Book::default(),
        choices,
        last: 0,
        thread: 0,
    };
    let length = 8 + maker.random.below(32);
    let mut steps = Vec::new();
    while steps.len() < length {
        if choices.threads > 1 && maker.random.one_in(8) {
            maker.thread = 1 - maker.thread;
        }
        let Some(op) = maker.op() else { continue };
        let thread = maker.thread;
        let step = Step { thread, op };
        if maker.book.apply(&step) {
            steps.push(step);
        }
    }
    steps
}

struct Maker<'a> {
    random: Random,
    book: Book,
    choices: Choices<'a>,
    last: Name,
    thread: usize,
}

impl Maker<'_> {
    fn has(&self, group: Group) -> bool {
        self.choices.groups.contains(&group)
    }

    fn name(&mut self) -> Name {
        self.last += 1;
        self.last
    }

    fn span(&mut self) -> Option<Name> {
        let app = self.book.app(self.thread);
        let spans = self.book.spans.iter().filter(|it| it.1 == app);
        let spans: Vec<_> = spans.map(|it| it.0).collect();
        self.random.pick(&spans)
    }

    /// An id of this application.
    fn text(&mut self, key: usize) -> &'static str {
        const TEXTS: [[[&str; 3]; KEYS]; 2] = [
            [["A", "B", "C"], ["ann", "bob", "cy"], ["x", "y", "z"]],
            [["D", "E", "F"], ["dan", "eve", "fay"], ["p", "q", "r"]],
        ];
        let app = self.book.app(self.thread);
        TEXTS[app][key][self.random.below(3)]
    }

    fn values(&mut self) -> Values {
        [0, 1, 2].map(|key| self.random.one_in(2).then(|| self.text(key)))
    }

    fn kind(&mut self) -> Kind {
        let mut ways = vec![
            Way::SessionField,
            Way::UserField,
            Way::BothFields,
            Way::Named,
            Way::NamedWithUser,
            Way::SessionMacro,
            Way::UserMacro,
            Way::ValueMacro,
        ];
        if self.has(Group::Options) {
            let text = self.text(0);
            let texts = [None, Some(text), Some("null"), Some("undefined")];
            ways.extend(texts.map(Way::Debugged));
        }
        if self.has(Group::Libraries) {
            ways.extend([Way::Library; 3]);
        }
        let way = if self.random.below(5) < 2 {
            Way::Plain
        } else {
            self.random.pick(&ways).unwrap()
        };
        let mut sets = self.values();
        let keys = way.keys();
        for key in 0..KEYS {
            if !keys[key] {
                sets[key] = None;
            }
        }
        match way {
            // The macros always set one.
            Way::SessionMacro => sets = [Some(self.text(0)), None, sets[2]],
            Way::UserMacro => sets[1] = Some(self.text(1)),
            Way::ValueMacro => sets = [Some(self.text(0)), sets[1], None],
            Way::Library => sets = [Some("7"), None, None],
            Way::Debugged(text) => sets = [text.filter(|it| it.len() == 1), None, None],
            _ => {}
        }
        let hidden = self.choices.hides && self.random.one_in(3);
        Kind { way, sets, hidden }
    }

    fn value(&mut self) -> Value {
        if self.has(Group::Exact) && self.random.one_in(2) {
            if let Some(kept) = self.random.pick(&self.book.reads.clone()) {
                return Value::Kept(kept);
            }
            return Value::Exact(self.values());
        }
        let blocks = [0, 1, 2].map(|_| self.random.one_in(6));
        Value::New(self.values(), blocks)
    }

    fn given(&mut self) -> Option<Given> {
        Some(match self.random.below(4) {
            0 => Given::Remote,
            1 => Given::RemoteIn(self.values()),
            2 => Given::Of(self.span()?),
            _ => Given::Kept(self.random.pick(&self.book.contexts.clone())?),
        })
    }

    fn guard(&mut self, guard: Guard) -> Option<Name> {
        let guards = self.book.guards.iter();
        let of_kind: Vec<_> = guards
            .filter(|it| it.1 == self.thread && it.2 == guard)
            .map(|it| it.0)
            .collect();
        // Usually in order.
        match self.random.below(4) {
            0 => self.random.pick(&of_kind),
            _ => of_kind.last().copied(),
        }
    }

    fn op(&mut self) -> Option<Op> {
        let exports = self.choices.exports;
        if self.has(Group::TwoApps) && self.random.one_in(10) {
            return Some(match self.guard(Guard::Switch) {
                Some(switch) if self.random.one_in(2) => Op::Detach(switch),
                _ => Op::Switch(self.name()),
            });
        }
        if self.has(Group::Reload) && self.random.one_in(16) {
            return Some(Op::Reload);
        }
        if self.has(Group::Futures) && self.random.one_in(6) {
            return self.of_a_future();
        }
        Some(match self.random.below(32) {
            0..=7 => {
                let parent = match self.random.below(8) {
                    0 | 1 => Parent::Explicit(self.span()?),
                    2 => Parent::Root,
                    _ => Parent::Contextual,
                };
                Op::Span(self.name(), parent, self.kind())
            }
            8..=12 => Op::Enter(self.span()?),
            13..=15 => Op::Exit(self.guard(Guard::Span)?),
            16 => Op::Close(self.span()?),
            17..=18 => {
                let name = self.span()?;
                let keys = self.book.kind(name).way.keys();
                let mut values = self.values();
                for key in 0..KEYS {
                    if !keys[key] {
                        values[key] = None;
                    }
                }
                Op::Record(name, values)
            }
            19 if exports => Op::SetParent(self.span()?, self.given()?),
            20 | 21 => Op::Attach(self.name(), self.value()),
            22 => Op::Detach(self.guard(Guard::Session)?),
            23 => Op::SetSession(self.text(0)),
            24 => Op::SetUser(self.text(1)),
            25 => {
                let values = self.values();
                Op::SetAll(values)
            }
            26 | 27 => Op::Read(self.name()),
            28 if exports => Op::Plain(self.name()),
            29 if exports => Op::EndPlain(self.guard(Guard::Plain)?),
            30 if exports => Op::Keep(self.name()),
            31 if self.has(Group::Contexts) && exports => {
                let given = match self.random.below(3) {
                    0 => Given::Empty,
                    _ => self.given()?,
                };
                Op::AttachContext(self.name(), given)
            }
            _ => return None,
        })
    }

    fn of_a_future(&mut self) -> Option<Op> {
        let app = self.book.app(self.thread);
        let futures = self.book.futures.iter().filter(|it| it.1 == app);
        let futures: Vec<_> = futures.map(|it| it.0).collect();
        Some(match self.random.below(6) {
            0 | 1 => {
                let span = match self.has(Group::Adopted) && self.random.one_in(2) {
                    true => self.span(),
                    false => None,
                };
                Op::Future(self.name(), self.value(), span)
            }
            2 => Op::DropFuture(self.random.pick(&futures)?, self.name()),
            _ => Op::Poll(self.random.pick(&futures)?, self.name(), self.kind()),
        })
    }
}
