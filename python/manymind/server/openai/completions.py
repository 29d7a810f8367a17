# SPDX-License-Identifier: Apache-2.0
"""``/v1/completions``.

Source of the form: OpenAI's API reference, "Completions (legacy)".
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from manymind.config import GenerationConfig, Response
from manymind.server.errors import ApiError
from manymind.server.messages import (
    EventStream,
    json_response,
    read_model,
    record_of,
    server_sent,
)
from manymind.server.openai.chat import stream_failure
from manymind.server.openai.logprobs import CompletionLogprobs, Row, prompt_logprobs
from manymind.server.openai.sampling import (
    MAX_LOGPROBS,
    SamplingModel,
    TokenId,
    usage,
    usage_of,
)
from manymind.server.service import Service

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response as HttpResponse

    from manymind.server.record import RequestRecord

Ids = Annotated[list[TokenId], Field(min_length=1)]
_DEFAULT_MAX_TOKENS = 16


class CompletionRequest(SamplingModel):
    """The body of a request."""

    prompt: str | list[str] | Ids | list[Ids]
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    max_tokens: int | None = Field(None, ge=0)
    add_special_tokens: bool = True
    return_token_ids: bool = False

    best_of: Any = None
    suffix: Any = None

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {
        "best_of": (1,),
        "suffix": ("",),
    }

    def prompts(self, limit: int) -> list[str | list[int]]:
        """The prompts, at most ``limit``."""
        prompt = self.prompt
        if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
            return [prompt]
        if not 0 < len(prompt) <= limit:
            message = f"prompt: expected 1 to {limit} prompts, found {len(prompt)}"
            raise ApiError(400, message, "invalid_value", "prompt")
        return list(prompt)  # type: ignore[arg-type]


async def create(request: Request, service: Service) -> HttpResponse:
    """Answers one request."""
    record = record_of(request)
    service.admit(record)
    body = await read_model(request, service, CompletionRequest)
    record.user = body.user
    service.check_model(body.model)
    body.check_stream_options()
    prompts = body.prompts(service.config.limits.max_prompts)
    tokenizer = service.runtime.tokenizer

    def encode() -> list[list[int]]:
        return [
            tokenizer.encode(prompt, body.add_special_tokens) if isinstance(prompt, str) else prompt
            for prompt in prompts
        ]

    ids = await service.encode(record, encode)
    answer = _Answer(service, record, body, ids)
    if body.stream:
        return EventStream(answer.stream(), stream_failure)
    async with service.generate(record, ids, answer.config) as generation:
        groups = await generation.answers()
    if answer.is_heavy:
        return json_response(await service.beside(lambda: answer.whole(groups)))
    return json_response(answer.whole(groups))


class _Answer:
    """Words the engine's answers to all prompts."""

    def __init__(
        self,
        service: Service,
        record: RequestRecord,
        body: CompletionRequest,
        ids: list[list[int]],
    ) -> None:
        self._service = service
        self._record = record
        self._body = body
        self._ids = ids
        self._n = body.n or 1
        self._logprobs: dict[int, CompletionLogprobs] = {}
        self._opened: set[int] = set()
        self._prompt_rows: dict[int, list[dict[int, float]]] = {}
        max_tokens = _DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
        echoed = body.logprobs if body.echo else None
        self.config: GenerationConfig = body.generation_config(max_tokens, body.logprobs, echoed)
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model,
        }

    def whole(self, groups: Sequence[Sequence[Response]]) -> dict[str, Any]:
        """The complete answer: choices in the order of the prompts."""
        choices = []
        for group in groups:
            prompt_rows = group[0].prompt_logprobs
            for answer in group:
                choices.append(self._choice(answer, True, prompt_rows))
        return {**self._head, "choices": choices, "usage": self._usage()}

    @property
    def is_heavy(self) -> bool:
        """Whether wording the answer takes longer than the event loop should wait."""
        body = self._body
        return bool(body.echo) or body.logprobs is not None or body.prompt_logprobs is not None

    async def stream(self) -> AsyncIterator[bytes]:
        """Events, all that one wake-up brings at once."""
        async with self._service.generate(self._record, self._ids, self.config) as generation:
            while pieces := await generation.next():
                if self.is_heavy:
                    yield await self._service.beside(partial(self._events, pieces))
                else:
                    yield self._events(pieces)
        end = server_sent("[DONE]")
        if self._body.include_usage:
            end = server_sent(self._chunk([], self._usage())) + end
        yield end

    def _events(self, pieces: Sequence[Response]) -> bytes:
        events = []
        for piece in pieces:
            # Those of a long prompt come in parts, before the first token.
            self._prompt_rows.setdefault(piece.index, []).extend(piece.prompt_logprobs or [])
        for piece in pieces:
            if not (piece.token_ids or piece.text or piece.finish_reason):
                continue
            index = piece.index * self._n + piece.choice
            rows = self._prompt_rows.get(piece.index)
            choice = self._choice(piece, index not in self._opened, rows)
            self._opened.add(index)
            counts = usage_of(piece) if self._body.usage_everywhere else None
            events.append(server_sent(self._chunk([choice], counts)))
        return b"".join(events)

    def _chunk(self, choices: list[Any], counts: Any = None) -> str:
        event: dict[str, Any] = {**self._head, "choices": choices}
        if self._body.include_usage:
            event["usage"] = counts
        return json.dumps(event, ensure_ascii=False)

    def _choice(
        self, piece: Response, first: bool, prompt_rows: Sequence[Row] | None
    ) -> dict[str, Any]:
        echo = bool(self._body.echo) and first
        index = piece.index * self._n + piece.choice
        text = self._prompt_text(piece.index) + piece.text if echo else piece.text
        logprobs = None
        if self._body.logprobs is not None:
            logprobs = self._piece_logprobs(index, piece, prompt_rows if echo else None, echo)
        choice: dict[str, Any] = {
            "text": text,
            "index": index,
            "logprobs": logprobs,
            "finish_reason": piece.finish_reason,
        }
        wanted = self._body.prompt_logprobs
        if wanted is not None:
            tokenizer = self._service.runtime.tokenizer
            choice["prompt_logprobs"] = prompt_logprobs(tokenizer, prompt_rows or [], wanted)
        if self._body.return_token_ids:
            choice["token_ids"] = piece.token_ids
            choice["prompt_token_ids"] = self._ids[piece.index] if first else None
        return choice

    def _piece_logprobs(
        self, index: int, piece: Response, prompt_rows: Sequence[Row] | None, echo: bool
    ) -> dict[str, list[Any] | None]:
        if index not in self._logprobs:
            tokenizer = self._service.runtime.tokenizer
            self._logprobs[index] = CompletionLogprobs(tokenizer, self._body.logprobs or 0)
        ids: list[int] = list(piece.token_ids)
        rows: list[Row | None] = list(piece.logprobs or [])
        if echo:
            ids = [*self._ids[piece.index], *ids]
            # Nothing comes before the first token, so it has no probability.
            rows = [None, *(prompt_rows or []), *rows]
        return self._logprobs[index].extend(ids, rows)

    def _prompt_text(self, index: int) -> str:
        prompt = self._body.prompts(self._service.config.limits.max_prompts)[index]
        if isinstance(prompt, str):
            return prompt
        return self._service.runtime.tokenizer.decode(prompt, self._body.skip_special_tokens)

    def _usage(self) -> dict[str, object]:
        record = self._record
        return usage(record.prompt_tokens, record.cached_tokens, record.generated_tokens)
