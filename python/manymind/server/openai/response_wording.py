# SPDX-License-Identifier: Apache-2.0
"""Response objects, and the events that tell of their making item by item.

Source of the form: OpenAI's API reference, "Responses" and "Streaming events".
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from manymind.parsers import (
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from manymind.server.dialogue import Delta
from manymind.server.errors import ApiError

if TYPE_CHECKING:
    from manymind.server.openai.responses import ResponseRequest


class ResponseWording:
    """Response objects and the events of their making."""

    media_type = "text/event-stream"

    def __init__(self, body: ResponseRequest) -> None:
        self._body = body
        self._id = f"resp_{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._sequence = 0
        self._items: list[OutputItem] = []

    def whole(self, answers: Sequence[Delta]) -> dict[str, Any]:
        """A response object."""
        for event in answers[0].events:
            item, _ = self._item_of(event)
            if isinstance(event, ToolCallEnd) and item is not None:
                item.close(cut=not event.complete)
        cut = answers[0].piece.finish_reason == "length"
        for item in self._items:
            if not item.closed:
                # Only the last can have been left unfinished.
                item.close(cut=cut and item is self._items[-1])
        return self._response(answers[0])

    def step(self, deltas: Sequence[Delta]) -> bytes:
        """Events of one wake-up."""
        events = b""
        for delta in deltas:
            if self._sequence == 0:
                empty = self._response(None)
                events += self._event("response.created", response=empty)
                events += self._event("response.in_progress", response=empty)
            for event in delta.events:
                events += self._said(event)
            if delta.piece.finish_reason is not None:
                events += self._close_last(cut=delta.piece.finish_reason == "length")
                response = self._response(delta)
                events += self._event(f"response.{response['status']}", response=response)
        return events

    def end(self) -> bytes:
        """The last event was the response itself."""
        return b""

    def failure(self, error: ApiError) -> bytes:
        """An event that holds the error."""
        return self._event("error", code=error.code, message=error.message, param=error.param)

    def _item_of(self, event: Event) -> tuple[OutputItem | None, bool]:
        """The item that an event is about, and whether it is a fresh one."""
        last = self._items[-1] if self._items and not self._items[-1].closed else None
        if isinstance(event, ToolCallEnd):
            return last, False
        kind = _KINDS[type(event)]
        fresh = last is None or last.kind != kind or isinstance(event, ToolCallStart)
        if fresh:
            last = OutputItem(kind, getattr(event, "name", ""))
            self._items.append(last)
        assert last is not None
        last.text += getattr(event, "text", getattr(event, "arguments", ""))
        return last, fresh

    def _said(self, event: Event) -> bytes:
        before = len(self._items)
        closing = b""
        if before and not isinstance(event, (ToolCallDelta, ToolCallEnd)):
            same = _KINDS[type(event)] == self._items[-1].kind
            if not same or isinstance(event, ToolCallStart):
                closing = self._close_last()
        item, fresh = self._item_of(event)
        if isinstance(event, ToolCallEnd):
            return self._close_last(cut=not event.complete)
        assert item is not None
        opening = b""
        if fresh:
            place = {"output_index": len(self._items) - 1}
            opening = self._event("response.output_item.added", **place, item=item.as_begun())
            if item.kind != "function_call":
                opening += self._about(item, "content_part.added", part=item.part(""))
        if isinstance(event, ToolCallStart):
            return closing + opening
        delta = event.arguments if isinstance(event, ToolCallDelta) else event.text
        more: dict[str, Any] = {"logprobs": []} if item.kind == "message" else {}
        said = self._about(item, f"{item.text_prefix}.delta", delta=delta, **more)
        return closing + opening + said

    def _close_last(self, cut: bool = False) -> bytes:
        if not self._items or self._items[-1].closed:
            return b""
        item = self._items[-1]
        item.close(cut)
        if item.kind == "function_call":
            done = {"arguments": item.text, "name": item.name}
            events = self._about(item, f"{item.text_prefix}.done", **done)
        else:
            more: dict[str, Any] = {"logprobs": []} if item.kind == "message" else {}
            events = self._about(item, f"{item.text_prefix}.done", text=item.text, **more)
            events += self._about(item, "content_part.done", part=item.part(item.text))
        place = {"output_index": len(self._items) - 1}
        return events + self._event("response.output_item.done", **place, item=item.as_done())

    def _about(self, item: OutputItem, kind: str, **data: Any) -> bytes:
        place: dict[str, Any] = {"item_id": item.id, "output_index": len(self._items) - 1}
        if item.kind != "function_call":
            place["content_index"] = 0
        return self._event(f"response.{kind}", **place, **data)

    def _event(self, kind: str, **data: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._sequence, **data}
        self._sequence += 1
        return f"event: {kind}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()

    def _response(self, answer: Delta | None) -> dict[str, Any]:
        """The response so far; ``answer`` is its last piece, or None while there is none."""
        body = self._body
        cut = answer is not None and answer.piece.finish_reason == "length"
        status = "in_progress" if answer is None else "incomplete" if cut else "completed"
        choice = body.tool_choice or "auto"
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": body.model,
            "output": [item.as_done() for item in self._items] if answer is not None else [],
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": body.reasoning and body.reasoning.effort, "summary": None},
            "store": False,
            "temperature": 1.0 if body.temperature is None else body.temperature,
            "text": {"format": (body.text and body.text.format) or {"type": "text"}},
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
            "tools": [tool.model_dump() for tool in body.tools or ()],
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "truncation": "disabled",
            "usage": None if answer is None else _usage(answer),
        }


@dataclass
class OutputItem:
    """An item of the output while it grows: "message", "reasoning" or "function_call"."""

    kind: str
    name: str = ""
    text: str = ""
    closed: bool = False
    cut: bool = False
    id: str = ""
    call_id: str = field(default_factory=lambda: f"call_{secrets.token_hex(12)}")

    def __post_init__(self) -> None:
        prefix = {"message": "msg", "reasoning": "rs", "function_call": "fc"}[self.kind]
        self.id = f"{prefix}_{secrets.token_hex(12)}"

    @property
    def text_prefix(self) -> str:
        """Of the events that tell its text."""
        words = {"message": "output_text", "reasoning": "reasoning_text"}
        return words.get(self.kind, "function_call_arguments")

    def close(self, cut: bool = False) -> None:
        """No more text comes; ``cut``: though it was not at its end."""
        self.closed, self.cut = True, cut

    def part(self, text: str) -> dict[str, Any]:
        """Its only part."""
        if self.kind == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}

    def as_begun(self) -> dict[str, Any]:
        """Without its text."""
        return self._worded("", "in_progress", [])

    def as_done(self) -> dict[str, Any]:
        """With all of it."""
        status = "incomplete" if self.cut else "completed"
        return self._worded(self.text, status, [self.part(self.text)])

    def _worded(self, text: str, status: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
        item: dict[str, Any] = {"type": self.kind, "id": self.id, "status": status}
        if self.kind == "function_call":
            return {**item, "call_id": self.call_id, "name": self.name, "arguments": text}
        if self.kind == "reasoning":
            return {**item, "summary": [], "content": parts}
        return {**item, "role": "assistant", "content": parts}


_KINDS: dict[type, str] = {
    TextDelta: "message",
    ReasoningDelta: "reasoning",
    ToolCallStart: "function_call",
    ToolCallDelta: "function_call",
}


def _usage(answer: Delta) -> dict[str, Any]:
    piece = answer.piece
    return {
        "input_tokens": piece.input_token_len,
        # None is charged for: the prefix cache keeps what it has room for.
        "input_tokens_details": {"cached_tokens": piece.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": piece.generate_token_len,
        "output_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
        "total_tokens": piece.input_token_len + piece.generate_token_len,
    }
