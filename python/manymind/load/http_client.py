# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 with as little work per token as Python can do: the load must not become the limit.

Client libraries spend more time per event than a small model needs for a token.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from manymind.errors import InvalidParameterError, ManymindError

_BUFFER_BYTES = 1 << 20


class LoadError(ManymindError):
    """The server's answer cannot be understood, or none came."""


@dataclass
class Reply:
    """An answer whose head has come. ``complete``: its body has been read to the end."""

    status: int
    headers: dict[str, str]
    _reader: asyncio.StreamReader
    complete: bool = False

    async def lines(self) -> AsyncIterator[bytes]:
        """The body's lines, each as soon as it is complete."""
        rest = b""
        async for data in self.pieces():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line
        if rest:
            yield rest

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int((await self._reader.readline()).partition(b";")[0], 16):
                yield await self._reader.readexactly(size)
                await self._reader.readexactly(2)
            while (await self._reader.readline()).strip():
                """Trailers."""
        elif "content-length" in self.headers:
            yield await self._reader.readexactly(int(self.headers["content-length"]))
        else:
            while data := await self._reader.read(65536):
                yield data
        self.complete = True

    async def body(self) -> bytes:
        """All of it."""
        return b"".join([piece async for piece in self.pieces()])


class HttpClient:
    """Connections to one server, kept open between requests."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidParameterError(
                f"url: expected http(s)://HOST[:PORT][/PATH], found {url!r}"
            )
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname
        self._port = parts.port or (443 if self._tls else 80)
        self._path = parts.path.rstrip("/")
        fixed = [f"Host: {parts.netloc.rpartition('@')[2]}", "User-Agent: manymind-bench"]
        if api_key:
            fixed.append(f"Authorization: Bearer {api_key}")
        self._fixed = "\r\n".join(fixed)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        return self._host, self._port

    @asynccontextmanager
    async def request(self, method: str, path: str, body: bytes = b"") -> AsyncIterator[Reply]:
        """Sends a request; leaving the context before the body is read drops the connection."""
        reader, writer = await self._connection()
        whole = False
        try:
            head = f"{method} {self._path}{path} HTTP/1.1\r\n{self._fixed}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
            reply = await _read_head(reader)
            yield reply
            closing = reply.headers.get("connection", "").lower() == "close"
            whole = reply.complete and not closing and not reader.at_eof()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise LoadError(f"{path}: the answer broke off: {error}") from error
        finally:
            if whole:
                self._idle.append((reader, writer))
            else:
                writer.close()

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(
            self._host, self._port, ssl=self._tls, limit=_BUFFER_BYTES
        )

    def close(self) -> None:
        """Closes what is idle."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()


async def _read_head(reader: asyncio.StreamReader) -> Reply:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    version, _, rest = head[0].partition(" ")
    status = int(rest.partition(" ")[0]) if version.startswith("HTTP/") else 0
    if not 100 <= status <= 999:
        raise ValueError(f"expected HTTP/1.1 and a status, found {head[0][:100]!r}")
    pairs = (line.partition(":") for line in head[1:] if line)
    return Reply(status, {name.lower(): value.strip() for name, _, value in pairs}, reader)
