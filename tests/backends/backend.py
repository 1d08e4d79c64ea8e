"""What a test against a real backend needs, whichever backend it is."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tracing-session"
PROTOCOLS = ("http/protobuf", "grpc")


@dataclass
class Conversation:
    """One that the quickstart held: what it says it sent."""

    session: str
    user: str | None
    tenant: str
    tags: list[str]
    turns: int
    spans: int
    first_input: str
    last_output: str
    prompt_tokens: int
    completion_tokens: int


@dataclass
class Span:
    """One that the backend has."""

    name: str
    trace: str
    is_root: bool
    attributes: list[tuple[str, object]]  # A list, because a key that was sent twice must show.

    def values(self, key):
        return [value for name, value in self.attributes if name == key]

    def with_values(self, key):
        return f"{self.name}: {self.values(key)}"


class Skip(Exception):
    """A tool that this machine lacks."""


class Checks:
    passed = failed = 0

    def equal(self, what, found, expected):
        self._record(found == expected, f"{what}: {found!r}", f", expected {expected!r}")

    def none(self, what, exceptions):
        self._record(not exceptions, what, f", except for {exceptions}")

    def _record(self, holds, what, but):
        if holds:
            self.passed += 1
            print(f"ok      {what}")
        else:
            self.failed += 1
            print(f"FAILED  {what}{but}")

    def spans_of(self, conversation, spans):
        """Each turn is a trace, every span carries the session and every root the user.

        Not every span: one that ended before the login, like the login itself, has none.
        """
        session, user = conversation.session, conversation.user
        self.equal(f"{session}: traces", len({span.trace for span in spans}), conversation.turns)
        self.equal(f"{session}: spans", len(spans), conversation.spans)

        others = [span.with_values("session.id") for span in spans if span.values("session.id") != [session]]
        self.none(f"{session}: its session.id on every span, once", others)

        said = [user] if user else []
        others = [
            span.with_values("user.id")
            for span in spans
            if span.values("user.id") != said and (span.is_root or span.values("user.id"))
        ]
        self.none(f"{session}: user.id {said} on every root span, and no other below", others)

    def nothing_else(self, conversations, spans):
        """All that arrived belongs to one of the conversations."""
        self.equal("spans in all", len(spans), sum(each.spans for each in conversations))
        sessions = [[each.session] for each in conversations]
        others = [span.with_values("session.id") for span in spans if span.values("session.id") not in sessions]
        self.none("a session.id of the quickstart on every span", others)


def main(test):
    """Runs a test and ends the process: 0 when all holds or nothing could be tried, which in CI is a failure."""
    sys.stdout.reconfigure(line_buffering=True)
    # As an exception, so that what was started is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    checks = Checks()
    try:
        with TemporaryDirectory(prefix="tracing-session-", ignore_cleanup_errors=True) as folder:
            # For what we start as well: stopped halfway, it does not clean up after itself.
            os.environ["TMPDIR"] = folder
            test(checks)
    except Skip as reason:
        print(f"skipped: {reason}")
        sys.exit(1 if os.environ.get("CI") == "true" else 0)
    except Exception:
        traceback.print_exc()
        checks.failed += 1
    print(f"{checks.passed} passed, {checks.failed} failed")
    sys.exit(1 if checks.failed else 0)


def environment(**settings):
    """Ours, without what would make a backend or the quickstart behave otherwise than tested here."""
    steering = ("MIRASCOPE_", "_MIRASCOPE_", "MLFLOW_", "OTEL_", "PHOENIX_", "RUST_LOG", "TRACECTRL_", "TRACING_SESSION_")
    return {name: value for name, value in os.environ.items() if not name.startswith(steering)} | settings


def downloading(command, env=None, cwd=None):
    """Runs a command that downloads, again when it fails: package managers keep what they have got so far."""
    for pause in (5, 30, None):
        try:
            return subprocess.run(command, env=env, cwd=cwd, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
        except subprocess.CalledProcessError as error:
            if pause is None:
                raise
            print(f"{error} Once more in {pause} s. {error.stdout}", file=sys.stderr)
            time.sleep(pause)


def virtual_environment(name, *requirements, constraints):
    """The folder of the programs that a Python package brings along, installed first."""
    for module in ("venv", "ensurepip"):
        if not importlib.util.find_spec(module):
            raise Skip(f"Python lacks {module}, so that {requirements[0]} cannot be installed")

    def install(folder):
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin" / "pip", "install", "--quiet"]
        downloading([*pip, "--constraint", constraints, *requirements])

    wanted = "\n".join([sys.version, *requirements, constraints.read_text()])
    return installed(name, wanted, install) / "bin"


def installed(name, wanted, install):
    """A folder in the user's cache, filled first where it is not yet, or not as wanted."""
    folder = CACHE / name
    # Written last, so that half an installation is not taken for a whole one.
    complete = folder / "installed.txt"
    if not (complete.exists() and complete.read_text() == wanted):
        print(f"installing {folder}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        install(folder)
        complete.write_text(wanted)
    return folder


def free_ports(count):
    """Ports that nobody listens on, on any interface."""
    sockets = [socket.create_server(("", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def get_json(url, body=None):
    """GET, or POST where there is a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


@contextmanager
def server(command, health, **settings):
    """A server that runs in a temporary folder, from when it is healthy until the block is left: its process."""
    with TemporaryDirectory(prefix="tracing-session-") as folder, open(f"{folder}/log", "w+b") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment(**settings), stdout=log, stderr=log)
        try:
            if not healthy(health, process):
                log.seek(0)
                raise RuntimeError(f"{command[0]} did not become healthy:\n{log.read().decode()}")
            yield process
        finally:
            stop(process)


def stop(process):
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def healthy(url, process, limit=180):
    """Whether the server answers before it ends or the time is up."""
    deadline = time.monotonic() + limit
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except OSError:
            time.sleep(0.2)
    return False


def example(name, *arguments, protocol, port, **settings):
    """Runs an example against a backend: what it prints."""
    settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{port}"
    settings["OTEL_EXPORTER_OTLP_PROTOCOL"] = protocol
    ran = subprocess.run(
        ["cargo", "run", "--quiet", "--example", name, "--", *arguments],
        cwd=REPOSITORY,
        env=environment(**settings),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
        timeout=1200,  # The first run compiles it.
    )
    return ran.stdout


def quickstart(protocol, port, **settings):
    """Runs the quickstart against a backend: the conversations it held."""
    printed = example("quickstart", "--json", protocol=protocol, port=port, **settings)
    conversations = [Conversation(**json.loads(line)) for line in printed.splitlines()]
    if not conversations:
        raise RuntimeError("the quickstart held no conversation")
    return conversations


def arrived(look, conversations, limit=30):
    """The spans that `look` finds once all are there and no more come: backends acknowledge first and store later.

    When the time is up, what there is then: the checks say what is missing.
    """
    deadline = time.monotonic() + limit
    expected = sum(each.spans for each in conversations)
    spans = look()
    while time.monotonic() < deadline:
        before = len(spans)
        time.sleep(1)
        spans = look()
        if expected <= before == len(spans):
            break
    return spans
