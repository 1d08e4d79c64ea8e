//! What is combined, which combinations mean something, and the program of each.

use crate::permutations::oracle::{Hold, Parent, SetParent, Span, Step, Values, Way};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Combination {
    pub said: Said,
    pub how: How,
    pub parent: OpenersParent,
    /// Whether the opener is entered while the spans below it are made, or only named as their
    /// parent.
    pub entered: bool,
    pub other_thread: bool,
    pub set_parent: Given,
    pub filter: Filter,
    pub outer: Outer,
    pub attributes: Option<Attributes>,
}

/// The author's own attributes, on the opener, on children, on a grandchild and on a span that is made with
/// OpenTelemetry's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    pub when: When,
    pub values: Values,
}

/// When the author sets attributes on a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Created,
    /// Before the start, but after the fields that are recorded before it.
    Unstarted,
    Started,
    /// After all fields.
    Last,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Session,
    User,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Nothing,
    /// By the opener, in this way.
    Span(Way),
    /// By the opener, in this way, and others before it starts.
    Twice(Way),
    /// By the opener, in this way, where `set_*` sets others on the current span before the opener starts.
    Overtaken(Way),
    /// By a `Session` value, in force around the opener.
    Around(Hold),
    /// By a `Session` value, in force inside the opener.
    Inside(Hold),
    /// With `set_session_id` and `set_user_id`, on an opener that says nothing else.
    Set,
    /// The same, on an opener that sets both otherwise, in this way.
    SetOver(Way),
    /// The same, on an opener in a `Session` value that says both.
    SetIn(Hold),
    /// By a `Session` value, in force inside the opener, on which both have been set before.
    InsideSet(Hold),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenersParent {
    Contextual,
    /// Where another span is current, which says a session and user of its own.
    Explicit,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    No,
    Remote,
    RemoteInSession,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    None,
    /// There is one, and it hides nothing.
    Open,
    HidesOpener,
    /// And the span that is current where the opener has an explicit parent.
    HidesBoth,
}

/// What the root says, around it all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    Nothing,
    Fields(Values),
    /// Both, with `set_session_id` and `set_user_id`, where its fields said others.
    Set,
    /// A session, where its explicit parent says both.
    Explicit,
    /// Both, and the session only by the name of the span.
    Implicit,
    /// Both, with headers that are its parent.
    Headers,
}

const SAID: [Said; 3] = [Said::Session, Said::User, Said::Both];
const HOW: [How; 21] = [
    How::Nothing,
    How::Span(Way::Macro),
    How::Span(Way::Named),
    How::Span(Way::Dotted),
    How::Span(Way::LateNamed),
    How::Span(Way::LateDotted),
    How::Twice(Way::LateNamed),
    How::Twice(Way::LateDotted),
    How::Overtaken(Way::Named),
    How::Overtaken(Way::LateDotted),
    How::Around(Hold::Attach),
    How::Around(Hold::InScope),
    How::Around(Hold::Future),
    How::Inside(Hold::Attach),
    How::Inside(Hold::InScope),
    How::Inside(Hold::Future),
    How::Set,
    How::SetOver(Way::Dotted),
    How::SetOver(Way::Named),
    How::SetIn(Hold::Attach),
    How::InsideSet(Hold::InScope),
];
const PARENTS: [OpenersParent; 3] = [
    OpenersParent::Contextual,
    OpenersParent::Explicit,
    OpenersParent::None,
];
const GIVEN: [Given; 3] = [Given::No, Given::Remote, Given::RemoteInSession];
const FILTERS: [Filter; 4] = [
    Filter::None,
    Filter::Open,
    Filter::HidesOpener,
    Filter::HidesBoth,
];
const BOTH: [bool; 2] = [false, true];
const OUTER: [Outer; 9] = [
    Outer::Nothing,
    Outer::Fields(values(Some("outer"), None)),
    Outer::Fields(values(None, Some("bob"))),
    Outer::Fields(both("outer", "bob")),
    // The id that openers set, too.
    Outer::Fields(both("inner", "bob")),
    Outer::Set,
    Outer::Explicit,
    Outer::Implicit,
    Outer::Headers,
];
const WHEN: [When; 4] = [When::Created, When::Unstarted, When::Started, When::Last];
const ATTRIBUTES: [Values; 4] = [
    values(Some("own"), None),
    values(None, Some("own user")),
    both("own", "own user"),
    // What openers set, too.
    both("inner", "ann"),
];

