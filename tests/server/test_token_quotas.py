# SPDX-License-Identifier: Apache-2.0
"""A key's tokens per minute: what a request sets aside, uses and gives back."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import STORY, RunningServer, running_server
from support import wait_until

from manymind import EngineConfig, Pipeline, pipeline
from manymind.server import keys as keys_module
from manymind.server.config import ServerConfig
from manymind.server.errors import ApiError
from manymind.server.keys import ApiKey, Quotas

KEY = ApiKey("k", hashlib.sha256(b"k").digest(), tokens_per_minute=600)
HEADERS = {"x-api-key": "k"}
BODY = {"model": "m", "messages": STORY, "ignore_eos": True, "max_tokens": 400}


class Clock:
    """Stands still between moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Of quotas alone."""
    clock = Clock()
    monkeypatch.setattr(keys_module, "time", clock)
    return clock


def left(quotas: Quotas) -> float:
    return quotas._tokens["k"].left()


def test_what_is_not_used_comes_back(clock: Clock) -> None:
    quotas = Quotas([KEY])
    request = quotas.reserve(KEY, 50, 250)
    assert left(quotas) == 350
    request.use(50)
    request.use(30)
    assert left(quotas) == 350
    request.settle()
    request.settle()
    assert left(quotas) == 520
    request.use(5)  # heard of after its end
    assert left(quotas) == 515
    clock.now += 3
    assert left(quotas) == 545
    clock.now += 60
    assert left(quotas) == 600


def test_what_is_used_beyond_is_paid_off(clock: Clock) -> None:
    """A request that was let in is finished, whatever it comes to."""
    quotas = Quotas([KEY])
    quotas.reserve(KEY, 100, 500).use(100)
    last = quotas.reserve(KEY, 40, 1000)
    assert left(quotas) == 100 - 600
    last.use(650)
    last.settle()
    assert left(quotas) == 100 - 650
    with pytest.raises(ApiError, match="expected 10 left, found 0") as caught:
        quotas.reserve(KEY, 10, 20)
    assert (caught.value.status, caught.value.code) == (429, "tokens_quota_exceeded")
    assert caught.value.headers["retry-after"] == "56"
    clock.now += 56
    quotas.reserve(KEY, 10, 20)


def test_who_comes_back_when_told_is_let_in(clock: Clock) -> None:
    quotas = Quotas([KEY])
    for prompt in range(1, 30):
        clock.now += 120
        quotas.reserve(KEY, 600, 600)
        with pytest.raises(ApiError) as caught:
            quotas.reserve(KEY, prompt, prompt)
        clock.now += int(caught.value.headers["retry-after"])
        quotas.reserve(KEY, prompt, prompt)


def test_a_prompt_of_more_than_a_minute_waits_for_a_full_one(clock: Clock) -> None:
    quotas = Quotas([KEY])
    first = quotas.reserve(KEY, 1, 1)
    with pytest.raises(ApiError):
        quotas.reserve(KEY, 1000, 1100)
    first.settle()
    huge = quotas.reserve(KEY, 1000, 1100)
    huge.use(1000)
    huge.settle()
    assert left(quotas) == -400


def test_no_order_of_requests_uses_more_than_there_is(clock: Clock) -> None:
    """In any time a key uses the minute it had, what came back, and what one request has set aside
    of the tokens to come.
    """
    draw = random.Random(0)
    quotas, running = Quotas([KEY]), []
    used, excess, start = 0, 0, clock.now
    for _ in range(5000):
        clock.now += draw.random() * 0.5
        prompt, answer = draw.randrange(1, 60), draw.randrange(1, 200)
        before = left(quotas)
        try:
            request = quotas.reserve(KEY, prompt, prompt + answer)
        except ApiError:
            assert before < prompt
        else:
            excess = max(excess, prompt + answer - int(before))
            running.append((request, prompt + draw.randrange(answer + 1)))
        if running and draw.random() < 0.6:
            request, amount = running.pop(draw.randrange(len(running)))
            request.use(amount)
            request.settle()
            used += amount
        assert used <= 600 + (clock.now - start) * 10 + excess
    assert used > 0.9 * (clock.now - start) * 10


@contextmanager
def serving(pipe: Pipeline) -> Iterator[RunningServer]:
    with running_server(pipe, ServerConfig("m", port=0, keys=[KEY])) as server:
        yield server


def ask(server: RunningServer, **more: Any) -> httpx.Response:
    return server.post("/v1/chat/completions", {**BODY, **more}, headers=HEADERS)


@contextmanager
def reading(server: RunningServer, **more: Any) -> Iterator[Iterator[str]]:
    """The lines of a stream that has begun."""
    body = {**BODY, **more, "stream": True}
    url = f"{server.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, headers=HEADERS, timeout=60) as answer:
        lines = answer.iter_lines()
        next(lines)
        yield lines


def test_an_answer_costs_what_its_usage_says(smollm2: Pipeline, clock: Clock) -> None:
    with serving(smollm2) as server:
        quotas = server.service._quotas
        usage = ask(server, max_tokens=7).json()["usage"]
        assert left(quotas) == 600 - usage["total_tokens"]
        # Of two answers the prompt counts once; one that ends early gives the rest back.
        first = left(quotas)
        more = {"max_tokens": 9, "n": 2, "stop": ["e"]}
        usage = ask(server, **more).json()["usage"]
        assert left(quotas) == first - usage["total_tokens"]
        wait_until(lambda: server.service.active == 0, 5)


def test_requests_at_once_do_not_use_the_same_tokens(smollm2: Pipeline, clock: Clock) -> None:
    with serving(smollm2) as server, reading(server), reading(server):
        # Both have set aside what they may come to, though little has been computed.
        refused = ask(server, max_tokens=1)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "tokens_quota_exceeded"


def test_a_client_that_leaves_pays_what_was_computed(smollm2: Pipeline, clock: Clock) -> None:
    with serving(smollm2) as server:
        quotas = server.service._quotas
        engine = server.service.runtime.engine.stats
        before = engine()
        with reading(server) as lines:
            for _ in range(10):
                next(lines)
            assert left(quotas) < 200
        wait_until(lambda: server.service.active == 0, 5)
        after = engine()
        used = sum(after[key] - before[key] for key in ("prompt_tokens", "generated_tokens"))
        # The engine may have drawn one more token than anybody was told of.
        assert 600 - left(quotas) == pytest.approx(used, abs=1)


def test_a_prompt_that_never_had_its_turn_costs_nothing(smollm2_path: Path, clock: Clock) -> None:
    config = EngineConfig(session_len=1024, max_batch_size=1)
    with pipeline(smollm2_path, config) as pipe, serving(pipe) as server:
        quotas = server.service._quotas
        with reading(server):  # has the only place
            before, metrics = left(quotas), server.metrics(headers=HEADERS)
            assert ask(server, max_tokens=5, timeout=0.1).status_code == 504
            assert left(quotas) == before
            wait_until(lambda: server.service.active == 1, 5)
            after = server.metrics(headers=HEADERS)
            assert (
                after["vllm:request_prompt_tokens_sum"] > metrics["vllm:request_prompt_tokens_sum"]
            )
            for name in (
                "manymind_key_tokens_total",
                "vllm:request_prefill_kv_computed_tokens_sum",
            ):
                assert after.get(name, 0.0) == metrics.get(name, 0.0)


def test_a_key_without_quota_sets_nothing_aside() -> None:
    free = ApiKey("free", b"")
    quotas = Quotas([free])
    for key in (None, free):
        request = quotas.reserve(key, 10**9, 10**12)
        request.use(10**12)
        request.settle()
        quotas.reserve(key, 1, 1)
