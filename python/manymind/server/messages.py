# SPDX-License-Identifier: Apache-2.0
"""Reading requests and writing answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from manymind.errors import ManymindError
from manymind.server.errors import ApiError, api_error, error_body
from manymind.server.journal import log_unexpected
from manymind.server.record import RequestRecord
from manymind.server.service import Service

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

_BESIDE_LOOP_BYTES = 16 << 10  # larger bodies are parsed on another thread

M = TypeVar("M", bound="RequestModel")


class RequestModel(BaseModel):
    """A request body: unknown fields are errors, and nothing is coerced. A field that may be left
    out may be ``null`` as well, which is the same: clients write out what their users did not set.

    ``unsupported`` names fields of the interface that the server does not implement, and the values
    that ask for nothing: those are let pass.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)

    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {}

    # Of pieces of content: what their ``type`` decides about, by type. Fields not named here go
    # with any.
    fields_of_type: ClassVar[dict[str, frozenset[str]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict) or None not in value.values():
            return value
        left_out = cls._optional_names() & {name for name, item in value.items() if item is None}
        return {name: item for name, item in value.items() if name not in left_out}

    @classmethod
    def _optional_names(cls) -> set[str]:
        fields = cls.model_fields.items()
        return {field.alias or name for name, field in fields if not field.is_required()}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Documents that optional fields may be null, and of an unsupported field the values that
        are let pass.
        """
        document = handler(schema)
        fields = handler.resolve_ref_schema(document).get("properties", {})
        for name in cls._optional_names() & fields.keys():
            fields[name] = _or_null(fields[name])
        for name, harmless in cls.unsupported.items():
            if name in fields:
                said = "Not supported: only values that ask for nothing."
                fields[name] = {"enum": [None, *harmless], "description": said}
        return document

    def refuse_unsupported(self, where: str = "") -> None:
        """Raises ApiError 400 naming the first unsupported field that was given; ``where`` stands
        before its name.
        """
        for name, harmless in self.unsupported.items():
            value = getattr(self, name)
            if value is not None and not any(
                type(value) is type(item) and value == item for item in harmless
            ):
                allowed = f"; only {', '.join(map(json.dumps, harmless))}" if harmless else ""
                message = f"{where}{name}: not supported by this server{allowed}"
                raise ApiError(400, message, "unsupported_parameter", f"{where}{name}")

    def refuse_foreign(self, where: str) -> None:
        """Raises ApiError 400 naming the first field that does not go with the ``type``; one that
        is not known at all is for others to refuse.
        """
        kind = getattr(self, "type", None)
        own = self.fields_of_type.get(str(kind))
        if own is None:
            return
        foreign = frozenset().union(*self.fields_of_type.values()) - own
        for name in sorted(self.model_fields_set & foreign)[:1]:
            message = f"{where}.{name}: expected none beside the type {kind!r}"
            raise ApiError(400, message, "invalid_value", f"{where}.{name}")


def _or_null(schema: JsonSchemaValue) -> JsonSchemaValue:
    """``schema``, and null unless it takes that anyway."""
    about: JsonSchemaValue = {key: schema[key] for key in ("title", "default") if key in schema}
    kind = {key: item for key, item in schema.items() if key not in about}
    kinds = kind.get("anyOf", [kind])
    if not kind or {"type": "null"} in kinds:
        return schema
    return {**about, "anyOf": [*kinds, {"type": "null"}]}


def record_of(request: Request) -> RequestRecord:
    """The record that the guard began for this request."""
    record: RequestRecord = request.scope["state"]["record"]
    return record


async def read_model(request: Request, service: Service, kind: type[M]) -> M:
    """The request's body as a checked object; from here on, a client that leaves cancels the task.

    Raises ApiError.
    """
    record = record_of(request)
    _check_media_type(request)
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        message = f"content-encoding: expected none, found {encoding[:40]!r}"
        raise ApiError(415, message, "unsupported_encoding")
    try:
        body = await _read_body(request, service.config.limits.body_timeout)
    finally:
        record.receive = time.monotonic() - record.received
    request.scope["state"]["watch"]()
    if len(body) > _BESIDE_LOOP_BYTES:
        model = await service.beside(lambda: _parse(kind, body))
    else:
        model = _parse(kind, body)
    model.refuse_unsupported()
    return model


def _check_media_type(request: Request) -> None:
    """Raises ApiError 415: browsers let foreign pages send other types without asking us first."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        return
    # Ollama's documents call curl without naming a type; what a browser sends says so.
    by_browser = {"origin", "referer", "sec-fetch-site"} & set(request.headers.keys())
    tolerant = request.scope["path"].startswith("/api/") and not by_browser
    if not tolerant or media_type not in ("", "application/x-www-form-urlencoded"):
        message = f"content-type: expected application/json, found {media_type!r}"
        raise ApiError(415, message, "unsupported_media_type")


async def _read_body(request: Request, seconds: float) -> bytes:
    async def read() -> bytes:
        return b"".join([chunk async for chunk in request.stream()])

    try:
        return await asyncio.wait_for(read(), seconds)
    except asyncio.TimeoutError as error:
        message = f"expected the body within {seconds:g} s"
        headers = {"connection": "close"}
        raise ApiError(408, message, "body_timeout", headers=headers) from error
    except ClientDisconnect as error:
        record_of(request).gone = True
        # For the log: nobody reads it.
        raise ApiError(499, "the client left within its body", "client_gone") from error


def _parse(kind: type[M], body: bytes) -> M:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _first_fault(error) from error
    except RecursionError as error:
        raise ApiError(400, "the body is nested too deeply", "invalid_json") from error


def _first_fault(error: ValidationError) -> ApiError:
    """The fault of the likeliest reading: unions report one per alternative."""
    details = error.errors(include_url=False, include_context=False)
    unknown = [item for item in details if item["type"] == "extra_forbidden"]
    detail: ErrorDetails = unknown[0] if unknown else details[0]
    name = _field_name(detail["loc"])
    if name is None and detail["type"] != "json_invalid":
        return ApiError(400, f"the body: {detail['msg']}", "invalid_value")
    if detail["type"] == "extra_forbidden":
        return ApiError(400, f"{name}: unknown parameter", "unknown_parameter", name)
    if detail["type"] == "json_invalid":
        return ApiError(400, f"the body is no valid JSON: {detail['msg']}", "invalid_json")
    if detail["type"] == "missing":
        return ApiError(400, f"{name}: expected a value, found none", "missing_parameter", name)
    found = json.dumps(detail["input"], default=str)[:100]
    return ApiError(400, f"{name}: {detail['msg']}, found {found}", "invalid_value", name)


def _field_name(location: tuple[int | str, ...]) -> str | None:
    """``messages[0].role`` for ("messages", 0, "Message", "role"): names of types are left out."""
    name = ""
    for part in location:
        if isinstance(part, int):
            name += f"[{part}]"
        elif part.isidentifier() and part.islower() and part not in _TYPE_WORDS:
            name += f".{part}" if name else part
    return name[:200] or None


_TYPE_WORDS = {"str", "int", "float", "bool", "list", "dict"}


def json_response(value: Any, headers: dict[str, str] | None = None) -> Response:
    """``value`` as JSON."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Response(body, media_type="application/json", headers=headers)


def error_response(path: str, error: Exception) -> Response:
    """An error in the form of the interface that ``path`` belongs to."""
    known = api_error(error, path)
    body = json.dumps(error_body(path, known))
    return Response(body, known.status, known.headers, media_type="application/json")


class EventStream(Response):
    """An answer that grows: each item of ``chunks`` is sent as it comes.

    The status is sent with the first chunk, so that a request that fails before it answered has a
    proper error; ``failure`` words an error after that.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        failure: Any,
        media_type: str = "text/event-stream",
    ) -> None:
        super().__init__(None, media_type=media_type)
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-cache"
        self.headers["x-accel-buffering"] = "no"
        self._chunks = chunks
        self._failure = failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        started = False
        try:
            async for chunk in self._chunks:
                if not started:
                    started = True
                    head = {"status": self.status_code, "headers": self.raw_headers}
                    await send({"type": "http.response.start", **head})
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except Exception as error:
            if not started:
                raise
            record = scope["state"]["record"]
            record.error = f"{type(error).__name__}: {error}"
            known = api_error(error, scope["path"])
            if known.status == 500 and not isinstance(error, ManymindError):
                log_unexpected(record, error)
            last: bytes = self._failure(known)
            await send({"type": "http.response.body", "body": last, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def server_sent(data: str) -> bytes:
    """One event of a stream."""
    return f"data: {data}\n\n".encode()
