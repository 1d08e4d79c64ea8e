#!/usr/bin/env python3
"""Sessions between services in Rust and in other languages, with the libraries that are used there.

Installs these at the first run (about 200 MB in the user's cache folder).
"""

import select
import shutil
import string
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent / "backends"))
import backend

# Mirascope's `ops` are there only with the clients that it instruments.
REQUIREMENTS = (
    "mirascope[ops,anthropic,google,openai]==2.8.2",
    "opentelemetry-processor-baggage==0.66b1",
    "langfuse==5.0.4",
    "mistralai==3.7.0",
)
CONSTRAINTS = FOLDER / "python-constraints.txt"
PACKAGES = ("package.json", "package-lock.json")
RUST = ["--quiet", "--all-features", "--example", "languages_peer"]

# Each Rust service reads the keys of baggage of all libraries. It writes `session.id` and this key.
RUST_SERVICES = {
    "Rust": [],
    "Rust for Langfuse": ["langfuse_session_id"],
    "Rust for Mistral": ["gen_ai.conversation.id"],
}

# Who calls whom. Mirascope knows its header and no baggage, the others baggage and not the header. Langfuse and Mistral have other
# keys there.
CHAINS = [
    ("Rust", "Rust"),
    ("Rust", "Python"),
    ("Python", "Rust"),
    ("Rust", "Node.js"),
    ("Node.js", "Rust"),
    ("Rust", "Mirascope"),
    ("Mirascope", "Rust"),
    ("Rust for Langfuse", "Langfuse"),
    ("Langfuse", "Rust"),
    ("Rust for Langfuse", "Langfuse", "Rust"),
    ("Langfuse", "Rust for Langfuse", "Langfuse"),
    ("Rust for Mistral", "Mistral"),
    ("Mistral", "Rust"),
    ("Rust for Mistral", "Mistral", "Rust"),
    ("Mistral", "Rust for Mistral", "Mistral"),
    ("Rust", "Mirascope", "Rust"),
    ("Rust", "Python", "Node.js", "Rust"),
    ("Mirascope", "Rust", "Node.js"),
    ("Node.js", "Rust", "Mirascope"),
]

QUOTED = '"quoted" \\ back'
LONG = "x" * 1024
LONG_ENCODED = "😀" * 256  # Of 1,024 bytes too, and thrice that where it is percent-encoded.
IDS = [
    None,
    "chat-42",
    "a b",
    "100%41",
    "a%20b",
    "dGVzdA==",
    "a+b",
    "a,b;c=d",
    QUOTED,
    string.punctuation,
    "über",
    "über-日本-😀",
    LONG,
    LONG_ENCODED,
]

REFUSED = "UnicodeEncodeError"
SPACE = "Python sends a space as `+`, which is a plus to all others"
PLAIN = "Mirascope reads its header only, which cannot carry it"
LATIN_1 = "Python's HTTP client sends it as Latin-1, which is not read"
LANGFUSE = "Langfuse drops ids that are longer than 200 characters"
NOT_LATIN_1 = "Python's HTTP client refuses to send Mirascope's header"
# What does not arrive as it was sent: the caller, the called and the id; what arrives, and why.
EXCEPTIONS = {
    (caller, called, id): (id.replace(" ", "+"), SPACE)
    for caller, called in [("Python", "Rust"), ("Langfuse", "Rust"), ("Mistral", "Rust"), ("Python", "Node.js")]
    for id in ("a b", QUOTED)
} | {
    ("Rust", "Mirascope", "über"): (None, PLAIN),
    ("Rust", "Mirascope", "über-日本-😀"): (None, PLAIN),
    ("Rust", "Mirascope", LONG_ENCODED): (None, PLAIN),
    ("Mirascope", "Rust", "über"): (None, LATIN_1),
    ("Mirascope", "Rust", "über-日本-😀"): (REFUSED, NOT_LATIN_1),
    ("Mirascope", "Rust", LONG_ENCODED): (REFUSED, NOT_LATIN_1),
}
# The ids that a service doesn't take when it starts a session.
REFUSED_AT_THE_START = {("Langfuse", id): LANGFUSE for id in (LONG, LONG_ENCODED)}


