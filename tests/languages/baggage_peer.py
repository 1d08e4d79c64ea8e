"""A service in Python with OpenTelemetry, which has the session in W3C baggage."""

import peer
from opentelemetry import baggage
from opentelemetry.processor.baggage import BaggageSpanProcessor

KEY = "session.id"

peer.provider.add_span_processor(BaggageSpanProcessor(lambda key: key == KEY))
peer.serve(
    language="Python",
    key=KEY,
    received=lambda headers: peer.in_force(peer.propagator.extract(headers)),
    session=lambda id: peer.in_force(baggage.set_baggage(KEY, id)),
    span=peer.provider.get_tracer("peer").start_as_current_span,
    inject=peer.propagator.inject,
)
