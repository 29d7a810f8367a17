# SPDX-License-Identifier: Apache-2.0
"""``/v1/responses``: one turn at a time, nothing stored.

Source of the form: OpenAI's API reference, "Responses" and "Streaming events".
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from manymind.config import GenerationConfig, Response
from manymind.server.dialogue import Dialogue, encode_dialogue, respond, texts_of
from manymind.server.errors import ApiError
from manymind.server.messages import RequestModel, read_model, record_of
from manymind.server.service import Service

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response as HttpResponse


_TEXT_PARTS = ("input_text", "output_text", "text")


class Part(RequestModel):
    """A piece of an item's content."""

    type: str = Field(max_length=64)
    text: str | None = None
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None
    detail: str | None = None
    image_url: Any = None
    file_id: Any = None


class Item(RequestModel):
    """A message of the conversation; items of other types are refused."""

    type: str = Field("message", max_length=64)
    role: Literal["user", "system", "developer", "assistant"] | None = None
    content: str | Annotated[list[Part], Field(max_length=1024)] | None = None
    id: str | None = Field(None, max_length=256)
    status: str | None = Field(None, max_length=64)
    phase: str | None = Field(None, max_length=64)

    def as_mapping(self, where: str) -> dict[str, Any]:
        """For the template, which knows "developer" as "system"."""
        if self.type != "message" or self.role is None:
            message = f"{where}.type: only messages with a role are supported, found {self.type!r}"
            raise ApiError(400, message, "unsupported_parameter", f"{where}.type")
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": texts_of(self.content, f"{where}.content", _TEXT_PARTS)}


class TextOptions(RequestModel):
    """``text``."""

    format: dict[str, Any] | None = None
    verbosity: Any = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {"verbosity": ()}

    def response_format(self) -> dict[str, Any] | None:
        """Here a schema's fields lie beside its type, not below it."""
        if self.format is None or self.format.get("type") != "json_schema":
            return self.format
        inner = {name: value for name, value in self.format.items() if name != "type"}
        return {"type": "json_schema", "json_schema": inner}


class ResponseRequest(RequestModel):
    """The body of a request."""

    model: str = Field(min_length=1, max_length=256)
    input: str | Annotated[list[Item], Field(min_length=1, max_length=8192)]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    metadata: dict[str, str] | None = Field(None, max_length=16)
    stream: bool | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    text: TextOptions | None = None
    top_p: float | None = Field(None, gt=0, le=1)
    user: str | None = Field(None, max_length=256)

    background: Any = None
    context_management: Any = None
    conversation: Any = None
    include: Any = None
    max_tool_calls: Any = None
    moderation: Any = None
    parallel_tool_calls: Any = None
    previous_response_id: Any = None
    prompt: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    reasoning: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None
    stream_options: Any = None
    tool_choice: Any = None
    tools: Any = None
    top_logprobs: Any = None
    truncation: Any = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        "background": (False,),
        "context_management": (),
        "conversation": (),
        "include": ([],),
        "max_tool_calls": (),
        "moderation": (),
        "parallel_tool_calls": (),
        "previous_response_id": (),
        "prompt": (),
        "prompt_cache_key": (),
        "prompt_cache_retention": (),
        "reasoning": ({},),
        "safety_identifier": (),
        "service_tier": ("auto", "default"),
        "store": (False,),
        "stream_options": ({}, {"include_obfuscation": False}),
        "tool_choice": ("none", "auto"),
        "tools": ([],),
        "top_logprobs": (0,),
        "truncation": ("disabled",),
    }

    def dialogue(self) -> Dialogue:
        """Instructions come before all messages."""
        messages: list[dict[str, Any]] = []
        if self.instructions:
            messages.append({"role": "system", "content": self.instructions})
        if isinstance(self.input, str):
            messages.append({"role": "user", "content": self.input})
        else:
            messages += [item.as_mapping(f"input[{i}]") for i, item in enumerate(self.input)]
        return Dialogue(messages)

    def generation_config(self, room: int) -> GenerationConfig:
        """The engine's words for the same."""
        temperature = 1.0 if self.temperature is None else self.temperature
        if self.text is not None:
            self.text.refuse_unsupported()
        return GenerationConfig(
            max_new_tokens=self.max_output_tokens or room,
            do_sample=temperature > 0,
            temperature=temperature,
            top_k=0,
            top_p=1.0 if self.top_p is None else self.top_p,
            response_format=None if self.text is None else self.text.response_format(),
        )


