# SPDX-License-Identifier: Apache-2.0
"""OpenTelemetry traces: a span per request with a child per phase, made when the request is over.

Attribute names are OpenTelemetry's for HTTP and generative AI; our own begin with ``manymind.``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from manymind.errors import ManymindError
from manymind.server.record import RequestRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

QUIET_PATHS = frozenset({"/health", "/ping", "/ready", "/metrics", "/load"})
_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
    "/api/chat": "chat",
    "/v1/completions": "text_completion",
    "/api/generate": "text_completion",
    "/v1/embeddings": "embeddings",
    "/api/embed": "embeddings",
    "/api/embeddings": "embeddings",
}


class Tracing:
    """Turns records into spans.

    Args:
        provider: where spans go. Its exporter must not block: it is called on the event loop.
        model: the served model's name.
    """

    def __init__(self, provider: TracerProvider, model: str) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("manymind.server")
        self._propagator = TraceContextTextMapPropagator()
        self._model = model

    def export(self, record: RequestRecord, route: str) -> None:
        """One trace of a finished request, below the client's span if it named one; notes its id in
        the record. Probes are left out while they succeed.
        """
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        if record.path in QUIET_PATHS and record.status < 400:
            return
        clock = _Clock(record)
        span = self._tracer.start_span(
            f"{record.method} {route}",
            context=self._propagator.extract(record.trace_headers),
            kind=SpanKind.SERVER,
            start_time=clock.unix(record.received),
            attributes=self._attributes(record, route),
        )
        record.trace_id = f"{span.get_span_context().trace_id:032x}"
        if record.status >= 500:
            span.set_status(Status(StatusCode.ERROR, record.error))
        inside = set_span_in_context(span)
        for name, start, end in record.intervals():
            phase = self._tracer.start_span(name, inside, start_time=clock.unix(start))
            phase.end(clock.unix(end))
        self._add_first_token(span, record, clock)
        span.end(clock.unix(record.finished))

    def _add_first_token(self, span: Span, record: RequestRecord, clock: _Clock) -> None:
        if record.first_piece:
            span.add_event("first token", timestamp=clock.unix(record.first_piece))

    def _attributes(self, record: RequestRecord, route: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            "http.request.method": record.method,
            "http.route": route,
            "http.response.status_code": record.status,
            "http.request.body.size": record.body_bytes,
            "manymind.request_id": record.request_id,
        }
        if record.key is not None:
            found["manymind.key"] = record.key.name
        if record.gone:
            found["manymind.client_gone"] = True
        if record.error is not None:
            found["error.type"] = record.error.partition(":")[0]
        if record.times:
            found |= self._generation(record, route)
        if record.time_to_first_token is not None:
            found["manymind.time_to_first_token"] = record.time_to_first_token
        if (bounded_by := record.bounded_by()) is not None:
            found["manymind.bounded_by"] = bounded_by
            found |= {f"manymind.seconds.{name}": t for name, t in record.phases().items()}
        return found

    def _generation(self, record: RequestRecord, route: str) -> dict[str, Any]:
        return {
            "gen_ai.operation.name": _OPERATIONS.get(route, "generate_content"),
            "gen_ai.request.model": self._model,
            "gen_ai.request.max_tokens": record.max_tokens,
            "gen_ai.request.choice.count": record.choices,
            "gen_ai.response.finish_reasons": list(record.reasons),
            "gen_ai.usage.input_tokens": record.prompt_tokens,
            "gen_ai.usage.output_tokens": record.generated_tokens,
            "manymind.cached_tokens": record.cached_tokens,
        }

    def close(self) -> None:
        """Sends what is still held."""
        self._provider.shutdown()


class _Clock:
    """From the monotonic clock to OpenTelemetry's: nanoseconds since 1970."""

    def __init__(self, record: RequestRecord) -> None:
        self._offset = record.unix_nanoseconds - round(1e9 * record.received)

    def unix(self, seconds: float) -> int:
        return self._offset + round(1e9 * seconds)


def otlp_tracing(endpoint: str, model: str) -> Tracing:
    """Traces sent in batches, by a thread of their own, to an OTLP collector at ``endpoint``, such
    as ``http://127.0.0.1:4318/v1/traces``. OpenTelemetry's environment variables add to it.

    Raises ManymindError unless the extra ``otel`` is installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ManymindError(
            f"otlp_endpoint needs OpenTelemetry ({error}): pip install 'manymind[otel]'"
        ) from error
    resource = Resource.create({"service.name": "manymind", "service.instance.id": _instance()})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return Tracing(provider, model)


def _instance() -> str:
    return f"{time.time_ns():x}"
