#!/usr/bin/env python3
"""The Collectors of docs/collector/: over two tiers sessions stay whole, while one dies, and are sampled as by services.

Builds the Collector, and Jaeger behind it, at the first run (some minutes each; 200 MB in the user's cache folder).
"""

import hashlib
import time
from collections import Counter, defaultdict

import backend
import collector_cluster
from collector_cluster import SPANS

SESSIONS = 300
OUTSIDE = 2  # Spans of a turn that are in no session where it was learnt late.
WAIT = 6  # Seconds: enough to kill a Collector between what it takes in and what it decides.
RATIO = 0.25
SAMPLING = {"DECISION_WAIT": f"{WAIT}s", "SAMPLING_PERCENTAGE": str(100 * RATIO)}


def test(checks):
    program = collector_cluster.built()
    with collector_cluster.jaeger() as jaeger:
        for part in (routing, by_the_attribute_alone, sampling, sampled_by_services, stateless, figures):
            print(f"\n{part.__doc__}")
            part(checks, collector_cluster.Cluster(program, jaeger, part.__name__))


def routing(checks, tiers):
    """Two tiers, nothing sampled: every session whole on one Collector, one of which dies."""
    with tiers.running(DECISION_WAIT=f"{WAIT}s", SAMPLING_PERCENTAGE="100"), tiers.load(ratio=1) as load:
        sessions = load.turns("a", SESSIONS, [0, 1])
        spans = tiers.arrived(load.spans)
        checks.equal("spans that arrived", len(spans), load.spans)
        checks.equal("of these, twice", len(spans) - len({span.id for span in spans}), 0)
        homes = homes_of(spans)
        same(checks, "sessions that arrived", homes, names(sessions))
        checks.none("each on one Collector", split(homes))
        home = {session: min(on) for session, on in homes.items()}
        share = Counter(home.values())
        checks.equal("Collectors that have sessions", sorted(share), ["sampling-1", "sampling-2"])
        print(f"        sessions on each: {dict(share)}")
        traces = traces_of(spans, without=names(sessions, "late"))
        checks.none("each trace on one Collector, if its session was not learnt late", split(traces))

        died = "sampling-2"
        load.turns("b", SESSIONS, [0])
        tiers.taken(load.spans)
        lost = tiers.metric(died, "receiver_accepted_spans") - tiers.metric(died, "exporter_sent_spans")
        tiers.kill(died)
        print(f"        {died} killed with {lost} spans of new sessions, undecided")
        load.turns("a", SESSIONS, [2])
        time.sleep(WAIT + 3)
        spans = tiers.found()
        waiting = load.spans - lost - len(spans)
        went_on = Counter(home[session] for session in with_turn(spans, 2))
        checks.equal("while it is away, sessions that went on", went_on, {"sampling-1": share["sampling-1"]})

        tiers.start(died)
        load.turns("b", SESSIONS, [1])
        spans = tiers.arrived(load.spans - lost)
        checks.equal("spans that arrived when it is back, without the undecided", len(spans), load.spans - lost)
        same(checks, "sessions that went on", with_turn(spans, 2), names(sessions))
        homes = homes_of(spans)
        of_the_dead = {session for session, on in homes.items() if session.startswith("b-") and died in on}
        have_lost = {session for session in homes if session.startswith("b-")} - with_turn(spans, 0)
        same(checks, "sessions that lost spans: its new ones", have_lost, of_the_dead)
        checks.none("each session still on one Collector", split(homes))
        print(f"        sent {load.spans}, arrived {len(spans)}, waited {waiting}")
        print(f"        lost {lost}, of {len(have_lost)} sessions")

        # What the resolvers `dns` and `k8s` do when one is gone for good.
        tiers.route_to(["sampling-1"])
        load.turns("a", SESSIONS, [3])
        spans = tiers.arrived(load.spans - lost)
        moved = split(homes_of(spans))
        its_own = {session for session in home if home[session] == died}
        same(checks, "one is taken out of the ring: sessions that are split, its own", moved, its_own)
        checks.equal("spans that arrived, without the undecided", len(spans), load.spans - lost)
        print(f"        {len(moved)} of {SESSIONS} sessions split by the change of the ring")

        took = tiers.metric("sampling-1", "receiver_accepted_spans")
        load.turns("d", SESSIONS, [0])
        tiers.taken(took + SPANS * SESSIONS)
        tiers.stop("sampling-1")
        spans = tiers.settled()
        checks.equal("one is stopped, not killed: spans that arrived, with its undecided", len(spans), load.spans - lost)


