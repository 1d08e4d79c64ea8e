#!/usr/bin/env python3
"""The quickstart against a real Phoenix: what its Sessions page shows is what was said, and its filters find it.

And conversations of many turns: each turn is there, in its place.

Installs Phoenix at the first run (about 850 MB in the user's cache folder).
"""

import time
from pathlib import Path

import backend

REQUIREMENT = "arize-phoenix==20.26.1"
CONSTRAINTS = Path(__file__).with_name("phoenix-constraints.txt")

# Of the model that the quickstart names, for a token, in US dollars: as this Phoenix has them.
PROMPT_PRICE = 0.15e-6
COMPLETION_PRICE = 0.6e-6

# For each condition of a session filter, the values of a conversation with which it is tried.
FILTERS = {
    "user.id == '{}'": lambda conversation: [conversation.user] if conversation.user else [],
    "metadata['tenant'] == '{}'": lambda conversation: [conversation.tenant],
    "'{}' in attributes['tag']['tags']": lambda conversation: conversation.tags,
}

SESSIONS = """query ($condition: String) {
  getProjectByName(name: "quickstart") {
    sessions(first: 1000, sessionFilterCondition: $condition) {
      edges { node {
        sessionId userId numTraces
        firstInput { value }
        lastOutput { value }
        tokenUsage { prompt completion }
        costSummary { total { cost } }
        traces(first: 1000) { edges { node { traceId } } }
      } }
    }
  }
}"""

TURNS = """query {
  getProjectByName(name: "conversation") {
    recordCount
    sessions(first: 1000) {
      edges { node {
        sessionId userId
        firstInput { value }
        lastOutput { value }
        traces(first: 1000) { edges { node {
          rootSpan { input { value } }
          spans(first: 1000) { edges { node { name spanId parentId input { value } } } }
        } } }
      } }
    }
  }
}"""


def test(checks):
    phoenix = backend.virtual_environment("phoenix", REQUIREMENT, constraints=CONSTRAINTS) / "phoenix"
    for protocol in backend.PROTOCOLS:
        print(f"Phoenix over {protocol}")
        http, grpc = backend.free_ports(2)
        url = f"http://127.0.0.1:{http}"
        settings = {
            "PHOENIX_HOST": "127.0.0.1",  # For HTTP only: its gRPC server always listens on all interfaces.
            "PHOENIX_PORT": str(http),
            "PHOENIX_GRPC_PORT": str(grpc),
            "PHOENIX_WORKING_DIR": ".",
            "PHOENIX_TELEMETRY_ENABLED": "false",
            "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
            "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
        }
        # One for each protocol: session ids are unique in the whole database, so runs would mix.
        with backend.server([phoenix, "serve"], f"{url}/healthz", **settings):
            conversations = backend.quickstart(protocol, grpc if protocol == "grpc" else http)
            spans = backend.arrived(lambda: spans_in(url), conversations)
            check(checks, conversations, spans, sessions_with_costs(url, conversations))
            check_filters(checks, conversations, url)
            if protocol == backend.PROTOCOLS[0]:
                backend.example("conversation", protocol=protocol, port=http)
                check_turns(checks, url)


def check_turns(checks, url):
    """The example `conversation`: three sessions of 20 turns, traced in three ways."""
    questions = [f"question {number}" for number in range(1, 21)]
    sessions = turns_in(url, spans=20 * (2 + 2 + 3))
    names = ["a trace per turn", "full stack", "one trace"]
    checks.equal("sessions of the example", sorted(sessions), names)
    for name in names:
        session = sessions.get(name)
        if session is None:
            continue  # Named as missing above.
        # In one trace the first turn is around all others, and its input and output are the session's.
        turns, last = (questions[:1], 1) if name == "one trace" else (questions, 20)
        checks.equal(f"{name}: first input", value(session["firstInput"]), "question 1")
        checks.equal(f"{name}: last output", value(session["lastOutput"]), f"answer to question {last}")
        checks.equal(f"{name}: user", session["userId"], "u-7")
        roots = [trace["rootSpan"] for trace in nodes(session["traces"])]
        roots = [root for root in roots if root]
        checks.equal(f"{name}: turns, in their order", [value(root["input"]) for root in roots], turns)
    # As a tree: each turn below the one before.
    [trace] = nodes(sessions["one trace"]["traces"])
    spans = {span["spanId"]: span for span in nodes(trace["spans"])}
    spans = {name: span for name, span in spans.items() if span["name"] == "turn"}
    below, chain = {span["parentId"]: span for span in spans.values()}, []
    span = below.get(None)
    while span and len(chain) < len(spans):
        chain.append(value(span["input"]))
        span = below.get(span["spanId"])
    checks.equal("one trace: turns, each below the one before", chain, questions)


