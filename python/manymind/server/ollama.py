# SPDX-License-Identifier: Apache-2.0
"""Ollama's ``/api/generate``, ``/api/chat``, ``/api/embed`` and what its clients ask about models.

Source of the form: Ollama's ``docs/api.md``. Streams are lines of JSON and are what a client gets
unless it asks otherwise.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, field_validator

from manymind import __version__
from manymind.config import GenerationConfig, Response
from manymind.parsers import ToolCallDelta, ToolCallEnd, ToolCallStart
from manymind.server.dialogue import (
    AnswerReader,
    Delta,
    Dialogue,
    converse,
    merged_content,
    picture_part,
    respond,
)
from manymind.server.errors import ApiError, error_body
from manymind.server.messages import RequestModel, json_response, read_model, record_of
from manymind.server.openai.logprobs import chat_logprobs
from manymind.server.openai.sampling import MAX_LOGPROBS
from manymind.server.service import Service
from manymind.server.thinking import Effort
from manymind.server.tools import Tool, Toolset

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response as HttpResponse

    from manymind.server.record import RequestRecord

_WHOLE_CONTEXT = -2  # num_predict: as much as fits; -1, without end, is the same here
OllamaBody = TypeVar("OllamaBody", bound="ModelRequest")
_NOTHING = Delta(Response("", 0, 0), [], False)
_FAR_FUTURE = "2318-01-01T00:00:00Z"


class Options(RequestModel):
    """Sampling, in Ollama's names and with its defaults; its loader's options are refused."""

    num_predict: int = Field(-1, ge=_WHOLE_CONTEXT)
    num_ctx: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    temperature: float = Field(0.8, ge=0, le=100)
    top_k: int = Field(40, ge=0, le=2**31 - 1)
    top_p: float = Field(0.9, gt=0, le=1)
    min_p: float = Field(0.0, ge=0, le=1)
    repeat_penalty: float = Field(1.0, ge=1e-3, le=1e3)
    presence_penalty: float = Field(0.0, ge=-100, le=100)
    frequency_penalty: float = Field(0.0, ge=-100, le=100)
    stop: list[Annotated[str, Field(min_length=1, max_length=1024)]] | None = Field(
        None, max_length=16
    )

    repeat_last_n: Any = None
    typical_p: Any = None
    tfs_z: Any = None
    mirostat: Any = None
    mirostat_tau: Any = None
    mirostat_eta: Any = None
    num_keep: Any = None
    penalize_newline: Any = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        # Penalties count the whole prompt and answer.
        "repeat_last_n": (-1,),
        "typical_p": (1, 1.0),
        "tfs_z": (1, 1.0),
        "mirostat": (0,),
        "mirostat_tau": (),
        "mirostat_eta": (),
        "num_keep": (),
        "penalize_newline": (False,),
    }


# Go's, or seconds as some clients write them.
_NUMBER = r"([0-9]+\.?[0-9]*|\.[0-9]+)"
_DURATION = re.compile(rf"[-+]?({_NUMBER}(ns|us|µs|ms|s|m|h))+|[-+]?{_NUMBER}")
KeepAlive = Annotated[str, Field(max_length=64)]
Pictures = Annotated[list[str], Field(max_length=1024)]  # base64


def _content(pictures: list[str] | None, text: str, where: str) -> str | list[dict[str, Any]]:
    """Pictures stand before the text."""
    named = enumerate(pictures or ())
    parts = [picture_part(f"data:image;base64,{data}", f"{where}[{i}]") for i, data in named]
    return merged_content([*parts, text])


class ModelRequest(RequestModel):
    """What all requests to a model have in common."""

    model: str = Field(min_length=1, max_length=256)
    keep_alive: float | KeepAlive | None = None

    def check_keep_alive(self) -> None:
        """The model stays loaded as long as the server runs: only unloading it now is refused, and
        what is no time.
        """
        value = self.keep_alive
        if value is None:
            return
        if isinstance(value, str) and not _DURATION.fullmatch(value):
            message = f"keep_alive: expected a duration such as '5m', found {value!r}"
            raise ApiError(400, message, "invalid_value", "keep_alive")
        if not re.search("[1-9]", str(value)):
            message = "keep_alive: this server cannot unload its model"
            raise ApiError(400, message, "unsupported_parameter", "keep_alive")


class BaseRequest(ModelRequest):
    """What generate and chat have in common."""

    stream: bool = True
    format: Literal["", "json"] | dict[str, Any] | None = None
    options: Options | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    think: bool | Effort | None = None

    shift: Any = None
    truncate: Any = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        "shift": (False,),
        "truncate": (False,),
    }

    def top(self) -> int | None:
        """Alternatives to report per token; None = no log probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    def generation_config(self, service: Service, prompt: list[int]) -> GenerationConfig:
        """The engine's words for the same; ``num_ctx`` bounds prompt and answer together."""
        options = self.options or Options.model_validate({})
        options.refuse_unsupported("options.")
        room = service.room_after(prompt)
        if options.num_ctx is not None:
            if not len(prompt) < options.num_ctx <= service.max_tokens:
                expected = f"more than the prompt's {len(prompt)} tokens, at most "
                message = f"options.num_ctx: expected {expected}{service.max_tokens}"
                raise ApiError(400, f"{message}, found {options.num_ctx}", "invalid_value")
            room = options.num_ctx - len(prompt)
        return GenerationConfig(
            max_new_tokens=room if options.num_predict < 0 else min(room, options.num_predict),
            do_sample=options.temperature > 0,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            min_p=options.min_p,
            repetition_penalty=options.repeat_penalty,
            presence_penalty=options.presence_penalty,
            frequency_penalty=options.frequency_penalty,
            random_seed=None if options.seed is None else options.seed % 2**64,
            stop_words=options.stop,
            response_format=_response_format(self.format),
            logprobs=self.top(),
        )


