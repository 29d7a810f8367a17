# SPDX-License-Identifier: Apache-2.0
"""Fetches media from http(s) URLs that strangers choose, without letting them reach inside.

A URL is parsed once. Its host is resolved once per hop, every address it has must be public, and
the connection goes to the address that was checked, so a name that changes its mind between check
and use (DNS rebinding) gains nothing. Redirects are followed by hand and checked like the first
URL. Proxies of the environment are not used: they would resolve again.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from manymind.errors import MediaAccessError, MediaError, MediaFetchError, MediaTooLargeError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
Connect = Callable[[str, int, float], socket.socket]
Account = Callable[[int], None]

MAX_REDIRECTS = 5
MAX_URL_CHARACTERS = 8192
_CHUNK = 1 << 16
_REDIRECTS = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Parts of IANA's registries of special-purpose addresses (RFC 6890) that the standard library takes
# for public, in some or all of its versions.
_SPECIAL = [
    ipaddress.ip_network(block)
    for block in (
        "192.0.0.0/24",
        "192.88.99.0/24",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
    )
]


def resolve_host(host: str, port: int) -> list[str]:
    """All addresses of ``host``."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise MediaFetchError(f"media URL: cannot resolve {host!r}: {error}") from error
    return [str(entry[4][0]) for entry in found]


def connect(address: str, port: int, timeout: float) -> socket.socket:
    """A TCP connection to a numeric address."""
    return socket.create_connection((address, port), timeout)


@dataclass(frozen=True)
class UrlFetcher:
    """Attributes:
    max_bytes: of a body.
    timeout: seconds for a whole fetch, redirects included.
    allow_private: also fetch from addresses that are not public.
    resolve, connect: how names and addresses are reached.
    """

    max_bytes: int
    timeout: float
    allow_private: bool = False
    resolve: Resolve = resolve_host
    connect: Connect = connect

    def fetch(
        self, url: str, deadline: float | None = None, account: Account | None = None
    ) -> bytes:
        """The body behind ``url``.

        deadline: of ``time.monotonic()``, instead of the timeout's; account: is told of the bytes
        as they come, and may end the fetch by raising.
        Raises MediaAccessError for a scheme or address that is refused, MediaTooLargeError,
        MediaFetchError for everything that goes wrong on the way.
        """
        if deadline is None:
            deadline = time.monotonic() + self.timeout
        for _ in range(MAX_REDIRECTS + 1):
            target = parse_url(url)
            body, location = self._get(target, deadline, account)
            if location is None:
                return body
            url = urljoin(url, location)
        raise MediaFetchError(f"media URL: expected at most {MAX_REDIRECTS} redirects, found more")

    def _get(
        self, target: SplitResult, deadline: float, account: Account | None
    ) -> tuple[bytes, str | None]:
        host, port = str(target.hostname), target.port or _PORTS[target.scheme]
        address = self._checked_address(host, port)
        try:
            with self.connect(address, port, _time_left(deadline)) as plain:
                stream = _with_tls(plain, host) if target.scheme == "https" else plain
                with stream:
                    return self._exchange(stream, target, deadline, account)
        except MediaError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise MediaFetchError(f"media URL: fetching from {host!r} failed: {error}") from error

    def _checked_address(self, host: str, port: int) -> str:
        addresses = self.resolve(host, port)
        if not addresses:
            raise MediaFetchError(f"media URL: {host!r} has no address")
        for address in addresses:
            if not (self.allow_private or is_public(address)):
                raise MediaAccessError(
                    f"media URL: expected a public address, {host!r} resolves to {address}"
                )
        return addresses[0]

    def _exchange(
        self, stream: socket.socket, target: SplitResult, deadline: float, account: Account | None
    ) -> tuple[bytes, str | None]:
        stream.settimeout(_time_left(deadline))
        stream.sendall(_request(target))
        # It asks for nothing of the socket but a file to read from.
        timed: Any = _TimedStream(stream, deadline)
        response = http.client.HTTPResponse(timed, method="GET")
        try:
            response.begin()
            if response.status in _REDIRECTS:
                location = response.getheader("Location")
                if not location:
                    raise MediaFetchError("media URL: a redirect without target")
                return b"", location
            if response.status != 200:
                raise MediaFetchError(f"media URL: expected status 200, found {response.status}")
            return self._read_body(response, account), None
        finally:
            response.close()

    def _read_body(self, response: http.client.HTTPResponse, account: Account | None) -> bytes:
        announced = response.length
        if announced is not None and announced > self.max_bytes:
            raise self._too_large(announced)
        chunks: list[bytes] = []
        total = 0
        while chunk := response.read1(_CHUNK):
            total += len(chunk)
            if total > self.max_bytes:
                raise self._too_large(f"at least {total}")
            if account is not None:
                account(len(chunk))
            chunks.append(chunk)
        if announced is not None and total != announced:
            raise MediaFetchError(f"media URL: expected {announced} bytes, found {total}")
        return b"".join(chunks)

    def _too_large(self, found: object) -> MediaTooLargeError:
        return MediaTooLargeError(
            f"media URL: expected at most {self.max_bytes} bytes, found {found}"
        )


class _TimedStream(io.RawIOBase):
    """What a connection receives until the deadline. A time limit of the socket's own holds for
    every read by itself, and a head can be made of thousands.
    """

    def __init__(self, stream: socket.socket, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def makefile(self, _: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._stream.settimeout(_time_left(self._deadline))
        return self._stream.recv_into(buffer)


def parse_url(url: str) -> SplitResult:
    """``url`` in parts. Raises MediaAccessError for anything but a plain http(s) URL: what two
    parsers could read differently is refused."""
    odd = any(ord(character) <= 0x20 or character in '\\"<>^`{|}' for character in url)
    if odd or len(url) > MAX_URL_CHARACTERS:
        raise MediaAccessError("media URL: expected one without spaces or control characters")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in _PORTS and parts.hostname and parts.port != 0
    except ValueError as error:
        raise MediaAccessError(f"media URL: {error}") from error
    if not valid or parts.username is not None or parts.password is not None:
        raise MediaAccessError("media URL: expected http(s)://host/path without user or password")
    return parts


def is_public(address: str) -> bool:
    """Whether a numeric address is one of the open internet, also after unwrapping IPv4 addresses
    carried in IPv6 ones."""
    parsed: Address = ipaddress.ip_address(address.split("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        carried = parsed.ipv4_mapped or parsed.sixtofour
        if parsed.teredo is not None or parsed.is_site_local:
            return False
        if parsed in _NAT64:
            carried = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if carried is not None:
            return is_public(str(carried))
    if any(parsed in block for block in _SPECIAL if block.version == parsed.version):
        return False
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved


def _request(target: SplitResult) -> bytes:
    path = target._replace(scheme="", netloc="", fragment="").geturl() or "/"
    host = str(target.hostname).encode("idna").decode()
    host = f"[{host}]" if ":" in host else host
    port = f":{target.port}" if target.port else ""
    lines = (
        f"GET {path if path.startswith('/') else '/' + path} HTTP/1.1",
        f"Host: {host}{port}",
        "User-Agent: manymind",
        "Accept: image/*, video/*",
        "Accept-Encoding: identity",
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")


def _with_tls(stream: socket.socket, host: str) -> socket.socket:
    return ssl.create_default_context().wrap_socket(stream, server_hostname=host)


def _time_left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise MediaFetchError("media URL: the fetch took longer than its time limit")
    return left
