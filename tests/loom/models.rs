use crate::diagnostic::check::Check;
use crate::diagnostic::looks::Looks;
use crate::diagnostic::{self, Once};
use crate::scope::inherited::Said;
use crate::scope::{Ids, Scope, Value, Values};
use crate::session::details::Details;
use crate::session::{Id, Session};
use crate::shards::Shards;
use loom::thread::{self, JoinHandle};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracing::span::{Attributes, Id as SpanId, Record};
use tracing::{Dispatch, Event, Metadata, Subscriber};

/// Loom gives up an order in which threads are interrupted more often than that: what goes wrong at all goes
/// wrong with two or three.
const INTERRUPTIONS: usize = 3;

fn in_every_order(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(INTERRUPTIONS);
    let orders = Arc::new(AtomicUsize::new(0));
    let count = orders.clone();
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let orders = orders.load(Ordering::Relaxed);
    assert!(orders > 1, "it has tried one order");
    eprintln!("{orders} orders");
}

fn id(text: &str) -> Option<Id> {
    Some(Id::new(text).unwrap())
}

/// The scope of a span whose fields have said these, and may say others.
fn late(session: Option<Id>, user: Option<Id>, outer: Option<Arc<Scope>>) -> Arc<Scope> {
    let ids = Ids {
        id: Value::Late(session),
        user_id: Value::Late(user),
    };
    Scope::nested(
        outer,
        Values {
            ids,
            ..Values::default()
        },
    )
}

/// The scope of something inside.
fn inside(outer: &Arc<Scope>) -> Arc<Scope> {
    Scope::nested(Some(outer.clone()), Values::default())
}

fn texts(ids: (Option<Id>, Option<Id>)) -> (String, String) {
    let text = |id: Option<Id>| id.map(|id| id.as_str().to_owned()).unwrap_or_default();
    (text(ids.0), text(ids.1))
}

fn run(act: impl FnOnce() + 'static) -> JoinHandle<()> {
    thread::spawn(act)
}

/// The pairs of ids that have been in force.
fn assert_one_of(seen: &(String, String), pairs: &[(&str, &str)]) {
    let is = |(session, user): &(&str, &str)| seen.0 == *session && seen.1 == *user;
    assert!(pairs.iter().any(is), "{seen:?} has never been in force");
}

#[test]
fn ids_recorded_late_are_seen_or_not_and_never_those_of_two_moments() {
    in_every_order(|| {
        let scope = late(id("s1"), id("u1"), None);
        let child = inside(&scope);
        let records = scope.clone();
        let recording = run(move || {
            records.record(id("s2"), None);
            records.record(None, id("u2"));
        });
        let seen = texts(child.ids());
        assert_one_of(&seen, &[("s1", "u1"), ("s2", "u1"), ("s2", "u2")]);
        recording.join().unwrap();
        assert_eq!(texts(child.ids()), ("s2".to_owned(), "u2".to_owned()));
    });
}

#[test]
fn two_ids_of_one_record_are_seen_both_or_none() {
    in_every_order(|| {
        let scope = late(None, None, None);
        let child = inside(&scope);
        let records = scope.clone();
        let recording = run(move || {
            records.record(id("s1"), id("u1"));
            records.record(id("s2"), id("u2"));
        });
        let allowed = [("", ""), ("s1", "u1"), ("s2", "u2")];
        let first = texts(child.ids());
        assert_one_of(&first, &allowed);
        let second = texts(child.ids());
        assert_one_of(&second, &allowed);
        assert!(first <= second, "{first:?} is in force again");
        recording.join().unwrap();
        assert_eq!(texts(child.ids()), ("s2".to_owned(), "u2".to_owned()));
    });
}

