# SPDX-License-Identifier: Apache-2.0
"""Errors as clients see them: an HTTP status and the error object of the interface they speak."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from manymind import errors


@dataclass
class ApiError(Exception):
    """An answer other than success.

    Attributes:
        status: of HTTP.
        message: says what was expected and what was found.
        code: a word programs can compare.
        param: the parameter at fault.
        headers: to send along.
    """

    status: int
    message: str
    code: str
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message


def retry_later(status: int, message: str, code: str, seconds: float) -> ApiError:
    """A refusal that says when to come back: not before it is of use."""
    # A millisecond more or less is rounding.
    wait = max(1, math.ceil(seconds - 1e-3))
    return ApiError(status, message, code, headers={"retry-after": str(wait)})


def missing_value(name: str) -> ApiError:
    """The refusal of a body that lacks the field."""
    return ApiError(400, f"{name}: expected a value, found none", "missing_parameter", name)


def api_error(error: Exception, path: str) -> ApiError:
    """What a client of the interface at ``path`` is told about ``error``; of an unexpected one,
    nothing but that it happened.
    """
    if isinstance(error, ApiError):
        return error
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            message, parameter = _in_clients_words(error, path)
            return ApiError(status, message, code, parameter)
    return ApiError(500, "internal error; the server's log has the details", "internal_error")


_STATUS: tuple[tuple[type[Exception], int, str], ...] = (
    (errors.PromptTooLongError, 400, "context_length_exceeded"),
    (errors.MediaError, 400, "invalid_media"),
    (errors.InvalidParameterError, 400, "invalid_value"),
    (errors.ChatTemplateError, 400, "invalid_messages"),
    (errors.QueueFullError, 429, "queue_full"),
    (errors.RequestTimeoutError, 504, "timeout"),
    (errors.RequestCancelledError, 503, "cancelled"),
    (errors.OutOfMemoryError, 503, "out_of_memory"),
    (errors.ManymindError, 500, "engine_error"),
)

# The engine's own names for parameters that the interfaces call otherwise.
_CLIENT_NAMES = {
    "bad_token_ids": "bad_words",
    "bad_token_sequences": "bad_words",
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
    "random_seed": "seed",
    "stop_words": "stop",
}


# What becomes the prompt; elsewhere it is called so.
_PROMPTS = {
    "/v1/chat/completions": "messages",
    "/v1/messages": "messages",
    "/api/chat": "messages",
    "/v1/responses": "input",
    "/v1/embeddings": "input",
    "/api/embed": "input",
}


def _in_clients_words(error: Exception, path: str) -> tuple[str, str | None]:
    """The message and the parameter at fault, with whose name messages of InvalidParameterError
    begin.
    """
    message = str(error)
    name, colon, _ = message.partition(":")
    if not isinstance(error, errors.InvalidParameterError) or not colon or " " in name:
        return message, None
    names = {**_CLIENT_NAMES, "prompt_token_ids": _PROMPTS.get(path, "prompt")}
    for engines, clients in names.items():
        message = message.replace(engines, clients)
    return message, names.get(name, name)


_OPENAI_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES = {**_OPENAI_TYPES, 413: "request_too_large", 503: "overloaded_error"}


def error_body(path: str, error: ApiError) -> dict[str, Any]:
    """The error object of the interface that ``path`` belongs to."""
    default = "invalid_request_error" if error.status < 500 else "api_error"
    if path.startswith("/v1/messages"):
        kind = _ANTHROPIC_TYPES.get(error.status, default)
        return {"type": "error", "error": {"type": kind, "message": error.message}}
    if path.startswith("/api/"):
        return {"error": error.message}
    return {
        "error": {
            "message": error.message,
            "type": _OPENAI_TYPES.get(error.status, default),
            "param": error.param,
            "code": error.code,
        }
    }
