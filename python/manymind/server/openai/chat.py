# SPDX-License-Identifier: Apache-2.0
"""``/v1/chat/completions``.

Source of the form: OpenAI's API reference, "Chat".
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from manymind.config import GenerationConfig, Response
from manymind.parsers import Event, ReasoningDelta, TextDelta, ToolCallDelta, ToolCallStart
from manymind.server.dialogue import Delta, Dialogue, converse, texts_of
from manymind.server.errors import ApiError, error_body
from manymind.server.messages import RequestModel, read_model, record_of, server_sent
from manymind.server.openai.logprobs import chat_logprobs, prompt_logprobs
from manymind.server.openai.sampling import MAX_LOGPROBS, SamplingModel, usage, usage_of
from manymind.server.service import Service
from manymind.server.thinking import Effort
from manymind.server.tools import ToolParameters

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response as HttpResponse

    from manymind.server.record import RequestRecord

# What the server itself gives to templates.
_RESERVED_VARIABLES = frozenset(
    {
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "bos_token",
        "eos_token",
        "chat_template",
        "tokenize",
        "self",
        "prompt",
        "prefill",
        "cache_salt",
    }
)
_MAX_VARIABLES_CHARACTERS = 16384


class ContentPart(RequestModel):
    """A piece of a message; other kinds than text are refused where the model takes none."""

    type: str = Field(max_length=64)
    text: str | None = None
    image_url: Any = None
    video_url: Any = None
    input_audio: Any = None
    file: Any = None
    refusal: str | None = None

    fields_of_type: ClassVar[dict[str, frozenset[str]]] = {
        name: frozenset((name,))
        for name in ("text", "image_url", "video_url", "input_audio", "file", "refusal")
    }


class ChatMessage(RequestModel):
    """One message; which fields the model sees is its template's choice."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[ContentPart], Field(max_length=1024)] | None = None
    name: str | None = Field(None, max_length=256)
    tool_calls: list[dict[str, Any]] | None = Field(None, max_length=128)
    tool_call_id: str | None = Field(None, max_length=256)
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None

    annotations: Any = None
    audio: Any = None
    function_call: Any = None

    # What an answer holds when a client sends it back whole.
    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        "annotations": ([],),
        "audio": (),
        "function_call": (),
    }

    def as_mapping(self, where: str) -> dict[str, Any]:
        """For the template, which knows "developer" as "system"; errors call the message ``where``.

        Raises ApiError 400 for a message that says nothing.
        """
        self.refuse_unsupported(f"{where}.")
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            missing = f"{where}.content: expected text or parts, found none"
            raise ApiError(400, missing, "invalid_value", f"{where}.content")
        message = self.model_dump(exclude_none=True, exclude={"reasoning", *self.unsupported})
        message.setdefault("content", None)
        if self.reasoning is not None:
            message.setdefault("reasoning_content", self.reasoning)
        for place, part in enumerate(self.content if isinstance(self.content, list) else ()):
            part.refuse_foreign(f"{where}.content[{place}]")
            if part.type == "text" and part.text is None:
                missing = f"{where}.content[{place}].text"
                raise ApiError(
                    400, f"{missing}: expected text, found none", "invalid_value", missing
                )
        for call in message.get("tool_calls", ()):
            # Templates print arguments as JSON themselves.
            function = call.get("function")
            if isinstance(function, dict) and isinstance(function.get("arguments"), str):
                with contextlib.suppress(ValueError, RecursionError):
                    function["arguments"] = json.loads(function["arguments"])
        if self.role == "developer":
            message["role"] = "system"
        return message


