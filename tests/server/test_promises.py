# SPDX-License-Identifier: Apache-2.0
"""What a server promises under load, as the clients people use see it: quotas, deadlines, draining,
shares by weight and priorities.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest
from serving import QUESTION, STORY, RunningServer, running_server
from support import wait_until

from manymind import EngineConfig, Pipeline, pipeline
from manymind.server.config import ServerConfig
from manymind.server.keys import ApiKey
from manymind.server.record import RequestRecord

TOKENS = 15
Ask = Callable[[], object]


def key(name: str, **more: Any) -> ApiKey:
    """A key that is its own name."""
    return ApiKey(name, hashlib.sha256(name.encode()).digest(), **more)


@contextmanager
def clients(
    server: RunningServer, keys: tuple[str, str, str], max_tokens: int = 2
) -> Iterator[list[Ask]]:
    """One request by each client, which raises what the client makes of a refusal."""
    with ExitStack() as stack:
        gpt = stack.enter_context(
            openai.OpenAI(base_url=f"{server.url}/v1", api_key=keys[0], max_retries=0)
        )
        claude = stack.enter_context(
            anthropic.Anthropic(base_url=server.url, api_key=keys[1], max_retries=0)
        )
        headers = {"authorization": f"Bearer {keys[2]}"}
        llama = stack.enter_context(ollama.Client(host=server.url, headers=headers))
        # Sampled, an answer may end after a few tokens.
        common: dict[str, Any] = {"model": "m", "messages": STORY, "max_tokens": max_tokens}
        greedy = {"temperature": 0.0}
        options = {"num_predict": max_tokens, **greedy}
        yield [
            lambda: gpt.chat.completions.create(**common, extra_body=greedy),
            lambda: claude.messages.create(**common, extra_body=greedy),
            lambda: llama.chat("m", STORY, options=options),
        ]


def refusal(ask: Ask) -> Any:
    """The client's own error of a request that is refused."""
    kinds = (openai.APIStatusError, anthropic.APIStatusError, ollama.ResponseError)
    with pytest.raises(kinds) as caught:
        ask()
    return caught.value


def test_quotas(smollm2: Pipeline) -> None:
    names = ("a", "b", "c")
    keys = [key(name, requests_per_minute=1) for name in names]
    with (
        running_server(smollm2, ServerConfig("m", port=0, keys=keys)) as server,
        clients(server, names) as asks,
    ):
        for ask in asks:
            ask()
        errors = [refusal(ask) for ask in asks]
    assert isinstance(errors[0], openai.RateLimitError)
    assert isinstance(errors[1], anthropic.RateLimitError)
    assert [error.status_code for error in errors] == [429] * 3
    for error in errors[:2]:
        assert 1 <= int(error.response.headers["retry-after"]) <= 60


def test_deadlines(smollm2: Pipeline) -> None:
    config = ServerConfig("m", port=0, request_timeout=0.2)
    with (
        running_server(smollm2, config) as server,
        clients(server, ("-", "-", "-"), max_tokens=1900) as asks,
    ):
        errors = [refusal(ask) for ask in asks]
        assert [error.status_code for error in errors] == [504] * 3
        wait_until(lambda: server.service.runtime.engine.stats()["running"] == 0)


def test_draining(smollm2: Pipeline) -> None:
    """What has begun is finished, what comes is refused, and then the server is gone."""
    with (
        running_server(smollm2, ServerConfig("m", port=0)) as server,
        clients(server, ("-", "-", "-")) as asks,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0) as gpt,
    ):
        stream = gpt.chat.completions.create(
            model="m",
            messages=STORY,
            max_tokens=400,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        next(stream)
        server.drain()
        errors = [refusal(ask) for ask in asks]
        assert [error.status_code for error in errors] == [503] * 3
        assert list(stream)[-1].choices[0].finish_reason == "length"
        wait_until(lambda: _is_gone(gpt))


def _is_gone(gpt: openai.OpenAI) -> bool:
    try:
        gpt.models.list()
    except openai.APIConnectionError:
        return True
    except openai.APIStatusError:
        pass
    return False


@pytest.fixture(scope="module")
def narrow(smollm2_path: Path) -> Iterator[Pipeline]:
    """An engine with one place."""
    with pipeline(smollm2_path, EngineConfig(session_len=1024, max_batch_size=1)) as pipe:
        yield pipe


def order_of_service(server: RunningServer, waiting: list[Ask]) -> list[str]:
    """Keys in the order in which an engine with one place, which was taken until all of them waited
    for it, began with their requests.
    """
    served: list[tuple[float, str]] = []
    release = server.service.release

    def noted(record: RequestRecord) -> None:
        release(record)
        assert record.key is not None
        if record.key.name != "occupant":
            served.append((record.times[0].first_scheduled, record.key.name))

    server.service.release = noted  # type: ignore[method-assign]
    stats = server.service.runtime.engine.stats
    threads = [threading.Thread(target=ask) for ask in waiting]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="occupant", max_retries=0) as gpt:
        occupant = gpt.chat.completions.create(
            model="m",
            messages=QUESTION,
            max_tokens=900,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        with occupant:
            next(occupant)
            for number, thread in enumerate(threads, 1):
                thread.start()
                wait_until(lambda number=number: stats()["waiting"] == number)  # type: ignore[misc]
    for thread in threads:
        thread.join()
    wait_until(lambda: len(served) == len(waiting))
    return [name for _, name in sorted(served)]


def order_of_keys(narrow: Pipeline, first: ApiKey, second: ApiKey) -> list[str]:
    """Whose requests were answered, in order; each client sends one with either key, those of the
    first before those of the second.
    """
    config = ServerConfig("m", port=0, keys=[key("occupant"), first, second])
    with (
        running_server(narrow, config) as server,
        clients(server, (first.name,) * 3, TOKENS) as early,
        clients(server, (second.name,) * 3, TOKENS) as late,
    ):
        return order_of_service(server, [*early, *late])


def test_shares_follow_weights_in_every_interface(narrow: Pipeline) -> None:
    finished = order_of_keys(narrow, key("light", weight=0.25), key("heavy", weight=4.0))
    # A share is owed from the first step on: one of the light ones may be served before.
    assert finished[-2:] == ["light", "light"], finished


def test_priorities_of_keys_in_every_interface(narrow: Pipeline) -> None:
    finished = order_of_keys(narrow, key("low"), key("high", priority=5))
    assert finished == ["high"] * 3 + ["low"] * 3
