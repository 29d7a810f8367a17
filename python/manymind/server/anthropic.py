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

from manymind.config import GenerationConfig
from manymind.parsers import Event, ReasoningDelta, TextDelta, ToolCallDelta, ToolCallStart
from manymind.server.dialogue import (
    Delta,
    Dialogue,
    converse,
    encode_dialogue,
    merged_content,
    picture_part,
    texts_of,
)
from manymind.server.errors import ApiError, error_body, missing_value
from manymind.server.messages import RequestModel, json_response, read_model, record_of
from manymind.server.service import Service
from manymind.server.tools import Toolset

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response as HttpResponse


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
    content: str | Annotated[list[Block], Field(max_length=1024)] | None = None
    is_error: bool | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        "citations": ([], {"enabled": False}),
    }
    fields_of_type: ClassVar[dict[str, frozenset[str]]] = {
        "text": frozenset(("text",)),
        "image": frozenset(("source",)),
        "tool_use": frozenset(("id", "name", "input")),
        "tool_result": frozenset(("tool_use_id", "content", "is_error")),
        "thinking": frozenset(("thinking", "signature")),
        "redacted_thinking": frozenset(("data",)),
    }


Blocks = Annotated[list[Block], Field(max_length=1024)]


class Message(RequestModel):
    """One turn."""

    role: Literal["user", "assistant"]
    content: str | Blocks


class Metadata(RequestModel):
    """``metadata``."""

    user_id: str | None = Field(None, max_length=256)


class Tool(RequestModel):
    """A function that the model may call; Anthropic's own tools are refused by their type."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")
    type: Literal["custom"] | None = None
    description: str | None = Field(None, max_length=65536)
    input_schema: dict[str, Any]
    strict: bool | None = None
    cache_control: dict[str, Any] | None = None

    def as_definition(self) -> dict[str, Any]:
        """OpenAI's form."""
        function: dict[str, Any] = {"name": self.name, "parameters": self.input_schema}
        if self.description is not None:
            function["description"] = self.description
        if self.strict is not None:
            function["strict"] = self.strict
        return {"type": "function", "function": function}


class ToolChoice(RequestModel):
    """``tool_choice``."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = Field(None, max_length=128)
    disable_parallel_tool_use: bool | None = None

    fields_of_type: ClassVar[dict[str, frozenset[str]]] = {
        "auto": frozenset(("disable_parallel_tool_use",)),
        "any": frozenset(("disable_parallel_tool_use",)),
        "tool": frozenset(("disable_parallel_tool_use", "name")),
        "none": frozenset(),
    }

    def as_choice(self) -> str:
        """``Toolset.of``'s form. Raises ApiError 400."""
        self.refuse_foreign("tool_choice")
        if self.type == "tool" and self.name is None:
            raise missing_value("tool_choice.name")
        words = {"any": "required", "tool": f"={self.name}"}
        return words.get(self.type, self.type)


class Thinking(RequestModel):
    """``thinking``: whether, not how much."""

    type: Literal["disabled", "adaptive"]
    budget_tokens: Any = None
    display: Any = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {"budget_tokens": (), "display": ()}


