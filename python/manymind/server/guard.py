# SPDX-License-Identifier: Apache-2.0
"""The outermost application: everything passes it, and nothing inside sees a request that it
refused.

It decides by the path the router will see, and by default it denies: a route has to be named here
to be open.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from manymind.errors import ManymindError
from manymind.server.config import ServerConfig
from manymind.server.errors import ApiError, api_error, error_body
from manymind.server.journal import log_unexpected
from manymind.server.keys import KeyRing
from manymind.server.record import RequestRecord

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# An engine step, after which the engine takes notice of a cancellation, is shorter.
_SETTLE_SECONDS = 10.0
OPEN_PATHS = frozenset({"/health", "/ping", "/ready"})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9, -]{1,4096}")
_CORS_HEADERS = (
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-max-age", b"600"),
)
_EXPOSED_HEADERS = b"x-request-id, retry-after"
_USUAL_HEADERS = b"authorization, content-type, x-api-key, x-request-id"


class Guard:
    """Request ids, host and origin checks, API keys, body limits; one record per request.

    Args:
        app: what is guarded.
        report: gets the record of every request once its answer is sent.
    """

    def __init__(
        self, app: ASGIApp, config: ServerConfig, report: Callable[[RequestRecord], None]
    ) -> None:
        self._app = app
        self._hosts = config.hosts
        self._origins = frozenset(config.allowed_origins)
        self._keys = KeyRing(config.keys)
        self._limits = config.limits
        self._report = report
        self._buffered_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        exchange = _Exchange(scope, headers, receive, send)
        try:
            await self._answer(exchange, headers)
        finally:
            self._buffered_bytes -= exchange.reserved
            exchange.stop_watching()
            try:
                await exchange.settle()
            finally:
                exchange.record.finished = time.monotonic()
                self._report(exchange.record)

    async def _answer(self, exchange: _Exchange, headers: dict[bytes, bytes]) -> None:
        record, scope = exchange.record, exchange.scope
        try:
            origin = self._check_origin(scope, headers)
            if origin is not None:
                exchange.extra_headers += [(b"access-control-allow-origin", origin)]
                exchange.extra_headers += [(b"vary", b"origin")]
                exchange.extra_headers += [(b"access-control-expose-headers", _EXPOSED_HEADERS)]
                if scope["method"] == "OPTIONS":
                    allowed = (b"access-control-allow-headers", _allowed_headers(headers))
                    await exchange.respond(204, b"", [allowed, *_CORS_HEADERS])
                    return
            self._authenticate(record, headers)
            exchange.limit_body(headers, self._limits.max_body_bytes, self._reserve)
            if scope["method"] == "HEAD":
                # Answered as GET; the connection leaves the body out.
                scope = {**scope, "method": "GET"}
            await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not record.gone:
                raise
        except Exception as error:
            await exchange.fail(api_error(error, record.path), error)

    def _check_origin(self, scope: Scope, headers: dict[bytes, bytes]) -> bytes | None:
        """Refuses foreign Host names (DNS rebinding) and foreign web pages; returns the origin of
        an allowed page elsewhere.
        """
        if sum(name == b"host" for name, _ in scope["headers"]) > 1:
            raise ApiError(400, "host: expected one header, found several", "bad_headers")
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = urlsplit(f"//{host}").hostname or "" if _plausible(host) else ""
        if self._hosts is not None and name not in self._hosts and scope["path"] not in OPEN_PATHS:
            raise ApiError(403, f"the host {name!r} is not served here", "host_not_allowed")
        origin = headers.get(b"origin")
        if origin is None:
            return None
        text = origin.decode("latin-1")
        if text in self._origins or "*" in self._origins:
            return origin
        # Not the scheme: a proxy in front may speak TLS.
        if not text.lower().endswith(f"://{host}"):
            raise ApiError(403, f"pages of {text!r} may not call this", "origin_not_allowed")
        return None

    def _authenticate(self, record: RequestRecord, headers: dict[bytes, bytes]) -> None:
        if self._keys.open or record.path in OPEN_PATHS:
            return
        record.key = self._keys.find(headers)
        if record.key is None:
            challenge = {"www-authenticate": 'Basic realm="manymind", charset="UTF-8"'}
            raise ApiError(401, "expected a valid API key", "invalid_api_key", headers=challenge)

    def _reserve(self, count: int) -> None:
        if self._buffered_bytes + count > self._limits.max_buffered_bytes:
            raise ApiError(
                429, "too many request bodies at once", "busy", headers={"retry-after": "1"}
            )
        self._buffered_bytes += count


def _allowed_headers(headers: dict[bytes, bytes]) -> bytes:
    """What a page that may call may send along: clients' libraries add headers of their own, and
    none of them opens anything here.
    """
    wanted = headers.get(b"access-control-request-headers", b"")
    return wanted if _HEADER_NAMES.fullmatch(wanted) else _USUAL_HEADERS


def _plausible(host: str) -> bool:
    try:
        urlsplit(f"//{host}")
    except ValueError:
        return False
    return True


class _Exchange:
    """One request and its answer, with what the guard adds to both."""

    def __init__(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, send: Send
    ) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self.record = _new_record(scope, headers)
        # The application finds both in the request's state.
        scope["state"] = {"record": self.record, "watch": self.watch}
        self.extra_headers: list[tuple[bytes, bytes]] = [
            (b"x-request-id", self.record.request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        self.reserved = 0
        self._limit = 0
        self._reserve: Callable[[int], None] = lambda _: None
        self._started = False
        self._complete = False
        self._watcher: asyncio.Task[None] | None = None

    def limit_body(
        self, headers: dict[bytes, bytes], limit: int, reserve: Callable[[int], None]
    ) -> None:
        """Checks the announced length now and the real one as it comes."""
        self._limit, self._reserve = limit, reserve
        length = headers.get(b"content-length")
        if length is None:
            return
        announced = int(length) if length.isdigit() and len(length) < 19 else limit + 1
        self._take(announced)

    def _take(self, total: int) -> None:
        if total > self._limit:
            message = f"expected a body of at most {self._limit} bytes"
            raise ApiError(413, message, "body_too_large", headers={"connection": "close"})
        if total > self.reserved:
            self._reserve(total - self.reserved)
            self.reserved = total

    async def receive(self) -> Message:
        """The next message of the request."""
        message = await self._receive()
        if message["type"] == "http.request":
            self.record.body_bytes += len(message.get("body", b""))
            self._take(self.record.body_bytes)
        return message

    async def send(self, message: Message) -> None:
        """Passes on a message of the answer; counts the time the client makes us wait."""
        if message["type"] == "http.response.start":
            self._started = True
            self.record.status = message["status"]
            message["headers"] = [*message["headers"], *self.extra_headers]
        elif not message.get("more_body", False):
            self._complete = True
        start = time.monotonic()
        await self._send(message)
        self.record.network += time.monotonic() - start

    async def respond(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        """A whole answer."""
        length = (b"content-length", str(len(body)).encode())
        start: dict[str, Any] = {"status": status, "headers": [length, *headers]}
        await self.send({"type": "http.response.start", **start})
        await self.send({"type": "http.response.body", "body": body})

    async def fail(self, error: ApiError, cause: Exception) -> None:
        """Answers with an error, unless an answer has begun: then the connection is cut."""
        self.record.error = f"{type(cause).__name__}: {cause}"
        if error.status == 500 and not isinstance(cause, ManymindError):
            log_unexpected(self.record, cause)
        if self._complete:
            return
        if self._started:
            raise cause
        body = json.dumps(error_body(self.record.path, error)).encode()
        headers = [(b"content-type", b"application/json")]
        headers += [(name.encode(), value.encode()) for name, value in error.headers.items()]
        # What is left of a refused body is not worth reading.
        headers.append((b"connection", b"close"))
        await self.respond(error.status, body, headers)

    def watch(self) -> None:
        """From now on, a client that leaves cancels the task that works for it.

        To be called once the body is read: there must be one reader at a time.
        """
        task = asyncio.current_task()
        assert task is not None
        self._watcher = asyncio.get_running_loop().create_task(self._wait_for_departure(task))

    async def _wait_for_departure(self, task: asyncio.Task[Any]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.record.gone = True
        task.cancel()

    async def settle(self) -> None:
        """Waits, for a request that was given up, until the engine has said how far it had come."""
        record = self.record
        if record.settle is not None and (record.gone or record.aborted):
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(record.settle(), _SETTLE_SECONDS)

    def stop_watching(self) -> None:
        """The answer is complete."""
        if self._watcher is not None:
            self._watcher.cancel()


def _new_record(scope: Scope, headers: dict[bytes, bytes]) -> RequestRecord:
    given = headers.get(b"x-request-id", b"")
    request_id = given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(12)
    record = RequestRecord(request_id, scope["method"], scope["path"])
    for name in (b"traceparent", b"tracestate"):
        if name in headers:
            record.trace_headers[name.decode()] = headers[name].decode("latin-1")
    record.client = scope["client"][0] if scope.get("client") else None
    return record
