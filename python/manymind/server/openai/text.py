# SPDX-License-Identifier: Apache-2.0
"""``/v1/models``, and ``/tokenize`` and ``/detokenize`` as vLLM offers them."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from manymind.server.dialogue import encode_dialogue
from manymind.server.errors import ApiError
from manymind.server.messages import RequestModel, json_response, read_model, record_of
from manymind.server.openai.chat import ChatMessage, Conversation
from manymind.server.openai.sampling import TokenId
from manymind.server.service import Service

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response as HttpResponse


class TokenizeRequest(Conversation):
    """Either a prompt or a conversation as chat completions take it."""

    model: str | None = Field(None, max_length=256)
    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(  # type: ignore[assignment]
        None, min_length=1, max_length=8192
    )
    add_special_tokens: bool | None = None
    return_token_strs: bool = False

    def check(self) -> None:
        """Raises ApiError 400 unless there is one of both, with what belongs to it."""
        if (self.prompt is None) == (self.messages is None):
            message = "prompt: expected either prompt or messages"
            raise ApiError(400, message, "invalid_value", "prompt")
        if self.messages is None:
            foreign = Conversation.model_fields.keys() & self.model_fields_set
            expected = "only with messages"
        else:
            foreign = {"add_special_tokens"} if self.add_special_tokens else set()
            expected = "only with a prompt, as the chat template writes all tokens"
        for name in sorted(foreign):
            raise ApiError(400, f"{name}: expected {expected}", "invalid_value", name)


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
    body.check()
    if body.messages is None:
        ids = await service.encode(record, partial(_encode, service, body))
    else:
        dialogue = body.dialogue()
        dialogue.tools.check(service.output_format, None)
        ids = await encode_dialogue(service, record, dialogue)

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


def _encode(service: Service, body: TokenizeRequest) -> list[int]:
    special = body.add_special_tokens is not False
    return service.runtime.tokenizer.encode(body.prompt or "", special)


async def detokenize(request: Request, service: Service) -> HttpResponse:
    """Text of token ids, control tokens included."""
    service.admit(record_of(request))
    body = await read_model(request, service, DetokenizeRequest)
    if body.model is not None:
        service.check_model(body.model)
    tokenizer = service.runtime.tokenizer

    def decode() -> str:
        for place, token in enumerate(body.tokens):
            if tokenizer.id_to_token(token) is None:
                name = f"tokens[{place}]"
                message = f"{name}: expected a token of the model, found {token}"
                raise ApiError(400, message, "invalid_value", name)
        return tokenizer.decode(body.tokens, False)

    return json_response({"prompt": await service.beside(decode)})


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
