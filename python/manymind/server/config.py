# SPDX-License-Identifier: Apache-2.0
"""Settings of the server. A wrong value raises InvalidParameterError that names the field."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from manymind.errors import InvalidParameterError
from manymind.parsers import output_format
from manymind.server.keys import ApiKey
from manymind.validation import require, require_int, require_number, require_strings

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Limits:
    """What one client may ask for. Each is checked before memory is taken for it.

    Attributes:
        max_connections: open connections; further ones are answered 503.
        max_header_bytes: request line and headers together.
        max_headers: their number.
        max_body_bytes: of one request.
        max_buffered_bytes: bodies of all requests together.
        max_concurrent_requests: requests being answered or waiting for the engine; beyond it, 429.
        max_prompts: prompts of one completions or embeddings request.
        max_choices: n, times prompts.
        header_timeout: seconds in which a connection must have sent its headers.
        body_timeout: seconds in which a body must have arrived.
        write_timeout: seconds after which a client that does not read is cut off.
    """

    max_connections: int = 4096
    max_header_bytes: int = 32 << 10
    max_headers: int = 100
    max_body_bytes: int = 16 << 20
    max_buffered_bytes: int = 256 << 20
    max_concurrent_requests: int = 1024
    max_prompts: int = 256
    max_choices: int = 256
    header_timeout: float = 15.0
    body_timeout: float = 60.0
    write_timeout: float = 60.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("_timeout"):
                require_number(name, value, 1e-3, 86400.0)
            else:
                require_int(name, value, 1, 1 << 40)


@dataclass(frozen=True)
class ServerConfig:
    """How the server listens and whom it lets in.

    Attributes:
        served_name: the model's name for clients.
        host, port: where to listen; port 0 takes a free one.
        keys: API keys; without any, every client is let in.
        allowed_hosts: values of the Host header to answer; "*" allows all. Empty: loopback names
            when listening on loopback, else all. Foreign names there mean DNS rebinding.
        allowed_origins: web pages of other origins that may call the server.
        tls_certificate, tls_key: PEM files.
        drain_seconds: after SIGTERM, how long running requests may take to end.
        request_timeout: seconds after which a request fails; 0 = never.
        workers: threads that render templates and tokenise.
        limits: see Limits.
        otlp_endpoint: where traces are sent (OTLP over HTTP); None: nowhere.
        tool_call_parser, reasoning_parser: names of formats in which the model writes tool calls
            and reasoning; "auto": what its chat template shows; None: not looked for.
    """

    served_name: str
    host: str = "127.0.0.1"
    port: int = 8000
    keys: Sequence[ApiKey] = ()
    allowed_hosts: Sequence[str] = ()
    allowed_origins: Sequence[str] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    drain_seconds: float = 30.0
    request_timeout: float = 0.0
    workers: int = 2
    limits: Limits = field(default_factory=Limits)
    otlp_endpoint: str | None = None
    tool_call_parser: str | None = "auto"
    reasoning_parser: str | None = "auto"

    def __post_init__(self) -> None:
        require(bool(self.served_name), "served_name", "a name", self.served_name)
        require(isinstance(self.host, str) and bool(self.host), "host", "an address", self.host)
        require_int("port", self.port, 0, 65535)
        require_strings("allowed_hosts", self.allowed_hosts)
        require_strings("allowed_origins", self.allowed_origins)
        require_number("drain_seconds", self.drain_seconds, 0.0, 86400.0)
        require_number("request_timeout", self.request_timeout, 0.0, 86400.0)
        require_int("workers", self.workers, 1, 256)
        endpoint = self.otlp_endpoint
        fits = endpoint is None or endpoint.startswith(("http://", "https://"))
        require(fits, "otlp_endpoint", "an http(s) URL", endpoint)
        both = (self.tls_certificate is None) == (self.tls_key is None)
        require(both, "tls_key", "certificate and key together", self.tls_key)
        # Names of formats that do not exist, before a model is loaded.
        output_format(None, self.tool_call_parser, self.reasoning_parser)
        self._check_tls()

    def _check_tls(self) -> None:
        if self.tls_certificate is None:
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.tls_certificate, self.tls_key)
        except (OSError, ssl.SSLError) as error:
            expected = "tls_certificate, tls_key: expected PEM files that belong together"
            raise InvalidParameterError(f"{expected}, found {error}") from error

    @property
    def hosts(self) -> frozenset[str] | None:
        """Host names to answer; None = all."""
        if "*" in self.allowed_hosts:
            return None
        if self.allowed_hosts:
            return frozenset(name.lower() for name in self.allowed_hosts)
        if self.host in _LOOPBACK or self.host.startswith("127."):
            return frozenset((*_LOOPBACK, self.host))
        return None