#[test]
fn threads_that_record_at_once_leave_what_one_of_them_said() {
    in_every_order(|| {
        let scope = late(id("s0"), id("u0"), None);
        let child = inside(&scope);
        let records = |session: &'static str, user: &'static str| {
            let scope = scope.clone();
            run(move || scope.record(id(session), id(user)))
        };
        let (one, other) = (records("s1", "u1"), records("s2", "u2"));
        let allowed = [("s0", "u0"), ("s1", "u1"), ("s2", "u2")];
        assert_one_of(&texts(child.ids()), &allowed);
        one.join().unwrap();
        other.join().unwrap();
        assert_one_of(&texts(child.ids()), &allowed[1..]);
        scope.record(id("s3"), id("u3"));
        assert_eq!(texts(child.ids()), ("s3".to_owned(), "u3".to_owned()));
    });
}

#[test]
fn scope_that_awaits_its_ids_has_those_around_until_then() {
    in_every_order(|| {
        let outer = late(id("s1"), id("u1"), None);
        let scope = late(None, None, Some(outer.clone()));
        // Below a parent that was set from outside, a scope is moved.
        let moved = scope.moved_into(Some(late(id("s3"), id("u3"), None)));
        let records = scope.clone();
        let recording = run(move || records.record(id("s2"), id("u2")));
        assert_one_of(&texts(inside(&scope).ids()), &[("s1", "u1"), ("s2", "u2")]);
        assert_one_of(&texts(inside(&moved).ids()), &[("s3", "u3"), ("s2", "u2")]);
        recording.join().unwrap();
        assert_eq!(texts(moved.ids()), ("s2".to_owned(), "u2".to_owned()));
    });
}

/// The scope of a span with fields for metadata.
fn late_details(outer: Option<Arc<Scope>>) -> Arc<Scope> {
    let details = Said {
        declared: true,
        ..Said::default()
    };
    Scope::nested(
        outer,
        Values {
            details,
            ..Values::default()
        },
    )
}

fn metadata(scope: &Scope) -> Vec<String> {
    let mut keys = Vec::new();
    scope.details().read(|details: &Details| {
        keys.extend(details.metadata.iter().map(|(key, _)| key.clone()));
    });
    keys
}

#[test]
fn metadata_recorded_late_is_not_lost_whoever_merges_it_meanwhile() {
    in_every_order(|| {
        let outer = late_details(None);
        let scope = late_details(Some(outer.clone()));
        let record = |scope: &Arc<Scope>, key: &'static str| {
            scope.record_detail(|details| details.set_metadata(key, true.into()));
        };
        let records = outer.clone();
        let recording = run(move || record(&records, "outer"));
        let reads = inside(&scope);
        let reading = run(move || drop(metadata(&reads)));
        record(&scope, "inner");
        let seen = metadata(&scope);
        assert!(seen == ["inner"] || seen == ["outer", "inner"], "{seen:?}");
        recording.join().unwrap();
        assert_eq!(metadata(&scope), ["outer", "inner"]);
        reading.join().unwrap();
        assert_eq!(metadata(&scope), ["outer", "inner"]);
    });
}

/// As the span itself has them, and as it has them where its parent was set from outside.
#[test]
fn ids_of_the_span_itself_are_whole_while_both_are_recorded() {
    let itself: fn(&Arc<Scope>) -> Arc<Scope> = Arc::clone;
    let moved = |scope: &Arc<Scope>| {
        let other = late(id("other"), id("other"), None);
        scope.moved_into(Some(inside(&other)))
    };
    for (reads, before) in [(itself, ("", "")), (moved, ("other", "other"))] {
        in_every_order(move || {
            let scope = late(None, None, None);
            let reader = reads(&scope);
            let recording = run(move || scope.record(id("s1"), id("u1")));
            assert_one_of(&texts(reader.ids()), &[before, ("s1", "u1")]);
            recording.join().unwrap();
            assert_one_of(&texts(reader.ids()), &[("s1", "u1")]);
        });
    }
}

#[test]
fn session_of_a_span_below_is_whole_while_all_of_it_is_recorded() {
    in_every_order(|| {
        let ids = Ids {
            id: Value::Late(None),
            user_id: Value::Late(None),
        };
        let details = Said {
            declared: true,
            ..Said::default()
        };
        let scope = Scope::nested(
            None,
            Values {
                ids,
                details,
                ..Values::default()
            },
        );
        let records = scope.clone();
        let recording = run(move || {
            records.record_detail(|details| details.set_metadata("plan", true.into()));
            records.record(id("s1"), id("u1"));
        });
        let seen: Session = inside(&scope).to_session();
        assert_eq!(seen.id().is_some(), seen.user_id().is_some());
        // The metadata was there first.
        assert!(seen.id().is_none() || seen.metadata("plan").is_some());
        recording.join().unwrap();
    });
}

