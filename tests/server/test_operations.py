# SPDX-License-Identifier: Apache-2.0
"""What whoever runs the server relies on: health, metrics, logs, limits of the queue, departures,
shutdown.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import prometheus_client
import pytest
from serving import QUESTION, STORY, RunningServer, running_server
from support import wait_until

from manymind import EngineConfig, Pipeline, pipeline
from manymind.server.config import Limits, ServerConfig
from manymind.server.journal import LOGGER_NAME
from manymind.server.metrics import Histogram

LONG = {"model": "smollm2", "messages": STORY, "ignore_eos": True, "max_tokens": 1900}


@contextmanager
def reading(server: RunningServer, body: dict[str, Any]) -> Iterator[Iterator[str]]:
    """The lines of a stream that has begun."""
    url = server.url + "/v1/chat/completions"
    with httpx.stream("POST", url, json={**body, "stream": True}, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        yield lines


def test_health_ready_load(server: RunningServer) -> None:
    assert server.get("/health").json() == {"status": "ok"}
    assert server.get("/ready").json() == {"status": "ready"}
    load = server.get("/load").json()
    assert load["server_load"] == load["running"] == 0
    assert all(math.isfinite(value) for value in load.values())
    with reading(server, LONG):
        load = server.get("/load").json()
        assert load["server_load"] == load["running"] == 1
    wait_until(lambda: server.service.active == 0, 5)
    wait_until(lambda: server.get("/load").json()["running"] == 0, 5)


def test_a_client_that_leaves_frees_the_engine(server: RunningServer) -> None:
    before = server.service.runtime.engine.stats()
    with reading(server, LONG):
        pass
    stats = server.service.runtime.engine.stats
    wait_until(lambda: stats()["running"] == 0, 5)
    after = stats()
    assert after["requests_cancelled"] == before["requests_cancelled"] + 1
    assert after["generated_tokens"] - before["generated_tokens"] < 1900
    wait_until(lambda: server.service.active == 0, 5)


def test_leaving_without_a_stream_cancels_too(server: RunningServer) -> None:
    body = json.dumps(LONG).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    stats = server.service.runtime.engine.stats
    before = stats()["requests_cancelled"]
    with server.connect() as connection:
        connection.sendall(head.encode() + body)
        wait_until(lambda: stats()["running"] == 1)
    wait_until(lambda: stats()["requests_cancelled"] == before + 1, 5)
    wait_until(lambda: server.service.active == 0, 5)


def test_metrics_count(server: RunningServer) -> None:
    before = server.metrics()
    body = {"model": "smollm2", "messages": QUESTION, "max_tokens": 8, "ignore_eos": True}
    usage = server.post("/v1/chat/completions", body).json()["usage"]
    wait_until(lambda: server.service.active == 0)
    after = server.metrics()

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    for prefix in ("manymind_", "vllm:"):
        assert grown(prefix + "prompt_tokens_total") == usage["prompt_tokens"]
        assert grown(prefix + "generation_tokens_total") == 8
        assert grown(prefix + "request_success_total") == 1
        assert grown(prefix + "time_to_first_token_seconds_count") == 1
        assert grown(prefix + "inter_token_latency_seconds_count") == 7
        assert grown(prefix + "request_generation_tokens_sum") == 8
        assert grown(prefix + "request_max_num_generation_tokens_sum") == 8
        computed = grown(prefix + "prompt_tokens_total") - grown(
            prefix + "prompt_tokens_cached_total"
        )
        assert grown(prefix + "request_prefill_kv_computed_tokens_sum") == computed
        assert 0 < grown(prefix + "e2e_request_latency_seconds_sum") < 60
        assert after[prefix + "num_requests_waiting"] == 0
        assert after[prefix + "kv_cache_usage_perc"] == 0
    # The prompt in one step, then a token in each; the last token is in none. Buckets are sums.
    steps = "vllm:iteration_tokens_total"
    assert grown(steps + "_sum") == computed + 7
    assert grown(steps + "_count") == grown("manymind_engine_steps_total") == 1 + 7
    edges = [1, *(2**power for power in range(3, 15)), float("inf")]
    assert grown(steps + "_bucket") == sum((computed <= edge) + 7 for edge in edges)
    assert grown("manymind_requests_bounded_by_total") == 1
    by_source = "vllm:prompt_tokens_by_source_total"
    assert grown(by_source) == usage["prompt_tokens"]
    assert (
        server.labelled(by_source, source="local_cache_hit")
        == after["vllm:prompt_tokens_cached_total"]
        == server.labelled("vllm:prompt_tokens_cached_by_source_total", source="device")
    )


def test_latencies_are_seen_while_a_stream_runs(server: RunningServer) -> None:
    """And not once more when its client leaves it."""
    shared = ("time_to_first_token", "request_queue_time", "request_prefill_time")
    names = [
        f"{prefix}{name}_seconds_count" for prefix in ("manymind_", "vllm:") for name in shared
    ]
    names += [f"manymind_request_{name}_time_seconds_count" for name in ("receive", "preprocess")]
    gaps, whole = "vllm:inter_token_latency_seconds_count", "vllm:e2e_request_latency_seconds_count"
    before = server.metrics()
    with reading(server, LONG):
        wait_until(lambda: server.metrics()[gaps] >= before[gaps] + 3, 10)
        running = server.metrics()
        assert {running[name] - before[name] for name in names} == {1}
        assert running[whole] == before[whole]
    wait_until(lambda: server.service.active == 0, 5)
    after = server.metrics()
    assert {after[name] - before[name] for name in names} == {1}
    assert after[whole] == before[whole] + 1


def test_the_start_of_several_answers_is_that_of_the_slowest(server: RunningServer) -> None:
    before = server.metrics()
    body = {"model": "smollm2", "prompt": ["One", "Two", "Three"], "max_tokens": 3, "n": 2}
    assert server.post("/v1/completions", body).status_code == 200
    wait_until(lambda: server.service.active == 0, 5)
    after = server.metrics()
    for name in ("time_to_first_token", "request_queue_time", "request_prefill_time"):
        count = f"vllm:{name}_seconds_count"
        assert after[count] - before[count] == 1


def test_a_request_that_never_began_has_no_first_token(smollm2_path: Path) -> None:
    """It waited for a place until its time was over, which is part of the time in the queue."""
    config = EngineConfig(session_len=1024, max_batch_size=1)
    with (
        pipeline(smollm2_path, config) as pipe,
        running_server(pipe, ServerConfig("smollm2", port=0)) as server,
        reading(server, {**LONG, "max_tokens": 900}),
    ):
        before = server.metrics()
        late = server.post("/v1/chat/completions", {**LONG, "max_tokens": 9, "timeout": 0.2})
        assert late.status_code == 504
        wait_until(lambda: server.service.active == 1, 5)
        after = server.metrics()
        first, queue = "vllm:time_to_first_token_seconds", "vllm:request_queue_time_seconds"
        assert after[first + "_count"] == before[first + "_count"]
        assert after[queue + "_count"] == before[queue + "_count"] + 1
        assert after[queue + "_sum"] - before[queue + "_sum"] >= 0.2


def test_ages_of_kv_blocks(smollm2_path: Path) -> None:
    """A prompt of 3 blocks is used again, then driven out of a cache of 8 by two of 6 blocks."""
    config = EngineConfig(num_kv_blocks=8, block_size=16, max_batch_size=1, session_len=112)
    with (
        pipeline(smollm2_path, config) as pipe,
        running_server(pipe, ServerConfig("m", port=0)) as server,
    ):
        for first, length in ((100, 49), (100, 49), (200, 96), (300, 96)):
            body = {"model": "m", "prompt": list(range(first, first + length)), "max_tokens": 1}
            assert server.post("/v1/completions", body).status_code == 200
        metrics = server.metrics()
        for prefix in ("manymind_", "vllm:"):
            assert metrics[prefix + "kv_block_reuse_gap_seconds_count"] == 3
            evicted = metrics[prefix + "kv_block_lifetime_seconds_count"]
            assert 6 <= evicted <= 12
            assert metrics[prefix + "kv_block_idle_before_evict_seconds_count"] == evicted
            lifetime = metrics[prefix + "kv_block_lifetime_seconds_sum"]
            assert 0 < metrics[prefix + "kv_block_idle_before_evict_seconds_sum"] < lifetime < 600


def test_preemptions_are_counted(smollm2_path: Path) -> None:
    """Two answers of 100 tokens in a cache for 128: one has to give way to the other."""
    config = EngineConfig(num_kv_blocks=8, block_size=16, max_batch_size=2)
    body = {"model": "m", "prompt": "The", "max_tokens": 100, "ignore_eos": True, "n": 2}
    with (
        pipeline(smollm2_path, config) as pipe,
        running_server(pipe, ServerConfig("m", port=0)) as server,
    ):
        assert server.post("/v1/completions", body).status_code == 200
        wait_until(lambda: server.service.active == 0)
        expected = pipe.runtime.engine.stats()["preemptions"]
        assert expected > 0
        found = server.metrics()
        for prefix in ("manymind_", "vllm:"):
            assert found[prefix + "num_preemptions_total"] == expected
            assert found[prefix + "request_num_preemptions_sum"] == expected
            assert found[prefix + "request_num_preemptions_count"] == 1


def test_states_that_boards_ask_for(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    stats = {**server.service.runtime.engine.stats(), "waiting": 3}
    monkeypatch.setattr(server.service.runtime, "engine", SimpleNamespace(stats=lambda: stats))
    waiting = "vllm:num_requests_waiting_by_reason"
    assert server.labelled(waiting, reason="capacity") == 3
    assert server.labelled(waiting, reason="deferred") == 0
    assert server.labelled("vllm:engine_sleep_state", sleep_state="awake") == 1
    assert server.labelled("vllm:engine_sleep_state", sleep_state="discard_all") == 0


# What Grafana boards for vLLM and the inference gateway of Kubernetes ask for.
VLLM_CORE = (
    "num_requests_running",
    "num_requests_waiting",
    "kv_cache_usage_perc",
    "gpu_cache_usage_perc",
    "prompt_tokens_cached_total",
    "admission_rejections_total",
    "time_per_output_token_seconds_bucket",
    "cache_config_info",
    "prompt_tokens_total",
    "generation_tokens_total",
    "num_preemptions_total",
    "prefix_cache_queries_total",
    "prefix_cache_hits_total",
    "request_success_total",
    "time_to_first_token_seconds_bucket",
    "inter_token_latency_seconds_bucket",
    "request_time_per_output_token_seconds_bucket",
    "e2e_request_latency_seconds_bucket",
    "request_queue_time_seconds_bucket",
    "request_prefill_time_seconds_bucket",
    "request_decode_time_seconds_bucket",
    "request_inference_time_seconds_bucket",
    "request_prompt_tokens_bucket",
    "request_generation_tokens_bucket",
    "request_max_num_generation_tokens_bucket",
    "request_prefill_kv_computed_tokens_bucket",
    "num_requests_waiting_by_reason",
    "engine_sleep_state",
    "prompt_tokens_by_source_total",
    "request_num_preemptions_bucket",
    "request_params_n_bucket",
    "request_params_max_tokens_bucket",
    "iteration_tokens_total_bucket",
)


def test_the_core_of_vllms_metrics_is_there(server: RunningServer) -> None:
    server.post("/v1/chat/completions", {"model": "smollm2", "messages": QUESTION})
    wait_until(lambda: server.service.active == 0)
    found = server.metrics()
    assert [name for name in VLLM_CORE if f"vllm:{name}" not in found] == []


def test_histogram_counts_as_prometheus_does() -> None:
    edges = (0.1, 1.0, 2.5)
    ours, registry = Histogram(edges), prometheus_client.CollectorRegistry()
    reference = prometheus_client.Histogram("h", "h", buckets=edges, registry=registry)
    for value in (0.05, 0.1, 0.100001, 1.0, 2.0, 2.5, 7.0):
        ours.observe(value)
        reference.observe(value)
    samples = next(iter(reference.collect())).samples
    expected = [(s.labels["le"], s.value) for s in samples if s.name == "h_bucket"]
    buckets, total = ours.cumulative()
    assert buckets == expected
    assert total == pytest.approx(12.750001)


def test_a_client_that_leaves_within_its_body_is_no_error_of_ours(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger(LOGGER_NAME)
    logger.addHandler(caplog.handler)
    head = b"POST /detokenize HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    try:
        with server.connect() as connection:
            connection.sendall(head + b"content-length: 100\r\n\r\n{")
            wait_until(lambda: server.service.active == 1, 5)
        wait_until(lambda: server.service.active == 0, 5)
    finally:
        logger.removeHandler(caplog.handler)
    assert "unexpected error" not in caplog.text
    name = "manymind_http_requests_total"
    assert server.labelled(name, route="/detokenize", status="499") == 1


def test_request_ids(server: RunningServer) -> None:
    assert server.get("/health", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == (
        "mine-1"
    )
    for refused in ("", "a b", "x" * 129, "<script>"):
        given = server.get("/health", headers={"x-request-id": refused}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{24}", given)
    assert server.get("/nowhere").headers["x-request-id"]


def test_a_log_line_says_what_bounded_the_request(
    server: RunningServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(LOGGER_NAME), "propagate", True)
    caplog.set_level(logging.INFO, LOGGER_NAME)
    body = {"model": "smollm2", "messages": QUESTION, "user": "u1", "max_tokens": 8}
    server.post("/v1/chat/completions", body, headers={"x-request-id": "logged"})

    def lines() -> list[dict[str, Any]]:
        fields = [getattr(record, "fields", {}) for record in caplog.records]
        return [line for line in fields if line.get("request_id") == "logged"]

    wait_until(lambda: len(lines()) == 1)
    (line,) = lines()
    assert line["user"] == "u1"
    assert line["status"] == 200
    assert line["bounded_by"] == max(line["phases"], key=line["phases"].get)
    assert sum(line["phases"].values()) == pytest.approx(line["seconds"], abs=0.1)
    assert "Japan" not in json.dumps(line)


def test_a_full_server_says_when_to_come_back(smollm2: Pipeline) -> None:
    limits = Limits(max_concurrent_requests=1)
    with running_server(smollm2, ServerConfig("smollm2", port=0, limits=limits)) as server:
        with reading(server, LONG):
            refused = server.post("/v1/chat/completions", LONG)
            assert refused.status_code == 429
            assert refused.json()["error"]["type"] == "rate_limit_error"
            assert int(refused.headers["retry-after"]) >= 1
            assert server.get("/health").status_code == 200
        wait_until(lambda: server.service.active == 0, 5)
        answer = server.post("/v1/chat/completions", {**LONG, "max_tokens": 2})
        assert answer.status_code == 200
        assert server.metrics()["vllm:admission_rejections_total"] == 1


def test_a_full_engine_queue_is_a_429(smollm2_path: Path) -> None:
    config = EngineConfig(session_len=1024, max_batch_size=1, max_queue_size=1)
    with (
        pipeline(smollm2_path, config) as pipe,
        running_server(pipe, ServerConfig("smollm2", port=0)) as server,
        reading(server, {**LONG, "max_tokens": 900}),
    ):
        statuses: list[int] = []

        def ask() -> None:
            body = {**LONG, "max_tokens": 1}
            statuses.append(server.post("/v1/chat/completions", body).status_code)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(statuses) >= 3)
        assert set(statuses) == {429}
    for thread in threads:
        thread.join()


def test_priority_overtakes(smollm2_path: Path) -> None:
    config = EngineConfig(session_len=512, max_batch_size=1)
    with (
        pipeline(smollm2_path, config) as pipe,
        running_server(pipe, ServerConfig("smollm2", port=0)) as server,
    ):
        finished: list[int] = []

        def ask(priority: int) -> None:
            body = {**LONG, "max_tokens": 20, "priority": priority}
            assert server.post("/v1/chat/completions", body).status_code == 200
            finished.append(priority)

        threads = [threading.Thread(target=ask, args=(priority,)) for priority in (0, 5)]
        stats = server.service.runtime.engine.stats
        with reading(server, {**LONG, "max_tokens": 400}):  # has the only place
            for number, thread in enumerate(threads, 1):
                thread.start()
                wait_until(lambda number=number: stats()["waiting"] == number)  # type: ignore[misc]
        for thread in threads:
            thread.join()
        assert finished == [5, 0]


@contextmanager
def process(*flags: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``manymind serve`` as its user starts it, and its address."""
    command = [sys.executable, "-m", "manymind", "serve", *flags, "--port=0"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as running:
        try:
            assert running.stdout is not None
            line = running.stdout.readline()
            found = re.search(r"https?://\S+", line)
            assert found, (line, running.stderr.read() if running.stderr else "")
            yield running, found[0]
        finally:
            running.kill()


def test_sigterm_drains(smollm2_path: Path) -> None:
    body = {"model": "smol", "messages": STORY, "ignore_eos": True, "max_tokens": 150}
    flags = (str(smollm2_path), "--served_name=smol", "--session_len=512")
    with process(*flags) as (running, url):
        with httpx.stream(
            "POST", f"{url}/v1/chat/completions", json={**body, "stream": True}, timeout=60
        ) as answer:
            lines = answer.iter_lines()
            next(lines)
            running.send_signal(signal.SIGTERM)
            wait_until(lambda: httpx.get(f"{url}/ready").status_code == 503, 5)
            refused = httpx.post(f"{url}/v1/chat/completions", json=body)
            assert refused.status_code == 503
            assert "retry-after" in refused.headers
            assert httpx.get(f"{url}/health").status_code == 200
            received = list(lines)
        assert received[-2:] == ["data: [DONE]", ""]
        assert sum('"content"' in line for line in received) >= 100
        assert running.wait(timeout=20) == 0
        assert running.stderr is not None
        logged = [json.loads(line) for line in running.stderr if line.startswith("{")]
    assert [line["status"] for line in logged if line["path"].startswith("/v1")] == [503, 200]


def test_a_second_signal_ends_at_once(smollm2_path: Path) -> None:
    body = {"model": "smol", "messages": STORY, "ignore_eos": True, "max_tokens": 8000}
    with process(str(smollm2_path), "--served_name=smol", "--drain_seconds=3600") as (running, url):
        with httpx.stream(
            "POST", f"{url}/v1/chat/completions", json={**body, "stream": True}, timeout=60
        ) as answer:
            lines = answer.iter_lines()
            next(lines)
            running.send_signal(signal.SIGINT)
            wait_until(lambda: httpx.get(f"{url}/ready").status_code == 503, 5)
            running.send_signal(signal.SIGINT)
            with pytest.raises(httpx.RemoteProtocolError):
                list(lines)
        assert running.wait(timeout=20) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--port=70000",), "port"),
        (("--drain_seconds=-1",), "drain_seconds"),
        (("--tls_key=x",), "tls_key"),
        (("--api_keys=/no/such/file",), "api_keys"),
        (("--log_level=loud",), "log_level"),
        (("--nonsense=1",), "nonsense"),
    ],
)
def test_wrong_flags_are_named(flags: tuple[str, ...], message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "manymind", "serve", "smollm2", *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode in (1, 2)
    assert message in done.stderr
