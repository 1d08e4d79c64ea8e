//! The result of every span, and whether the promises hold.
//!
//! ```text
//! ended     =  exported + dropped because the queue was full (the SDK counts these)
//! exported  =  succeeded + failed (the exporter reports these)
//! received by the collector  =  succeeded + the failed ones of which only the answer was lost
//! lost      =  ended - received  =  dropped + failed and not received
//! ```

use crate::MOODS;
use crate::ask::Way;
use crate::collector::{Checked, Mood, Taken};
use crate::load::Seen;
use crate::memory::Memory;
use crate::report::{Batch, Figures};
use crate::telemetry::Kind;
use std::collections::HashSet;
use std::time::Duration;

#[derive(Default)]
pub(crate) struct Account {
    pub(crate) rounds: Vec<Round>,
    pub(crate) services: Vec<Service>,
}

pub(crate) struct Round {
    pub(crate) seen: Seen,
    pub(crate) took: Duration,
    /// Of each service, with nothing to do.
    pub(crate) settled: Vec<Figures>,
}

/// A service that has stopped.
pub(crate) struct Service {
    pub(crate) kind: Kind,
    pub(crate) figures: Figures,
    pub(crate) batches: Vec<Batch>,
}

/// The results of a service's spans.
struct Spans {
    given: u64,
    arrived: u64,
    failed: u64,
    /// The answer was lost.
    failed_and_received: u64,
    received: u64,
}

impl Service {
    fn spans(&self, taken: &Taken) -> Spans {
        let sum = |of: &dyn Fn(&Batch) -> bool| -> u64 {
            let batches = self.batches.iter().filter(|it| of(it));
            batches.map(|it| it.spans).sum()
        };
        let is_received = |it: &Batch| {
            let known = taken.batches.get(&it.print);
            known.is_some_and(|(spans, _)| *spans == it.spans)
        };
        Spans {
            given: sum(&|_| true),
            arrived: sum(&|it| it.arrived),
            failed: sum(&|it| !it.arrived),
            failed_and_received: sum(&|it| !it.arrived && is_received(it)),
            received: sum(&is_received),
        }
    }
}

/// How much more may be in use after the last round than after those of the first half, however much
/// was done in between.
const MOST_BYTES: i64 = 32 * 1024;
const MOST_BLOCKS: i64 = 100;
/// The allocator's own: what is free between blocks, and given back to the system, or not.
const MOST_RESIDENT: i64 = 8 * 1024 * 1024;

impl Round {
    pub(crate) fn print(&self, number: u64) {
        let took = self.took.as_secs_f64();
        let rate = self.seen.requests as f64 / took;
        println!(
            "round {number}, {took:.0} s, {rate:.0} requests/s: {}",
            self.seen
        );
        for Figures { ended, memory, .. } in &self.settled {
            println!("  {ended} spans; in use: {memory}");
        }
    }
}

impl Account {
    fn seen(&self) -> Seen {
        let mut sum = Seen::default();
        for round in &self.rounds {
            sum += round.seen.clone();
        }
        sum
    }

    pub(crate) fn print(&self, taken: &Taken) {
        println!("\nway           spans   in a session   wrong");
        let all = ("all", taken.checked());
        let ways = taken.by_way.iter().map(|(way, it)| (way.as_str(), *it));
        for (way, it) in ways.chain([all]) {
            println!(
                "{way:10} {:>8} {:>14} {:>7}",
                it.spans, it.in_a_session, it.wrong
            );
        }
        println!("\nrequests to the collector: {:?}", taken.requests);
        let again = taken.batches.values().map(|(_, times)| times - 1);
        println!(
            "batches received: {}, again: {}",
            taken.batches.len(),
            again.sum::<u64>()
        );
        for (number, service) in self.services.iter().enumerate() {
            service.print(taken);
            let [first, last] = self.memory(number);
            println!(
                "  most in use after a round of the first half: {first}\n  in use after the last round:                 {last}"
            );
        }
        println!("\nin all, {}\n", self.seen());
    }

    /// The broken promises.
    pub(crate) fn broken_promises(&self, taken: &Taken) -> Vec<String> {
        let mut promises = Promises {
            of: "the collector",
            broken: Vec::new(),
        };
        let Checked { wrong, .. } = taken.checked();
        promises.hold(wrong == 0, || {
            format!(
                "{wrong} spans in a wrong session, or none: {:#?}",
                taken.wrong
            )
        });
        let batches = self.services.iter().flat_map(|it| &it.batches);
        let told: HashSet<u64> = batches.map(|it| it.print).collect();
        promises.hold(taken.batches.keys().all(|it| told.contains(it)), || {
            "batches were received that nobody has sent".to_owned()
        });
        promises.of = "the clients";
        let Seen {
            failed, failures, ..
        } = self.seen();
        promises.hold(failed == 0, || {
            format!("{failed} requests failed: {failures:#?}")
        });
        for (number, service) in self.services.iter().enumerate() {
            promises.of = service.kind.name();
            service.keeps(&mut promises, taken);
            self.does_not_grow(number, &mut promises);
        }
        promises.of = "this program";
        self.has_seen_all(&mut promises, taken);
        promises.broken
    }

