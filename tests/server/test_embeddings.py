# SPDX-License-Identifier: Apache-2.0
"""A server on a tiny encoder, asked by the real clients."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import ollama
import openai
import pytest
from golden_data import ENCODER, GOLDEN
from serving import RunningServer, running_server
from support import wait_until

from manymind import EngineConfig
from manymind.embedding_runtime import EmbeddingRuntime, PendingEmbedding
from manymind.errors import BackendError
from manymind.server.config import ServerConfig
from manymind.server.keys import ApiKey

TEXTS = json.loads((GOLDEN / "embeddings.json").read_text())
ROWS = np.load(GOLDEN / "embeddings.npz")["rows"]


@pytest.fixture(scope="module")
def encoder() -> Iterator[RunningServer]:
    runtime = EmbeddingRuntime.load(ENCODER, EngineConfig())
    with running_server(runtime, ServerConfig("bert", port=0)) as running:
        yield running
    runtime.close()


def runtime_of(server: RunningServer) -> EmbeddingRuntime:
    runtime = server.service.runtime
    assert isinstance(runtime, EmbeddingRuntime)
    return runtime


def test_openais_client(encoder: RunningServer) -> None:
    with openai.OpenAI(base_url=f"{encoder.url}/v1", api_key="none", max_retries=0) as client:
        for kind in ("float", "base64"):
            answer = client.embeddings.create(
                model="bert",
                input=TEXTS,
                encoding_format=kind,  # type: ignore[arg-type]
            )
            if kind == "float":
                rows = np.array([item.embedding for item in answer.data])
                assert np.abs(rows - ROWS).max() < 1e-4
        found = client.embeddings.create(model="bert", input=[2, 200, 3]).data[0].embedding
        assert len(found) == 32
        assert answer.usage.prompt_tokens > len(TEXTS)


def test_ollamas_client(encoder: RunningServer) -> None:
    with ollama.Client(host=encoder.url) as client:
        answer = client.embed(model="bert", input=TEXTS[:3])
        assert np.abs(np.array(answer.embeddings) - ROWS[:3]).max() < 1e-4
        encode = runtime_of(encoder).tokenizer.encode
        assert answer.prompt_eval_count == sum(len(encode(text)) for text in TEXTS[:3])
        assert 0 < answer.total_duration < 60e9
        assert answer.load_duration == 0
        assert client.show("bert").capabilities == ["embedding"]
        assert client.list().models[0].details.family == "bert"


def test_metrics_and_times(encoder: RunningServer) -> None:
    before = encoder.metrics()
    usage = encoder.post("/v1/embeddings", {"model": "bert", "input": TEXTS[0]}).json()["usage"]
    wait_until(lambda: encoder.service.active == 0)
    after = encoder.metrics()
    name = "vllm:prompt_tokens_total"
    assert after[name] - before[name] == usage["prompt_tokens"] == 17
    name = "vllm:e2e_request_latency_seconds_count"
    assert after[name] - before[name] == 1


WRITING: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
    ("/v1/completions", {"prompt": "a"}),
    ("/v1/responses", {"input": "a"}),
    ("/v1/messages", {"messages": [{"role": "user", "content": "a"}], "max_tokens": 2}),
    ("/api/generate", {"prompt": "a"}),
    ("/api/chat", {"messages": [{"role": "user", "content": "a"}]}),
)


@pytest.mark.parametrize(("path", "body"), WRITING)
def test_it_does_not_write(encoder: RunningServer, path: str, body: dict[str, Any]) -> None:
    answer = encoder.post(path, {"model": "bert", **body})
    assert answer.status_code == 400
    assert "embeddings only" in answer.text


def test_wrong_inputs(encoder: RunningServer) -> None:
    def code(body: dict[str, Any]) -> tuple[int, str]:
        answer: httpx.Response = encoder.post("/v1/embeddings", {"model": "bert", **body})
        return answer.status_code, answer.json()["error"]["code"]

    assert code({"input": "the " * 500}) == (400, "context_length_exceeded")
    assert code({"input": [320]}) == (400, "invalid_value")
    computed = runtime_of(encoder).engine.stats()["prompt_tokens"]
    assert code({"input": "a", "dimensions": 7}) == (400, "unsupported_parameter")
    assert runtime_of(encoder).engine.stats()["prompt_tokens"] == computed
    assert code({"input": []}) == (400, "invalid_value")
    assert code({"input": ["a"] * 257}) == (400, "invalid_value")
    # Whoever shared a step with a wrong one is served.
    assert encoder.post("/v1/embeddings", {"model": "bert", "input": "a"}).status_code == 200


def test_token_quota(encoder: RunningServer) -> None:
    """Texts count when they are computed; what is refused costs nothing."""
    keys = [ApiKey("thrifty", hashlib.sha256(b"thrifty").digest(), tokens_per_minute=60)]
    config = ServerConfig("bert", port=0, keys=keys)
    with running_server(runtime_of(encoder), config) as server:

        def status(words: int) -> int:
            body = {"model": "bert", "input": "the " * words}
            return server.post("/v1/embeddings", body, headers={"x-api-key": "thrifty"}).status_code

        assert [status(500), status(100), status(1)] == [400, 200, 429]


def test_a_request_ends_in_time(encoder: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = runtime_of(encoder)
    waiting = PendingEmbedding()
    monkeypatch.setattr(runtime.engine, "submit", lambda _: waiting)
    with running_server(runtime, ServerConfig("bert", port=0, request_timeout=0.05)) as server:
        answer = server.post("/v1/embeddings", {"model": "bert", "input": "a"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        wait_until(lambda: server.service.active == 0)
        assert server.labelled("manymind_requests_bounded_by_total", phase="queue") == 1
    assert waiting.cancelled()


@pytest.mark.parametrize("for_good", [False, True])
def test_a_lost_device_is_noticed(
    encoder: RunningServer, monkeypatch: pytest.MonkeyPatch, for_good: bool
) -> None:
    """One that could be opened again serves the next request."""
    runtime = runtime_of(encoder)
    failed = PendingEmbedding()
    failed.set_exception(BackendError("the device is lost"))
    with running_server(runtime, ServerConfig("bert", port=0)) as server:
        body = {"model": "bert", "input": "a"}
        assert server.get("/health").status_code == 200
        with monkeypatch.context() as patch:
            patch.setattr(runtime.engine, "submit", lambda _: failed)
            patch.setattr(type(runtime.engine), "device_lost", for_good)
            answer = server.post("/v1/embeddings", body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_error")
        after = server.post("/v1/embeddings", body)
        assert after.status_code == (503 if for_good else 200)
        assert for_good == ("device_lost" in after.text)
        assert server.get("/health").status_code == after.status_code


def test_tokens(encoder: RunningServer) -> None:
    ids = encoder.post("/tokenize", {"prompt": "Playing chess!"}).json()["tokens"]
    assert ids[0] == 2
    assert ids[-1] == 3
    text = encoder.post("/detokenize", {"tokens": ids[1:-1]}).json()["prompt"]
    assert text == "playing chess !"
