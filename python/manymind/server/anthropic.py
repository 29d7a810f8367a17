# SPDX-License-Identifier: Apache-2.0
"""Anthropic's ``/v1/messages`` and ``/v1/messages/count_tokens``.

Source of the form: Anthropic's API reference, "Messages".
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from manymind.config import GenerationConfig, Response
from manymind.server.dialogue import Dialogue, encode_dialogue, respond, texts_of
from manymind.server.errors import ApiError, error_body
from manymind.server.messages import RequestModel, json_response, read_model, record_of
from manymind.server.service import Service

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response as HttpResponse

    from manymind.server.record import RequestRecord


class Block(RequestModel):
    """A piece of content. ``cache_control`` asks for what the prefix cache does anyway."""

    type: str = Field(max_length=64)
    text: str | None = None
    cache_control: dict[str, Any] | None = None
    citations: Any = None
    source: Any = None
    id: str | None = Field(None, max_length=256)
    name: str | None = Field(None, max_length=256)
    input: dict[str, Any] | None = None
    tool_use_id: str | None = Field(None, max_length=256)
    content: str | list[Block] | None = None
    is_error: bool | None = None
    thinking: str | None = None
    signature: str | None = None


Blocks = Annotated[list[Block], Field(max_length=1024)]


class Message(RequestModel):
    """One turn."""

    role: Literal["user", "assistant"]
    content: str | Blocks


class Metadata(RequestModel):
    """``metadata``."""

    user_id: str | None = Field(None, max_length=256)


class CountRequest(RequestModel):
    """What decides about the tokens of a prompt."""

    model: str = Field(min_length=1, max_length=256)
    messages: list[Message] = Field(min_length=1, max_length=8192)
    system: str | Blocks | None = None
    cache_control: dict[str, Any] | None = None

    context_management: Any = None
    mcp_servers: Any = None
    output_config: Any = None
    thinking: Any = None
    tool_choice: Any = None
    tools: Any = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        "context_management": (),
        "mcp_servers": ([],),
        "output_config": ({},),
        "thinking": ({"type": "disabled"},),
        "tool_choice": ({"type": "none"},),
        "tools": ([],),
    }

    def dialogue(self) -> Dialogue:
        """The conversation; a last turn of the assistant is the beginning of the answer."""
        messages: list[dict[str, Any]] = []
        if system := texts_of(self.system, "system", ("text",)):
            messages.append({"role": "system", "content": system})
        for index, message in enumerate(self.messages):
            _append(messages, f"messages[{index}].content", message)
        if len(messages) > 1 and messages[-1]["role"] == "assistant":
            return Dialogue(messages[:-1], prefill=messages[-1]["content"])
        return Dialogue(messages)


class MessageRequest(CountRequest):
    """The body of a request."""

    max_tokens: int = Field(ge=1)
    metadata: Metadata | None = None
    stop_sequences: list[Annotated[str, Field(min_length=1, max_length=1024)]] | None = Field(
        None, max_length=16
    )
    stream: bool | None = None
    temperature: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, le=2**31 - 1)
    top_p: float | None = Field(None, gt=0, le=1)

    container: Any = None
    diagnostics: Any = None
    inference_geo: Any = None
    service_tier: Any = None
    speed: Any = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        **CountRequest.unsupported,
        "container": (),
        "diagnostics": (),
        "inference_geo": (),
        "service_tier": ("auto", "standard_only"),
        "speed": ("standard",),
    }

    def generation_config(self) -> GenerationConfig:
        """The engine's words for the same."""
        temperature = 1.0 if self.temperature is None else self.temperature
        return GenerationConfig(
            max_new_tokens=self.max_tokens,
            do_sample=temperature > 0,
            temperature=temperature,
            top_k=self.top_k or 0,
            top_p=1.0 if self.top_p is None else self.top_p,
            stop_words=self.stop_sequences,
        )