    /// The most that a service had in use after a round of the first half, and what after the last
    /// round. A single early round can be low: the registry keeps the slots of as many spans as were
    /// ever open at once, and a slow machine reaches that number later.
    fn memory(&self, service: usize) -> [Memory; 2] {
        let settled = |round: &Round| round.settled.get(service).map(|it| it.memory);
        let early = self.rounds.iter().take(self.rounds.len() / 2);
        [
            early.filter_map(settled).reduce(Memory::most),
            self.rounds.last().and_then(settled),
        ]
        .map(Option::unwrap_or_default)
    }

    fn does_not_grow(&self, service: usize, promises: &mut Promises) {
        let [first, last] = self.memory(service);
        let resident = |memory: Memory| memory.resident.unwrap_or_default();
        for (what, more, most) in [
            ("bytes", last.bytes - first.bytes, MOST_BYTES),
            ("blocks", last.blocks - first.blocks, MOST_BLOCKS),
            (
                "resident bytes",
                resident(last) - resident(first),
                MOST_RESIDENT,
            ),
        ] {
            promises.hold(more <= most, || {
                format!("{more} more {what} are in use at the end, and {most} may be")
            });
        }
    }

    /// Faults that didn't happen prove nothing.
    fn has_seen_all(&self, promises: &mut Promises, taken: &Taken) {
        let seen = self.seen();
        let sum = |of: fn(&Figures) -> u64| self.services.iter().map(|it| of(&it.figures)).sum();
        let mut happened = vec![
            ("clients that hang up".to_owned(), seen.hung_up),
            ("answers broken off".to_owned(), seen.broken_off),
            ("requests refused".to_owned(), seen.refused),
            ("panics".to_owned(), sum(|it| it.panics)),
            ("tasks aborted".to_owned(), sum(|it| it.aborted)),
            (
                "spans dropped by the queue".to_owned(),
                sum(|it| it.dropped),
            ),
            (
                "exports that failed".to_owned(),
                sum(|it| it.failed_exports),
            ),
        ];
        let listening = MOODS.iter().filter(|(mood, _)| *mood != Mood::Dead);
        happened.extend(listening.map(|(mood, _)| {
            let requests = taken.requests.get(mood).copied();
            (
                format!("requests to a collector that is {mood:?}"),
                requests.unwrap_or(0),
            )
        }));
        happened.extend(Way::ALL.map(|way| {
            let checked = taken.by_way.get(way.name()).copied();
            (
                format!("spans by the way {way:?}"),
                checked.unwrap_or_default().spans,
            )
        }));
        for (what, times) in happened {
            promises.hold(times > 0, || format!("there were no {what}"));
        }
    }
}

impl Service {
    fn print(&self, taken: &Taken) {
        let Spans {
            given,
            arrived,
            failed,
            failed_and_received,
            received,
        } = self.spans(taken);
        let Figures {
            made,
            started,
            ended,
            dropped,
            failed_exports,
            looks,
            panics,
            aborted,
            warnings,
            ..
        } = &self.figures;
        let lost = ended.saturating_sub(received);
        println!(
            "
{}: {made} spans made, {started} started, {ended} ended
  {ended} ended = {given} given to the exporter + {dropped} dropped, as the queue was full
  {given} given = {arrived} arrived + {failed} in {failed_exports} exports that failed
  {received} received = {arrived} arrived + {failed_and_received} failed, and yet received
  {lost} lost = {dropped} dropped + {} failed, and not received
  {looks} looks of code at its session; {panics} panics; {aborted} tasks aborted; {} warnings",
            self.kind.name(),
            failed - failed_and_received,
            warnings.len(),
        );
        for warning in warnings {
            println!("    {warning}");
        }
    }

    fn keeps(&self, promises: &mut Promises, taken: &Taken) {
        let figures = &self.figures;
        let spans = self.spans(taken);
        let (made, started, ended) = (figures.made, figures.started, figures.ended);
        promises.hold(made == started && started == ended, || {
            format!("{made} spans were made, {started} started, {ended} ended")
        });
        let lost = ended.saturating_sub(spans.received);
        let told = figures.dropped + spans.failed - spans.failed_and_received;
        promises.hold(
            ended == spans.given + figures.dropped && lost == told,
            || format!("{lost} spans were lost, and the SDK tells of {told}"),
        );
        let failed = self.batches.iter().filter(|it| !it.arrived).count() as u64;
        promises.hold(failed == figures.failed_exports, || {
            let told = figures.failed_exports;
            format!("{failed} exports failed, and the SDK tells of {told}")
        });
        promises.hold(figures.complaints.is_empty(), || {
            let complaints = &figures.complaints;
            format!("code saw another session than it is in: {complaints:#?}")
        });
        promises.hold(figures.accidents.is_empty(), || {
            format!("panics that nobody meant: {:#?}", figures.accidents)
        });
        let distinct: HashSet<_> = figures.warnings.iter().collect();
        let are_meant = figures
            .warnings
            .iter()
            .all(|it| it.contains(" is ignored: "));
        promises.hold(
            are_meant && distinct.len() == figures.warnings.len(),
            || {
                let warnings = &figures.warnings;
                format!("other warnings than of what is no id, each once: {warnings:#?}")
            },
        );
    }
}

struct Promises {
    of: &'static str,
    broken: Vec<String>,
}

impl Promises {
    fn hold(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(format!("{}: {}", self.of, otherwise()));
        }
    }
}
