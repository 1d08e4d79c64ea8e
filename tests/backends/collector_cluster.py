"""The Collectors and the Jaeger of `collector.py`: built, started, killed, and asked."""

import json
import os
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import backend
import jaeger as real_jaeger

VERSION = "v0.160.0"
BUILDER = f"go.opentelemetry.io/collector/cmd/builder@{VERSION}"
MANIFEST = Path(__file__).with_name("collector-builder.yaml")
CONFIGS = backend.REPOSITORY / "docs" / "collector"
GATE = "--feature-gates=+processor.tailsamplingprocessor.usetracestate"
SPANS = 6  # Of a turn of the load.
TIERS = ("gateway-1", "gateway-2", "sampling-1", "sampling-2")
PORTS = ("GRPC_ENDPOINT", "HTTP_ENDPOINT", "HEALTH_ENDPOINT", "METRICS_PORT")


def built():
    """The program, built first where it is not yet."""

    def install(folder):
        if not shutil.which("go"):
            raise backend.Skip("there is no Go to build the Collector with")
        go = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off", "GOBIN": str(folder)}
        with TemporaryDirectory(dir=backend.CACHE) as work:
            backend.downloading(["go", "install", BUILDER], env=go)
            build = [folder / "builder", "--config", MANIFEST]
            backend.downloading(build, env=go, cwd=work)
            Path(work, "collector", "collector").replace(folder / "collector")
        (folder / "builder").unlink()

    return backend.installed(f"collector-{VERSION}", MANIFEST.read_text(), install) / "collector"


@dataclass(frozen=True)
class Span:
    """One that Jaeger has."""

    id: str
    name: str
    trace: str
    collector: str | None
    attributes: dict

    @property
    def session(self):
        return self.attributes.get("session.id")

    @property
    def turn(self):
        return self.attributes["turn"]

    def state(self, name):
        """What `tracestate` has under a name of OpenTelemetry's."""
        found = re.search(rf"\bot=(?:[^,]*;)?{name}:([^;,]*)", self.attributes.get("w3c.tracestate", ""))
        return found and found[1]


@contextmanager
def jaeger():
    """A Jaeger for all: where it takes spans, and where it is asked for them."""
    ports = dict(zip(real_jaeger.PORTS, map(str, backend.free_ports(len(real_jaeger.PORTS)))))
    health = f"http://127.0.0.1:{ports['HEALTH_PORT']}/status"
    more = "extensions::jaeger_storage::backends::memory::memory::max_traces=100000"
    command = [real_jaeger.built(), "--config", real_jaeger.CONFIG, "--set", more]
    with backend.server(command, health, **ports):
        yield f"127.0.0.1:{ports['OTLP_GRPC_PORT']}", f"http://127.0.0.1:{ports['QUERY_HTTP_PORT']}"


