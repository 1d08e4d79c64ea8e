"""A service in Python with OpenTelemetry, which has the session in W3C baggage."""

from contextlib import contextmanager

import peer
from opentelemetry import baggage, context
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.processor.baggage import BaggageSpanProcessor
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

KEY = "session.id"
propagator = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])


@contextmanager
def in_force(cx):
    token = context.attach(cx)
    try:
        yield
    finally:
        context.detach(token)


peer.provider.add_span_processor(BaggageSpanProcessor(lambda key: key == KEY))
peer.serve(
    language="Python",
    key=KEY,
    received=lambda headers: in_force(propagator.extract(headers)),
    session=lambda id: in_force(baggage.set_baggage(KEY, id)),
    span=peer.provider.get_tracer("peer").start_as_current_span,
    inject=propagator.inject,
)
