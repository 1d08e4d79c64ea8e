#!/usr/bin/env python3
"""Sessions between an agent and a tool in Rust and in Python, over the Model Context Protocol.

The Rust is `examples/mcp`. The Python SDK, `mcp`, propagates OpenTelemetry's context in `_meta`, and with it the session.
Installs the SDK at the first run (about 75 MB in the user's cache folder).
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent / "backends"))
import backend

REQUIREMENTS = ("mcp==2.3.0", "opentelemetry-sdk==1.45.2", "opentelemetry-processor-baggage==0.66b1")
CONSTRAINTS = FOLDER / "mcp-constraints.txt"
# Like the other crates of their own in .ci/run.
TARGET = backend.REPOSITORY / "target" / "examples"
RUST = TARGET / "debug" / "mcp"

IDS = ["chat-42", "a b", "100%41", "a%20b", "a+b", "a,b;c=d", '"quoted" \\ back', "é", "über-日本-😀", "x" * 1024]


def test(checks):
    folder = backend.virtual_environment("languages-mcp", *REQUIREMENTS, constraints=CONSTRAINTS)
    python = folder / "python"
    subprocess.run(
        ["cargo", "build", "--locked", "--quiet", "--manifest-path", backend.REPOSITORY / "examples/mcp/Cargo.toml"],
        env=os.environ | {"CARGO_TARGET_DIR": str(TARGET)},
        check=True,
        timeout=1200,
    )
    rust_calls_python(checks, python)
    python_calls_rust(checks, python)


def rust_calls_python(checks, python):
    """Over standard input and output of the server. Its tool returns what it received."""
    *results, spans = run([RUST, "--call", python, FOLDER / "mcp_server.py"], "\n".join(IDS))
    calls = {span["order"]: span for span in spans if span["name"] == "call_tool"}
    checks.equal("Rust -> Python: results", len(results), len(IDS))
    for session, result in zip(IDS, results):
        call = calls[session]
        expected = {
            "session": session,
            "exported": session,
            "trace": call["trace"],
            "parent": call["id"],
            "baggage": f"session.id={quote(session, safe='')}",
        }
        wrong = [f"{key}: {result[key]}, expected {expected[key]}" for key in expected if result[key] != expected[key]]
        if call["session"] != session:
            wrong.append(f"Rust exported {call['session']}")
        checks.none(f"Rust -> Python: {shown(session)}", wrong)
    connection = [span["session"] for span in spans if span["name"] not in ("answer", "call_tool")]
    checks.equal("Rust -> Python: sessions of the connection", connection, [None])


def python_calls_rust(checks, python):
    """Over HTTP, with the newest protocol, which has no connections, and with the one before it, which has."""
    with subprocess.Popen([RUST, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as server:
        try:
            url = server.stdout.readline().strip()
            [calls] = run([python, FOLDER / "mcp_client.py", url], json.dumps(IDS))
            server.stdin.close()
            spans = json.load(server.stdout)
        finally:
            server.kill()
    checks.equal("Python -> Rust: protocols", {call["protocol"] for call in calls}, {"2025-11-25", "2026-07-28"})
    checks.equal("Python -> Rust: calls", len(calls), len(IDS) * 4)
    for call in calls:
        session, order = call["session"], call["order"]
        arrives, why = session, ""
        if call["by"] == "propagator" and " " in session:
            arrives, why = session.replace(" ", "+"), " (Python sends a space as `+`, which is a plus to all others)"
        expected = [("find_van", arrives, call["trace"]), ("track", arrives, call["trace"])]
        found = [(it["name"], it["session"], it["trace"]) for it in spans if it["order"] == order]
        wrong = [] if sorted(found) == expected else [f"the spans are {found}"]
        parents = [it["parent"] for it in spans if it["order"] == order and it["name"] == "track"]
        if parents != [call["span"]]:
            wrong.append(f"the parent is {parents}")
        checks.none(f"Python -> Rust, {call['protocol']}, by {call['by']}: {shown(session)}{why}", wrong)
    connections = {span["session"] for span in spans if span["order"] is None}
    checks.equal("Python -> Rust: sessions of connections", connections, {None})


def run(command, text):
    """The lines of JSON that it prints."""
    ran = subprocess.run(
        command,
        input=text,
        env=backend.environment(),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
        timeout=60,
    )
    return [json.loads(line) for line in ran.stdout.splitlines()]


def shown(session):
    return session if len(session) < 100 else f"{session[:3]}.. ({len(session)} bytes)"


if __name__ == "__main__":
    backend.main(test)
