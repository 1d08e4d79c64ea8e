#!/usr/bin/env python3
"""The quickstart against a real Phoenix: what its Sessions page shows is what was said.

Installs Phoenix at the first run (about 850 MB in the user's cache folder).
"""

from pathlib import Path

import backend

REQUIREMENT = "arize-phoenix==20.26.1"
CONSTRAINTS = Path(__file__).with_name("phoenix-constraints.txt")

SESSIONS = """{
  getProjectByName(name: "quickstart") {
    sessions(first: 1000) {
      edges { node {
        sessionId userId numTraces
        firstInput { value }
        lastOutput { value }
        traces(first: 1000) { edges { node { traceId } } }
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
            check(checks, conversations, spans, sessions_in(url))


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
        # By Phoenix's own grouping and not by the attribute, so that a span without it counts too.
        traces = set(trace["traceId"] for trace in nodes(session["traces"]))
        checks.spans_of(conversation, [span for span in spans if span.trace in traces])


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


def sessions_in(url):
    """By their ids."""
    project = backend.get_json(f"{url}/graphql", {"query": SESSIONS})["data"]["getProjectByName"]
    return {session["sessionId"]: session for session in nodes(project["sessions"])} if project else {}


def nodes(connection):
    return [edge["node"] for edge in connection["edges"]]


def value(text):
    return text and text["value"]


if __name__ == "__main__":
    backend.main(test)