/// What is handed from thread to thread with a key: whoever has the one has the other.
type Map = Shards<u64, &'static str>;

fn map() -> Arc<Map> {
    let map = Arc::new(Map::new());
    assert!(!map.may_have(64));
    map
}

#[test]
fn entry_is_found_by_whoever_was_handed_its_key_whatever_is_beside_it() {
    in_every_order(|| {
        let map = map();
        // In the same shard.
        let (key, beside) = (64, 128);
        let others = map.clone();
        let coming_and_going = run(move || {
            others.insert(beside, "beside");
            assert_eq!(others.remove(beside), Some("beside"));
        });
        map.insert(key, "ours");
        let finds = map.clone();
        let finding = run(move || {
            assert!(finds.may_have(key));
            assert_eq!(finds.read(key, |value| Some(*value)), Some("ours"));
            assert_eq!(finds.remove_if(key, |value| *value == "ours"), Some("ours"));
        });
        finding.join().unwrap();
        coming_and_going.join().unwrap();
        // Nothing is left, and that is known without a lock.
        assert!(!map.may_have(key));
    });
}

#[test]
fn entry_that_two_threads_take_is_had_by_one() {
    in_every_order(|| {
        let map = map();
        map.insert(64, "ours");
        let takes = map.clone();
        let taking = thread::spawn(move || takes.remove(64).is_some());
        let here = map.remove(64).is_some();
        let there = taking.join().unwrap();
        assert!(here != there);
        assert!(!map.may_have(64));
    });
}

#[test]
fn mistake_is_said_by_one_thread() {
    in_every_order(|| {
        let once: Arc<Once<&str>> = Arc::default();
        let also = once.clone();
        let other = thread::spawn(move || also.first("mistake"));
        let here = once.first("mistake");
        assert!(here != other.join().unwrap());
    });
}

#[test]
fn mistake_that_two_looks_find_is_said_once_whatever_others_miss() {
    in_every_order(|| {
        let looks = Arc::new(Looks::default());
        // One is left.
        (0..7).for_each(|_| looks.missed());
        assert!(looks.are_due());
        let (finds, misses) = (looks.clone(), looks.clone());
        let finding = thread::spawn(move || finds.found());
        let missing = run(move || {
            misses.missed();
            misses.missed();
        });
        let here = looks.found();
        assert!(here != finding.join().unwrap());
        missing.join().unwrap();
        assert!(!looks.are_due());
    });
}

/// How much there is to be said, which it then is: loom's threads are all on one, which it waits on.
fn said() -> usize {
    #[derive(Clone, Default)]
    struct Said(Arc<AtomicUsize>);

    impl Subscriber for Said {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> SpanId {
            SpanId::from_u64(1)
        }

        fn record(&self, _: &SpanId, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &SpanId, _: &SpanId) {}

        fn event(&self, _: &Event<'_>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn enter(&self, _: &SpanId) {}

        fn exit(&self, _: &SpanId) {}
    }

    let said = Said::default();
    diagnostic::say(&Dispatch::new(said.clone()));
    said.0.load(Ordering::Relaxed)
}

#[test]
fn set_up_that_threads_look_at_together_is_told_of_once_and_not_looked_at_again() {
    in_every_order(|| {
        let check = Arc::new(Check::default());
        let (finds, misses) = (check.clone(), check.clone());
        let finding = run(move || finds.done(Some(diagnostic::NO_PROVIDER)));
        let missing = run(move || {
            misses.is_hidden();
            misses.is_ours();
            misses.opener_made();
        });
        check.done(Some(diagnostic::NO_ACTIVATION));
        finding.join().unwrap();
        missing.join().unwrap();
        assert!(!check.is_due());
        assert_eq!(said(), 1);
    });
}
