# SPDX-License-Identifier: Apache-2.0
"""Threads for work that takes as long as strangers like; nobody may keep more than a few busy."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from manymind.server.record import RequestRecord

T = TypeVar("T")


def client_of(record: RequestRecord) -> str:
    """Who counts as one client: a key, or else an address; of IPv6, where a machine has as many as
    it likes, its network of 64 bits.
    """
    if record.key is not None:
        return f"key {record.key.name}"
    try:
        address = ipaddress.ip_address(record.client or "")
    except ValueError:
        return "address unknown"
    if address.version == 6:
        return f"address {ipaddress.ip_network((int(address), 64), strict=False)}"
    return f"address {address}"


@dataclass
class _Share:
    """``users``: who waits for one of the places, or has one."""

    places: asyncio.Semaphore
    users: int = 0


class FairThreads:
    """Belongs to one event loop."""

    def __init__(self, threads: int, each: int, name: str) -> None:
        """threads: that work; each: how many of them one client may keep busy. name: of the
        threads, in front of a number.
        """
        self._threads = ThreadPoolExecutor(threads, name)
        self._each = each
        self._shares: dict[str, _Share] = {}

    async def run(self, client: str, work: Callable[[], T]) -> T:
        """What ``work`` returns, once there is a place for it. A place is taken until the work
        ends, also where nobody waits for it any more.
        """
        loop = asyncio.get_running_loop()
        share = self._shares.setdefault(client, _Share(asyncio.Semaphore(self._each)))
        share.users += 1
        taken = False
        try:
            await share.places.acquire()
            taken = True
            job = self._threads.submit(work)
        except BaseException:
            self._leave(client, share, taken)
            raise

        def leave(_: object) -> None:
            # A loop that was closed meanwhile has nobody waiting any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._leave, client, share, True)

        job.add_done_callback(leave)
        return await asyncio.wrap_future(job)

    def _leave(self, client: str, share: _Share, taken: bool) -> None:
        if taken:
            share.places.release()
        share.users -= 1
        if share.users == 0:
            del self._shares[client]

    def close(self) -> None:
        """Ends the threads; what has not begun is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