def mappings_of(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """The messages as the template gets them. Raises ApiError 400."""
    return [message.as_mapping(f"messages[{place}]") for place, message in enumerate(messages)]


class Conversation(ToolParameters):
    """What decides about the tokens of a prompt."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=8192)
    add_generation_prompt: bool = True
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool = False
    reasoning_effort: Effort | None = None

    def template_variables(self) -> dict[str, Any]:
        """``chat_template_kwargs``, which may not replace what the server gives to the template."""
        variables = self.chat_template_kwargs or {}
        taken = sorted(_RESERVED_VARIABLES & variables.keys())
        size = sum(len(name) for name in variables) + len(json.dumps(variables))
        if taken or size > _MAX_VARIABLES_CHARACTERS:
            expected = f"at most {_MAX_VARIABLES_CHARACTERS} characters and none of the names "
            expected += ", ".join(sorted(_RESERVED_VARIABLES))
            message = f"chat_template_kwargs: expected {expected}, found {taken or size}"
            raise ApiError(400, message, "invalid_value", "chat_template_kwargs")
        return variables

    def dialogue(self, cache_salt: str = "") -> Dialogue:
        """What is to be answered, or gone on with: the last message."""
        messages = mappings_of(self.messages)
        prefill = self._taken_prefill(messages) if self.continue_final_message else ""
        return Dialogue(
            messages,
            prefill=prefill,
            add_generation_prompt=self.add_generation_prompt or self.continue_final_message,
            variables=self.template_variables(),
            tools=self.toolset(),
            thinking=(self.reasoning_effort, "reasoning_effort"),
            cache_salt=cache_salt,
        )

    def _taken_prefill(self, messages: list[dict[str, Any]]) -> str:
        """Takes away the last message, whose text the answer begins with."""
        last = self.messages[-1]
        content = texts_of(last.content, f"messages[{len(messages) - 1}].content", ("text",))
        wrong = "add_generation_prompt" in self.model_fields_set and self.add_generation_prompt
        if len(messages) < 2 or last.role != "assistant" or last.tool_calls or wrong:
            message = "continue_final_message: expected a last message of the assistant without "
            message += "calls, after others, and no add_generation_prompt"
            raise ApiError(400, message, "invalid_value", "continue_final_message")
        messages.pop()
        return content


class ChatRequest(SamplingModel, Conversation):
    """The body of a request."""

    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    max_completion_tokens: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    safety_identifier: str | None = Field(None, max_length=256)
    # Asks for what the prefix cache does anyway.
    prompt_cache_key: str | None = Field(None, max_length=1024)

    audio: Any = None
    function_call: Any = None
    functions: Any = None
    metadata: Any = None
    modalities: Any = None
    moderation: Any = None
    prediction: Any = None
    prompt_cache_retention: Any = None
    service_tier: Any = None
    store: Any = None
    verbosity: Any = None
    web_search_options: Any = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        "audio": (),
        "function_call": ("none",),
        "functions": (),
        "metadata": ({},),
        "modalities": (["text"],),
        "moderation": (),
        "prediction": (),
        "prompt_cache_retention": (),
        "service_tier": ("auto", "default"),
        "store": (False,),
        "verbosity": (),
        "web_search_options": (),
    }

    def max_answer(self) -> int | None:
        """Most tokens of an answer, if that is said. Raises ApiError 400 if it is said twice."""
        former, now = self.max_tokens, self.max_completion_tokens
        if former is not None and now is not None and former != now:
            message = (
                f"max_tokens: expected none beside max_completion_tokens={now}, found {former}"
            )
            raise ApiError(400, message, "invalid_value", "max_tokens")
        return now or former

    def top(self) -> int | None:
        """Alternatives to report per token; None = no log probabilities."""
        if self.logprobs:
            return self.top_logprobs or 0
        if self.top_logprobs:
            message = "top_logprobs: expected only with logprobs=true"
            raise ApiError(400, message, "invalid_value", "top_logprobs")
        return None


async def create(request: Request, service: Service) -> HttpResponse:
    """Answers one request."""
    record = record_of(request)
    service.admit(record)
    body = await read_model(request, service, ChatRequest)
    record.user = body.safety_identifier or body.user
    service.check_model(body.model)
    body.check_stream_options()
    limit = body.max_answer()
    dialogue = body.dialogue(body.cache_salt or "")

    def configure(ids: list[int]) -> GenerationConfig:
        return body.generation_config(limit or service.room_after(ids), logprobs=body.top())

    wording = ChatWording(service, record, body)
    return await converse(service, record, dialogue, configure, wording, body.stream)


def stream_failure(error: ApiError) -> bytes:
    """The last event of a stream that failed."""
    return server_sent(json.dumps(error_body("", error))) + server_sent("[DONE]")


class ChatWording:
    """Chat completions and their chunks."""

    media_type = "text/event-stream"

    def __init__(self, service: Service, record: RequestRecord, body: ChatRequest) -> None:
        self._tokenizer = service.runtime.tokenizer
        self._record = record
        self._top = body.top()
        self._body = body
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": body.model,
        }
        self._chunk_head = json.dumps({**self._head, "object": "chat.completion.chunk"})[:-1]
        self._chunk_tail = ',"usage":null}' if body.include_usage else "}"
        self._opened: set[int] = set()
        self._reasoning_tokens: dict[int, int] = {}  # by choice

    def whole(self, answers: Sequence[Delta]) -> dict[str, Any]:
        """A chat completion of n choices."""
        self._count_reasoning(answers)
        completion: dict[str, Any] = {
            **self._head,
            "object": "chat.completion",
            "choices": [self._choice(answer) for answer in answers],
            "usage": self._usage(),
        }
        wanted = self._body.prompt_logprobs
        if wanted is not None:
            rows = answers[0].piece.prompt_logprobs or []
            completion["prompt_logprobs"] = prompt_logprobs(self._tokenizer, rows, wanted)
        return completion

    def step(self, deltas: Sequence[Delta]) -> bytes:
        """Chunks: of each choice the role first, then what it says, then why it ended."""
        self._count_reasoning(deltas)
        head, chunks = self._chunk_head, ""
        for delta in deltas:
            piece, choices = delta.piece, []
            if piece.choice not in self._opened:
                self._opened.add(piece.choice)
                choices.append(_chunk_choice(piece, '{"role":"assistant","content":""}'))
            choices += self._said(delta)
            if piece.finish_reason is not None:
                choices.append(_chunk_choice(piece, "{}", reason=_reason(delta)))
            tail = self._chunk_tail
            if self._body.usage_everywhere:
                tail = f',"usage":{json.dumps(usage_of(piece, delta.reasoning_tokens))}}}'
            chunks += "".join(f'data: {head},"choices":[{choice}]{tail}\n\n' for choice in choices)
        return chunks.encode()

    def _said(self, delta: Delta) -> list[str]:
        """Choices of the chunks that a delta's events make; its log probabilities go with the
        first.
        """
        piece, choices, logprobs = delta.piece, [], ""
        if self._top is not None and piece.logprobs:
            logprobs = f'"logprobs":{json.dumps(self._logprobs(piece))},'
        for event in delta.events:
            if said := self._worded(event):
                choices.append(_chunk_choice(piece, said, logprobs))
                logprobs = ""
        if logprobs:
            choices.append(_chunk_choice(piece, '{"content":""}', logprobs))
        return choices

    @staticmethod
    def _worded(event: Event) -> str:
        if isinstance(event, TextDelta):
            return f'{{"content":{json.dumps(event.text, ensure_ascii=False)}}}'
        if isinstance(event, ReasoningDelta):
            return f'{{"reasoning_content":{json.dumps(event.text, ensure_ascii=False)}}}'
        if isinstance(event, ToolCallStart):
            call = {"index": event.index, **_call(event.name, "")}
        elif isinstance(event, ToolCallDelta):
            call = {"index": event.index, "function": {"arguments": event.arguments}}
        else:
            return ""
        return json.dumps({"tool_calls": [call]}, ensure_ascii=False)

    def end(self) -> bytes:
        """The usage, if it was asked for, and the mark of the end."""
        end = server_sent("[DONE]")
        if not self._body.include_usage:
            return end
        last = {**self._head, "object": "chat.completion.chunk", "choices": []}
        return server_sent(json.dumps({**last, "usage": self._usage()})) + end

    def failure(self, error: ApiError) -> bytes:
        """An event that holds the error."""
        return stream_failure(error)

    def _choice(self, answer: Delta) -> dict[str, Any]:
        calls = [_call(name, arguments) for name, arguments in answer.calls()]
        message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
        if calls:
            message |= {"content": answer.text or None, "tool_calls": calls}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        return {
            "index": answer.piece.choice,
            "message": message,
            "logprobs": self._logprobs(answer.piece) if self._top is not None else None,
            "finish_reason": _reason(answer),
        }

    def _logprobs(self, piece: Response) -> dict[str, Any]:
        rows = piece.logprobs or []
        return {"content": chat_logprobs(self._tokenizer, rows, self._top or 0), "refusal": None}

    def _count_reasoning(self, deltas: Sequence[Delta]) -> None:
        for delta in deltas:
            self._reasoning_tokens[delta.piece.choice] = delta.reasoning_tokens

    def _usage(self) -> dict[str, object]:
        record = self._record
        counts = (record.prompt_tokens, record.cached_tokens, record.generated_tokens)
        return usage(*counts, sum(self._reasoning_tokens.values()))


def _call(name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def _reason(delta: Delta) -> str:
    reason = delta.piece.finish_reason or ""
    return "tool_calls" if reason == "stop" and delta.called else reason


def _chunk_choice(piece: Response, delta: str, logprobs: str = "", reason: str = "") -> str:
    """JSON of a chunk's choice: written by hand, as it is the server's most frequent work."""
    quoted = f'"{reason}"' if reason else "null"
    return f'{{"index":{piece.choice},"delta":{delta},{logprobs}"finish_reason":{quoted}}}'