def by_the_attribute_alone(checks, tiers):
    """Why gateway.yaml does more than to route by `session.id`."""
    naive = [
        "exporters::load_balancing::routing_attributes=[session.id]",
        "service::pipelines::traces::processors=[memory_limiter]",
    ]
    settings = {"DECISION_WAIT": "1s", "SAMPLING_PERCENTAGE": "100"}
    with tiers.running(overrides={"gateway": naive}, **settings), tiers.load(ratio=1) as load:
        sessions = load.turns("a", SESSIONS, [0])
        spans = tiers.arrived(load.spans)
        checks.equal("spans that arrived", len(spans), load.spans)
        broken, late = split(homes_of(spans)), names(sessions, "late")
        checks.equal("sessions split", (len(broken) > 0, set(broken) - late), (True, set()))
        # A login ends before all else of its trace. A root ends last: where a request begins after its login, it goes with
        # what is in the session.
        outside = Counter(span.collector for span in spans if not span.session and span.name == "login")
        checks.equal("logins in no session, all on one Collector", list(outside.values()), [len(late)])
        print(f"        of {len(late)} sessions learnt late {len(broken)} are split")


def sampling(checks, tiers):
    """Two tiers: a quarter of the sessions, and those in which something failed."""
    with tiers.running(**SAMPLING), tiers.load(ratio=1) as load:
        sessions = load.turns("c", SESSIONS, [0, 1])
        time.sleep(WAIT + 3)
        after = load.turns("c", SESSIONS, [2])
        spans = tiers.settled()
        chosen = {session for session in names(sessions) if keeps(session)}
        failed, late = names(sessions, "fails"), names(sessions, "late")
        same(checks, "sessions that arrived: chosen by their ids, or failed", homes_of(spans), chosen | failed)
        inside = Counter(span.session for span in spans if span.session)
        expected = {session: 3 * (SPANS - OUTSIDE * (session in late)) for session in chosen | failed}
        checks.none("each with all its spans", sorted(set(inside.items()) ^ set(expected.items())))
        failed_later = names(after, "fails") - chosen - failed
        checks.equal("failed after the decision, and were kept for it", len(failed_later & set(inside)), 0)
        more = len(failed - chosen)
        print(f"        of {SESSIONS}: {len(chosen)} chosen, {more} more failed; {len(failed_later)} failed too late")
        # What was before a session was learnt is decided by its trace.
        outside, of = Counter(not span.session for span in spans)[True], 3 * OUTSIDE * len(late)
        checks.equal("spans from before a session was learnt: some arrived, some did not", 0 < outside < of, True)
        print(f"        {outside} of {of} such spans arrived")

        foreign = names(sessions, "foreign")
        checks.none("the tracestate of somebody else is as it came", changed(spans, foreign))
        spans = [span for span in spans if span.session and span.session not in foreign]
        checks.none("rv is that of the session", wrong_rv(spans))
        thresholds = {(span.session in failed, span.state("th")) for span in spans if span.turn < 2}
        checks.equal("th, of those that failed and the others", thresholds, {(True, "0"), (False, "c")})
        thresholds = {span.state("th") for span in spans if span.turn == 2}
        checks.equal("th on what came after the decision: as it came", thresholds, {"0"})
        ours = {key for span in spans for key in span.attributes if key.startswith("session.")}
        checks.equal("attributes of the session", ours, {"session.id"})


def sampled_by_services(checks, tiers):
    """The same, where the services have sampled a quarter already."""
    with tiers.running(**SAMPLING):
        for outside in ("ratio", "all"):
            with tiers.load(RATIO, outside) as load:
                sessions = load.turns(outside, SESSIONS, [1, 3])  # In which none fails.
                time.sleep(WAIT + 3)
                found = {session: turns for session, turns in turns_of(tiers.settled()).items() if outside in session}
            late, foreign = names(sessions, "late"), names(sessions, "foreign")
            kept = names(sessions, "sampled") - foreign  # Of which somebody else decides, and keeps all.
            chosen = {session for session in names(sessions) if keeps(session)}
            print(f"        services that keep, of roots in no session, {outside}")
            same(checks, "sessions that they kept: those that the Collectors choose", kept - late, chosen - late - foreign)
            same(checks, "of these, in the end: none is sampled twice", set(found) - late, chosen - late)
            checks.none("each with both turns", [session for session in chosen - late if found[session] != 2])
            # Whatever the Collectors do, what the services dropped is gone.
            left = Counter(each["session"] for each in sessions if each["late"] and each["sampled"])
            turns = {(session, left[session]) for session in left if session in chosen}
            arrived = {(session, found[session]) for session in found if session in late}
            same(checks, "learnt late: those that are chosen, and their turns that the services left", arrived, turns)
            in_part = [session for session in left if left[session] == 1]
            checks.equal("did the services drop some of them in part", len(in_part) > 0, outside == "ratio")
            print(f"        of {len(late)} learnt late, they kept {len(left)}, {len(in_part)} in part; {len(arrived)} arrived")


