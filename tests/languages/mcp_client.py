"""An MCP client in Python, which calls the tool in each session that it reads."""

import asyncio
import json
import sys
from urllib.parse import quote

from mcp.client.client import Client
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)


async def main(url, sessions):
    calls = []
    for mode in ("auto", "legacy"):
        async with Client(url, mode=mode) as client:
            for by in ("propagator", "hand"):
                for session in sessions:
                    order = f"{mode}/{by}/{session}"
                    exporter.clear()
                    await track(client, order, by, session)
                    [call] = [it for it in exporter.get_finished_spans() if it.name.endswith("tools/call track")]
                    calls.append(
                        {
                            "protocol": client.protocol_version,
                            "by": by,
                            "session": session,
                            "order": order,
                            "trace": f"{call.context.trace_id:032x}",
                            "span": f"{call.context.span_id:016x}",
                        }
                    )
    print(json.dumps(calls))


async def track(client, order, by, session):
    arguments = {"order": order}
    if by == "hand":
        await client.call_tool("track", arguments, meta={"baggage": f"session.id={quote(session, safe='')}"})
        return
    # The SDK sends the current context. The trace is already in `_meta` without this.
    token = context.attach(baggage.set_baggage("session.id", session))
    try:
        await client.call_tool("track", arguments)
    finally:
        context.detach(token)


asyncio.run(main(sys.argv[1], json.load(sys.stdin)))