def test(checks):
    python = python_with_libraries()
    node = node_modules()
    subprocess.run(["cargo", "build", *RUST], cwd=backend.REPOSITORY, check=True, timeout=1200)
    with ExitStack() as stack:
        services = {
            name: stack.enter_context(service(["cargo", "run", *RUST, "--", *keys], cwd=backend.REPOSITORY))
            for name, keys in RUST_SERVICES.items()
        } | {
            "Python": stack.enter_context(service([python, FOLDER / "baggage_peer.py"])),
            "Langfuse": stack.enter_context(service([python, FOLDER / "langfuse_peer.py"])),
            "Mistral": stack.enter_context(service([python, FOLDER / "mistral_peer.py"])),
            "Mirascope": stack.enter_context(service([python, FOLDER / "mirascope_peer.py"])),
            # From its standard input, so that it looks for packages in the folder where it runs.
            "Node.js": stack.enter_context(
                service(
                    ["node", "--input-type=module", "-"],
                    cwd=node,
                    stdin=stack.enter_context(open(FOLDER / "node_peer.mjs")),
                )
            ),
        }
        for chain in CHAINS:
            for session in IDS:
                first, *others = (services[name] for name in chain)
                asked = {"session_id": session, "next": [f"{url}/hop" for url in others]}
                try:
                    records = backend.get_json(f"{first}/start", asked)
                except OSError as error:
                    checks.none(f"{' -> '.join(chain)}: {shown(session)}", [error])
                else:
                    check(checks, chain, session, records)


def check(checks, chain, session, records):
    """That the services have the session they should, in one trace, and send nothing but that."""
    languages = [name.split()[0] for name in chain]
    refused = REFUSED_AT_THE_START.get((languages[0], session))
    expected, reasons = [None if refused else session], [refused] if refused else []
    for caller, called in pairwise(languages):
        arrives, why = EXCEPTIONS.get((caller, called, expected[-1]), (expected[-1], None))
        expected.append(arrives)
        reasons += [why] if why else []
        if arrives == REFUSED:
            break

    found = [record["session_id"] for record in records]
    found += [record["error"] for record in records if record["error"]]
    wrong = []
    if found != expected:
        wrong.append(f"the sessions are {[shown(each) for each in found]}")
    if [record["language"] for record in records] != languages[: len(records)]:
        wrong.append(f"it went by {[record['language'] for record in records]}")
    if len({record["trace_id"] for record in records}) != 1:
        wrong.append(f"the traces are {[record['trace_id'] for record in records]}")
    for record in records:
        sent = {name.lower() for name in record["sent"]} - {"traceparent", "tracestate"}
        if sent != names(record["language"], record["session_id"]):
            wrong.append(f"{record['language']} sent {sent}")

    arrives = f" arrives as {shown(expected[-1])} ({', '.join(reasons)})" if reasons else ""
    checks.none(f"{' -> '.join(chain)}: {shown(session)}{arrives}", wrong)


def names(language, session):
    """Of the headers that a service in this language sends the session in."""
    if session is None:
        return set()
    header, baggage = {"mirascope-session-id"}, {"baggage"}
    if language == "Mirascope":
        return header
    return header | baggage if language == "Rust" and session.isascii() else baggage


def shown(session):
    if session is None:
        return "no session"
    return session if len(session) < 100 else f"{session[:3]}.. ({len(session.encode())} bytes)"


@contextmanager
def service(command, **options):
    """A service, from when it prints its port until the block is left: its address."""
    process = subprocess.Popen(
        command, env=backend.environment(), stdout=subprocess.PIPE, encoding="utf-8", **options
    )
    try:
        is_ready, _, _ = select.select([process.stdout], [], [], 180)
        port = process.stdout.readline().strip() if is_ready else ""
        if not port:
            raise RuntimeError(f"{command} did not print its port")
        yield f"http://127.0.0.1:{port}"
    finally:
        backend.stop(process)


def python_with_libraries():
    return backend.virtual_environment("languages-python", *REQUIREMENTS, constraints=CONSTRAINTS) / "python"


def node_modules():
    for program in ("node", "npm"):
        if not shutil.which(program):
            raise backend.Skip(f"there is no {program}")

    def install(folder):
        for name in PACKAGES:
            shutil.copy(FOLDER / name, folder)
        backend.downloading(["npm", "ci", "--prefix", folder, "--ignore-scripts", "--no-audit", "--no-fund"])

    return backend.installed("languages-node", "\n".join((FOLDER / name).read_text() for name in PACKAGES), install)


if __name__ == "__main__":
    backend.main(test)