def stateless(checks, tiers):
    """One tier that holds nothing: the same quarter."""
    settings = {"SAMPLING_PERCENTAGE": str(100 * RATIO)}
    with tiers.running("stateless", **settings), tiers.load(ratio=1) as load:
        sessions = load.turns("c", SESSIONS, [0, 1])
        spans = [span for span in tiers.settled() if span.session]
        chosen = {session for session in names(sessions) if keeps(session)}
        same(checks, "sessions that arrived", homes_of(spans), chosen)
        turns = turns_of(spans)
        checks.none("each with both turns", [session for session in turns if turns[session] != 2])
        foreign = names(sessions, "foreign")
        checks.none("the tracestate of somebody else is as it came", changed(spans, foreign))
        spans = [span for span in spans if span.session not in foreign]
        checks.none("rv is that of the session", wrong_rv(spans))
        checks.equal("th", {span.state("th") for span in spans}, {"c"})
    default = {"stateless": ["processors::probabilistic_sampler::mode=hash_seed"]}
    with tiers.running("stateless", overrides=default, **settings), tiers.load(ratio=1) as load:
        load.turns("d", SESSIONS, [0])
        arrived = {session for session in homes_of(tiers.settled()) if session not in turns}
        checks.equal("with `hash_seed`, the default mode: sessions that arrived", arrived, set())


def figures(checks, tiers):
    """What a Collector takes, for docs/scaling.md."""
    for text, sessions in ((0, 8_000), (4_000, 3_000)):
        with tiers.running(DECISION_WAIT="20s", SAMPLING_PERCENTAGE="1"), tiers.load(ratio=1) as load:
            load.turns("warm", 100, [1])
            tiers.taken(load.spans)
            before = {name: tiers.usage(name) for name in collector_cluster.TIERS}
            start = time.monotonic()
            load.turns(f"e{text}", sessions, [1, 2], text)
            tiers.taken(load.spans)
            seconds = time.monotonic() - start
            rate = 2 * SPANS * sessions / seconds
            print(f"        {text} bytes of text on each span: {rate:,.0f} spans/s from the services to the second tier")
            memory = {name: tiers.usage(name)[1] - before[name][1] for name in collector_cluster.TIERS}
            time.sleep(max(0, start + 25 - time.monotonic()))
            for name in collector_cluster.TIERS:
                spans = tiers.metric(name, "receiver_accepted_spans")
                cpu = tiers.usage(name)[0] - before[name][0]
                print(f"        {name}: {spans:,} spans, {spans / cpu:,.0f} in a second of one core")
                if name in tiers.ring:
                    print(f"            {memory[name] / spans:,.0f} bytes of memory for each, undecided")


def rv(session):
    return hashlib.sha256(session.encode()).hexdigest()[-14:]


def keeps(session):
    return int(rv(session), 16) >= 2**56 - round(RATIO * 2**56)


def wrong_rv(spans):
    return sorted({span.session for span in spans if span.state("rv") != rv(span.session)})


def changed(spans, foreign):
    """The sessions whose traces somebody else started, and that do not have his `tracestate` any more. See `load.rs`."""

    def his(span):
        number = int(span.session.rsplit("-")[-1])
        return format(((number << 8 | span.turn) + 1) * 0x9E37_79B9_7F4A_7C15 % 2**64 >> 8, "014x"), "0"

    states = {(span.session, (span.state("rv"), span.state("th")) == his(span)) for span in spans if span.session in foreign}
    return sorted(session for session, is_his in states if not is_his)


def names(sessions, only=None):
    return {each["session"] for each in sessions if only is None or each[only]}


def homes_of(spans):
    """The Collectors that each session was on."""
    return collected(spans, lambda span: span.session, lambda span: span.collector)


def turns_of(spans):
    """How many turns of each session there are."""
    turns = collected(spans, lambda span: span.session, lambda span: span.turn)
    return {session: len(turns[session]) for session in turns}


def with_turn(spans, turn):
    """The sessions that have this turn, of which there is one cohort."""
    cohort = {0: "b-", 2: "a-"}[turn]
    return {span.session for span in spans if span.session and span.session.startswith(cohort) and span.turn == turn}


def traces_of(spans, without):
    """The Collectors that each trace was on, but for those of some sessions."""
    left_out = {span.trace for span in spans if span.session in without}
    spans = [span for span in spans if span.trace not in left_out]
    return collected(spans, lambda span: span.trace, lambda span: span.collector)


def collected(spans, key, value):
    found = defaultdict(set)
    for span in spans:
        if key(span) is not None:
            found[key(span)].add(value(span))
    return found


def split(homes):
    return sorted(each for each, on in homes.items() if len(on) > 1)


def same(checks, what, found, expected):
    """That two sets are equal: their size, or else what only one of them has."""
    checks.none(f"{what} ({len(expected)})", sorted(set(found) ^ set(expected)))


if __name__ == "__main__":
    backend.main(test)