/// All of them, numbered.
pub fn combinations() -> impl Iterator<Item = Combination> {
    fn digit<T: Copy>(number: &mut usize, of: &[T]) -> T {
        let digit = of[*number % of.len()];
        *number /= of.len();
        digit
    }
    /// A third of the combinations has attributes, spread over the values of all other digits.
    fn attributes(number: usize) -> Option<Attributes> {
        let mixed = (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let mut mixed = usize::try_from(mixed).unwrap();
        digit(&mut mixed, &[true, false, false]).then(|| Attributes {
            when: digit(&mut mixed, &WHEN),
            values: digit(&mut mixed, &ATTRIBUTES),
        })
    }
    let combination = |mut number| {
        let attributes = attributes(number);
        let number = &mut number;
        let combination = Combination {
            said: digit(number, &SAID),
            how: digit(number, &HOW),
            parent: digit(number, &PARENTS),
            entered: digit(number, &BOTH),
            other_thread: digit(number, &BOTH),
            set_parent: digit(number, &GIVEN),
            filter: digit(number, &FILTERS),
            outer: digit(number, &OUTER),
            attributes,
        };
        (*number == 0).then_some(combination)
    };
    (0..).map_while(combination)
}

impl Combination {
    pub fn is_meaningful(&self) -> bool {
        let is_set = matches!(
            self.how,
            How::Set | How::SetOver(_) | How::SetIn(_) | How::InsideSet(_)
        );
        let is_value = matches!(
            self.how,
            How::Around(_) | How::Inside(_) | How::SetIn(_) | How::InsideSet(_)
        );
        // Of what is not said, there is only one kind.
        (self.how != How::Nothing || self.said == Said::Both)
            // Values are set on the current span.
            && (!is_set || self.entered)
            // No span says it, and so there is none to hide.
            && (!is_value || !self.is_hidden())
            // A span that OpenTelemetry does not know has no parent there.
            && (self.set_parent == Given::No || !self.is_hidden())
            // There is only one span to hide.
            && (self.filter != Filter::HidesBoth || self.parent == OpenersParent::Explicit)
    }

    fn is_hidden(&self) -> bool {
        matches!(self.filter, Filter::HidesOpener | Filter::HidesBoth)
    }

    fn says(&self) -> Values {
        match self.said {
            Said::Session => values(Some("inner"), None),
            Said::User => values(None, Some("ann")),
            Said::Both => both("inner", "ann"),
        }
    }

    /// Other values of the same kind.
    fn first(&self) -> Values {
        let says = self.says();
        values(says.session.map(|_| "first"), says.user.map(|_| "joe"))
    }

    pub fn program(&self) -> Vec<Step> {
        let root = match self.outer {
            Outer::Nothing => plain("root"),
            Outer::Fields(values) => speaking("root", values),
            Outer::Set => speaking("root", both("root", "joe")),
            Outer::Explicit => Span {
                parent: Parent::Explicit("base"),
                ..speaking("root", values(Some("outer"), None))
            },
            Outer::Implicit => named("root", both("outer", "bob")),
            Outer::Headers => Span {
                set_parent: SetParent::Extracted(both("outer", "bob")),
                ..plain("root")
            },
        };
        let set = match self.outer {
            Outer::Set => vec![Step::Set(both("outer", "bob"))],
            _ => vec![],
        };
        let decoy = Span {
            hidden: self.filter == Filter::HidesBoth,
            ..speaking("decoy", both("decoy", "eve"))
        };
        let around_opener = match self.parent {
            OpenersParent::Explicit => vec![
                Step::Open(decoy),
                Step::Within("decoy", self.around_opener()),
                Step::Close("decoy"),
            ],
            _ => self.around_opener(),
        };
        let in_root = [
            set,
            around_opener,
            short(plain("sibling")),
            short(explicit("explicit sibling", "root")),
            vec![Step::Ask],
        ];
        [
            vec![
                Step::Open(speaking("base", both("base", "bob"))),
                Step::Open(root),
                Step::Within("root", in_root.concat()),
            ],
            short(explicit("last sibling", "root")),
            vec![Step::Close("root"), Step::Close("base")],
            short(plain("after all")),
            vec![Step::Ask],
        ]
        .concat()
    }

    fn around_opener(&self) -> Vec<Step> {
        let steps = match self.how {
            How::Around(hold) => vec![Step::InSession(hold, self.says(), self.with_opener())],
            How::SetIn(hold) => {
                let values = both("value", "joe");
                vec![Step::InSession(hold, values, self.with_opener())]
            }
            _ => self.with_opener(),
        };
        [steps, short(plain("beside")), vec![Step::Ask]].concat()
    }

    fn with_opener(&self) -> Vec<Step> {
        let steps = match self.entered {
            true => vec![Step::Within("opener", self.below_opener())],
            false => self.below_opener(),
        };
        let steps = match self.other_thread {
            true => {
                let left = [short(plain("left on the thread")), vec![Step::Ask]];
                vec![Step::OnThread([steps, left.concat()].concat())]
            }
            false => steps,
        };
        let before_start = match self.how {
            How::Twice(_) => vec![Step::Record("opener", self.first())],
            How::Overtaken(_) => vec![Step::Set(both("overtaking", "lou"))],
            _ => vec![],
        };
        [
            vec![Step::Open(self.opener())],
            self.attributes("opener", When::Created),
            before_start,
            self.attributes("opener", When::Unstarted),
            steps,
            short(plain("next")),
            short(explicit("last child", "opener")),
            vec![Step::Close("opener")],
        ]
        .concat()
    }

    fn opener(&self) -> Span {
        let (way, says) = match self.how {
            How::Span(way) | How::Overtaken(way) => (way, self.says()),
            How::Twice(way) => (way, self.first()),
            How::SetOver(way) => (way, both("opener", "joe")),
            _ => (Way::Plain, Values::default()),
        };
        Span {
            name: "opener",
            parent: match self.parent {
                OpenersParent::Contextual => Parent::Contextual,
                OpenersParent::Explicit => Parent::Explicit("root"),
                OpenersParent::None => Parent::None,
            },
            way,
            says,
            hidden: self.is_hidden(),
            set_parent: match self.set_parent {
                Given::No => SetParent::No,
                Given::Remote => SetParent::Remote,
                Given::RemoteInSession => SetParent::RemoteIn(both("given", "zoe")),
            },
        }
    }

    /// Spans that have ended when something is said late, or are open, or wait to be entered, and
    /// those that come after it.
    fn below_opener(&self) -> Vec<Step> {
        let late = match self.how {
            How::Span(Way::LateNamed | Way::LateDotted)
            | How::Overtaken(Way::LateDotted)
            | How::Twice(_) => {
                vec![Step::Record("opener", self.says())]
            }
            How::Set | How::SetOver(_) | How::SetIn(_) => vec![Step::Set(self.says())],
            How::InsideSet(_) => vec![Step::Set(both("set", "joe"))],
            _ => vec![],
        };
        let then = match self.how {
            How::Inside(hold) | How::InsideSet(hold) => {
                vec![Step::InSession(hold, self.says(), self.descendants())]
            }
            _ => self.descendants(),
        };
        [
            short(self.child("early child")),
            vec![
                Step::Ask,
                Step::Open(self.child("open child")),
                Step::Within("open child", vec![]),
                Step::Open(self.child("waiting child")),
            ],
            self.attributes("waiting child", When::Created),
            self.attributes("opener", When::Started),
            self.attributes("open child", When::Started),
            late,
            self.attributes("opener", When::Last),
            self.attributes("open child", When::Last),
            self.attributes("waiting child", When::Unstarted),
            then,
            vec![
                Step::Within("open child", short(plain("late grandchild"))),
                Step::Close("open child"),
                Step::Within("waiting child", vec![]),
                Step::Close("waiting child"),
            ],
            short(self.child("late child")),
        ]
        .concat()
    }

    fn descendants(&self) -> Vec<Step> {
        let orphan = Span {
            parent: Parent::None,
            ..plain("orphan")
        };
        let [built, later] = [
            [When::Created, When::Unstarted],
            [When::Started, When::Last],
        ]
        .map(|moments| self.values(|when| moments.contains(&when)));
        let below = [
            vec![Step::Open(plain("grandchild"))],
            self.attributes("grandchild", When::Created),
            self.attributes("grandchild", When::Unstarted),
            vec![Step::Within("grandchild", vec![])],
            self.attributes("grandchild", When::Started),
            self.attributes("grandchild", When::Last),
            vec![
                Step::Close("grandchild"),
                Step::OtelSpan {
                    name: "library",
                    built,
                    later,
                    inside: short(plain("below library")),
                },
                Step::Open(named("implicit", both("deep", "dan"))),
                Step::Within("implicit", short(plain("below implicit"))),
                Step::Close("implicit"),
            ],
            short(explicit("child's sibling", "opener")),
            short(orphan),
            vec![Step::Ask],
        ];
        [
            vec![
                Step::Ask,
                Step::Open(self.child("child")),
                Step::Within("child", below.concat()),
            ],
            short(explicit("explicit grandchild", "child")),
            vec![Step::Close("child")],
            // Below the opener or not, as that is entered or not.
            short(plain("contextual")),
        ]
        .concat()
    }

    /// The author's attributes that are set at these moments.
    fn values(&self, is_now: impl Fn(When) -> bool) -> Values {
        let attributes = self.attributes.filter(|it| is_now(it.when));
        attributes.map(|it| it.values).unwrap_or_default()
    }

    /// Sets the author's attributes, if this is the moment.
    fn attributes(&self, span: &'static str, now: When) -> Vec<Step> {
        match self.values(|when| when == now) {
            values if values == Values::default() => vec![],
            values => vec![Step::SetAttributes(span, values)],
        }
    }

    /// A span below the opener.
    fn child(&self, name: &'static str) -> Span {
        match self.entered {
            true => plain(name),
            false => explicit(name, "opener"),
        }
    }
}

const fn values(session: Option<&'static str>, user: Option<&'static str>) -> Values {
    Values { session, user }
}

const fn both(session: &'static str, user: &'static str) -> Values {
    values(Some(session), Some(user))
}

fn plain(name: &'static str) -> Span {
    Span {
        name,
        parent: Parent::Contextual,
        way: Way::Plain,
        says: Values::default(),
        hidden: false,
        set_parent: SetParent::No,
    }
}

fn explicit(name: &'static str, parent: &'static str) -> Span {
    Span {
        parent: Parent::Explicit(parent),
        ..plain(name)
    }
}

fn speaking(name: &'static str, says: Values) -> Span {
    Span {
        way: Way::Dotted,
        says,
        ..plain(name)
    }
}

/// An implicit opener.
fn named(name: &'static str, says: Values) -> Span {
    Span {
        way: Way::Named,
        says,
        ..plain(name)
    }
}

/// A span that is never entered.
fn short(span: Span) -> Vec<Step> {
    vec![Step::Open(span), Step::Close(span.name)]
}
