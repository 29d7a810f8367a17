# SPDX-License-Identifier: Apache-2.0
"""``/v1/embeddings`` and Ollama's ``/api/embed``: an encoder's vectors, or of a decoder the last
hidden state of the last token; scaled to length 1.
"""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from manymind.pooling import POOLING_CONFIG, last_token_rows
from manymind.server.errors import ApiError
from manymind.server.messages import RequestModel, json_response, read_model, record_of
from manymind.server.ollama import EmbeddingsRequest, EmbedRequest, nanoseconds, read_ollama
from manymind.server.openai.sampling import TokenId
from manymind.server.record import RequestRecord
from manymind.server.service import Service

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from starlette.requests import Request
    from starlette.responses import Response as HttpResponse

    Rows = npt.NDArray[np.float32]

Ids = Annotated[list[TokenId], Field(min_length=1)]


class EmbeddingRequest(RequestModel):
    """The body of ``/v1/embeddings``."""

    model: str = Field(min_length=1, max_length=256)
    input: str | list[str] | Ids | list[Ids]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(None, ge=1)
    user: str | None = Field(None, max_length=256)


async def create(request: Request, service: Service) -> HttpResponse:
    """OpenAI's form."""
    record = record_of(request)
    service.admit(record)
    body = await read_model(request, service, EmbeddingRequest)
    record.user = body.user
    service.check_model(body.model)
    rows = await _embed(service, record, body.input, body.dimensions)

    def answer() -> HttpResponse:
        data = [
            {"object": "embedding", "index": index, "embedding": _spelt(row, body.encoding_format)}
            for index, row in enumerate(rows)
        ]
        usage = {"prompt_tokens": record.prompt_tokens, "total_tokens": record.prompt_tokens}
        return json_response({"object": "list", "data": data, "model": body.model, "usage": usage})

    return await service.beside(answer)


async def create_for_ollama(request: Request, service: Service) -> HttpResponse:
    """Ollama's form."""
    record, body = await read_ollama(request, service, EmbedRequest)
    rows = await _embed(service, record, body.input, body.dimensions)
    answer = {
        "model": body.model,
        "embeddings": rows.tolist(),
        "total_duration": nanoseconds(time.monotonic() - record.received),
        "load_duration": 0,  # it is loaded as long as the server runs
        "prompt_eval_count": record.prompt_tokens,
    }
    return json_response(answer)


async def create_one_for_ollama(request: Request, service: Service) -> HttpResponse:
    """Ollama's former form, of one text."""
    record, body = await read_ollama(request, service, EmbeddingsRequest)
    rows = await _embed(service, record, body.prompt, None)
    return json_response({"embedding": rows[0].tolist()})


async def _embed(
    service: Service, record: RequestRecord, texts: Any, dimensions: int | None
) -> Rows:
    """Rows of length 1, [texts, hidden_size]."""
    single = isinstance(texts, str) or (texts and isinstance(texts[0], int))
    prompts = [texts] if single else texts
    size = service.runtime.hidden_size
    if dimensions not in (None, size):
        message = f"dimensions: expected {size}, which this model has, found {dimensions}"
        raise ApiError(400, message, "unsupported_parameter", "dimensions")
    limit = service.config.limits.max_prompts
    if not 0 < len(prompts) <= limit:
        message = f"input: expected 1 to {limit} texts, found {len(prompts)}"
        raise ApiError(400, message, "invalid_value", "input")
    encode = service.runtime.tokenizer.encode

    def work() -> list[list[int]]:
        return [encode(text) if isinstance(text, str) else text for text in prompts]

    ids = await service.encode(record, work)
    if service.embedding_engine is not None:
        rows = await service.embed(record, ids)
    else:
        async with service.generate(record, ids, POOLING_CONFIG) as generation:
            groups = await generation.answers()
        rows = await service.beside(lambda: last_token_rows([group[0] for group in groups]))
    return rows


def _spelt(row: Rows, encoding: str | None) -> Any:
    """Numbers, or the base64 of their little-endian float32."""
    if encoding == "base64":
        return base64.b64encode(row.astype("<f4").tobytes()).decode()
    return row.tolist()
