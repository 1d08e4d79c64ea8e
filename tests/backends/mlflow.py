#!/usr/bin/env python3
"""The quickstart against a real MLflow: its filters by session and by user find what was said.

Installs MLflow at the first run (about 850 MB in the user's cache folder).
"""

import urllib.parse
from pathlib import Path

import backend

REQUIREMENT = "mlflow==3.17.2"
CONSTRAINTS = Path(__file__).with_name("mlflow-constraints.txt")
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # Ten processes that nothing here needs.
}


def test(checks):
    mlflow = backend.virtual_environment("mlflow", REQUIREMENT, constraints=CONSTRAINTS) / "mlflow"
    # It speaks no gRPC.
    print("MLflow over http/protobuf")
    (port,) = backend.free_ports(1)
    url = f"http://127.0.0.1:{port}"
    # Its database is a file in the folder where it runs.
    command = [mlflow, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with backend.server(command, f"{url}/health", **SETTINGS):
        experiment = Experiment(url, "quickstart")
        headers = f"x-mlflow-experiment-id={experiment.id}"
        conversations = backend.quickstart("http/protobuf", port, OTEL_EXPORTER_OTLP_HEADERS=headers)
        spans = backend.arrived(lambda: experiment.spans(experiment.traces()), conversations)
        checks.nothing_else(conversations, spans)
        check(checks, conversations, experiment)


def check(checks, conversations, experiment):
    traces_of_users = {}
    for conversation in conversations:
        name, user = conversation.session, conversation.user
        # Written as MLflow's own page writes them, here and below.
        traces = experiment.traces(f"request_metadata.mlflow.trace.session = '{name}'")
        checks.equal(f"{name}: users", set(traces.values()), {user})
        checks.spans_of(conversation, experiment.spans(traces))
        traces_of_users.setdefault(user, set()).update(traces)
    traces_of_users.pop(None, None)
    for user, traces in traces_of_users.items():
        found = experiment.traces(f"""request_metadata."mlflow.trace.user" = '{user}'""")
        checks.equal(f"{user}: traces", sorted(found), sorted(traces))


class Experiment:
    def __init__(self, url, name):
        self.url = url
        self.id = backend.get_json(f"{url}/api/2.0/mlflow/experiments/create", {"name": name})["experiment_id"]

    def traces(self, condition=""):
        """The ids of the traces that a filter finds, with the user of each."""
        location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": self.id}}
        query = {"locations": [location], "filter": condition, "max_results": 500}
        found = backend.get_json(f"{self.url}/api/3.0/mlflow/traces/search", query)
        return {
            trace["trace_id"]: trace.get("trace_metadata", {}).get("mlflow.trace.user")
            for trace in found.get("traces", [])
        }

    def spans(self, traces):
        if not traces:
            return []
        query = urllib.parse.urlencode({"trace_ids": list(traces)}, doseq=True)
        found = backend.get_json(f"{self.url}/api/3.0/mlflow/traces/batchGet?{query}")
        return [
            backend.Span(
                name=span["name"],
                trace=span["trace_id"],
                is_root="parent_span_id" not in span,
                attributes=[(each["key"], each["value"].get("string_value")) for each in span["attributes"]],
            )
            for trace in found["traces"]
            for span in trace["spans"]
        ]


if __name__ == "__main__":
    backend.main(test)
