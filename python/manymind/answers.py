# SPDX-License-Identifier: Apache-2.0
"""Builds responses out of the engine's outputs, one state per answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from manymind.config import RequestTimes, Response
from manymind.output_text import TextAssembler

if TYPE_CHECKING:
    from manymind import _turbomind
    from manymind.errors import ManymindError


class Answer:
    """One answer growing step by step."""

    def __init__(self, assembler: TextAssembler, index: int, choice: int = 0) -> None:
        self._assembler = assembler
        self._logits: list[Any] = []
        self._hidden: list[Any] = []
        self.response = Response("", 0, 0, index=index, choice=choice)
        self.finished = False
        self.error: ManymindError | None = None

    @property
    def stop_matched(self) -> bool:
        """True once a stop string ended the text while the engine may still be generating."""
        return self._assembler.stopped

    def absorb(self, output: _turbomind.Output) -> Response:
        """Takes one output of the engine while the answer is open; returns what it adds."""
        response = self.response
        piece = Response(
            self._assembler.push(output.token_ids, output.finished),
            response.generate_token_len + len(output.token_ids),
            output.prompt_tokens,
            token_ids=list(output.token_ids),
            logprobs=_mappings(output.logprobs),
            prompt_logprobs=_mappings(output.prompt_logprobs),
            index=response.index,
            choice=response.choice,
            cached_tokens=output.cached_tokens,
            preemptions=output.preemptions,
        )
        self._finish_if_over(output, piece)
        self._accumulate(output, piece)
        return piece

    def _finish_if_over(self, output: _turbomind.Output, piece: Response) -> None:
        if self.stop_matched:
            piece.finish_reason = "stop"
            piece.stop_word = self._assembler.stop_word
        elif output.finished:
            piece.finish_reason = output.finish_reason
            if output.error is not None:
                self.error = output.error
                piece.error_message = str(output.error)
        self.finished = piece.finish_reason is not None
        first = bool(output.token_ids) and self.response.generate_token_len == 0
        if self.finished or first:
            piece.times = _times(output.times)

    def _accumulate(self, output: _turbomind.Output, piece: Response) -> None:
        response = self.response
        response.text += piece.text
        response.token_ids += piece.token_ids
        response.generate_token_len = piece.generate_token_len
        response.input_token_len = piece.input_token_len
        response.cached_tokens = piece.cached_tokens
        response.preemptions = piece.preemptions
        response.finish_reason = piece.finish_reason
        response.stop_word = piece.stop_word
        response.error_message = piece.error_message
        response.times = piece.times
        response.logprobs = _joined(response.logprobs, piece.logprobs)
        response.prompt_logprobs = _joined(response.prompt_logprobs, piece.prompt_logprobs)
        for rows, kept in (
            (output.take_logits(), self._logits),
            (output.take_last_hidden_state(), self._hidden),
        ):
            if rows is not None:
                kept.append(rows)
        if self.finished:
            response.logits = piece.logits = _stack(self._logits)
            response.last_hidden_state = piece.last_hidden_state = _stack(self._hidden)


def _times(times: _turbomind.RequestTimes) -> RequestTimes:
    return RequestTimes(times.arrival, times.first_scheduled, times.first_token, times.finish)


def _mappings(rows: list[list[tuple[int, float]]]) -> list[dict[int, float]] | None:
    return [dict(row) for row in rows] or None


def _joined(
    rows: list[dict[int, float]] | None, later: list[dict[int, float]] | None
) -> list[dict[int, float]] | None:
    if later is None:
        return rows
    if rows is None:
        return list(later)
    rows.extend(later)
    return rows


def _stack(parts: list[Any]) -> Any:
    """The row blocks of several steps as one array; one block stays the engine's own memory."""
    if not parts:
        return None
    if len(parts) == 1:
        return parts[0]
    import numpy as np

    return np.concatenate(parts)
