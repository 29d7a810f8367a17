# SPDX-License-Identifier: Apache-2.0
"""Requests that somebody else than their client's connection ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from serving import STORY, RunningServer, events, running_server
from support import wait_until

from manymind import Pipeline
from manymind.server.config import ServerConfig
from manymind.server.keys import api_key

LONG = {"model": "smollm2", "messages": STORY, "ignore_eos": True, "max_tokens": 1900}
NAMED = {"x-request-id": "mine"}


@pytest.fixture
def asked(server: RunningServer) -> Iterator[Any]:
    """Asks the server something on a thread, and waits until it is at work."""
    threads: list[threading.Thread] = []

    def ask(body: dict[str, Any]) -> list[httpx.Response]:
        got: list[httpx.Response] = []

        def post() -> None:
            got.append(server.post("/v1/chat/completions", body, headers=NAMED))

        threads.append(threading.Thread(target=post))
        threads[-1].start()
        wait_until(lambda: server.get("/load").json()["running"] > 0, 10)
        return got

    yield ask
    server.post("/abort_request", {"abort_all": True})
    for thread in threads:
        thread.join()


def test_an_aborted_request_says_so(server: RunningServer, asked: Any) -> None:
    got = asked(LONG)
    assert server.post("/abort_request", {"rid": "another"}).json() == {"aborted": 0}
    assert server.post("/abort_request", {"rid": ["another", "mine"]}).json() == {"aborted": 1}
    wait_until(lambda: bool(got), 5)
    # Not a status that clients' libraries try again after.
    assert (got[0].status_code, got[0].json()["error"]["code"]) == (499, "aborted")
    wait_until(lambda: server.get("/load").json()["running"] == 0, 5)


def test_an_aborted_stream_ends_with_an_error(server: RunningServer, asked: Any) -> None:
    got = asked({**LONG, "stream": True})
    before = server.labelled("vllm:request_success_total", finished_reason="abort")
    assert server.post("/abort_request", {"abort_all": True}).json() == {"aborted": 1}
    wait_until(lambda: bool(got), 5)
    *_, last, done = events(got[0].text)
    assert (last["error"]["code"], done) == ("aborted", "[DONE]")
    # Counted once the engine has let go of it.
    wait_until(lambda: server.service.active == 0, 5)
    after = server.labelled("vllm:request_success_total", finished_reason="abort")
    assert after == before + 1


@pytest.mark.parametrize("body", [{}, {"rid": "a", "abort_all": True}, {"rid": ""}])
def test_what_to_abort_is_said(server: RunningServer, body: dict[str, Any]) -> None:
    answer = server.post("/abort_request", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "rid"


def test_nobody_aborts_another_keys_requests(smollm2: Pipeline) -> None:
    keys = (api_key("a", "1"), api_key("b", "2"))
    config = ServerConfig("smollm2", port=0, keys=keys)
    mine, other = ({"authorization": f"Bearer {key}"} for key in "12")
    with running_server(smollm2, config) as server:
        url = f"{server.url}/v1/chat/completions"
        body = {**LONG, "stream": True}
        with httpx.stream("POST", url, json=body, headers={**mine, **NAMED}, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            for what in ({"rid": "mine"}, {"abort_all": True}):
                assert server.post("/abort_request", what, headers=other).json() == {"aborted": 0}
            assert server.post("/abort_request", {"rid": "mine"}, headers=mine).json() == {
                "aborted": 1
            }
            assert any('"aborted"' in line for line in lines)
