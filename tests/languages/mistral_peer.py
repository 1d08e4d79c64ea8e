"""A service in Python that asks a model with Mistral's SDK, which has the conversation in a key of W3C baggage."""

from contextlib import contextmanager
from contextvars import ContextVar

import httpx2
import peer
from mistralai.client import Mistral
from mistralai.extra.observability import configure_telemetry
from opentelemetry import baggage, trace

KEY = "gen_ai.conversation.id"
ANSWER = {
    "id": "chat-1",
    "object": "chat.completion",
    "model": "mistral-small-latest",
    "created": 0,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Sunny."}}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 6, "total_tokens": 18},
}

asked = ContextVar("the SDK's span, and the headers that it sends")


def model(request):
    """Answers as Mistral's API does."""
    headers = {name: request.headers[name] for name in peer.RELEVANT if name in request.headers}
    asked.set((trace.get_current_span(), headers))
    return httpx2.Response(200, json=ANSWER)


@contextmanager
def ask(_):
    """Asks the model; the SDK's span is the current one."""
    client.chat.complete(model=ANSWER["model"], messages=[{"role": "user", "content": "And tomorrow?"}])
    span, _ = asked.get()
    with peer.in_force(trace.set_span_in_context(span)):
        yield


client = Mistral(api_key="none", client=httpx2.Client(transport=httpx2.MockTransport(model)))
configure_telemetry(client, provider=peer.provider, redaction=False)
peer.serve(
    language="Mistral",
    key=KEY,
    received=lambda headers: peer.in_force(peer.propagator.extract(headers)),
    session=lambda id: peer.in_force(baggage.set_baggage(KEY, id)),
    span=ask,
    inject=lambda headers: headers.update(asked.get()[1]),
)
