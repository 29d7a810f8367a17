# SPDX-License-Identifier: Apache-2.0
"""The parameters that chat completions and completions have in common."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar

from pydantic import Field

from manymind.config import GenerationConfig, Response
from manymind.server.errors import ApiError
from manymind.server.messages import RequestModel

MAX_LOGPROBS = 20
TokenId = Annotated[int, Field(ge=0, le=2**31 - 1)]
StopWord = Annotated[str, Field(min_length=1, max_length=1024)]
TokenIds = Annotated[list[TokenId], Field(max_length=1024)]


class StreamOptions(RequestModel):
    """``stream_options``."""

    include_usage: bool = False
    continuous_usage_stats: bool = False
    include_obfuscation: bool | None = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {"include_obfuscation": (False,)}


class StructuredOutputs(RequestModel):
    """vLLM's spelling of a response format: one of these."""

    json_: str | dict[str, Any] | None = Field(None, alias="json")
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    structural_tag: str | None = None

    disable_additional_properties: Any = None
    disable_any_whitespace: Any = None
    disable_fallback: Any = None
    whitespace_pattern: Any = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        "disable_additional_properties": (False,),
        "disable_any_whitespace": (False,),
        "disable_fallback": (True, False),
        "whitespace_pattern": (),
    }

    def response_format(self) -> dict[str, Any]:
        """The same in our words. Raises ApiError 400 unless it asks for one thing."""
        self.refuse_unsupported("structured_outputs.")
        given = self.model_dump(by_alias=True, exclude_none=True, exclude=set(self.unsupported))
        if len(given) != 1 or given == {"json_object": False}:
            names = "json, json_object, regex, choice, grammar and structural_tag"
            message = f"structured_outputs: expected one of {names}, found {sorted(given)}"
            raise ApiError(400, message, "invalid_value", "structured_outputs")
        ((kind, value),) = given.items()
        if kind == "json":
            schema = _read_json("json", value) if isinstance(value, str) else value
            return {"type": "json_schema", "json_schema": {"schema": schema}}
        if kind == "structural_tag":
            return dict(_read_json(kind, value))
        return {"type": kind} if kind == "json_object" else {"type": kind, kind: value}


