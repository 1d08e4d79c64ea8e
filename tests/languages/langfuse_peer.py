"""A service in Python with Langfuse's SDK, which has the session in keys of W3C baggage of its own."""

import peer
from langfuse import Langfuse, propagate_attributes
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

# It sends nothing: its spans go into memory.
Langfuse(
    public_key="pk-lf-test",
    secret_key="sk-lf-test",
    base_url="http://127.0.0.1:9",
    tracer_provider=peer.provider,
    span_exporter=InMemorySpanExporter(),
)
peer.serve(
    language="Langfuse",
    key="session.id",
    received=lambda headers: peer.in_force(peer.propagator.extract(headers)),
    session=lambda id: propagate_attributes(session_id=id, as_baggage=True),
    span=peer.provider.get_tracer("peer").start_as_current_span,
    inject=peer.propagator.inject,
)