def turns_in(url, spans, limit=30):
    """The sessions of the example, once as many spans are there or the time is up."""
    deadline = time.monotonic() + limit
    while True:
        answer = backend.get_json(f"{url}/graphql", {"query": TURNS})
        if errors := answer.get("errors"):
            raise RuntimeError(errors)
        project = answer["data"]["getProjectByName"]
        sessions = {session["sessionId"]: session for session in nodes(project["sessions"])} if project else {}
        if project and project["recordCount"] >= spans or time.monotonic() > deadline:
            return sessions
        time.sleep(1)


def check(checks, conversations, spans, sessions):
    checks.equal("sessions", sorted(sessions), sorted(each.session for each in conversations))
    checks.nothing_else(conversations, spans)
    for conversation in conversations:
        session = sessions.get(conversation.session)
        if session is None:
            continue  # Named as missing above.
        name = conversation.session
        checks.equal(f"{name}: user", session["userId"], conversation.user)
        checks.equal(f"{name}: numTraces", session["numTraces"], conversation.turns)
        checks.equal(f"{name}: first input", value(session["firstInput"]), conversation.first_input)
        checks.equal(f"{name}: last output", value(session["lastOutput"]), conversation.last_output)
        tokens = {"prompt": conversation.prompt_tokens, "completion": conversation.completion_tokens}
        checks.equal(f"{name}: tokens", session["tokenUsage"], tokens)
        checks.equal(f"{name}: cost", cost_of(session), cost(conversation))
        # By Phoenix's own grouping and not by the attribute, so that a span without it counts too.
        traces = set(trace["traceId"] for trace in nodes(session["traces"]))
        checks.spans_of(conversation, [span for span in spans if span.trace in traces])


def check_filters(checks, conversations, url):
    for condition, values in FILTERS.items():
        for wanted in sorted({each for conversation in conversations for each in values(conversation)}):
            expected = [each.session for each in conversations if wanted in values(each)]
            found = sessions_in(url, condition.format(wanted))
            checks.equal(f"sessions with {condition.format(wanted)}", sorted(found), sorted(expected))


def spans_in(url):
    try:
        page = backend.get_json(f"{url}/v1/projects/quickstart/spans?limit=1000")
    except OSError as error:
        if getattr(error, "code", None) == 404:
            return []  # The first span makes the project.
        raise
    return [
        backend.Span(
            name=span["name"],
            trace=span["context"]["trace_id"],
            is_root=span["parent_id"] is None,
            attributes=list(span["attributes"].items()),
        )
        for span in page["data"]
    ]


def sessions_in(url, condition=None):
    """By their ids."""
    query = {"query": SESSIONS, "variables": {"condition": condition}}
    answer = backend.get_json(f"{url}/graphql", query)
    if errors := answer.get("errors"):
        raise RuntimeError(errors)
    project = answer["data"]["getProjectByName"]
    return {session["sessionId"]: session for session in nodes(project["sessions"])} if project else {}


def sessions_with_costs(url, conversations, limit=30):
    """The sessions, once each has its cost or the time is up: Phoenix works these out one by one, afterwards."""
    deadline = time.monotonic() + limit
    expected = {each.session: cost(each) for each in conversations}
    sessions = sessions_in(url)
    while time.monotonic() < deadline and expected != {name: cost_of(each) for name, each in sessions.items()}:
        time.sleep(1)
        sessions = sessions_in(url)
    return sessions


def cost_of(session):
    return rounded(session["costSummary"]["total"]["cost"])


def cost(conversation):
    return rounded(conversation.prompt_tokens * PROMPT_PRICE + conversation.completion_tokens * COMPLETION_PRICE)


def rounded(dollars):
    return dollars and round(dollars, 9)


def nodes(connection):
    return [edge["node"] for edge in connection["edges"]]


def value(text):
    return text and text["value"]


if __name__ == "__main__":
    backend.main(test)