class GenerateRequest(BaseRequest):
    """The body of ``/api/generate``."""

    prompt: str = ""
    system: str | None = None
    raw: bool | None = None

    images: Pictures | None = None

    context: Any = None
    suffix: Any = None
    template: Any = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        **BaseRequest.unsupported,
        "context": ([],),
        "suffix": ("",),
        "template": ("",),
    }


class Message(RequestModel):
    """One turn."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    thinking: str | None = None
    tool_calls: list[dict[str, Any]] | None = Field(None, max_length=128)
    tool_name: str | None = Field(None, max_length=256)
    tool_call_id: str | None = Field(None, max_length=256)
    images: Pictures | None = None

    def as_mapping(self, index: int) -> dict[str, Any]:
        """For the template."""
        content = _content(self.images, self.content, f"messages[{index}].images")
        message: dict[str, Any] = {"role": self.role, "content": content}
        if self.tool_calls:
            message["tool_calls"] = [{"type": "function", **call} for call in self.tool_calls]
        if self.thinking:
            message["reasoning_content"] = self.thinking
        if self.tool_name:
            message["name"] = self.tool_name
        if self.tool_call_id:
            message["tool_call_id"] = self.tool_call_id
        return message


class ChatRequest(BaseRequest):
    """The body of ``/api/chat``."""

    messages: list[Message] = Field(default_factory=list, max_length=8192)
    tools: list[Tool] | None = Field(None, max_length=128)

    def dialogue(self) -> Dialogue:
        """What is to be answered."""
        tools = [tool.model_dump(exclude_none=True) for tool in self.tools or ()]
        messages = [message.as_mapping(index) for index, message in enumerate(self.messages)]
        return Dialogue(messages, tools=Toolset(tools), thinking=(self.think, "think"))


class VectorRequest(ModelRequest):
    """What asks for vectors, which no option changes."""

    options: Any = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {"options": ({},)}

    @field_validator("options")
    @classmethod
    def _leave_out_null_options(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: item for name, item in value.items() if item is not None}


class EmbedRequest(VectorRequest):
    """The body of ``/api/embed``."""

    input: str | list[str]
    truncate: bool | None = None
    dimensions: int | None = Field(None, ge=1)

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        **VectorRequest.unsupported,
        "truncate": (False,),
    }


class EmbeddingsRequest(VectorRequest):
    """The body of ``/api/embeddings``."""

    prompt: str


class ShowRequest(RequestModel):
    """The body of ``/api/show``; ``name`` is the former name of ``model``."""

    model: str = Field("", max_length=256)
    name: str = Field("", max_length=256)
    verbose: Any = None

    options: Any = None
    system: Any = None
    template: Any = None

    # Ollama's command line sends them all.
    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        "options": ({},),
        "system": ("",),
        "template": ("",),
        "verbose": (False,),
    }


def _response_format(value: str | dict[str, Any] | None) -> dict[str, Any] | None:
    if not value:
        return None
    if isinstance(value, str):
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "format", "schema": value}}


async def read_ollama(
    request: Request, service: Service, model: type[OllamaBody]
) -> tuple[RequestRecord, OllamaBody]:
    """Admits a request to the model that is served, and reads it."""
    record = record_of(request)
    service.admit(record)
    body = await read_model(request, service, model)
    service.check_model(body.model)
    body.check_keep_alive()
    return record, body


async def generate(request: Request, service: Service) -> HttpResponse:
    """Answers one prompt: as a user's message, or as it is if ``raw`` or without a template."""
    record, body = await read_ollama(request, service, GenerateRequest)
    wording = OllamaWording(service, record, body, "response")
    if not body.prompt:
        return json_response(wording.loaded())
    runtime = service.runtime
    if not body.raw and runtime.template is not None:
        content = _content(body.images, body.prompt, "images")
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if body.system:
            messages.insert(0, {"role": "system", "content": body.system})
        dialogue = Dialogue(messages, thinking=(body.think, "think"))
        configure = partial(body.generation_config, service)
        return await converse(service, record, dialogue, configure, wording, body.stream)
    for name in ("system", "images", "think"):
        if getattr(body, name):
            message = f"{name}: not supported with raw, nor by a model without a chat template"
            raise ApiError(400, message, "unsupported_parameter", name)

    def encode() -> list[list[int]]:
        return [runtime.tokenizer.encode(body.prompt, parse_special=bool(body.raw))]

    ids = (await service.encode(record, encode))[0]
    config = body.generation_config(service, ids)
    return await respond(service, record, ids, config, wording, body.stream, AnswerReader())


