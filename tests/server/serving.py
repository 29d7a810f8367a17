# SPDX-License-Identifier: Apache-2.0
"""Runs servers in threads of the test's process, on engines that are loaded already."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families
from support import wait_until

from manymind import Pipeline
from manymind.embedding_runtime import EmbeddingRuntime
from manymind.server.config import ServerConfig
from manymind.server.run import DrainingServer
from manymind.server.service import Service
from manymind.server.tracing import Tracing

QUESTION = [{"role": "user", "content": "What is the capital of Japan?"}]
# Reading the authorities' certificates, which plain HTTP does not need, costs more than a request.
_CLIENT: dict[str, Any] = {"timeout": 60, "verify": False}
STORY = [{"role": "user", "content": "Tell me a very long story about the sea."}]


@dataclass
class RunningServer:
    """A server and short ways to talk to it."""

    url: str
    service: Service
    drain: Callable[[], None]  # as the first SIGTERM does
    connections: Callable[[], int]  # that are open

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, **{**_CLIENT, **options})

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, **{**_CLIENT, **options})

    def metrics(self, **options: Any) -> dict[str, float]:
        """Name -> value, summed over labels."""
        values: dict[str, float] = {}
        for family in text_string_to_metric_families(self.get("/metrics", **options).text):
            for sample in family.samples:
                values[sample.name] = values.get(sample.name, 0.0) + sample.value
        return values

    def labelled(self, name: str, **labels: str) -> float:
        """The only sample of that name with these labels among its own."""
        families = text_string_to_metric_families(self.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        (found,) = [
            sample.value
            for sample in samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return found

    def raw(self, data: bytes, seconds: float = 20.0) -> bytes:
        """Everything the server sends in return to ``data``, until it closes."""
        with self.connect(seconds) as connection:
            connection.sendall(data)
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
        return received

    def connect(self, seconds: float = 20.0) -> socket.socket:
        address = urlsplit(self.url)
        return socket.create_connection((address.hostname, address.port), timeout=seconds)


class Held:
    """Stands for a method that does not return until it is let go."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self._called, self._free = threading.Event(), threading.Event()

    def __get__(self, instance: Any, _: type) -> Callable[..., Any]:
        return partial(self._call, instance)

    def _call(self, *args: Any, **options: Any) -> Any:
        self._called.set()
        assert self._free.wait(20)
        return self._method(*args, **options)

    @contextmanager
    def by(self, ask: Callable[[], Any]) -> Iterator[list[Any]]:
        """Within it, ``ask`` waits for the method; afterwards the list has what it returned."""
        returned: list[Any] = []
        thread = threading.Thread(target=lambda: returned.append(ask()))
        thread.start()
        try:
            assert self._called.wait(20)
            yield returned
        finally:
            self._free.set()
            thread.join()


@contextmanager
def running_server(
    source: Pipeline | EmbeddingRuntime, config: ServerConfig, tracing: Tracing | None = None
) -> Iterator[RunningServer]:
    """Serves an engine that is loaded until the context is left."""
    service = Service(source.runtime if isinstance(source, Pipeline) else source, config)
    server = DrainingServer(service, config, tracing)
    thread = threading.Thread(target=server.run, name="server")
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive())
        drain = partial(server.handle_exit, signal.SIGTERM, None)
        opened = server.server_state.connections
        yield RunningServer(server.url, service, drain, lambda: len(opened))
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive()


def events(text: str) -> list[Any]:
    """The data of server-sent events, parsed; "[DONE]" as it is."""
    data = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    return [item if item == "[DONE]" else json.loads(item) for item in data]
