# SPDX-License-Identifier: Apache-2.0
"""What the server knows about one HTTP request: for its log line, its metrics and its trace."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from manymind.config import RequestTimes, Response
from manymind.server.keys import ApiKey

PHASES = ("receive", "preprocess", "grammar", "queue", "prefill", "decode", "network")
REFUSED = "refused"  # beside the phases, what bounds a request that was not let in


class LatencySink(Protocol):
    """Takes observations of a histogram of ``Metrics`` by its name."""

    def __call__(self, name: str, seconds: float, count: int = 1, /) -> None: ...


@dataclass
class RequestRecord:
    """Filled in as the request passes through; times are seconds of ``time.monotonic()``.

    Attributes:
        generates: the request uses the engine.
        gone: the client left before the answer was complete.
        aborted: ended by ``/abort_request``; ``abort`` ends what the engine does for it.
        trace_headers: the client's own span, in W3C's headers (``traceparent``, ``tracestate``).
        trace_id: of the request's trace, once that is made.
        stages: (phase, start, end) of work outside the engine, in order.
        settle: waits until the engine has let go of the request.
        begun_prompt_tokens: of ``prompt_tokens``, those of prompts whose turn came.
        network: seconds spent waiting for the client to take the answer.
        first_piece: when the first token was there.
        gap_seconds, gap_tokens: between pieces of the same answer, and the tokens each brought, all
            added up.
        tell: gets each latency when it is known.
    """

    request_id: str
    method: str
    path: str
    received: float = field(default_factory=time.monotonic)
    unix_nanoseconds: int = field(default_factory=time.time_ns)
    client: str | None = None
    key: ApiKey | None = None
    user: str | None = None
    status: int = 0
    error: str | None = None
    gone: bool = False
    aborted: bool = False
    abort: Callable[[Exception], None] | None = None
    settle: Callable[[], Awaitable[None]] | None = None
    generates: bool = False
    body_bytes: int = 0
    receive: float = 0.0
    preprocess: float = 0.0
    grammar: float = 0.0
    network: float = 0.0
    finished: float = 0.0
    prompt_tokens: int = 0
    begun_prompt_tokens: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    generated_tokens: int = 0
    longest_answer: int = 0
    choices: int = 0
    max_tokens: int = 0
    reasons: list[str] = field(default_factory=list)
    first_piece: float = 0.0
    times: list[RequestTimes] = field(default_factory=list)
    gap_seconds: float = 0.0
    gap_tokens: int = 0
    tell: LatencySink = lambda *_: None
    trace_headers: dict[str, str] = field(default_factory=dict)
    trace_id: str | None = None
    stages: list[tuple[str, float, float]] = field(default_factory=list)
    _last_pieces: dict[tuple[int, int], float] = field(default_factory=dict)
    _begun: dict[tuple[int, int], RequestTimes] = field(default_factory=dict)
    _start_told: bool = False

    def observe(self, pieces: Sequence[Response]) -> None:
        """Takes note of what one wake-up brought."""
        now = time.monotonic()
        for piece in pieces:
            self._observe_tokens(piece, now)
            if piece.finish_reason is not None:
                self._finish(piece, piece.finish_reason)

    def _observe_tokens(self, piece: Response, now: float) -> None:
        tokens = len(piece.token_ids)
        answer = (piece.index, piece.choice)
        # A token that ends an answer is none of its tokens, but was waited for all the same.
        if not self.first_piece and (tokens or piece.finish_reason in ("stop", "length")):
            self.first_piece = now
            self.tell("time_to_first_token_seconds", now - self.received)
        if piece.times is not None and piece.times.first_token and not self._start_told:
            self._begun.setdefault(answer, piece.times)
            if len(self._begun) == self.choices:
                self._tell_start(self._begun.values())
        if not tokens:
            return
        last = self._last_pieces.get(answer)
        self._last_pieces[answer] = now
        self.generated_tokens += tokens
        if last is not None:
            self.gap_seconds += now - last
            self.gap_tokens += tokens
            self.tell("inter_token_latency_seconds", (now - last) / tokens, tokens)

    def tell_rest(self) -> None:
        """Tells, of a request that has ended, what could not be told before."""
        if self.times and not self._start_told:
            self._tell_start(self.times)

    def _tell_start(self, times: Iterable[RequestTimes]) -> None:
        """Once all answers have begun; queue and prefill are of the slowest."""
        self._start_told = True
        spent = dict.fromkeys(("queue", "prefill"), 0.0)
        for name, start, end in _phases_in_engine(times):
            if name in spent:
                spent[name] = max(spent[name], end - start)
        for name in ("receive", "preprocess", "grammar"):
            spent[name] = getattr(self, name)
        for name, seconds in spent.items():
            self.tell(f"request_{name}_time_seconds", seconds)

    def observe_end(self, pieces: Sequence[Response]) -> None:
        """Takes note of what the engine said when nobody waited any more."""
        for piece in pieces:
            self.generated_tokens += len(piece.token_ids)
            if piece.finish_reason is not None:
                self._finish(piece, "abort")

    def _finish(self, piece: Response, reason: str) -> None:
        self.reasons.append(reason)
        self.longest_answer = max(self.longest_answer, piece.generate_token_len)
        self.preemptions += piece.preemptions
        if piece.times is not None:
            # Of a text that a stop string ended, the engine has not yet heard.
            self.times.append(replace(piece.times, finish=piece.times.finish or time.monotonic()))
        if piece.choice == 0:
            self.prompt_tokens += piece.input_token_len
            if piece.times is not None and piece.times.first_scheduled > 0:
                self.begun_prompt_tokens += piece.input_token_len
            self.cached_tokens += piece.cached_tokens

    @property
    def seconds(self) -> float:
        """From the request's head to the last byte of its answer."""
        return self.finished - self.received

    @property
    def time_to_first_token(self) -> float | None:
        """As the client sees it, network aside."""
        return self.first_piece - self.received if self.first_piece else None

    def phases(self) -> dict[str, float]:
        """Seconds per phase. Those of the engine are of the slowest of the request's answers."""
        spent = dict.fromkeys(PHASES, 0.0)
        for name in ("receive", "preprocess", "grammar", "network"):
            spent[name] = getattr(self, name)
        for name, start, end in _phases_in_engine(self.times):
            spent[name] = max(spent[name], end - start)
        return spent

    def intervals(self) -> list[tuple[str, float, float]]:
        """(phase, start, end) of everything that has a beginning and an end. The client's slowness,
        spread over the answer, has not; the engine's phases are of each answer.
        """
        found = [("receive", self.received, self.received + self.receive)] if self.receive else []
        found += self.stages
        return found + list(_phases_in_engine(self.times))

    @property
    def refused(self) -> bool:
        """Turned away for want of room, or by a server that is closing, before any work."""
        return self.method == "POST" and self.status in (429, 503) and not self.times

    def bounded_by(self) -> str | None:
        """The phase that took longest; ``REFUSED``, which is none; None for a request that wanted
        nothing of the engine, or was wrong.
        """
        if self.refused:
            return REFUSED
        if not self.times and not self.gone and self.status not in (408, 499, 504):
            return None
        spent = self.phases()
        return max(spent, key=lambda name: spent[name])


def _phases_in_engine(answers: Iterable[RequestTimes]) -> Iterator[tuple[str, float, float]]:
    """(phase, start, end) of each answer. The phase in which an answer failed or was given up ends
    with it; those behind were never begun.
    """
    for times in answers:
        starts = (times.arrival, times.first_scheduled, times.first_token)
        begun = [
            item for item in zip(("queue", "prefill", "decode"), starts, strict=True) if item[1]
        ]
        ends = [start for _, start in begun[1:]] + [times.finish]
        for (name, start), end in zip(begun, ends, strict=True):
            yield name, start, end
