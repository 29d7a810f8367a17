# SPDX-License-Identifier: Apache-2.0
"""The application: which route is answered by what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from manymind import __version__
from manymind.errors import ManymindError
from manymind.server.config import ServerConfig
from manymind.server.errors import ApiError
from manymind.server.guard import Guard
from manymind.server.journal import Journal
from manymind.server.messages import RequestModel, error_response, json_response
from manymind.server.metrics import Metrics
from manymind.server.openai import chat, completions, text
from manymind.server.record import RequestRecord
from manymind.server.service import Service

Endpoint = Callable[[Request, Service], Awaitable[Response]]


def create_app(service: Service, config: ServerConfig) -> Guard:
    """The guarded application."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="manymind",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    metrics = Metrics(service)
    journal = Journal()
    _add_error_handlers(app)
    _add_operations(app, service, metrics)
    _add_openai(app, service)

    def report(record: RequestRecord) -> None:
        service.release(record)
        metrics.observe(record, _route_of(app, record))
        journal.write(record)

    return Guard(app, config, report)


def _route_of(app: FastAPI, record: RequestRecord) -> str:
    scope = {"type": "http", "path": record.path, "method": record.method}
    for route in app.routes:
        if route.matches(scope)[0] is not Match.NONE:
            return str(getattr(route, "path", ""))
    return "(none)"


def _add_error_handlers(app: FastAPI) -> None:
    async def known(request: Request, error: Exception) -> Response:
        request.scope["state"]["record"].error = f"{type(error).__name__}: {error}"
        return error_response(request.scope["path"], error)

    async def routing(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        what = f"{request.method} {request.scope['path'][:200]}: {error.detail}"
        headers = dict(error.headers or {})
        return await known(request, ApiError(error.status_code, what, code, headers=headers))

    app.add_exception_handler(Exception, known)
    app.add_exception_handler(ApiError, known)
    app.add_exception_handler(ManymindError, known)
    app.add_exception_handler(HTTPException, routing)


def add_post(
    app: FastAPI, service: Service, path: str, endpoint: Endpoint, body: type[RequestModel]
) -> None:
    """A route whose body is read by the endpoint itself, within bounds, and documented here."""

    async def handle(request: Request) -> Response:
        return await endpoint(request, service)

    schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    name = body.__name__
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    app.add_api_route(
        path,
        handle,
        methods=["POST"],
        operation_id=path.strip("/").replace("/", "_"),
        response_model=None,
        openapi_extra={"requestBody": {"required": True, "content": content}},
    )
    schemas: dict[str, Any] = app.state.__dict__.setdefault("schemas", {})
    schemas.update(definitions, **{name: schema})


def _add_openai(app: FastAPI, service: Service) -> None:
    add_post(app, service, "/v1/chat/completions", chat.create, chat.ChatRequest)
    add_post(app, service, "/v1/completions", completions.create, completions.CompletionRequest)
    add_post(app, service, "/tokenize", text.tokenize, text.TokenizeRequest)
    add_post(app, service, "/detokenize", text.detokenize, text.DetokenizeRequest)

    @app.get("/v1/models")
    async def models() -> Response:
        return json_response(text.list_models(service))

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        service.check_model(name)
        return json_response(text.describe_model(service))


def _add_operations(app: FastAPI, service: Service, metrics: Metrics) -> None:
    @app.get("/health")
    async def health() -> Response:
        if service.device_lost:
            raise ApiError(503, "the device is lost", "device_lost")
        return json_response({"status": "ok"})

    @app.get("/ready")
    async def ready() -> Response:
        if service.draining or service.device_lost:
            raise ApiError(503, "not ready", "draining")
        return json_response({"status": "ready"})

    @app.get("/load")
    async def load() -> Response:
        stats = service.runtime.engine.stats()
        return json_response({"server_load": service.active, **stats})

    @app.get("/metrics")
    async def prometheus() -> Response:
        return PlainTextResponse(
            await service.beside(metrics.exposition),
            media_type="text/plain; version=0.0.4; charset=utf-8",
        )
