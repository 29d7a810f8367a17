# SPDX-License-Identifier: Apache-2.0
"""Traces of requests, read from OpenTelemetry's own in-memory exporter and from a collector."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from serving import QUESTION, RunningServer, running_server
from support import wait_until

from manymind import Pipeline
from manymind.server.config import ServerConfig
from manymind.server.journal import LOGGER_NAME
from manymind.server.record import PHASES
from manymind.server.tracing import Tracing, otlp_tracing

BODY = {"model": "smollm2", "messages": QUESTION, "max_tokens": 12, "ignore_eos": True}


class Traced:
    """A server and the spans it has made."""

    def __init__(self, server: RunningServer, exporter: InMemorySpanExporter) -> None:
        self.server = server
        self._exporter = exporter

    def spans(self) -> tuple[ReadableSpan, dict[str, ReadableSpan]]:
        """The one request's span, and its children by name."""

        def roots() -> list[ReadableSpan]:
            made = self._exporter.get_finished_spans()
            return [span for span in made if span.kind is SpanKind.SERVER]

        wait_until(lambda: len(roots()) == 1, 5)
        (root,) = roots()
        children = [s for s in self._exporter.get_finished_spans() if s is not root]
        assert all(s.parent == root.context for s in children)
        return root, {span.name: span for span in children}


@pytest.fixture
def traced(smollm2: Pipeline) -> Iterator[Traced]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider, "smollm2")
    with running_server(smollm2, ServerConfig("smollm2", port=0), tracing) as server:
        yield Traced(server, exporter)
    tracing.close()


def test_a_trace_says_what_bounded_the_request(traced: Traced) -> None:
    usage = traced.server.post("/v1/chat/completions", BODY).json()["usage"]
    root, phases = traced.spans()
    assert root.name == "POST /v1/chat/completions"
    assert root.attributes is not None
    found = dict(root.attributes)
    assert found["http.route"] == "/v1/chat/completions"
    assert found["http.response.status_code"] == 200
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.request.model"] == "smollm2"
    assert found["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert found["gen_ai.usage.output_tokens"] == 12
    assert found["gen_ai.response.finish_reasons"] == ("length",)
    spent = {name: found[f"manymind.seconds.{name}"] for name in PHASES}
    assert found["manymind.bounded_by"] == max(spent, key=lambda name: spent[name])
    assert set(phases) == {"receive", "preprocess", "queue", "prefill", "decode"}
    assert root.start_time is not None
    assert root.end_time is not None
    last = root.start_time
    for name in ("receive", "preprocess", "queue", "prefill", "decode"):
        start, end = phases[name].start_time, phases[name].end_time
        assert start is not None
        assert end is not None
        assert last <= start <= end <= root.end_time
        assert 1e-9 * (end - start) == pytest.approx(spent[name], abs=1e-5)
        last = start
    assert root.events[0].name == "first token"
    assert phases["prefill"].end_time <= root.events[0].timestamp <= root.end_time  # type: ignore[operator]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/embed", "/api/embeddings"])
def test_embeddings_are_called_so(traced: Traced, path: str) -> None:
    text = {"prompt" if path == "/api/embeddings" else "input": "a"}
    assert traced.server.post(path, {"model": "smollm2", **text}).status_code == 200
    attributes = traced.spans()[0].attributes
    assert attributes is not None
    assert attributes["gen_ai.operation.name"] == "embeddings"


def test_a_grammar_has_its_span(traced: Traced) -> None:
    traced.server.post(
        "/v1/chat/completions",
        {**BODY, "ignore_eos": False, "response_format": {"type": "regex", "regex": "a{2,3}b"}},
    )
    assert "grammar" in traced.spans()[1]


def test_the_clients_span_is_continued_and_logged(
    traced: Traced, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(LOGGER_NAME), "propagate", True)
    caplog.set_level(logging.INFO, LOGGER_NAME)
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    headers = {"traceparent": f"00-{trace}-{parent}-01"}
    traced.server.post("/v1/chat/completions", BODY, headers=headers)
    root, _ = traced.spans()
    assert f"{root.context.trace_id:032x}" == trace
    assert root.parent is not None
    assert f"{root.parent.span_id:016x}" == parent

    def logged() -> list[object]:
        return [getattr(item, "fields", {}).get("trace_id") for item in caplog.records]

    wait_until(lambda: bool(logged()))  # the line is written after the span has ended
    assert logged() == [trace]


@pytest.mark.parametrize("header", ["", "00-zz-1-01", "x" * 5000])
def test_a_wrong_traceparent_does_no_harm(traced: Traced, header: str) -> None:
    headers = {"traceparent": header}
    assert traced.server.post("/tokenize", {"prompt": "a"}, headers=headers).status_code == 200
    assert traced.spans()[0].parent is None


def test_refusals_and_probes(traced: Traced) -> None:
    for path in ("/health", "/ping", "/ready", "/metrics", "/load"):
        assert traced.server.get(path).status_code == 200
    assert traced.server.post("/v1/completions", {"model": "other", "prompt": "a"}).is_error
    root, phases = traced.spans()
    assert root.attributes is not None
    assert root.attributes["http.response.status_code"] == 404
    assert root.attributes["error.type"] == "ApiError"
    assert root.status.status_code is StatusCode.UNSET  # the client's fault, not the server's
    assert set(phases) == {"receive"}


def test_traces_reach_a_collector(smollm2: Pipeline) -> None:
    received: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{collector.server_port}/v1/traces"
        tracing = otlp_tracing(address, "smollm2")
        try:
            with running_server(smollm2, ServerConfig("smollm2", port=0), tracing) as server:
                server.post("/v1/completions", {"model": "smollm2", "prompt": "a", "max_tokens": 2})
                wait_until(lambda: server.service.active == 0)
            tracing.close()
        finally:
            collector.shutdown()
            thread.join()
    (scope,) = ExportTraceServiceRequest.FromString(received[0]).resource_spans[0].scope_spans
    assert "POST /v1/completions" in [span.name for span in scope.spans]
    assert "decode" in [span.name for span in scope.spans]