class OutputFormat(RequestModel):
    """``output_config.format``."""

    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(RequestModel):
    """``output_config``."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None
    task_budget: Any = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {"task_budget": ()}


class CountRequest(RequestModel):
    """What decides about the tokens of a prompt."""

    model: str = Field(min_length=1, max_length=256)
    messages: list[Message] = Field(min_length=1, max_length=8192)
    system: str | Blocks | None = None
    cache_control: dict[str, Any] | None = None
    tools: list[Tool] | None = Field(None, max_length=128)
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None

    context_management: Any = None
    mcp_servers: Any = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        "context_management": (),
        "mcp_servers": ([],),
    }

    def dialogue(self) -> Dialogue:
        """The conversation; a last turn of the assistant is the beginning of the answer."""
        messages: list[dict[str, Any]] = []
        _check_blocks(self.system, "system")
        if system := texts_of(self.system, "system", ("text",)):
            messages.append({"role": "system", "content": system})
        for index, message in enumerate(self.messages):
            _append(messages, f"messages[{index}].content", message)
        definitions = [tool.as_definition() for tool in self.tools or ()]
        choice, single = None, False
        if self.tool_choice is not None:
            choice = self.tool_choice.as_choice()
            single = self.tool_choice.disable_parallel_tool_use is True
        prefill = ""
        if len(messages) > 1 and messages[-1]["role"] == "assistant":
            _check_prefill(messages[-1], f"messages[{len(self.messages) - 1}].content")
            prefill = messages.pop()["content"]
        tools = Toolset.of(definitions, choice, single)
        return Dialogue(messages, prefill, tools=tools, thinking=self._thinking())

    def _thinking(self) -> tuple[bool | str | None, str]:
        """How much thinking is wanted, and which parameter says so."""
        output = self.output_config or OutputConfig.model_validate({})
        output.refuse_unsupported("output_config.")
        if self.thinking is None:
            return output.effort, "output_config.effort"
        self.thinking.refuse_unsupported("thinking.")
        thinks = self.thinking.type == "adaptive"
        if output.effort is None:
            return thinks, "thinking"
        if not thinks:
            name = "output_config.effort"
            message = f"{name}: expected none beside thinking of type 'disabled'"
            raise ApiError(400, message, "invalid_value", name)
        return output.effort, "output_config.effort"


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

    def generation_config(self, _: list[int]) -> GenerationConfig:
        """The engine's words for the same."""
        temperature = 1.0 if self.temperature is None else self.temperature
        form = self.output_config.format if self.output_config is not None else None
        schema = None if form is None else {"name": "output", "schema": form.schema_}
        return GenerationConfig(
            response_format=schema and {"type": "json_schema", "json_schema": schema},
            max_new_tokens=self.max_tokens,
            do_sample=temperature > 0,
            temperature=temperature,
            top_k=self.top_k or 0,
            top_p=1.0 if self.top_p is None else self.top_p,
            stop_words=self.stop_sequences,
        )


_NEEDED = {
    "text": ("text",),
    "image": ("source",),
    "tool_use": ("id", "name"),
    "tool_result": ("tool_use_id",),
    "thinking": ("thinking",),
}


def _check_blocks(content: str | list[Block] | None, where: str) -> None:
    """Raises ApiError 400 for what no block may ask for."""
    for place, block in enumerate(content if isinstance(content, list) else ()):
        block.refuse_unsupported(f"{where}[{place}].")
        block.refuse_foreign(f"{where}[{place}]")
        for field in _NEEDED.get(block.type, ()):
            if getattr(block, field) is None:
                raise missing_value(f"{where}[{place}].{field}")
        _check_blocks(block.content, f"{where}[{place}].content")


def _check_prefill(turn: dict[str, Any], where: str) -> None:
    """Raises ApiError 400 unless the turn is text, with which an answer can begin."""
    for field, kind in (("tool_calls", "tool_use"), ("reasoning_content", "thinking")):
        if field in turn:
            message = f"{where}: expected text only in a last turn of the assistant, as the answer "
            message += f"goes on with it, found a block of type {kind!r}"
            raise ApiError(400, message, "invalid_value", where)


