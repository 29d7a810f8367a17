# SPDX-License-Identifier: Apache-2.0
"""Threads for work that takes as long as strangers like; nobody may keep more than a few busy."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

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


def server_of(url: str) -> str:
    """Name and port of the server that a URL leads to; all that are none count as one."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


@dataclass
class _Share:
    """``users``: who waits for one of the places, or has one."""

    places: asyncio.Semaphore
    users: int = 0


class FairThreads:
    """Belongs to one event loop."""

    def __init__(self, threads: int, name: str) -> None:
        """threads: how many; name: of each, in front of a number."""
        self._threads = ThreadPoolExecutor(threads, name)
        self._shares: dict[str, _Share] = {}

    async def run(self, shares: Mapping[str, int], work: Callable[[], T]) -> T:
        """What ``work`` returns, once there is a thread for it, of which it takes a place in each
        of the shares until it ends, also where nobody waits for it any more.

        shares: names, and how many threads work of that name may keep busy; a part before the
        whole that it is of, whose places are not for those that wait.
        """
        loop = asyncio.get_running_loop()
        for name, places in shares.items():
            self._shares.setdefault(name, _Share(asyncio.Semaphore(places))).users += 1
        taken: list[str] = []
        try:
            for name in shares:
                await self._shares[name].places.acquire()
                taken.append(name)
            job = self._threads.submit(work)
        except BaseException:
            self._leave(shares, taken)
            raise

        def leave(_: object) -> None:
            # A loop that was closed meanwhile has nobody waiting any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._leave, shares, taken)

        job.add_done_callback(leave)
        return await asyncio.wrap_future(job)

    def _leave(self, shares: Iterable[str], taken: Iterable[str]) -> None:
        for name in taken:
            self._shares[name].places.release()
        for name in shares:
            self._shares[name].users -= 1
            if self._shares[name].users == 0:
                del self._shares[name]

    def close(self) -> None:
        """Ends the threads; what has not begun is dropped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
