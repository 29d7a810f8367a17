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
from manymind.server import abort, anthropic, embeddings, ollama
from manymind.server.config import ServerConfig
from manymind.server.errors import ApiError
from manymind.server.guard import Guard
from manymind.server.journal import Journal
from manymind.server.messages import RequestModel, error_response, json_response
from manymind.server.metrics import Metrics
from manymind.server.openai import chat, completions, responses, text
from manymind.server.record import RequestRecord
from manymind.server.service import Service
from manymind.server.tracing import Tracing
from manymind.server.web import add_pages

Endpoint = Callable[[Request, Service], Awaitable[Response]]
_EVENTS = "text/event-stream"
_LINES = "application/x-ndjson"


def create_app(service: Service, config: ServerConfig, tracing: Tracing | None = None) -> Guard:
    """The guarded application; ``tracing`` gets every request's record."""

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
    service.tell_latency = metrics.observe_latency
    journal = Journal()
    _add_error_handlers(app)
    _add_operations(app, service, metrics)
    _add_interfaces(app, service)
    _add_ollama(app, service)
    add_pages(app)

    def report(record: RequestRecord) -> None:
        service.release(record)
        route = _route_of(app, record)
        metrics.observe(record, route)
        if tracing is not None:
            tracing.export(record, route)
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


def _add_post(
    app: FastAPI,
    service: Service,
    schemas: dict[str, Any],
    path: str,
    endpoint: Endpoint,
    body: type[RequestModel],
    streams: str | None,
) -> None:
    """A route whose body is read by the endpoint itself, within bounds, and documented here."""

    async def handle(request: Request) -> Response:
        return await endpoint(request, service)

    prefix = body.__module__.rpartition(".")[2]
    template = f"#/components/schemas/{prefix}.{{model}}"
    schema = body.model_json_schema(ref_template=template)
    definitions = schema.pop("$defs", {}) | {body.__name__: schema}
    reference = {"$ref": template.format(model=body.__name__)}
    content = {"application/json": {"schema": reference}}
    answers: dict[str, Any] = {"application/json": {}} | ({streams: {}} if streams else {})
    app.add_api_route(
        path,
        handle,
        methods=["POST"],
        operation_id=path.strip("/").replace("/", "_"),
        response_model=None,
        responses={200: {"content": answers}},
        openapi_extra={"requestBody": {"required": True, "content": content}},
    )
    schemas.update({f"{prefix}.{name}": item for name, item in definitions.items()})


def _add_interfaces(app: FastAPI, service: Service) -> None:
    schemas: dict[str, Any] = {}
    for path, endpoint, body, streams in (
        ("/v1/chat/completions", chat.create, chat.ChatRequest, _EVENTS),
        ("/v1/completions", completions.create, completions.CompletionRequest, _EVENTS),
        ("/v1/responses", responses.create, responses.ResponseRequest, _EVENTS),
        ("/v1/embeddings", embeddings.create, embeddings.EmbeddingRequest, None),
        ("/abort_request", abort.abort, abort.AbortRequest, None),
        ("/tokenize", text.tokenize, text.TokenizeRequest, None),
        ("/detokenize", text.detokenize, text.DetokenizeRequest, None),
        ("/v1/messages", anthropic.create, anthropic.MessageRequest, _EVENTS),
        ("/v1/messages/count_tokens", anthropic.count_tokens, anthropic.CountRequest, None),
        ("/api/generate", ollama.generate, ollama.GenerateRequest, _LINES),
        ("/api/chat", ollama.chat, ollama.ChatRequest, _LINES),
        ("/api/embed", embeddings.create_for_ollama, ollama.EmbedRequest, None),
        ("/api/embeddings", embeddings.create_one_for_ollama, ollama.EmbeddingsRequest, None),
        ("/api/show", ollama.show, ollama.ShowRequest, None),
    ):
        _add_post(app, service, schemas, path, endpoint, body, streams)
    _document(app, schemas)

    @app.get("/v1/models")
    async def models() -> Response:
        return json_response(text.list_models(service))

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        service.check_model(name)
        return json_response(text.describe_model(service))


def _document(app: FastAPI, schemas: dict[str, Any]) -> None:
    """Adds the bodies' schemas, and the errors that any route may answer, to the document."""
    make_document = app.openapi

    def openapi() -> dict[str, Any]:
        document = make_document()
        components = document.setdefault("components", {}).setdefault("schemas", {})
        components.update(schemas)
        for item in document["paths"].values():
            for operation in item.values():
                errors = {
                    "description": "An error, in the form of the route's interface.",
                    "content": {"application/json": {}},
                }
                operation["responses"].update({"4XX": errors, "5XX": errors})
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _add_ollama(app: FastAPI, service: Service) -> None:
    @app.get("/api/tags")
    async def tags() -> Response:
        return json_response(ollama.tags(service))

    @app.get("/api/ps")
    async def running() -> Response:
        return json_response(ollama.running(service))

    @app.get("/api/version")
    async def version() -> Response:
        return json_response(ollama.version())


def _add_operations(app: FastAPI, service: Service, metrics: Metrics) -> None:
    @app.get("/health")
    @app.get("/ping")  # SageMaker's name for it
    async def health() -> Response:
        if service.device_lost:
            raise ApiError(503, "the device is lost", "device_lost")
        return json_response({"status": "ok"})

    @app.get("/version")
    async def version() -> Response:
        return json_response({"version": __version__})

    @app.get("/ready")
    async def ready() -> Response:
        if service.draining or service.device_lost:
            raise ApiError(503, "not ready", "draining")
        return json_response({"status": "ready"})

    @app.get("/load")
    async def load() -> Response:
        stats = service.runtime.engine.stats().items()
        # Distributions, which /metrics has, are no numbers, and their edges no JSON.
        counters = {name: value for name, value in stats if isinstance(value, (int, float))}
        return json_response({"server_load": service.active, **counters})

    @app.get("/metrics", response_class=PlainTextResponse)
    async def prometheus() -> Response:
        return PlainTextResponse(
            await service.beside(metrics.exposition),
            media_type="text/plain; version=0.0.4; charset=utf-8",
        )
