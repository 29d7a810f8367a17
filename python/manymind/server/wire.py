# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 connections with bounds: on their number, on the size and the time of a request's head,
and on how long a client may leave an answer unread.

uvicorn's parser has none of these: a client could send headers, or nothing, for ever.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from manymind.server.config import Limits
from manymind.server.errors import ApiError, error_body


def bounded_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """The protocol class for ``uvicorn.Config(http=...)``."""
    return type("BoundedConnection", (BoundedConnection,), {"limits": limits})


class BoundedConnection(HttpToolsProtocol):
    """A client's connection. Made by the server; ``limits`` is set by ``bounded_protocol``."""

    limits: Limits

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._in_head = True
        self._head_bytes = 0
        self._num_heads = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections:
            self._refuse(503, "too many connections", "busy")
            return
        self._start_timer(self.limits.header_timeout, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.max_header_bytes:
                # Some of it may be body, or further requests, in the same packet; parse it to find
                # out.
                self._parse_in_pieces(data)
                return
        super().data_received(data)

    def _parse_in_pieces(self, data: bytes) -> None:
        room = self.limits.max_header_bytes - (self._head_bytes - len(data))
        before = self._num_heads
        super().data_received(data[:room])
        if self.transport.is_closing():
            return
        if self._in_head and self._num_heads == before:
            self._refuse(431, f"expected headers of at most {self.limits.max_header_bytes} bytes")
        elif self._in_head:
            self.data_received(data[room:])
        else:
            super().data_received(data[room:])

    def on_message_begin(self) -> None:
        self._start_timer(self.limits.header_timeout, self._head_is_late)
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) == self.limits.max_headers + 1:
            self._refuse(431, f"expected at most {self.limits.max_headers} headers")

    def on_headers_complete(self) -> None:
        if self.transport.is_closing():
            return
        self._in_head = False
        self._head_bytes = 0
        self._num_heads += 1
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        if not self.transport.is_closing():
            super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_timer(self.limits.write_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_timer()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What the parser cannot read is refused in words of JSON as well."""
        if not self.transport.is_closing():
            self._refuse(400, msg, "bad_request")

    def _head_is_late(self) -> None:
        self._refuse(408, f"expected headers within {self.limits.header_timeout:g} s")

    def _start_timer(self, seconds: float, callback: Any) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, callback)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: int, message: str, code: str = "bad_headers") -> None:
        body = json.dumps(error_body("", ApiError(status, message, code))).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