def _read_json(name: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        where = f"structured_outputs.{name}"
        raise ApiError(400, f"{where}: expected an object in JSON", "invalid_value", where)
    return value


class SamplingModel(RequestModel):
    """Fields of OpenAI's documents first, then those that other servers added under these names."""

    model: str = Field(min_length=1, max_length=256)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = Field(None, max_length=1024)
    n: int | None = Field(None, ge=1, le=128)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: StopWord | Annotated[list[StopWord], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    user: str | None = Field(None, max_length=256)

    allowed_token_ids: TokenIds | None = None
    bad_words: Annotated[list[StopWord], Field(max_length=256)] | None = None
    cache_salt: str | None = Field(None, max_length=256)
    ignore_eos: bool = False
    include_stop_str_in_output: bool = False
    min_p: float = Field(0.0, ge=0, le=1)
    min_tokens: int = Field(0, ge=0)
    prompt_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    response_format: dict[str, Any] | None = None
    priority: int = Field(0, ge=-(2**31), le=2**31 - 1)
    repetition_penalty: float = Field(1.0, ge=1e-3, le=1e3)
    skip_special_tokens: bool = True
    stop_token_ids: TokenIds | None = None
    structured_outputs: StructuredOutputs | None = None
    timeout: float | None = Field(None, gt=0, le=86400)
    top_k: int = Field(0, ge=-1, le=2**31 - 1)

    def generation_config(
        self,
        max_tokens: int,
        logprobs: int | None = None,
        echoed_logprobs: int | None = None,
    ) -> GenerationConfig:
        """The engine's words for the same; OpenAI's default temperature is 1.

        echoed_logprobs: alternatives wanted of the prompt's tokens beside ``prompt_logprobs``.
        """
        prompt_logprobs = [
            count for count in (self.prompt_logprobs, echoed_logprobs) if count is not None
        ]
        temperature = 1.0 if self.temperature is None else self.temperature
        return GenerationConfig(
            n=self.n or 1,
            max_new_tokens=max_tokens,
            min_new_tokens=self.min_tokens,
            do_sample=temperature > 0,
            temperature=temperature,
            top_k=max(self.top_k, 0),
            top_p=1.0 if self.top_p is None else self.top_p,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=self._logit_bias(),
            # Other servers take negative seeds; the engine's are the same numbers modulo 2^64.
            random_seed=None if self.seed is None else self.seed % 2**64,
            ignore_eos=self.ignore_eos,
            stop_words=[self.stop] if isinstance(self.stop, str) else self.stop,
            stop_token_ids=self.stop_token_ids,
            bad_words=self.bad_words,
            allowed_token_ids=self.allowed_token_ids,
            skip_special_tokens=self.skip_special_tokens,
            include_stop_str_in_output=self.include_stop_str_in_output,
            logprobs=logprobs,
            prompt_logprobs=max(prompt_logprobs, default=None),
            response_format=self.text_format(),
            priority=self.priority,
            timeout=self.timeout,
            cache_salt=self.cache_salt or "",
        )

    def text_format(self) -> dict[str, Any] | None:
        """What the text must be. Raises ApiError 400 if two parameters say it."""
        if self.structured_outputs is None:
            return self.response_format
        if self.response_format is not None:
            message = "structured_outputs: expected no response_format beside it"
            raise ApiError(400, message, "invalid_value", "structured_outputs")
        return self.structured_outputs.response_format()

    def check_stream_options(self) -> None:
        """Raises ApiError 400 for options of a stream that was not asked for, and for what a
        stream cannot tell.
        """
        if self.stream and self.prompt_logprobs is not None:
            message = "prompt_logprobs: expected only without stream"
            raise ApiError(400, message, "invalid_value", "prompt_logprobs")
        options = self.stream_options
        if options is None:
            return
        if not self.stream:
            message = "stream_options: expected only with stream=true"
            raise ApiError(400, message, "invalid_value", "stream_options")
        options.refuse_unsupported("stream_options.")
        if options.continuous_usage_stats and not options.include_usage:
            name = "stream_options.continuous_usage_stats"
            message = f"{name}: expected only with include_usage=true"
            raise ApiError(400, message, "invalid_value", name)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def usage_everywhere(self) -> bool:
        """Whether every chunk of a stream has its answer's usage so far."""
        return self.stream_options is not None and self.stream_options.continuous_usage_stats

    def _logit_bias(self) -> dict[int, float] | None:
        if not self.logit_bias:
            return None
        for key, value in self.logit_bias.items():
            if not (key.isascii() and key.isdigit() and len(key) < 11) or not -100 <= value <= 100:
                expected = "token ids with numbers in [-100, 100]"
                message = f"logit_bias: expected {expected}, found {key[:40]!r}: {value}"
                raise ApiError(400, message, "invalid_value", "logit_bias")
        return {int(key): value for key, value in self.logit_bias.items()}


def usage_of(piece: Response, reasoning_tokens: int | None = None) -> dict[str, object]:
    """The account of one answer so far."""
    counts = (piece.input_token_len, piece.cached_tokens, piece.generate_token_len)
    return usage(*counts, reasoning_tokens)


def usage(
    prompt_tokens: int,
    cached_tokens: int,
    generated_tokens: int,
    reasoning_tokens: int | None = None,
) -> dict[str, object]:
    """OpenAI's account of tokens.

    reasoning_tokens: of the generated ones; None where nothing tells reasoning from text.
    """
    account: dict[str, object] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": generated_tokens,
        "total_tokens": prompt_tokens + generated_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }
    if reasoning_tokens is not None:
        account["completion_tokens_details"] = {"reasoning_tokens": reasoning_tokens}
    return account
