# SPDX-License-Identifier: Apache-2.0
"""``/v1/responses``: one turn at a time, nothing stored.

Source of the form: OpenAI's API reference, "Responses".
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from manymind.config import GenerationConfig
from manymind.server.dialogue import Dialogue, converse, merged_content, picture_part, texts_of
from manymind.server.errors import ApiError, missing_value
from manymind.server.messages import RequestModel, read_model, record_of
from manymind.server.openai.response_wording import ResponseWording
from manymind.server.service import Service
from manymind.server.thinking import Effort
from manymind.server.tools import Toolset

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response as HttpResponse


_TEXT_PARTS = ("input_text", "output_text", "text")


class Part(RequestModel):
    """A piece of an item's content."""

    type: str = Field(max_length=64)
    text: str | None = None
    annotations: list[Any] | None = Field(None, max_length=1024)
    logprobs: list[Any] | None = Field(None, max_length=1 << 20)
    detail: str | None = Field(None, max_length=64)
    image_url: Any = None
    file_id: Any = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {"file_id": ()}
    fields_of_type: ClassVar[dict[str, frozenset[str]]] = {
        "text": frozenset(("text",)),
        "input_text": frozenset(("text",)),
        "output_text": frozenset(("text", "annotations", "logprobs")),
        "reasoning_text": frozenset(("text",)),
        "input_image": frozenset(("image_url", "detail", "file_id")),
    }


class Item(RequestModel):
    """A message, a call of a tool or its result; items of other types are refused."""

    type: str = Field("message", max_length=64)
    role: Literal["user", "system", "developer", "assistant"] | None = None
    content: str | Annotated[list[Part], Field(max_length=1024)] | None = None
    id: str | None = Field(None, max_length=256)
    status: str | None = Field(None, max_length=64)
    phase: str | None = Field(None, max_length=64)
    call_id: str | None = Field(None, max_length=256)
    name: str | None = Field(None, max_length=256)
    arguments: str | None = None
    output: str | Annotated[list[Part], Field(max_length=1024)] | None = None

    encrypted_content: Any = None
    summary: Any = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        "encrypted_content": ("",),
        "summary": ([],),
    }
    fields_of_type: ClassVar[dict[str, frozenset[str]]] = {
        "message": frozenset(("role", "content", "phase")),
        "reasoning": frozenset(("content", "summary", "encrypted_content")),
        "function_call": frozenset(("call_id", "name", "arguments")),
        "function_call_output": frozenset(("call_id", "output")),
    }

    def as_mapping(self, where: str) -> dict[str, Any]:
        """For the template, which knows "developer" as "system"."""
        self.refuse_unsupported(f"{where}.")
        self.refuse_foreign(where)
        for field in ("content", "output"):
            parts = getattr(self, field)
            for place, part in enumerate(parts if isinstance(parts, list) else ()):
                part.refuse_unsupported(f"{where}.{field}[{place}].")
                part.refuse_foreign(f"{where}.{field}[{place}]")
        if self.type == "reasoning":
            thought = texts_of(self.content, f"{where}.content", ("reasoning_text",))
            return {"role": "assistant", "reasoning_content": thought}
        needed = {
            "function_call": ("call_id", "name", "arguments"),
            "function_call_output": ("call_id", "output"),
        }
        for field in needed.get(self.type, ()):
            if getattr(self, field) is None:
                raise missing_value(f"{where}.{field}")
        if self.type == "function_call":
            function = {"name": self.name, "arguments": _parsed(self.arguments or "{}")}
            call = {"id": self.call_id, "type": "function", "function": function}
            return {"role": "assistant", "tool_calls": [call]}
        if self.type == "function_call_output":
            result = _content(self.output, f"{where}.output")
            return {"role": "tool", "tool_call_id": self.call_id, "content": result}
        if self.type != "message" or self.role is None:
            known = "messages with a role, reasoning, function_call and function_call_output"
            message = f"{where}.type: expected {known}, found {self.type!r}"
            raise ApiError(400, message, "unsupported_parameter", f"{where}.type")
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": _content(self.content, f"{where}.content")}


def _append(messages: list[dict[str, Any]], added: dict[str, Any]) -> None:
    """Adds an item's message; what the assistant thought, said and called in one turn is one."""
    last = messages[-1] if messages else {}
    # Within a turn thoughts come first and calls last.
    order = ("reasoning_content", "content", "tool_calls")
    begun = max((order.index(name) for name in order if name in last), default=-1)
    next_part = min((order.index(name) for name in order if name in added), default=-1)
    if added["role"] == last.get("role") == "assistant" and next_part > begun:
        last.update(added)
    elif added["role"] == last.get("role") == "assistant" and next_part == begun == 2:
        last["tool_calls"] += added["tool_calls"]
    else:
        messages.append(added)


