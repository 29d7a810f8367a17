# SPDX-License-Identifier: Apache-2.0
"""How much of the machine other processes took while a run was measured (Linux)."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

# /proc/stat: user nice system idle iowait irq softirq steal; guest times are part of user.
_IDLE_FIELDS = (3, 4)
_COUNTED_FIELDS = 8


def _busy_seconds() -> float:
    """CPU time spent by everything on the machine, time stolen by the hypervisor included."""
    first = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    ticks = [int(value) for value in first.split()[1 : 1 + _COUNTED_FIELDS]]
    busy = sum(value for index, value in enumerate(ticks) if index not in _IDLE_FIELDS)
    return busy / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    """CPU time of this process and of its children that have been waited for."""
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


@dataclass
class Interference:
    """Context manager; afterwards `share` is the part of all CPU time that others used, 0 to 1."""

    share: float = 0.0

    def __enter__(self) -> Interference:
        self._start = (time.perf_counter(), _busy_seconds(), _own_seconds())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        start, busy, own = self._start
        capacity = (time.perf_counter() - start) * (os.cpu_count() or 1)
        others = (_busy_seconds() - busy) - (_own_seconds() - own)
        self.share = max(0.0, others / capacity)


def wait_until_quiet(limit: float, patience_s: float, probe_s: float = 1.0) -> bool:
    """Wait until others use less than `limit` of the CPUs; False if `patience_s` ran out first."""
    deadline = time.monotonic() + patience_s
    while True:
        with Interference() as probe:
            time.sleep(probe_s)
        if probe.share < limit:
            return True
        if time.monotonic() > deadline:
            return False
