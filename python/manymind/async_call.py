# SPDX-License-Identifier: Apache-2.0
"""The requests of one call as an asyncio task sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from manymind.call import Call
from manymind.config import GenerationConfig, Response
from manymind.dispatcher import Subscription
from manymind.runtime import Runtime

if TYPE_CHECKING:
    from manymind import _turbomind


class AnswerStream:
    """Pieces of the answers to some prompts, for one task of the running event loop.

    Text is made on the dispatcher's thread; the loop is woken once per engine step, whatever the
    number of streams it serves. A context manager: entering sends the requests (it raises what
    ``Call`` raises), leaving cancels what still runs. ``params`` are as ``Call`` takes them, made
    on another thread where they take time.
    """

    def __init__(
        self,
        runtime: Runtime,
        ids: Sequence[Sequence[int]],
        configs: Sequence[GenerationConfig],
        params: Sequence[_turbomind.SamplingParams],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        subscription = Subscription(self._receive, self._loop, self._prepare)
        self._call = Call(runtime, ids, configs, params, subscription)
        self._pieces: list[Response] = []
        self._error: Exception | None = None
        self._over = False
        self._waiter: asyncio.Future[None] | None = None

    def __enter__(self) -> AnswerStream:
        self._call.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._call.__exit__(*exception)

    async def next(self) -> list[Response]:
        """Every piece since the last time, in order; empty once all answers are complete.

        Raises the error of a request that could not be sent, and that of ``abort``; that of an
        answer is in its piece.
        """
        while not self._pieces and self._error is None and not self._over:
            await self._change()
        if self._error is not None:
            raise self._error
        pieces, self._pieces = self._pieces, []
        return pieces

    async def remaining(self) -> list[Response]:
        """Leaves the context, should nobody have done so, and waits until the engine has let go of
        all requests; the pieces that ``next`` has not returned.
        """
        self.__exit__()
        while not self._over:
            await self._change()
        return self._pieces

    async def results(self) -> list[Any]:
        """Waits for the end; the response of each prompt, or its n responses.

        Raises the error of the first answer that failed.
        """
        while await self.next():
            pass
        return self._call.results()

    def abort(self, error: Exception) -> None:
        """Has ``next`` raise ``error``, at once."""
        self._error = error
        self._wake()

    def raise_error(self) -> None:
        """Raises the error of the first answer that failed, if one did."""
        self._call.raise_error()

    def _prepare(
        self, outputs: list[_turbomind.Output]
    ) -> tuple[list[Response], bool, Exception | None]:
        try:
            return self._call.absorb(outputs), not self._call.open, None
        except Exception as error:  # the dispatcher's thread serves others, too
            return [], True, error

    def _receive(self, step: tuple[list[Response], bool, Exception | None]) -> None:
        pieces, over, error = step
        self._over |= over
        self._pieces += pieces
        self._error = self._error or error
        self._wake()

    async def _change(self) -> None:
        self._waiter = self._loop.create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
