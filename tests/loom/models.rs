use crate::base::diagnostic;
use crate::base::diagnostic::Once;
use crate::base::setup::{AROUND, BESIDE, SetupCheck};
use crate::base::shards::Shards;
use crate::export::OpenerFields;
use crate::scope::Scope;
use crate::scope::opener::Opener;
use crate::session::details::Details;
use crate::session::keys::{Part, Parts};
use crate::session::{Id, Session};
use loom::thread::{self, JoinHandle};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tracing::field::Field;
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

fn ids(id: Option<Id>, user_id: Option<Id>) -> Session {
    Session {
        id,
        user_id,
        ..Session::default()
    }
}

/// An opener whose fields have set `set`, and may set these parts.
fn opener(set: Session, declared: Parts) -> Arc<Opener> {
    let fields = OpenerFields {
        declared,
        ..OpenerFields::default()
    };
    Opener::new(set, fields)
}

/// The scope of a span whose fields have set these, and may set others.
fn late(session: Option<Id>, user: Option<Id>, outer: Option<Arc<Scope>>) -> Arc<Scope> {
    let declared = Parts::default().with(Part::Session).with(Part::User);
    Scope::opened(outer, &opener(ids(session, user), declared), false)
}

/// The scope of something inside.
fn inside(outer: &Arc<Scope>) -> Arc<Scope> {
    Scope::nested(Some(outer.clone()), &Session::default())
}

impl Scope {
    fn record(&self, id: Option<Id>, user_id: Option<Id>) {
        self.opener().unwrap().record(ids(id, user_id));
    }

    fn record_metadata(&self, key: &str) {
        let mut session = Session::default();
        Details::change(&mut session.details, |it| {
            it.set_metadata(key, true.into());
        });
        self.opener().unwrap().record(session);
    }

    fn ids(&self) -> (Option<Id>, Option<Id>) {
        self.with_values(|values| (values.id.clone(), values.user_id.clone()))
    }
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
    let declared = Parts::default().with(Part::Metadata).with(Part::Tags);
    Scope::opened(outer, &opener(Session::default(), declared), false)
}

fn metadata(scope: &Scope) -> Vec<String> {
    let session = scope.to_session();
    session
        .all_metadata()
        .map(|(key, _)| key.to_owned())
        .collect()
}

#[test]
fn metadata_recorded_late_is_not_lost_whoever_merges_it_meanwhile() {
    in_every_order(|| {
        let outer = late_details(None);
        let scope = late_details(Some(outer.clone()));
        let records = outer.clone();
        let recording = run(move || records.record_metadata("outer"));
        let reads = inside(&scope);
        let reading = run(move || drop(metadata(&reads)));
        scope.record_metadata("inner");
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
        let declared = [Part::Session, Part::User, Part::Metadata];
        let declared = declared.into_iter().fold(Parts::default(), Parts::with);
        let scope = Scope::opened(None, &opener(Session::default(), declared), false);
        let records = scope.clone();
        let recording = run(move || {
            records.record_metadata("plan");
            records.record(id("s1"), id("u1"));
        });
        let seen: Session = inside(&scope).to_session();
        assert_eq!(seen.id().is_some(), seen.user_id().is_some());
        // The metadata was there first.
        assert!(seen.id().is_none() || seen.metadata("plan").is_some());
        recording.join().unwrap();
    });
}

/// Scopes around are let go of when their openers close. Meanwhile others read them, and make scopes inside.
#[test]
fn nothing_that_was_recorded_is_lost_while_scopes_around_are_closed() {
    in_every_order(|| {
        let outer = late(None, None, None);
        let middle = late(None, None, Some(outer.clone()));
        let scope = late(None, None, Some(middle.clone()));
        outer.record(id("s1"), None);
        let (closes, closes_too) = (outer.clone(), middle.clone());
        let closing = run(move || {
            closes_too.record(None, id("u1"));
            closes_too.close();
            closes.close();
        });
        let nested = late(None, None, Some(scope.clone()));
        let seen = texts(nested.ids());
        assert_one_of(&seen, &[("s1", ""), ("s1", "u1")]);
        scope.close();
        closing.join().unwrap();
        let both = ("s1".to_owned(), "u1".to_owned());
        assert_eq!(texts(nested.ids()), both);
        assert_eq!(texts(inside(&nested).ids()), both);
        // The scope inside holds none of them any more.
        let around = [&outer, &middle, &scope].map(Arc::downgrade);
        drop((outer, middle, scope));
        assert!(around.iter().all(|it| it.upgrade().is_none()));
    });
}

