"""A service in Python: what is the same for every library that it may use."""

import json
import urllib.request
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry import context, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

RELEVANT = ("traceparent", "tracestate", "baggage", "mirascope-session-id")

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
propagator = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])


@contextmanager
def in_force(cx):
    token = context.attach(cx)
    try:
        yield
    finally:
        context.detach(token)


def serve(language, key, received, session, span, inject):
    """Answers requests until it is stopped; first it prints the port.

    What the library is for: `received` puts in force what came with headers, `session` a session, `span` makes a span
    and `inject` writes into headers what is in force. A span's session stands in its attribute `key`.
    """

    class Service(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            # Frameworks give names in lower case, and OpenTelemetry's propagators look for those only.
            headers = {name.lower(): value for name, value in self.headers.items()}
            if self.path == "/hop":
                scope = received(headers)
            else:
                scope = session(asked["session_id"]) if asked["session_id"] else nullcontext()
            sent, after, error = {}, [], None
            with scope, span("hop"):
                own = trace.get_current_span().get_span_context()
                inject(sent)
                try:
                    after = call(asked["next"], sent)
                except UnicodeEncodeError as refused:
                    error = type(refused).__name__
            record = {
                "language": language,
                "session_id": exported(own).attributes.get(key),
                "trace_id": f"{own.trace_id:032x}",
                "received": {name: headers[name] for name in RELEVANT if name in headers},
                "sent": sent,
                "error": error,
            }
            answer = json.dumps([record, *after]).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    print(server.server_port, flush=True)
    server.serve_forever()


def call(urls, headers):
    """The records of the service at the first address, and of those after it."""
    if not urls:
        return []
    body = json.dumps({"next": urls[1:]}).encode()
    request = urllib.request.Request(urls[0], body, {"content-type": "application/json"} | headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def exported(context):
    [span] = [span for span in exporter.get_finished_spans() if span.context.span_id == context.span_id]
    return span