async def chat(request: Request, service: Service) -> HttpResponse:
    """Answers a conversation."""
    record, body = await read_ollama(request, service, ChatRequest)
    wording = OllamaWording(service, record, body, "message")
    if not body.messages:
        return json_response(wording.loaded())
    configure = partial(body.generation_config, service)
    return await converse(service, record, body.dialogue(), configure, wording, body.stream)


class OllamaWording:
    """Lines of generate ("response": text) and chat ("message": an object)."""

    media_type = "application/x-ndjson"

    def __init__(
        self, service: Service, record: RequestRecord, body: BaseRequest, field: str
    ) -> None:
        self._tokenizer = service.runtime.tokenizer
        self._record = record
        self._model = body.model
        self._field = field
        self._top = body.top()
        self._last = _NOTHING.piece
        self._open_call = ("", "")

    def whole(self, answers: Sequence[Delta]) -> dict[str, Any]:
        """The only line of an answer that is not streamed."""
        answer = answers[0]
        self._last = answer.piece
        return {**self._line(answer, answer.calls()), **self._totals()}

    def loaded(self) -> dict[str, Any]:
        """The answer to a request that only asks for the model to be loaded."""
        return {**self._line(_NOTHING), "done": True, "done_reason": "load"}

    def step(self, deltas: Sequence[Delta]) -> bytes:
        """A line per piece that says something; calls are told when they are complete."""
        lines = []
        for delta in deltas:
            self._last = delta.piece
            calls = self._completed_calls(delta)
            if delta.text or delta.reasoning or calls or delta.piece.logprobs:
                lines.append(_encoded({**self._line(delta, calls), "done": False}))
        return b"".join(lines)

    def _completed_calls(self, delta: Delta) -> list[tuple[str, str]]:
        completed = []
        for event in delta.events:
            if isinstance(event, ToolCallStart):
                self._open_call = (event.name, "")
            elif isinstance(event, ToolCallDelta):
                name, arguments = self._open_call
                self._open_call = (name, arguments + event.arguments)
            elif isinstance(event, ToolCallEnd) and event.complete:
                completed.append(self._open_call)
        return completed

    def end(self) -> bytes:
        """The line with the totals."""
        return _encoded({**self._line(_NOTHING), **self._totals()})

    def failure(self, error: ApiError) -> bytes:
        """A line that holds the error."""
        return _encoded(error_body("/api/", error))

    def _line(self, delta: Delta, calls: Sequence[tuple[str, str]] = ()) -> dict[str, Any]:
        line: dict[str, Any] = {"model": self._model, "created_at": _now()}
        if self._field == "message":
            said = line["message"] = {"role": "assistant", "content": delta.text}
            if calls:
                said["tool_calls"] = [{"function": called(*call)} for call in calls]
        else:
            said = line
            line["response"] = delta.text
        if delta.reasoning:
            said["thinking"] = delta.reasoning
        rows = delta.piece.logprobs
        if self._top is not None and rows:
            line["logprobs"] = chat_logprobs(self._tokenizer, rows, self._top)
        return line

    def _totals(self) -> dict[str, Any]:
        last = self._last
        spent = self._record.phases()
        return {
            "done": True,
            "done_reason": last.finish_reason,
            "total_duration": nanoseconds(time.monotonic() - self._record.received),
            "load_duration": 0,
            "prompt_eval_count": last.input_token_len,
            "prompt_eval_duration": nanoseconds(spent["prefill"]),
            "eval_count": last.generate_token_len,
            "eval_duration": nanoseconds(spent["decode"]),
        }