def _append(messages: list[dict[str, Any]], where: str, message: Message) -> None:
    """Adds a turn in OpenAI's form; turns of one role that follow each other become one."""
    parts: list[str | dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    thoughts: list[str] = []
    _check_blocks(message.content, where)
    blocks = [] if isinstance(message.content, str) else message.content
    for place, block in enumerate(blocks):
        if block.type == "tool_use" and message.role == "assistant":
            function = {"name": block.name, "arguments": block.input or {}}
            calls.append({"id": block.id, "type": "function", "function": function})
        elif block.type == "tool_result" and message.role == "user":
            result = _result(block, f"{where}[{place}].content")
            messages.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": result})
        elif block.type == "image" and message.role == "user":
            parts.append(_picture(block.source, f"{where}[{place}].source"))
        elif block.type == "thinking" and message.role == "assistant":
            thoughts.append(block.thinking or "")
        elif block.type != "redacted_thinking":
            parts.append(texts_of([block], where, ("text",)))
    if isinstance(message.content, str):
        parts.append(message.content)
    if not parts and not calls and not thoughts:
        return
    turn: dict[str, Any] = {"role": message.role, "content": ""}
    if messages and messages[-1]["role"] == message.role and "tool_calls" not in messages[-1]:
        turn = messages.pop()
    before = turn["content"]
    said = map(_as_part, before) if isinstance(before, list) else [before] if before else []
    parts = [*said, *parts]
    turn["content"] = merged_content(parts)
    if thoughts:
        turn["reasoning_content"] = "".join([turn.get("reasoning_content", ""), *thoughts])
    if calls:
        turn["tool_calls"] = calls
    messages.append(turn)


def _result(block: Block, where: str) -> str | list[dict[str, Any]]:
    """What a tool has found: texts and pictures."""
    # Templates know no results that failed; the model has to be told in words.
    parts: list[str | dict[str, Any]] = ["Error: "] if block.is_error else []
    if isinstance(block.content, list):
        for place, inner in enumerate(block.content):
            if inner.type == "image":
                parts.append(_picture(inner.source, f"{where}[{place}].source"))
            else:
                parts.append(texts_of([inner], f"{where}[{place}]", ("text", "image")))
    elif block.content:
        parts.append(block.content)
    return merged_content(parts)


def _as_part(item: dict[str, Any]) -> str | dict[str, Any]:
    return str(item["text"]) if item["type"] == "text" else item


_SOURCES = {"base64": ("media_type", "data"), "url": ("url",)}


def _picture(source: Any, where: str) -> dict[str, Any]:
    """A block's picture: {"type": "base64", "media_type", "data"} or {"type": "url", "url"}."""
    fields = source if isinstance(source, dict) else {}
    kind = str(fields.get("type"))
    own = _SOURCES.get(kind, tuple(fields))
    for name in sorted(set(fields) - {"type", *own}):
        if fields[name] is not None:
            place = f"{where}.{name[:64]}"
            message = f"{place}: expected none beside the type {kind!r}"
            raise ApiError(400, message, "invalid_value", place)
    if fields.get("type") == "url" and isinstance(fields.get("url"), str):
        return picture_part(fields["url"], where)
    if fields.get("type") == "base64" and isinstance(fields.get("data"), str):
        return picture_part(f"data:image;base64,{fields['data']}", where)
    if kind in _SOURCES and fields.get(own[-1]) is None:
        raise missing_value(f"{where}.{own[-1]}")
    message = f"{where}: expected base64 data or a url, found {fields.get('type')!r}"
    raise ApiError(400, message, "invalid_value", where)


async def create(request: Request, service: Service) -> HttpResponse:
    """Answers one request."""
    record = record_of(request)
    service.admit(record)
    body = await read_model(request, service, MessageRequest)
    record.user = body.metadata.user_id if body.metadata else None
    service.check_model(body.model)
    wording = MessageWording(body.model)
    return await converse(
        service, record, body.dialogue(), body.generation_config, wording, body.stream
    )


async def count_tokens(request: Request, service: Service) -> HttpResponse:
    """Length of the prompt that the messages make."""
    record = record_of(request)
    service.admit(record)
    body = await read_model(request, service, CountRequest)
    service.check_model(body.model)
    dialogue = body.dialogue()
    dialogue.tools.check(service.output_format, None)
    ids = await encode_dialogue(service, record, dialogue)
    return json_response({"input_tokens": len(ids)})


class MessageWording:
    """Messages and the events of their making."""

    media_type = "text/event-stream"

    def __init__(self, model: str) -> None:
        self._head = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": model,
        }
        self._started = False
        self._open_block: str | None = None
        self._num_blocks = 0

    def whole(self, answers: Sequence[Delta]) -> dict[str, Any]:
        """A message."""
        answer = answers[0]
        content: list[dict[str, Any]] = []
        if answer.reasoning:
            thinking = {"thinking": answer.reasoning, "signature": ""}
            content.append({"type": "thinking", **thinking})
        calls = answer.calls()
        if answer.text or not calls:
            content.append({"type": "text", "text": answer.text})
        for name, arguments in calls:
            content.append({**_tool_use(name), "input": _parsed(arguments)})
        return {**self._head, "content": content, **_stop(answer), "usage": _usage(answer)}

    def step(self, deltas: Sequence[Delta]) -> bytes:
        """Events of one wake-up."""
        events: list[dict[str, Any]] = []
        for delta in deltas:
            if not self._started:
                self._started = True
                events.append(self._opening(delta))
            for event in delta.events:
                events += self._said(event)
            if delta.piece.finish_reason is not None:
                if self._num_blocks == 0:
                    events += self._begin("text", {"type": "text", "text": ""})
                events += self._close()
                usage = _usage(delta)
                events.append({"type": "message_delta", "delta": _stop(delta), "usage": usage})
        return b"".join(map(_event, events))

    def end(self) -> bytes:
        """The last event."""
        return _event({"type": "message_stop"})

    def failure(self, error: ApiError) -> bytes:
        """An event that holds the error."""
        return _event(error_body("/v1/messages", error))

    def _opening(self, first: Delta) -> dict[str, Any]:
        unfinished: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None}
        nothing_yet = {"output_tokens": 0, "output_tokens_details": {"thinking_tokens": 0}}
        usage = {**_usage(first), **nothing_yet}
        return {"type": "message_start", "message": {**self._head, **unfinished, "usage": usage}}

    def _said(self, event: Event) -> list[dict[str, Any]]:
        if isinstance(event, TextDelta):
            opening = self._begin("text", {"type": "text", "text": ""})
            return [*opening, self._delta({"type": "text_delta", "text": event.text})]
        if isinstance(event, ReasoningDelta):
            block = {"type": "thinking", "thinking": "", "signature": ""}
            opening = self._begin("thinking", block)
            return [*opening, self._delta({"type": "thinking_delta", "thinking": event.text})]
        if isinstance(event, ToolCallStart):
            return [*self._close(), *self._begin("tool_use", _tool_use(event.name))]
        if isinstance(event, ToolCallDelta):
            return [self._delta({"type": "input_json_delta", "partial_json": event.arguments})]
        return self._close()

    def _begin(self, kind: str, block: dict[str, Any]) -> list[dict[str, Any]]:
        if self._open_block == kind:
            return []
        closing = self._close()
        self._open_block = kind
        self._num_blocks += 1
        opening = {"type": "content_block_start", "index": self._num_blocks - 1}
        return [*closing, {**opening, "content_block": block}]

    def _delta(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"type": "content_block_delta", "index": self._num_blocks - 1, "delta": delta}

    def _close(self) -> list[dict[str, Any]]:
        if self._open_block is None:
            return []
        self._open_block = None
        return [{"type": "content_block_stop", "index": self._num_blocks - 1}]


def _tool_use(name: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{secrets.token_hex(12)}", "name": name, "input": {}}


def _parsed(arguments: str) -> Any:
    """A call's arguments are an object here; of a broken call, what there is as text."""
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return {"arguments": arguments}


def _event(data: dict[str, Any]) -> bytes:
    return f"event: {data['type']}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def _stop(answer: Delta) -> dict[str, str | None]:
    reason = "tool_use" if answer.called else "end_turn"
    if answer.piece.finish_reason == "length":
        reason = "max_tokens"
    if answer.piece.stop_word is not None:
        reason = "stop_sequence"
    return {"stop_reason": reason, "stop_sequence": answer.piece.stop_word}


def _usage(answer: Delta) -> dict[str, Any]:
    """Anthropic counts cached tokens apart from the others."""
    piece = answer.piece
    return {
        "input_tokens": piece.input_token_len - piece.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": piece.cached_tokens,
        "output_tokens": piece.generate_token_len,
        "output_tokens_details": {"thinking_tokens": answer.reasoning_tokens},
    }
