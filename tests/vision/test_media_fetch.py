# SPDX-License-Identifier: Apache-2.0
"""Fetching from URLs that strangers choose, against a real HTTP server on this machine."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pictures import encoded, rgb

from manymind.errors import MediaAccessError, MediaError, MediaFetchError, MediaTooLargeError
from manymind.media import MediaLimits, load_image
from manymind.media_fetch import UrlFetcher, is_public, parse_url

PICTURE = encoded(rgb(16, 24), "PNG")


class Handler(BaseHTTPRequestHandler):
    # Path and Host, and names of headers, of each request; set by the fixture.
    seen: list[tuple[str, str]]
    headers_seen: list[list[str]]

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["Host"]))
        self.headers_seen.append([name.lower() for name in self.headers])
        actions = {
            "/picture": lambda: self.reply(200, PICTURE),
            "/missing": lambda: self.reply(404, b""),
            "/to-picture": lambda: self.redirect("/picture"),
            "/to-private": lambda: self.redirect("http://inside.test/picture"),
            "/to-file": lambda: self.redirect("file:///etc/passwd"),
            "/loop": lambda: self.redirect("/loop"),
            "/chunked": self.chunked,
            "/slow": self.slow,
            "/slow-head": self.slow_head,
            "/short": lambda: self.reply(200, PICTURE, announced=len(PICTURE) + 10),
        }
        actions[self.path.split("?")[0]]()

    def reply(self, status: int, body: bytes, announced: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        self.end_headers()
        self.wfile.write(body)

    def redirect(self, location: str) -> None:
        self.send_response(302)
        self.send_header("Location", location)
        self.end_headers()

    def chunked(self) -> None:
        """A body without announced length."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(PICTURE)

    def slow(self) -> None:
        """A byte now and then: no single wait is long."""
        self.send_response(200)
        self.end_headers()
        self.drip()

    def slow_head(self) -> None:
        """The same before the body."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        self.drip()

    def drip(self) -> None:
        for _ in range(1000):
            try:
                self.wfile.write(b"x")
            except OSError:
                return
            time.sleep(0.02)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    Handler.seen = []
    Handler.headers_seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def url(server: ThreadingHTTPServer, path: str) -> str:
    return f"http://127.0.0.1:{server.server_port}{path}"


def local(**fields: object) -> UrlFetcher:
    settings: dict[str, object] = {"max_bytes": 1 << 20, "timeout": 5.0, "allow_private": True}
    return UrlFetcher(**{**settings, **fields})  # type: ignore[arg-type]


def test_fetching_a_picture(server: ThreadingHTTPServer) -> None:
    for path in ("/picture", "/to-picture", "/chunked", "/picture?size=1"):
        assert local().fetch(url(server, path)) == PICTURE
    limits = MediaLimits(allow_private_addresses=True)
    assert load_image(url(server, "/picture"), limits).size == (24, 16)


def test_private_addresses_are_refused(server: ThreadingHTTPServer) -> None:
    for host in ("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433", "0x7f.1"):
        with pytest.raises(MediaError) as caught:
            load_image(f"http://{host}:{server.server_port}/picture")
        assert isinstance(caught.value, (MediaAccessError, MediaFetchError))
    assert Handler.seen == []
    with pytest.raises(MediaAccessError, match="not allowed"):
        load_image(url(server, "/picture"), MediaLimits(allow_urls=False))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "127.255.255.254",
        "2130706433",
        "017700000001",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "0",
        "[::1]",
        "[::]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "localhost",
        "LOCALHOST.",
        "\uff11\uff12\uff17.0.0.1",
        "127\u30020\u30020\u30021",
        "\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3",
    ],
)
def test_every_spelling_of_loopback_is_refused(server: ThreadingHTTPServer, host: str) -> None:
    """Numbers of any base, short forms, addresses within addresses, wide characters."""
    fetcher = UrlFetcher(1 << 20, 5.0)
    with pytest.raises((MediaAccessError, MediaFetchError)):
        fetcher.fetch(f"http://{host}:{server.server_port}/picture")
    assert Handler.seen == []


def test_a_fetch_carries_nothing_of_the_client(server: ThreadingHTTPServer) -> None:
    local().fetch(url(server, "/to-picture"))
    sent = {"host", "user-agent", "accept", "accept-encoding", "connection"}
    assert [set(names) for names in Handler.headers_seen] == [sent, sent]


class Names:
    """A resolver whose answers a test writes, and connections that all end at the server."""

    def __init__(self, server: ThreadingHTTPServer, answers: dict[str, list[list[str]]]) -> None:
        self._port = server.server_port
        self._answers = answers
        self.connected: list[str] = []

    def resolve(self, host: str, port: int) -> list[str]:
        return self._answers[host].pop(0)

    def connect(self, address: str, port: int, timeout: float) -> socket.socket:
        self.connected.append(address)
        return socket.create_connection(("127.0.0.1", self._port), timeout)

    def fetcher(self) -> UrlFetcher:
        return UrlFetcher(1 << 20, 5.0, resolve=self.resolve, connect=self.connect)


def test_a_name_is_resolved_once_and_its_address_used(server: ThreadingHTTPServer) -> None:
    """DNS rebinding: a second answer would be private, but nobody asks again."""
    names = Names(server, {"picture.test": [["93.184.216.34"], ["127.0.0.1"]]})
    assert names.fetcher().fetch("http://picture.test/picture") == PICTURE
    assert names.connected == ["93.184.216.34"]
    assert Handler.seen == [("/picture", "picture.test")]


def test_one_private_address_among_public_ones_is_enough(server: ThreadingHTTPServer) -> None:
    names = Names(server, {"mixed.test": [["93.184.216.34", "10.0.0.1"]]})
    with pytest.raises(MediaAccessError, match=r"10\.0\.0\.1"):
        names.fetcher().fetch("http://mixed.test/picture")
    assert names.connected == []


def test_redirects_are_checked_again(server: ThreadingHTTPServer) -> None:
    public, private = ["93.184.216.34"], ["169.254.169.254"]
    names = Names(server, {"picture.test": [public, public], "inside.test": [private]})
    with pytest.raises(MediaAccessError, match=r"169\.254\.169\.254"):
        names.fetcher().fetch("http://picture.test/to-private")
    assert len(Handler.seen) == 1
    with pytest.raises(MediaAccessError, match="http"):
        names.fetcher().fetch("http://picture.test/to-file")


def test_a_loop_of_redirects_ends(server: ThreadingHTTPServer) -> None:
    with pytest.raises(MediaFetchError, match="redirects"):
        local().fetch(url(server, "/loop"))
    assert len(Handler.seen) == 6


def test_sizes_and_times_are_bounded(server: ThreadingHTTPServer) -> None:
    for path in ("/picture", "/chunked"):
        with pytest.raises(MediaTooLargeError, match="bytes"):
            local(max_bytes=100).fetch(url(server, path))
    begun = time.monotonic()
    for path in ("/slow", "/slow-head"):
        with pytest.raises(MediaFetchError, match="time"):
            local(timeout=0.2).fetch(url(server, path))
    assert time.monotonic() - begun < 5  # what the server sends takes 20 s


def test_bytes_are_accounted_for_as_they_come(server: ThreadingHTTPServer) -> None:
    """So that what all pictures together may take is known before it is taken."""
    counts: list[int] = []
    assert local().fetch(url(server, "/picture"), account=counts.append) == PICTURE
    assert sum(counts) == len(PICTURE)

    def refuse(count: int) -> None:
        raise MediaTooLargeError(f"{count} are too many")

    with pytest.raises(MediaTooLargeError, match="1 are too many"):
        local().fetch(url(server, "/slow"), account=refuse)


@pytest.mark.parametrize("path", ["/missing", "/short"])
def test_failures_are_typed(server: ThreadingHTTPServer, path: str) -> None:
    with pytest.raises(MediaFetchError):
        local().fetch(url(server, path))


def test_nobody_answers() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(MediaFetchError, match="failed"):
        local().fetch(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fd00::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b:1::a00:1",
        "198.18.0.1",
        "192.0.0.8",
        "2001:db8::1",
        "fec0::1",
        "100::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111", "::ffff:93.184.216.34"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "text",
    [
        "ftp://host/picture",
        "gopher://host/",
        "http://",
        "http:///picture",
        "http://user:secret@host/",
        "http://host\\@inside/",
        "http://host /",
        "http://host/\r\nX: y",
        "http://host:99999/",
        "http://[::1/",
        "http://host/" + "a" * 9000,
    ],
)
def test_urls_that_could_be_read_differently_are_refused(text: str) -> None:
    with pytest.raises(MediaAccessError):
        parse_url(text)