def called(name: str, arguments: str) -> dict[str, Any]:
    """Ollama's arguments are an object; what is not stays text."""
    try:
        return {"name": name, "arguments": json.loads(arguments)}
    except (ValueError, RecursionError):
        return {"name": name, "arguments": {"arguments": arguments}}


def _encoded(line: dict[str, Any]) -> bytes:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def nanoseconds(seconds: float) -> int:
    """Ollama's unit of time."""
    return int(seconds * 1e9)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")


def tags(service: Service) -> dict[str, Any]:
    """The one model."""
    return {"models": [_entry(service)]}


def running(service: Service) -> dict[str, Any]:
    """The one model is always loaded."""
    entry = _entry(service)
    plan = service.runtime.memory_plan
    size = 0 if plan["on_host"] else sum(line["bytes"] for line in plan["lines"])
    loaded = {"size_vram": size, "context_length": service.max_tokens}
    return {"models": [{**entry, "expires_at": _FAR_FUTURE, **loaded}]}


async def show(request: Request, service: Service) -> HttpResponse:
    """What is known of the model."""
    service.admit(record_of(request))
    body = await read_model(request, service, ShowRequest)
    service.check_model(body.model or body.name)
    info = service.runtime.description
    template = service.runtime.template
    return json_response(
        {
            "modelfile": f"FROM {service.config.served_name}",
            "parameters": f"num_ctx {service.max_tokens}",
            "template": template.source if template else "",
            "details": _details(service),
            "model_info": {
                "general.architecture": info.family,
                "general.parameter_count": info.num_parameters,
                f"{info.family}.context_length": service.max_tokens,
            },
            "capabilities": _capabilities(service),
        }
    )


def _capabilities(service: Service) -> list[str]:
    if service.embedding_engine is not None:
        return ["embedding"]
    form = service.output_format
    more = {
        "vision": service.runtime.media is not None,
        "tools": form.tools,
        "thinking": form.reasoning,
    }
    # Not "embedding", which a decoder can do as well: Ollama's clients chat with nothing that can.
    return ["completion", *(name for name, known in more.items() if known)]


def version() -> dict[str, str]:
    """The server's own."""
    return {"version": __version__}


def _entry(service: Service) -> dict[str, Any]:
    name = service.config.served_name
    info = service.runtime.description
    moment = datetime.fromtimestamp(service.created, timezone.utc).isoformat()
    return {
        "name": f"{name}:latest",
        "model": f"{name}:latest",
        "modified_at": moment,
        "size": info.num_bytes,
        "digest": info.digest,
        "details": _details(service),
    }


def _details(service: Service) -> dict[str, Any]:
    info = service.runtime.description
    return {
        "parent_model": "",
        "format": info.file_kind,
        "family": info.family,
        "families": [info.family],
        "parameter_size": f"{info.num_parameters / 1e6:.0f}M",
        "quantization_level": info.commonest_format.removeprefix("gguf_").upper(),
    }