async def create(request: Request, service: Service) -> HttpResponse:
    """Answers one request."""
    record = record_of(request)
    service.admit(record)
    body = await read_model(request, service, ResponseRequest)
    record.user = body.user
    service.check_model(body.model)
    ids = await encode_dialogue(service, record, body.dialogue())
    config = body.generation_config(service.room_after(ids))
    wording = ResponseWording(body)
    return await respond(service, record, ids, config, wording, body.stream)


class ResponseWording:
    """Response objects and the events of their making."""

    media_type = "text/event-stream"

    def __init__(self, body: ResponseRequest) -> None:
        self._body = body
        self._id = f"resp_{secrets.token_hex(12)}"
        self._item_id = f"msg_{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._sequence = 0
        self._text: list[str] = []

    def whole(self, answers: Sequence[Response]) -> dict[str, Any]:
        """A response object."""
        return self._response(answers[0], answers[0].text)

    def step(self, pieces: Sequence[Response]) -> bytes:
        """Events of one wake-up."""
        events = b""
        for piece in pieces:
            if self._sequence == 0:
                events += self._opening()
            if piece.text:
                self._text.append(piece.text)
                events += self._delta("response.output_text.delta", delta=piece.text, logprobs=[])
            if piece.finish_reason is not None:
                events += self._closing(piece)
        return events

    def end(self) -> bytes:
        """The last event was the response itself."""
        return b""

    def failure(self, error: ApiError) -> bytes:
        """An event that holds the error."""
        return self._event("error", code=error.code, message=error.message, param=error.param)

    def _opening(self) -> bytes:
        empty = self._response(None, "")
        item = {**self._item("", "in_progress"), "content": []}
        return (
            self._event("response.created", response=empty)
            + self._event("response.in_progress", response=empty)
            + self._event("response.output_item.added", output_index=0, item=item)
            + self._delta("response.content_part.added", part=_part(""))
        )

    def _closing(self, piece: Response) -> bytes:
        text = "".join(self._text)
        response = self._response(piece, text)
        item = response["output"][0]
        return (
            self._delta("response.output_text.done", text=text, logprobs=[])
            + self._delta("response.content_part.done", part=_part(text))
            + self._event("response.output_item.done", output_index=0, item=item)
            + self._event(f"response.{response['status']}", response=response)
        )

    def _delta(self, kind: str, **data: Any) -> bytes:
        place = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        return self._event(kind, **place, **data)

    def _event(self, kind: str, **data: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._sequence, **data}
        self._sequence += 1
        return f"event: {kind}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()

    def _item(self, text: str, status: str) -> dict[str, Any]:
        return {
            "type": "message",
            "id": self._item_id,
            "status": status,
            "role": "assistant",
            "content": [_part(text)],
        }

    def _response(self, answer: Response | None, text: str) -> dict[str, Any]:
        """The response so far; ``answer`` is its last piece, or None while there is none."""
        body = self._body
        cut = answer is not None and answer.finish_reason == "length"
        status = "in_progress" if answer is None else "incomplete" if cut else "completed"
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
            "output": [] if answer is None else [self._item(text, status)],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": 1.0 if body.temperature is None else body.temperature,
            "text": {"format": (body.text and body.text.format) or {"type": "text"}},
            "tool_choice": "none",
            "tools": [],
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "truncation": "disabled",
            "usage": None if answer is None else _usage(answer),
        }


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(answer: Response) -> dict[str, Any]:
    return {
        "input_tokens": answer.input_token_len,
        "input_tokens_details": {"cached_tokens": answer.cached_tokens},
        "output_tokens": answer.generate_token_len,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.input_token_len + answer.generate_token_len,
    }