def _append(messages: list[dict[str, Any]], where: str, message: Message) -> None:
    """Adds a turn in OpenAI's form; turns of one role that follow each other become one."""
    text: list[str] = []
    calls: list[dict[str, Any]] = []
    blocks = [] if isinstance(message.content, str) else message.content
    for block in blocks:
        if block.type == "tool_use" and message.role == "assistant":
            function = {"name": block.name, "arguments": block.input or {}}
            calls.append({"id": block.id, "type": "function", "function": function})
        elif block.type == "tool_result" and message.role == "user":
            result = texts_of(block.content, where, ("text",))
            messages.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": result})
        elif block.type not in ("thinking", "redacted_thinking"):
            text.append(texts_of([block], where, ("text",)))
    if isinstance(message.content, str):
        text.append(message.content)
    if not text and not calls:
        return
    last = messages[-1] if messages else {}
    if last.get("role") == message.role and "tool_calls" not in last and not calls:
        last["content"] += "".join(text)
        return
    turn: dict[str, Any] = {"role": message.role, "content": "".join(text)}
    messages.append({**turn, "tool_calls": calls} if calls else turn)


async def create(request: Request, service: Service) -> HttpResponse:
    """Answers one request."""
    record = record_of(request)
    service.admit(record)
    body = await read_model(request, service, MessageRequest)
    record.user = body.metadata.user_id if body.metadata else None
    service.check_model(body.model)
    ids = await encode_dialogue(service, record, body.dialogue())
    wording = MessageWording(record, body.model)
    return await respond(service, record, ids, body.generation_config(), wording, body.stream)


async def count_tokens(request: Request, service: Service) -> HttpResponse:
    """Length of the prompt that the messages make."""
    record = record_of(request)
    service.admit(record)
    body = await read_model(request, service, CountRequest)
    service.check_model(body.model)
    ids = await encode_dialogue(service, record, body.dialogue())
    return json_response({"input_tokens": len(ids)})


class MessageWording:
    """Messages and the events of their making."""

    media_type = "text/event-stream"

    def __init__(self, record: RequestRecord, model: str) -> None:
        self._record = record
        self._head = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": model,
        }
        self._started = False

    def whole(self, answers: Sequence[Response]) -> dict[str, Any]:
        """A message."""
        answer = answers[0]
        return {
            **self._head,
            "content": [{"type": "text", "text": answer.text}],
            **_stop(answer),
            "usage": _usage(answer),
        }

    def step(self, pieces: Sequence[Response]) -> bytes:
        """Events of one wake-up."""
        events: list[dict[str, Any]] = []
        for piece in pieces:
            if not self._started:
                self._started = True
                events += self._opening(piece)
            if piece.text:
                delta = {"type": "text_delta", "text": piece.text}
                events.append({"type": "content_block_delta", "index": 0, "delta": delta})
            if piece.finish_reason is not None:
                events += self._closing(piece)
        return b"".join(map(_event, events))

    def end(self) -> bytes:
        """The last event."""
        return _event({"type": "message_stop"})

    def failure(self, error: ApiError) -> bytes:
        """An event that holds the error."""
        return _event(error_body("/v1/messages", error))

    def _opening(self, piece: Response) -> list[dict[str, Any]]:
        unfinished: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None}
        usage = {**_usage(piece), "output_tokens": 0}
        message = {**self._head, **unfinished, "usage": usage}
        block = {"type": "text", "text": ""}
        return [
            {"type": "message_start", "message": message},
            {"type": "content_block_start", "index": 0, "content_block": block},
        ]

    def _closing(self, piece: Response) -> list[dict[str, Any]]:
        return [
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": _stop(piece), "usage": _usage(piece)},
        ]


def _event(data: dict[str, Any]) -> bytes:
    return f"event: {data['type']}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def _stop(answer: Response) -> dict[str, str | None]:
    reason = "max_tokens" if answer.finish_reason == "length" else "end_turn"
    if answer.stop_word is not None:
        reason = "stop_sequence"
    return {"stop_reason": reason, "stop_sequence": answer.stop_word}


def _usage(answer: Response) -> dict[str, int]:
    """Anthropic counts cached tokens apart from the others."""
    return {
        "input_tokens": answer.input_token_len - answer.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": answer.cached_tokens,
        "output_tokens": answer.generate_token_len,
    }
