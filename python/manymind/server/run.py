# SPDX-License-Identifier: Apache-2.0
"""Starts the server, and ends it without breaking off answers."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from types import FrameType

import uvicorn

from manymind.embedding_runtime import EmbeddingRuntime
from manymind.errors import InvalidParameterError
from manymind.runtime import Runtime
from manymind.server.app import create_app
from manymind.server.certificates import RenewedCertificate
from manymind.server.config import ServerConfig
from manymind.server.journal import start_logging
from manymind.server.service import Service
from manymind.server.tracing import Tracing, otlp_tracing
from manymind.server.wire import bounded_protocol

_SECONDS_BETWEEN_LOOKS = 0.02
_TICKS_BETWEEN_LOOKS = 10  # at certificates; of 0.1 s
_LINGER_SECONDS = 0.5  # for the last bytes of the last answers


def serve(
    runtime: Runtime | EmbeddingRuntime, config: ServerConfig, log_level: str = "info"
) -> None:
    """Serves until SIGTERM or SIGINT; the caller closes the runtime."""
    listener = start_logging(log_level)
    tracing = None
    if config.otlp_endpoint is not None:
        tracing = otlp_tracing(config.otlp_endpoint, config.served_name)
    try:
        service = Service(runtime, config)
        DrainingServer(service, config, tracing).run()
    finally:
        if tracing is not None:
            tracing.close()
        listener.stop()


def require_free_address(config: ServerConfig) -> None:
    """Raises InvalidParameterError if nothing can listen there: to be known before a model is
    loaded.
    """
    try:
        places = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in places:
            with socket.socket(family, kind, protocol) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
    except OSError as error:
        place = f"{config.host}:{config.port}"
        raise InvalidParameterError(
            f"host, port: expected an address to listen on, found {place}: {error}"
        ) from error


class DrainingServer(uvicorn.Server):
    """On the first signal: refuse new requests, finish the running ones, then stop listening.

    Until then it answers, so that a load balancer learns from ``/ready`` rather than from refused
    connections. A second signal, or the end of the drain time, cancels what still runs.
    """

    def __init__(
        self, service: Service, config: ServerConfig, tracing: Tracing | None = None
    ) -> None:
        super().__init__(_uvicorn_config(service, config, tracing))
        self._service = service
        self._drain_seconds = config.drain_seconds
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._certificate: RenewedCertificate | None = None

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Listens, and says where on standard output."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)  # type: ignore[arg-type]
        config = self._service.config
        if self.config.ssl and config.tls_certificate and config.tls_key:
            self._certificate = RenewedCertificate(
                self.config.ssl, config.tls_certificate, config.tls_key
            )
        if self.started:
            print(f"manymind serves {self._service.config.served_name} at {self.url}", flush=True)

    async def on_tick(self, counter: int) -> bool:
        """Several times a second."""
        if self._certificate is not None and counter % _TICKS_BETWEEN_LOOKS == 0:
            self._certificate.look()
        return await super().on_tick(counter)

    @property
    def url(self) -> str:
        """Where it listens; the port is the real one if 0 was asked for."""
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        scheme = "https" if self.config.is_ssl else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal; runs between two byte codes of the main thread."""
        if self._service.draining or self._loop is None:
            self.should_exit = True
            self.force_exit = sig == signal.SIGINT
            return
        self._service.draining = True
        self._loop.call_soon_threadsafe(self._begin_draining)

    def _begin_draining(self) -> None:
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._drain_seconds
        while self._service.active and loop.time() < deadline:
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
        self.should_exit = True


def _uvicorn_config(
    service: Service, config: ServerConfig, tracing: Tracing | None
) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(service, config, tracing),
        host=config.host,
        port=config.port,
        http=bounded_protocol(config.limits),
        ws="none",
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        # Addresses that a client writes into headers are not believed.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, round(_LINGER_SECONDS)),
        ssl_certfile=config.tls_certificate,
        ssl_keyfile=config.tls_key,
    )
