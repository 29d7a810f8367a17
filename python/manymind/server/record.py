# SPDX-License-Identifier: Apache-2.0
"""What the server knows about one HTTP request: for its log line, its metrics and its trace."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from manymind.config import RequestTimes, Response
from manymind.server.keys import ApiKey

PHASES = ("receive", "preprocess", "grammar", "queue", "prefill", "decode", "network")
REFUSED = "refused"  # beside the phases, what bounds a request that was not let in


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
        network: seconds spent waiting for the client to take the answer.
        first_piece: when the first text was there.
        gaps: seconds between pieces of the same answer, with the tokens each brought.
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
    cached_tokens: int = 0
    preemptions: int = 0
    generated_tokens: int = 0
    longest_answer: int = 0
    choices: int = 0
    max_tokens: int = 0
    reasons: list[str] = field(default_factory=list)
    first_piece: float = 0.0
    times: list[RequestTimes] = field(default_factory=list)
    gaps: list[tuple[float, int]] = field(default_factory=list)
    trace_headers: dict[str, str] = field(default_factory=dict)
    trace_id: str | None = None
    stages: list[tuple[str, float, float]] = field(default_factory=list)
    _last_pieces: dict[tuple[int, int], float] = field(default_factory=dict)

    def observe(self, pieces: Sequence[Response]) -> None:
        """Takes note of what one wake-up brought."""
        now = time.monotonic()
        if not self.first_piece:
            self.first_piece = now
        for piece in pieces:
            tokens = len(piece.token_ids)
            answer = (piece.index, piece.choice)
            last = self._last_pieces.get(answer)
            if tokens:
                self._last_pieces[answer] = now
                self.generated_tokens += tokens
                if last is not None:
                    self.gaps.append((now - last, tokens))
            elif last is None:
                self._last_pieces[answer] = now
            if piece.finish_reason is not None:
                self._finish(piece, piece.finish_reason)

    def observe_end(self, pieces: Sequence[Response]) -> None:
        """Takes note of what the engine said when nobody waited any more."""
        for piece in pieces:
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
        for name, start, end in self._in_engine():
            spent[name] = max(spent[name], end - start)
        return spent

    def intervals(self) -> list[tuple[str, float, float]]:
        """(phase, start, end) of everything that has a beginning and an end. The client's slowness,
        spread over the answer, has not; the engine's phases are of each answer.
        """
        found = [("receive", self.received, self.received + self.receive)] if self.receive else []
        found += self.stages
        return found + list(self._in_engine())

    def _in_engine(self) -> Iterator[tuple[str, float, float]]:
        """(phase, start, end) of each answer. The phase in which an answer failed or was given up
        ends with it; those behind were never begun.
        """
        for times in self.times:
            starts = (times.arrival, times.first_scheduled, times.first_token)
            begun = [
                item for item in zip(("queue", "prefill", "decode"), starts, strict=True) if item[1]
            ]
            ends = [start for _, start in begun[1:]] + [times.finish]
            for (name, start), end in zip(begun, ends, strict=True):
                yield name, start, end

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
