"""An MCP server in Python. The SDK's own span continues the trace in `_meta`. `BaggageSpanProcessor` writes the session on this
span. But the SDK makes only the span current, and not the baggage, so the tool extracts that itself.
"""

import json

from mcp.server.mcpserver import Context, MCPServer
from opentelemetry import baggage, trace
from opentelemetry.processor.baggage import BaggageSpanProcessor
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import TracerProvider

provider = TracerProvider()
provider.add_span_processor(BaggageSpanProcessor(lambda key: key == "session.id"))
trace.set_tracer_provider(provider)
server = MCPServer("parcels")


@server.tool()
def track(order: str, context: Context) -> str:
    """Where an order is: here, what arrived with the call."""
    meta = context.request_context.meta
    span = trace.get_current_span()
    return json.dumps(
        {
            "session": baggage.get_baggage("session.id", extract(meta)),
            "exported": span.attributes.get("session.id"),
            "trace": f"{span.context.trace_id:032x}",
            "parent": f"{span.parent.span_id:016x}" if span.parent else None,
            "baggage": meta.get("baggage"),
        }
    )


server.run()
