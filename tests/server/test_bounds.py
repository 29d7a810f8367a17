# SPDX-License-Identifier: Apache-2.0
"""What bounded a request, in log, metrics and trace: those that came to nothing, above all, since
that is what an overload makes of them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from serving import RunningServer, running_server
from support import wait_until

from manymind import EngineConfig, Pipeline, pipeline
from manymind.config import RequestTimes, Response
from manymind.server.config import Limits, ServerConfig
from manymind.server.journal import LOGGER_NAME
from manymind.server.record import RequestRecord
from manymind.server.tracing import Tracing

PATH = "/v1/completions"
LONG: dict[str, Any] = {"model": "m", "prompt": "The", "ignore_eos": True, "max_tokens": 900}
ENGINE_PHASES = ("queue", "prefill", "decode")


@pytest.fixture(scope="module")
def slow(smollm2_path: Path) -> Iterator[Pipeline]:
    """One request at a time and little of its prompt in a step, so that each phase can be made
    to last; one more may wait.
    """
    config = EngineConfig(
        session_len=1024, max_batch_size=1, max_prefill_token_num=32, max_queue_size=1
    )
    with pipeline(smollm2_path, config) as pipe:
        yield pipe


class Watched:
    """A server, and what it says of a request."""

    def __init__(
        self, server: RunningServer, records: list[logging.LogRecord], spans: InMemorySpanExporter
    ) -> None:
        self.server = server
        self._records = records
        self._spans = spans
        self._before = server.metrics()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Within it, the engine's only place is taken."""
        with httpx.stream(
            "POST", self.server.url + PATH, json={**LONG, "stream": True}, timeout=60
        ) as answer:
            lines = answer.iter_lines()  # the stream ends with it
            next(lines)
            yield
        wait_until(lambda: self.server.service.active == 0)

    def ask(self, body: dict[str, Any], name: str = "asked") -> httpx.Response:
        return self.server.post(PATH, body, headers={"x-request-id": name})

    @contextmanager
    def asked(self, body: dict[str, Any], name: str = "asked") -> Iterator[None]:
        """A request whose client leaves with the context."""
        data = json.dumps(body).encode()
        head = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\nx-request-id: {name}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        with self.server.connect() as connection:
            connection.sendall(head.encode() + data)
            yield

    def line(self, name: str = "asked") -> dict[str, Any]:
        """Its log line, which is written last."""
        lines: list[dict[str, Any]] = []

        def found() -> bool:
            fields = [getattr(record, "fields", {}) for record in self._records]
            lines[:] = [item for item in fields if item.get("request_id") == name]
            return len(lines) == 1

        wait_until(found, 10)
        return lines[0]

    def span(self) -> tuple[ReadableSpan, list[str]]:
        """Its span, and the phases below it."""
        made = self._spans.get_finished_spans()
        (root,) = [s for s in made if (s.attributes or {}).get("manymind.request_id") == "asked"]
        return root, [s.name for s in made if s.parent == root.context]

    def grown(self, name: str) -> float:
        return self.server.metrics()[name] - self._before.get(name, 0.0)


Watch: TypeAlias = Callable[..., AbstractContextManager[Watched]]


