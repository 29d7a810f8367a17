# SPDX-License-Identifier: Apache-2.0
"""Carries the engine's outputs to whoever waits for them: one wake-up per step and event loop."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from manymind.errors import EngineError
from manymind.media_input import salted

if TYPE_CHECKING:
    import asyncio

    from manymind import _turbomind

_POLL_MS = 200


@dataclass(frozen=True, eq=False)
class Subscription:
    """Where the outputs of some requests go.

    ``receive`` gets every output of one step at once: on ``loop`` if there is one, else on the
    dispatcher's thread. With ``prepare`` it gets what that made of them on the dispatcher's thread,
    so that an event loop is spared the work; ``prepare`` must not raise.
    """

    receive: Callable[[Any], None]
    loop: asyncio.AbstractEventLoop | None = None
    prepare: Callable[[list[_turbomind.Output]], Any] | None = None


Delivery: TypeAlias = "tuple[Subscription, Any]"


class OutputDispatcher:
    """A thread that polls the native engine and sorts its outputs by subscription."""

    def __init__(self, engine: _turbomind.Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()  # guards _subscriptions and the order submit -> register
        self._subscriptions: dict[int, Subscription] = {}
        self._open_answers: dict[int, int] = {}
        # Prompts with pictures, whose memory is charged until their requests end.
        self._prompts: dict[int, Sequence[int]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="manymind-outputs", daemon=True)
        self._thread.start()

    def submit(
        self, ids: Sequence[int], params: _turbomind.SamplingParams, subscription: Subscription
    ) -> int:
        """Submits a request whose outputs go to ``subscription``; returns the request id."""
        if self._stopping.is_set():
            raise EngineError("the pipeline is closed")
        with self._lock:
            media = getattr(ids, "media", None)
            own = media and salted(media, params.cache_salt)
            request_id = self._engine.submit(ids, params, own)
            if media is not None:
                self._prompts[request_id] = ids
            self._subscriptions[request_id] = subscription
            self._open_answers[request_id] = params.n
        return request_id

    def cancel(self, request_id: int) -> None:
        """Cancels a request; its final output still arrives."""
        self._engine.cancel(request_id)

    def close(self) -> None:
        """Hands out what is left and stops the thread; the engine must have been stopped before."""
        self._stopping.set()
        # The pipeline's finaliser may run on this very thread, by garbage collection.
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while True:
            # Read before the poll: what a stopped engine still holds, that poll returns.
            stopping = self._stopping.is_set()
            start = time.monotonic()
            outputs = self._engine.poll(_POLL_MS)
            if outputs:
                self._dispatch(outputs)
            elif stopping:
                return
            elif time.monotonic() - start < _POLL_MS / 2e3:
                # Nothing comes any more: the device was lost.
                self._stopping.wait(_POLL_MS / 1e3)

    def _dispatch(self, outputs: list[_turbomind.Output]) -> None:
        batches: dict[Subscription, list[_turbomind.Output]] = {}
        with self._lock:
            for output in outputs:
                subscription = self._subscriptions.get(output.request_id)
                if subscription is None:
                    continue
                batches.setdefault(subscription, []).append(output)
                if output.finished:
                    self._finish_answer(output.request_id)
        loops: dict[asyncio.AbstractEventLoop | None, list[Delivery]] = {}
        for subscription, batch in batches.items():
            prepared = subscription.prepare(batch) if subscription.prepare else batch
            loops.setdefault(subscription.loop, []).append((subscription, prepared))
        for loop, deliveries in loops.items():
            if loop is None:
                _deliver(deliveries)
            else:
                # A loop that was closed meanwhile has nobody waiting any more.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(_deliver, deliveries)

    def _finish_answer(self, request_id: int) -> None:
        self._open_answers[request_id] -= 1
        if self._open_answers[request_id] == 0:
            del self._open_answers[request_id]
            del self._subscriptions[request_id]
            self._prompts.pop(request_id, None)


def _deliver(deliveries: Sequence[Delivery]) -> None:
    for subscription, prepared in deliveries:
        subscription.receive(prepared)
