# SPDX-License-Identifier: Apache-2.0
"""The requests of one call of a pipeline and their answers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from manymind.config import GenerationConfig, Response
from manymind.dispatcher import Subscription
from manymind.errors import QueueFullError
from manymind.runtime import PendingPrompt, Runtime

if TYPE_CHECKING:
    from manymind import _turbomind


class Call:
    """One request per prompt, sent on entering the context; leaving it cancels what still runs (an
    exception, Ctrl-C). ``params`` are what ``Runtime.sampling_params`` makes of ``configs``, which
    has refused an n for which no list of answers could be made.

    A list of prompts longer than the engine's queue is sent as places become free. Entering raises
    QueueFullError where the queue is full of other callers' requests. Outputs may be absorbed on
    another thread than the one that entered.
    """

    def __init__(
        self,
        runtime: Runtime,
        ids: Sequence[Sequence[int] | PendingPrompt],
        configs: Sequence[GenerationConfig],
        params: Sequence[_turbomind.SamplingParams],
        subscription: Subscription,
    ) -> None:
        self._runtime = runtime
        self._subscription = subscription
        self._lock = threading.Lock()  # guards the requests' state, absorbed or being sent
        self._answers = [
            [runtime.new_answer(config, index, choice) for choice in range(config.n)]
            for index, config in enumerate(configs)
        ]
        self._open_answers = sum(len(group) for group in self._answers)
        self._prompt_of: dict[int, int] = {}
        self._in_flight = 0
        self._unsent = deque(enumerate(zip(ids, params, strict=True)))

    def __enter__(self) -> Call:
        try:
            with self._lock:
                self._send()
        except BaseException:
            self._cancel_running()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._cancel_running()

    @property
    def open(self) -> bool:
        """True while answers are still growing."""
        return self._open_answers > 0

    def absorb(self, outputs: Sequence[_turbomind.Output]) -> list[Response]:
        """Takes the outputs of a step; returns the piece each adds to its answer."""
        with self._lock:
            return self._absorb(outputs)

    def _absorb(self, outputs: Sequence[_turbomind.Output]) -> list[Response]:
        pieces: list[Response] = []
        for output in outputs:
            group = self._answers[self._prompt_of[output.request_id]]
            answer = group[output.index]
            if answer.finished:
                continue
            pieces.append(answer.absorb(output))
            if answer.finished:
                self._open_answers -= 1
                self._in_flight -= 1
                # A stop string ended the text: the engine need not go on once all n answers are
                # over.
                if not output.finished and all(other.finished for other in group):
                    self._runtime.dispatcher.cancel(output.request_id)
        self._send()
        return pieces

    def results(self) -> list[Any]:
        """The response of each prompt, or its n responses; raises as ``raise_error``."""
        self.raise_error()
        return [
            group[0].response if len(group) == 1 else [answer.response for answer in group]
            for group in self._answers
        ]

    def raise_error(self) -> None:
        """Raises the error of the first answer that failed, if one did."""
        for group in self._answers:
            for answer in group:
                if answer.error is not None:
                    raise answer.error

    def _send(self) -> None:
        while self._unsent:
            index, (ids, params) = self._unsent[0]
            try:
                if isinstance(ids, PendingPrompt):
                    ids = ids.encode()
                    self._unsent[0] = (index, (ids, params))
                request_id = self._runtime.dispatcher.submit(ids, params, self._subscription)
            except QueueFullError:
                if self._in_flight == 0:
                    raise
                return
            self._prompt_of[request_id] = index
            self._in_flight += params.n
            self._unsent.popleft()

    def _cancel_running(self) -> None:
        with self._lock:
            self._open_answers -= sum(params.n for _, (_, params) in self._unsent)
            self._unsent.clear()
            for request_id, index in self._prompt_of.items():
                if not all(answer.finished for answer in self._answers[index]):
                    self._runtime.dispatcher.cancel(request_id)
