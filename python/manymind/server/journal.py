# SPDX-License-Identifier: Apache-2.0
"""One JSON line per request on standard error, written by a thread of its own."""

from __future__ import annotations

import json
import logging
import logging.handlers
import queue
import time
from typing import Any

from manymind.server.record import RequestRecord

LOGGER_NAME = "manymind.server"
_QUEUE_SIZE = 10_000
_POLLED = frozenset({"/health", "/ping", "/ready", "/metrics", "/load"})


class Journal:
    """Words records; what nobody reads fast enough is dropped rather than waited for."""

    def __init__(self) -> None:
        self._logger = logging.getLogger(LOGGER_NAME)

    def write(self, record: RequestRecord) -> None:
        """Health checks are of interest only when they fail."""
        quiet = record.path in _POLLED and record.status < 400
        level = logging.DEBUG if quiet else logging.INFO
        if record.status >= 500:
            level = logging.ERROR
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "request", extra={"fields": record_fields(record)})


def log_unexpected(record: RequestRecord, error: Exception) -> None:
    """What clients are not told about an error that nobody foresaw."""
    fields = {"request_id": record.request_id, "path": record.path[:200]}
    logger = logging.getLogger(LOGGER_NAME)
    logger.error("unexpected error", exc_info=error, extra={"fields": fields})


def record_fields(record: RequestRecord) -> dict[str, Any]:
    """What a log line says of a request: never its content, never its key."""
    fields: dict[str, Any] = {
        "request_id": record.request_id,
        "method": record.method,
        "path": record.path[:200],
        "status": record.status,
        "seconds": round(record.seconds, 6),
        "client": record.client,
        "body_bytes": record.body_bytes,
    }
    if record.key is not None:
        fields["key"] = record.key.name
    if record.user is not None:
        fields["user"] = record.user
    if record.trace_id is not None:
        fields["trace_id"] = record.trace_id
    if record.gone:
        fields["client_gone"] = True
    if record.error is not None:
        fields["error"] = record.error[:500]
    if record.times:
        fields |= {
            "prompt_tokens": record.prompt_tokens,
            "cached_tokens": record.cached_tokens,
            "generated_tokens": record.generated_tokens,
            "preemptions": record.preemptions,
            "finish_reasons": record.reasons,
        }
    if record.time_to_first_token is not None:
        fields["ttft_seconds"] = round(record.time_to_first_token, 6)
    if (bounded_by := record.bounded_by()) is not None:
        fields["phases"] = {name: round(value, 6) for name, value in record.phases().items()}
        fields["bounded_by"] = bounded_by
    return fields


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


class _BoundedQueueHandler(logging.handlers.QueueHandler):
    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        """A full queue drops the line."""


def start_logging(level: str) -> logging.handlers.QueueListener:
    """Sends this package's and uvicorn's logs to standard error as JSON lines; call ``stop`` on the
    result at the end.
    """
    lines: queue.Queue[Any] = queue.Queue(_QUEUE_SIZE)
    output = logging.StreamHandler()
    output.setFormatter(_JsonFormatter())
    listener = logging.handlers.QueueListener(lines, output)
    for name in (LOGGER_NAME, "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [_BoundedQueueHandler(lines)]
        logger.setLevel(level.upper())
        logger.propagate = False
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    listener.start()
    return listener
