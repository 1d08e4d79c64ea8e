#!/usr/bin/env python3
"""The quickstart against a real Jaeger: a search for a session finds its traces, whole.

Builds Jaeger at the first run (a few minutes; the binary, 120 MB, stays in the user's cache folder).
"""

import json
import os
import shutil
import urllib.parse
from pathlib import Path
from tempfile import TemporaryDirectory

import backend

MODULE = "github.com/jaegertracing/jaeger"
VERSION = "v1.76.0"  # Its `cmd/jaeger` is Jaeger 2.
CONFIG = Path(__file__).with_name("jaeger.yaml")
PORTS = ("QUERY_HTTP_PORT", "QUERY_GRPC_PORT", "HEALTH_PORT", "OTLP_HTTP_PORT", "OTLP_GRPC_PORT")


def test(checks):
    jaeger = built()
    for protocol in backend.PROTOCOLS:
        print(f"Jaeger over {protocol}")
        ports = dict(zip(PORTS, map(str, backend.free_ports(len(PORTS)))))
        url = f"http://127.0.0.1:{ports['QUERY_HTTP_PORT']}"
        health = f"http://127.0.0.1:{ports['HEALTH_PORT']}/status"
        with backend.server([jaeger, "--config", CONFIG], health, **ports):
            port = ports["OTLP_GRPC_PORT" if protocol == "grpc" else "OTLP_HTTP_PORT"]
            conversations = backend.quickstart(protocol, port)
            spans = backend.arrived(lambda: search(url), conversations)
            checks.nothing_else(conversations, spans)
            for conversation in conversations:
                checks.spans_of(conversation, search(url, {"session.id": conversation.session}))


def search(url, tags={}):
    """The spans of the traces that have a span with these tags."""
    query = urllib.parse.urlencode({"service": "quickstart", "tags": json.dumps(tags), "limit": 1000})
    return [
        backend.Span(
            name=span["operationName"],
            trace=trace["traceID"],
            is_root=not span["references"],
            attributes=[(tag["key"], tag["value"]) for tag in span["tags"]],
        )
        for trace in backend.get_json(f"{url}/api/traces?{query}")["data"]
        for span in trace["spans"]
    ]


def built():
    """The program, built first where it is not yet."""
    jaeger = backend.CACHE / f"jaeger-{VERSION}"
    if jaeger.exists():
        return jaeger
    if not shutil.which("go"):
        raise backend.Skip("there is no Go to build Jaeger with")
    print(f"building {MODULE}@{VERSION} into {jaeger}")
    backend.CACHE.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=backend.CACHE) as folder:
        # `go install` refuses a module with `replace` directives. Built in its own folder, it keeps to its own go.sum.
        module = json.loads(backend.downloading(["go", "mod", "download", "-json", f"{MODULE}@{VERSION}"]))
        build = ["go", "build", "-C", module["Dir"], "-o", f"{folder}/jaeger", "./cmd/jaeger"]
        backend.downloading(build, env=os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"})
        # Moved only when whole, so that half a build is not taken for one.
        Path(folder, "jaeger").replace(jaeger)
    return jaeger


if __name__ == "__main__":
    backend.main(test)