def _content(content: str | list[Part] | None, where: str) -> str | list[dict[str, Any]]:
    parts: list[str | dict[str, Any]] = []
    for place, part in enumerate(content if isinstance(content, list) else ()):
        if part.type == "input_image" and isinstance(part.image_url, str):
            name = f"{where}[{place}]"
            if part.detail not in (None, "auto", "high"):
                message = f"{name}.detail: expected auto or high, found {part.detail!r}"
                raise ApiError(400, message, "unsupported_parameter", f"{name}.detail")
            parts.append(picture_part(part.image_url, f"{name}.image_url"))
        else:
            parts.append(texts_of([part], f"{where}[{place}]", _TEXT_PARTS))
    return merged_content([content] if isinstance(content, str) else parts)


class Tool(RequestModel):
    """A function that the model may call; OpenAI's own tools are refused by their type."""

    type: Literal["function"]
    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")
    description: str | None = Field(None, max_length=65536)
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def as_definition(self) -> dict[str, Any]:
        """The form of chat completions."""
        return {
            "type": "function",
            "function": self.model_dump(exclude={"type"}, exclude_none=True),
        }


class NamedTool(RequestModel):
    """The choice of one tool."""

    type: Literal["function"]
    name: str = Field(max_length=128)


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


class Reasoning(RequestModel):
    """``reasoning``."""

    effort: Effort | None = None
    context: Any = None
    generate_summary: Any = None
    summary: Any = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        "context": (),
        "generate_summary": (),
        "summary": (),
    }


class ResponseRequest(RequestModel):
    """The body of a request."""

    model: str = Field(min_length=1, max_length=256)
    input: str | Annotated[list[Item], Field(min_length=1, max_length=8192)]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    metadata: dict[str, str] | None = Field(None, max_length=16)
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    stream: bool | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    text: TextOptions | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    tools: list[Tool] | None = Field(None, max_length=128)
    top_p: float | None = Field(None, gt=0, le=1)
    user: str | None = Field(None, max_length=256)
    safety_identifier: str | None = Field(None, max_length=256)
    # Asks for what the prefix cache does anyway.
    prompt_cache_key: str | None = Field(None, max_length=1024)

    background: Any = None
    context_management: Any = None
    conversation: Any = None
    include: Any = None
    max_tool_calls: Any = None
    moderation: Any = None
    previous_response_id: Any = None
    prompt: Any = None
    prompt_cache_retention: Any = None
    service_tier: Any = None
    store: Any = None
    stream_options: Any = None
    top_logprobs: Any = None
    truncation: Any = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        "background": (False,),
        "context_management": (),
        "conversation": (),
        "include": ([],),
        "max_tool_calls": (),
        "moderation": (),
        "previous_response_id": (),
        "prompt": (),
        "prompt_cache_retention": (),
        "service_tier": ("auto", "default"),
        "store": (False,),
        "stream_options": ({}, {"include_obfuscation": False}),
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
            for place, item in enumerate(self.input):
                _append(messages, item.as_mapping(f"input[{place}]"))
            for message in messages:
                message.setdefault("content", "")
        definitions = [tool.as_definition() for tool in self.tools or ()]
        named = isinstance(self.tool_choice, NamedTool)
        choice = f"={self.tool_choice.name}" if named else self.tool_choice  # type: ignore[union-attr]
        single = self.parallel_tool_calls is False
        tools = Toolset.of(definitions, choice, single)  # type: ignore[arg-type]
        effort = None
        if self.reasoning is not None:
            self.reasoning.refuse_unsupported("reasoning.")
            effort = self.reasoning.effort
        return Dialogue(messages, tools=tools, thinking=(effort, "reasoning.effort"))

    def generation_config(self, room: int) -> GenerationConfig:
        """The engine's words for the same."""
        temperature = 1.0 if self.temperature is None else self.temperature
        if self.text is not None:
            self.text.refuse_unsupported("text.")
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
    record.user = body.safety_identifier or body.user
    service.check_model(body.model)

    def configure(ids: list[int]) -> GenerationConfig:
        return body.generation_config(service.room_after(ids))

    wording = ResponseWording(body)
    return await converse(service, record, body.dialogue(), configure, wording, body.stream)


def _parsed(arguments: str) -> Any:
    """Templates print arguments as JSON themselves."""
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