#[test]
fn two_threads_that_let_go_of_one_scope_keep_what_is_around_it() {
    in_every_order(|| {
        let open = late(id("s1"), None, None);
        let closed = late(None, None, Some(open.clone()));
        let scope = late(None, None, Some(closed.clone()));
        closed.close();
        let other = scope.clone();
        let nesting = run(move || drop(inside(&other)));
        let here = inside(&scope);
        open.record(None, id("u1"));
        nesting.join().unwrap();
        let both = ("s1".to_owned(), "u1".to_owned());
        assert_eq!(texts(here.ids()), both);
        assert_eq!(texts(scope.ids()), both);
        assert_eq!(Arc::strong_count(&closed), 1);
    });
}

#[test]
fn values_that_one_thread_takes_over_are_not_missed_by_another_that_reads() {
    in_every_order(|| {
        let outer = late(id("s1"), None, None);
        let scope = late(None, None, Some(outer.clone()));
        let nested = late(None, None, Some(scope.clone()));
        // The snapshots are old now, so the values are read anew.
        scope.record(None, id("u1"));
        outer.close();
        let taking_over = run(move || scope.close());
        let both = ("s1".to_owned(), "u1".to_owned());
        assert_eq!(texts(nested.ids()), both);
        taking_over.join().unwrap();
        assert_eq!(texts(nested.ids()), both);
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
        let other = thread::spawn(move || diagnostic::is_first(&also, "mistake"));
        let here = diagnostic::is_first(&once, "mistake");
        assert!(here != other.join().unwrap());
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

        fn event(&self, event: &Event<'_>) {
            // Else it goes to standard error.
            event.record(&mut |_: &Field, value: &dyn Debug| drop(format!("{value:?}")));
            self.0.fetch_add(1, Ordering::Relaxed);
        }

        fn enter(&self, _: &SpanId) {}

        fn exit(&self, _: &SpanId) {}
    }

    let said = Said::default();
    diagnostic::flush(&Dispatch::new(said.clone()));
    said.0.load(Ordering::Relaxed)
}

#[test]
fn layer_beside_that_two_looks_find_is_said_once_whatever_others_miss() {
    in_every_order(|| {
        let beside = Arc::new(SetupCheck::<BESIDE>::default());
        // One look is left.
        (0..7).for_each(|_| beside.span_is_unknown());
        assert!(beside.is_running());
        let (finds, misses) = (beside.clone(), beside.clone());
        let finding = run(move || finds.finish(Some(diagnostic::BESIDE)));
        let missing = run(move || {
            misses.span_is_unknown();
            misses.span_is_unknown();
        });
        beside.finish(Some(diagnostic::TWO_LAYERS));
        finding.join().unwrap();
        missing.join().unwrap();
        assert!(!beside.is_running());
        assert_eq!(said(), 1);
    });
}

#[test]
fn set_up_that_threads_look_at_together_is_told_of_once_and_not_looked_at_again() {
    in_every_order(|| {
        let check = Arc::new(SetupCheck::<AROUND>::default());
        let (finds, misses) = (check.clone(), check.clone());
        let finding = run(move || finds.finish(Some(diagnostic::NO_PROVIDER)));
        let missing = run(move || {
            misses.span_is_unknown();
            misses.tracer_is_ours();
            misses.opener_created();
        });
        check.finish(Some(diagnostic::NO_ACTIVATION));
        finding.join().unwrap();
        missing.join().unwrap();
        assert!(!check.is_running());
        assert_eq!(said(), 1);
    });
}
