# SPDX-License-Identifier: Apache-2.0
"""``/v1/models``, and ``/tokenize`` and ``/detokenize`` as vLLM offers them."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from pydantic import Field

from manymind.server.errors import ApiError
from manymind.server.messages import RequestModel, json_response, read_model, record_of
from manymind.server.openai.chat import ChatMessage, mappings_of
from manymind.server.openai.sampling import TokenId
from manymind.server.service import Service

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response as HttpResponse


class TokenizeRequest(RequestModel):
    """Either a prompt or messages."""

    model: str | None = Field(None, max_length=256)
    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(None, min_length=1, max_length=8192)
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    return_token_strs: bool = False


class DetokenizeRequest(RequestModel):
    """Token ids."""

    model: str | None = Field(None, max_length=256)
    tokens: list[TokenId]


async def tokenize(request: Request, service: Service) -> HttpResponse:
    """Token ids of a text or a conversation."""
    record = record_of(request)
    service.admit(record)
    body = await read_model(request, service, TokenizeRequest)
    if body.model is not None:
        service.check_model(body.model)
    if (body.prompt is None) == (body.messages is None):
        raise ApiError(400, "prompt: expected either prompt or messages", "invalid_value", "prompt")

    messages = mappings_of(body.messages or ())

    def encode() -> list[int]:
        if body.messages is None:
            return service.runtime.tokenizer.encode(body.prompt or "", body.add_special_tokens)
        return service.runtime.encode_chat(
            messages,
            cache_salt=service.cache_salt(record, ""),
            add_generation_prompt=body.add_generation_prompt,
        )

    ids = await service.encode(record, encode, messages)

    def answer() -> HttpResponse:
        spell = service.runtime.tokenizer.id_to_token
        return json_response(
            {
                "count": len(ids),
                "max_model_len": service.max_tokens,
                "tokens": ids,
                "token_strs": list(map(spell, ids)) if body.return_token_strs else None,
            }
        )

    return await service.beside(answer)


async def detokenize(request: Request, service: Service) -> HttpResponse:
    """Text of token ids, control tokens included."""
    service.admit(record_of(request))
    body = await read_model(request, service, DetokenizeRequest)
    if body.model is not None:
        service.check_model(body.model)
    decode = service.runtime.tokenizer.decode
    return json_response({"prompt": await service.beside(lambda: decode(body.tokens, False))})


def list_models(service: Service) -> dict[str, Any]:
    """The one model, in OpenAI's form and in Anthropic's."""
    name = service.config.served_name
    pages = {"has_more": False, "first_id": name, "last_id": name}
    return {"object": "list", "data": [describe_model(service)], **pages}


def describe_model(service: Service) -> dict[str, Any]:
    """OpenAI's and Anthropic's descriptions, and the context length under vLLM's name."""
    created = datetime.fromtimestamp(service.created, timezone.utc).isoformat()
    return {
        "type": "model",
        "display_name": service.config.served_name,
        "created_at": created.replace("+00:00", "Z"),
        "id": service.config.served_name,
        "object": "model",
        "created": service.created,
        "owned_by": "manymind",
        "max_model_len": service.max_tokens,
    }