class Cluster:
    """Two Collectors that route, and two that sample."""

    def __init__(self, program, jaeger, service):
        self.program = program
        self.backend, self.query = jaeger
        self.service = service

    @contextmanager
    def running(self, *names, overrides={}, **settings):
        """Those with these names, or all of the two tiers."""
        names = names or TIERS
        self.addresses = {name: addresses() for name in names}
        self.settings, self.overrides = settings, overrides
        self.ring = [name for name in names if name.startswith("sampling")]
        with ExitStack() as self.stack:
            self.processes = {}
            for name in reversed(names):
                self.start(name)
            yield

    def start(self, name):
        kind = name.split("-")[0]
        addresses = self.addresses[name]
        tier = [self.addresses[each]["GRPC_ENDPOINT"] for each in self.ring]
        settings = self.settings | addresses | {
            "BACKEND": self.backend,
            "COLLECTOR_NAME": name,
            "METRICS_HOST": "127.0.0.1",
            "SAMPLING_TIER": f"[{', '.join(tier)}]",
        }
        command = [self.program, "--config", CONFIGS / f"{kind}.yaml", GATE]
        for override in self.overrides.get(kind, []):
            command += ["--set", override]
        server = backend.server(command, f"http://{addresses['HEALTH_ENDPOINT']}", **settings)
        self.processes[name] = self.stack.enter_context(server)

    def kill(self, name):
        """As a machine dies: nothing is finished."""
        self.processes[name].kill()
        self.processes[name].wait()

    def stop(self, name):
        """As a machine is taken out of service: what is there is finished."""
        backend.stop(self.processes[name])

    def route_to(self, ring):
        """Restarts the first tier with other Collectors to route to."""
        self.ring = ring
        for name in ("gateway-1", "gateway-2"):
            self.stop(name)
            self.start(name)

    @contextmanager
    def load(self, ratio, outside="ratio"):
        """Two services, each of which sends to a Collector of its own where there are two."""
        first = [name for name in self.addresses if name not in self.ring]
        urls = [f"http://{self.addresses[name]['HTTP_ENDPOINT']}/v1/traces" for name in (first[0], first[-1])]
        command = ["cargo", "run", "--quiet", "--features", "sampler", "--example", "collector_load", "--"]
        process = subprocess.Popen(
            [*command, self.service, str(ratio), outside, *urls],
            cwd=backend.REPOSITORY,
            env=backend.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        try:
            yield Load(process)
        finally:
            process.stdin.close()
            backend.stop(process)

    def taken(self, spans, limit=60):
        """Waits until the second tier has taken in so many."""
        deadline = time.monotonic() + limit
        while sum(self.metric(name, "receiver_accepted_spans") for name in self.ring) < spans:
            if time.monotonic() > deadline:
                raise RuntimeError("the second tier has not taken in what was sent")
            time.sleep(0.1)

    def metric(self, name, metric):
        """What a Collector says of itself, in all."""
        port = self.addresses[name]["METRICS_PORT"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
            text = response.read().decode()
        found = re.findall(rf"^otelcol_{metric}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
        return int(sum(map(float, found)))

    def usage(self, name):
        """Seconds of CPU, and bytes of memory, of a Collector so far."""
        pid = self.processes[name].pid
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
        cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return cpu, int(fields[21]) * os.sysconf("SC_PAGE_SIZE")

    def arrived(self, expected, limit=60):
        """The spans in Jaeger once there are so many and no more come; when the time is up, what there is."""
        deadline = time.monotonic() + limit
        while len(spans := self.found()) < expected and time.monotonic() < deadline:
            time.sleep(1)
        return self.settled()

    def settled(self):
        """The spans in Jaeger once no more come."""
        spans = self.found()
        while True:
            time.sleep(2)
            before, spans = len(spans), self.found()
            if before == len(spans):
                return spans

    def found(self):
        query = urllib.parse.urlencode({"service": self.service, "limit": 100_000})
        traces = backend.get_json(f"{self.query}/api/traces?{query}")["data"] or []
        return [
            Span(
                id=f"{span['traceID']}:{span['spanID']}",
                name=span["operationName"],
                trace=span["traceID"],
                collector=attributes(trace["processes"][span["processID"]]).get("collector.name"),
                attributes=attributes(span),
            )
            for trace in traces
            for span in trace["spans"]
        ]


def addresses():
    ports = backend.free_ports(len(PORTS))
    return {name: str(port) if name == "METRICS_PORT" else f"127.0.0.1:{port}" for name, port in zip(PORTS, ports)}


class Load:
    """The program that makes sessions."""

    def __init__(self, process):
        self.process = process
        self.spans = 0  # Sent so far.

    def turns(self, cohort, sessions, turns, text=0):
        held = []
        for turn in turns:
            self.process.stdin.write(f"{cohort} {sessions} {turn} {text}\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
            if not answer:
                raise RuntimeError("the load has ended")
            held += json.loads(answer)
        self.spans += SPANS * sum(each["sampled"] for each in held)
        return held


def attributes(it):
    return {tag["key"]: tag["value"] for tag in it["tags"]}
