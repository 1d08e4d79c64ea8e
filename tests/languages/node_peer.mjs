// A service in JavaScript with OpenTelemetry, which has the session in W3C baggage.

import { createServer } from "node:http";
import { context, propagation, ROOT_CONTEXT, trace } from "@opentelemetry/api";
import { BaggageSpanProcessor } from "@opentelemetry/baggage-span-processor";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { CompositePropagator, W3CBaggagePropagator, W3CTraceContextPropagator } from "@opentelemetry/core";
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";

const KEY = "session.id";
const RELEVANT = ["traceparent", "tracestate", "baggage", "mirascope-session-id"];

const exporter = new InMemorySpanExporter();
const provider = new BasicTracerProvider({
  spanProcessors: [new BaggageSpanProcessor((key) => key === KEY), new SimpleSpanProcessor(exporter)],
});
const tracer = provider.getTracer("peer");
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
propagation.setGlobalPropagator(
  new CompositePropagator({ propagators: [new W3CTraceContextPropagator(), new W3CBaggagePropagator()] }),
);

async function answer(path, headers, asked) {
  const cx = path === "/hop" ? propagation.extract(ROOT_CONTEXT, headers) : inSession(asked.session_id);
  const sent = {};
  const [spanContext, after] = await context.with(cx, () =>
    tracer.startActiveSpan("hop", async (span) => {
      try {
        propagation.inject(context.active(), sent);
        return [span.spanContext(), await call(asked.next, sent)];
      } finally {
        span.end();
      }
    }),
  );
  const record = {
    language: "Node.js",
    session_id: exported(spanContext).attributes[KEY] ?? null,
    trace_id: spanContext.traceId,
    received: Object.fromEntries(RELEVANT.filter((name) => name in headers).map((name) => [name, headers[name]])),
    sent,
    error: null,
  };
  return [record, ...after];
}

function inSession(id) {
  return id === null ? ROOT_CONTEXT : propagation.setBaggage(ROOT_CONTEXT, propagation.createBaggage({ [KEY]: { value: id } }));
}

/** The records of the service at the first address, and of those after it. */
async function call([url, ...next], headers) {
  if (url === undefined) return [];
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify({ next }),
  });
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  return response.json();
}

function exported({ spanId }) {
  return exporter.getFinishedSpans().find((span) => span.spanContext().spanId === spanId);
}

const server = createServer(async (request, response) => {
  try {
    let body = "";
    for await (const chunk of request.setEncoding("utf8")) body += chunk;
    const records = await answer(request.url, request.headers, JSON.parse(body));
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(records));
  } catch (error) {
    console.error(error);
    response.writeHead(500).end();
  }
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
