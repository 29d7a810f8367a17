# SPDX-License-Identifier: Apache-2.0
"""Sends the load and notes when each piece of an answer came."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from manymind.load.http_client import HttpClient, LoadError, Reply
from manymind.load.workload import Arrivals, Conversation
from manymind.validation import require_choice

_PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
_REFUSALS = (429, 503)


@dataclass(frozen=True)
class Target:
    """A server and how to speak to it.

    Attributes:
        url: without the path of the interface; a last ``/v1`` may be there.
        model: the name to ask for.
        endpoint: "chat" or "completions".
        body: further fields of every request, such as ``{"ignore_eos": true}``.
        timeout: seconds after which an answer counts as failed.
    """

    url: str
    model: str
    endpoint: str = "chat"
    api_key: str | None = None
    body: dict[str, Any] = field(default_factory=dict)
    timeout: float = 600.0

    def __post_init__(self) -> None:
        require_choice("endpoint", self.endpoint, tuple(_PATHS))

    def client(self) -> HttpClient:
        """Connections to it."""
        return HttpClient(self.url.rstrip("/").removesuffix("/v1"), self.api_key)

    def request_body(self, messages: Sequence[dict[str, Any]], output_len: int) -> bytes:
        """A streaming request."""
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": output_len,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.endpoint == "chat":
            body["messages"] = messages
        else:
            body["prompt"] = "\n".join(str(message["content"]) for message in messages)
        return json.dumps(body | self.body).encode()


@dataclass
class Trace:
    """One request; times are seconds since the run began.

    Attributes:
        due: when it should have been sent; latencies count from here, so that a client that falls
            behind hides nothing.
        pieces: when each piece with text came.
        status: of HTTP; 0: no answer.
    """

    due: float
    sent: float = 0.0
    end: float = 0.0
    pieces: list[float] = field(default_factory=list)
    status: int = 0
    error: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    text: str = ""

    @property
    def outcome(self) -> str:
        """completed, refused (by a limit) or failed."""
        if self.status in _REFUSALS:
            return "refused"
        return "completed" if self.status == 200 and not self.error and self.pieces else "failed"

    @property
    def ttft(self) -> float:
        """To the first piece of text."""
        return self.pieces[0] - self.due

    @property
    def e2e(self) -> float:
        """To the end of the answer."""
        return self.end - self.due

    @property
    def tpot(self) -> float | None:
        """Mean time of a token after the first; None for answers of one token."""
        tokens = self.output_tokens or len(self.pieces)
        return (self.pieces[-1] - self.pieces[0]) / (tokens - 1) if tokens > 1 else None

    @property
    def gaps(self) -> list[float]:
        """Between pieces."""
        return [b - a for a, b in zip(self.pieces, self.pieces[1:], strict=False)]


async def run(
    target: Target, data: Sequence[Conversation], arrivals: Arrivals
) -> tuple[list[Trace], float]:
    """Sends everything; returns the traces of all requests and the seconds it took."""
    client = target.client()
    start = time.perf_counter()
    traces: list[Trace] = []
    places = asyncio.Semaphore(arrivals.concurrency) if arrivals.concurrency else None

    async def hold(item: Conversation, due: float, stack: AsyncExitStack) -> None:
        async with stack:
            await _converse(target, client, item, due, start, traces)

    tasks = []
    try:
        for item, due in zip(data, arrivals.offsets(), strict=False):
            stack = AsyncExitStack()
            if arrivals.rate is not None:
                await asyncio.sleep(max(0.0, start + due - time.perf_counter()))
            if places is not None:
                await stack.enter_async_context(places)
            if arrivals.rate is None:
                due = time.perf_counter() - start
            tasks.append(asyncio.create_task(hold(item, due, stack)))
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        client.close()
    return traces, time.perf_counter() - start


async def _converse(
    target: Target,
    client: HttpClient,
    item: Conversation,
    due: float,
    start: float,
    traces: list[Trace],
) -> None:
    """All turns of a conversation, one after the other."""
    messages = list(item.history)
    for turn in item.turns:
        messages.append({"role": "user", "content": turn})
        trace = Trace(due)
        traces.append(trace)
        await ask(target, client, target.request_body(messages, item.output_len), trace, start)
        if trace.outcome != "completed":
            return
        messages.append({"role": "assistant", "content": trace.text})
        due = time.perf_counter() - start


async def ask(target: Target, client: HttpClient, body: bytes, trace: Trace, start: float) -> None:
    """One request; what goes wrong is noted in its trace."""
    trace.sent = time.perf_counter() - start

    async def exchange() -> None:
        async with client.request("POST", _PATHS[target.endpoint], body) as reply:
            trace.status = reply.status
            if reply.status == 200:
                await _read_stream(reply, trace, start)
            else:
                trace.error = (await reply.body())[:300].decode(errors="replace")

    try:
        await asyncio.wait_for(exchange(), target.timeout)
    except (LoadError, OSError, asyncio.TimeoutError) as error:
        trace.error = f"{type(error).__name__}: {error}"
    trace.end = time.perf_counter() - start


async def _read_stream(reply: Reply, trace: Trace, start: float) -> None:
    texts = []
    done = False
    async for line in reply.lines():
        if not line.startswith(b"data:"):
            continue
        now = time.perf_counter() - start
        data = line[5:].strip()
        if data == b"[DONE]":
            done = True
            continue
        try:
            text = _take_event(json.loads(data), trace)
        except (AttributeError, RecursionError, TypeError, ValueError):
            raise LoadError(f"expected an event of OpenAI's, found {data[:100]!r}") from None
        if text:
            trace.pieces.append(now)
            texts.append(text)
    trace.text = "".join(texts)
    if not done and not trace.error:
        trace.error = "the stream ended without [DONE]"


def _take_event(event: dict[str, Any], trace: Trace) -> str:
    """Notes errors and counts; returns the event's text. Raises AttributeError, TypeError or
    ValueError for what is no event.
    """
    if "error" in event:
        trace.error = json.dumps(event["error"])[:300]
    if usage := event.get("usage"):
        trace.prompt_tokens = int(usage.get("prompt_tokens") or 0)
        trace.output_tokens = int(usage.get("completion_tokens") or 0)
        details = usage.get("prompt_tokens_details") or {}
        trace.cached_tokens = int(details.get("cached_tokens") or 0)
    return _text_of(event)


def _text_of(event: dict[str, Any]) -> str:
    """What a reader would see of the event, reasoning included."""
    text = ""
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or choice
        for name in ("content", "reasoning_content", "text"):
            text += delta.get(name) or ""
    return text