@pytest.fixture
def watch(
    slow: Pipeline, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Watch:
    monkeypatch.setattr(logging.getLogger(LOGGER_NAME), "propagate", True)
    caplog.set_level(logging.INFO, LOGGER_NAME)

    @contextmanager
    def watched(**options: Any) -> Iterator[Watched]:
        exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        tracing = Tracing(provider, "m")
        with running_server(slow, ServerConfig("m", port=0, **options), tracing) as server:
            yield Watched(server, caplog.records, exporter)
        tracing.close()

    return watched


def check(watched: Watched, phase: str, seconds: float) -> dict[str, Any]:
    """Log, trace and metrics name the phase that the request came to its end in."""
    line = watched.line()
    assert line["bounded_by"] == phase
    assert line["phases"][phase] >= seconds
    begun = ENGINE_PHASES[: ENGINE_PHASES.index(phase) + 1]
    assert [name for name in ENGINE_PHASES if line["phases"][name]] == list(begun)
    root, phases = watched.span()
    assert root.attributes is not None
    assert root.attributes["manymind.bounded_by"] == phase
    had_token = phase == "decode"
    assert ("ttft_seconds" in line) == had_token
    assert ("manymind.time_to_first_token" in root.attributes) == had_token
    assert [name for name in phases if name in ENGINE_PHASES] == list(begun)
    counted = watched.server.labelled("manymind_requests_bounded_by_total", phase=phase)
    assert counted >= 1
    assert watched.grown(f"vllm:request_{phase}_time_seconds_sum") >= seconds
    return line


@pytest.mark.parametrize(
    ("phase", "change"),
    [
        ("queue", {"timeout": 0.3}),
        ("prefill", {"timeout": 0.25, "prompt": [5] * 900, "max_tokens": 9}),
        ("decode", {"timeout": 0.3}),
    ],
)
def test_what_ran_out_of_time(watch: Watch, phase: str, change: dict[str, Any]) -> None:
    with watch() as watched:
        if phase == "queue":
            with watched.busy():
                answer = watched.ask({**LONG, **change})
        else:
            answer = watched.ask({**LONG, **change})
        assert answer.status_code == 504
        line = check(watched, phase, 0.2)
        assert line["finish_reasons"] == ["error"]


@pytest.mark.parametrize("phase", ENGINE_PHASES)
def test_what_a_client_left(watch: Watch, phase: str) -> None:
    with watch() as watched:
        stats = watched.server.service.runtime.engine.stats
        before = stats()
        if phase == "queue":
            with watched.busy():
                with watched.asked(LONG):
                    wait_until(lambda: stats()["waiting"] == 1)
                watched.line()
        elif phase == "prefill":
            with watched.asked({**LONG, "prompt": [6] * 900, "max_tokens": 9}):
                wait_until(lambda: stats()["steps"] > before["steps"] + 2)
        else:
            with watched.asked(LONG):
                wait_until(lambda: stats()["generated_tokens"] > before["generated_tokens"] + 5)
        line = check(watched, phase, 1e-4)
        assert line["client_gone"]
        assert line["finish_reasons"] == ["abort"]
        assert watched.server.service.active == 0


def test_what_was_aborted_in_the_queue(
    watch: Watch,
) -> None:
    with watch() as watched, watched.busy():
        stats = watched.server.service.runtime.engine.stats
        with watched.asked(LONG):
            wait_until(lambda: stats()["waiting"] == 1)
            aborted = watched.server.post("/abort_request", {"rid": "asked"}).json()
            assert aborted == {"aborted": 1}
            check(watched, "queue", 1e-4)


@pytest.mark.parametrize("queue_is_full", [False, True])
def test_what_was_refused(watch: Watch, queue_is_full: bool) -> None:
    """At the server's door and at the engine's."""
    limits = Limits() if queue_is_full else Limits(max_concurrent_requests=2)
    with watch(limits=limits) as watched, watched.busy():
        stats = watched.server.service.runtime.engine.stats
        with watched.asked(LONG, "waits"):
            wait_until(lambda: stats()["waiting"] == 1)
            assert watched.ask(LONG).status_code == 429
        assert watched.line()["bounded_by"] == "refused"
        root, _ = watched.span()
        assert root.attributes is not None
        assert root.attributes["manymind.bounded_by"] == "refused"
        name = "manymind_requests_bounded_by_total"
        assert watched.server.labelled(name, phase="refused") == 1
        assert watched.grown("vllm:admission_rejections_total") == 1


def test_what_was_wrong_is_bounded_by_nothing(
    watch: Watch,
) -> None:
    with watch() as watched:
        assert watched.ask({**LONG, "temperature": -1}).status_code == 400
        assert "bounded_by" not in watched.line()


def test_an_answer_that_a_stop_string_ended() -> None:
    """The engine tells no end of it: it goes on until it hears of the string."""
    record = RequestRecord("1", "POST", PATH)
    start = record.received
    times = RequestTimes(start - 5.0, start - 4.0, start - 3.0, 0.0)
    answer = Response("a", 1, 1, "stop", [1], times=times)
    record.observe([answer])
    assert record.bounded_by() == "decode"
    assert 3.0 <= record.phases()["decode"] < 4.0
    assert [name for name, _, _ in record.intervals()] == list(ENGINE_PHASES)
