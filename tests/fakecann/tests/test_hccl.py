# SPDX-License-Identifier: Apache-2.0
"""Collectives between threads of one process and between processes."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cann import Cann, CannError, Tensor, cann

F32, BF16, I16, SUM, PROD, MAX = 4, 11, 1, 0, 1, 2


class Rank:
    """One rank on its own device."""

    def __init__(
        self, device: Cann, root: ctypes.Array[ctypes.c_char], rank: int, size: int
    ) -> None:
        self.device, self.rank, self.size = device, rank, size
        device.set_device(rank)
        self.stream = device.stream()
        comm = ctypes.c_void_p()
        device.check(device.hccl.HcclCommInitRootInfo(size, root, rank, ctypes.byref(comm)))
        self.comm = comm

    def tensor(self, values: Any, dtype: str = "f32") -> Tensor:
        return self.device.tensor(np.asarray(values), dtype)

    def call(self, name: str, *arguments: Any) -> None:
        function = getattr(self.device.hccl, name)
        self.device.check(function(*arguments, self.comm, ctypes.c_void_p(self.stream)))

    def all_reduce(
        self, values: Tensor, out: Tensor, count: int, dtype: int = F32, op: int = SUM
    ) -> None:
        self.call("HcclAllReduce", pointer(values), pointer(out), ctypes.c_uint64(count), dtype, op)


def pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.address)


def new_root(device: Cann) -> ctypes.Array[ctypes.c_char]:
    root = ctypes.create_string_buffer(4108)
    device.check(device.hccl.HcclGetRootInfo(root))
    return root


def on_ranks(device: Cann, size: int, work: Callable[[Rank], Any]) -> list[Any]:
    """work(rank) on a thread each; results or exceptions in the order of the ranks."""
    root, results = new_root(device), [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = work(Rank(device, root, rank, size))
        except CannError as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


@pytest.mark.parametrize("schedule", ["immediate", "lazy", "random:4"])
@pytest.mark.parametrize("size", [2, 4])
def test_collectives_between_threads(device: Cann, schedule: str, size: int) -> None:
    device.configure(schedule=schedule)

    def work(rank: Rank) -> list[np.ndarray]:
        mine = np.arange(size * 3, dtype=np.float32) + 100 * rank.rank
        send, out = rank.tensor(mine), rank.tensor(np.zeros(size * 3))
        wide, short = rank.tensor(np.zeros(size * size * 3)), rank.tensor(np.zeros(3))
        turned, spread = rank.tensor(np.zeros(size * 3)), rank.tensor(mine)
        count = ctypes.c_uint64
        rank.all_reduce(send, out, size * 3)
        rank.call("HcclAllGather", pointer(send), pointer(wide), count(size * 3), F32)
        rank.call("HcclReduceScatter", pointer(send), pointer(short), count(3), F32, SUM)
        rank.call("HcclAlltoAll", pointer(send), count(3), F32, pointer(turned), count(3), F32)
        rank.call("HcclBroadcast", pointer(spread), count(size * 3), F32, size - 1)
        rank.call("HcclBarrier")
        rank.device.synchronize(rank.stream)
        return [rank.device.read(each) for each in (out, wide, short, turned, spread)]

    results = on_ranks(device, size, work)
    inputs = [np.arange(size * 3) + 100.0 * r for r in range(size)]
    for r, (out, wide, short, turned, spread) in enumerate(results):
        assert (out == sum(inputs)).all()
        assert (wide == np.concatenate(inputs)).all()
        assert (short == sum(inputs)[3 * r : 3 * r + 3]).all()
        assert (turned == np.concatenate([each[3 * r : 3 * r + 3] for each in inputs])).all()
        assert (spread == inputs[-1]).all()


def test_many_collectives_in_a_row_and_in_place(device: Cann) -> None:
    device.configure(schedule="random:5")

    def work(rank: Rank) -> np.ndarray:
        values = rank.tensor(np.full(7, 1 + rank.rank))
        for _ in range(20):
            rank.all_reduce(values, values, 7, op=MAX)
        rank.all_reduce(values, values, 7)
        rank.device.synchronize(rank.stream)
        return rank.device.read(values)

    for out in on_ranks(device, 2, work):
        assert (out == 4).all()


@pytest.mark.parametrize("wrong", ["count", "type", "order"])
def test_ranks_that_disagree_fail_and_do_not_hang(device: Cann, wrong: str) -> None:
    def work(rank: Rank) -> None:
        values, out = rank.tensor(np.ones(16)), rank.tensor(np.ones(32))
        odd = rank.rank == 1
        if wrong == "order" and odd:
            rank.call("HcclAllGather", pointer(values), pointer(out), ctypes.c_uint64(8), F32)
        rank.all_reduce(
            values,
            values,
            4 if wrong == "count" and odd else 8,
            dtype=2 if wrong == "type" and odd else F32,
        )
        rank.device.synchronize(rank.stream)

    results = on_ranks(device, 2, work)
    assert all(isinstance(each, CannError) and each.code == 507048 for each in results), results


def test_a_rank_that_never_comes_is_a_timeout(device: Cann) -> None:
    device.configure(wait_ms=100)

    def work(rank: Rank) -> tuple[int, int]:
        values = rank.tensor(np.ones(8))
        if rank.rank == 1:
            return 0, 0
        rank.all_reduce(values, values, 8)
        code = rank.device.acl.aclrtSynchronizeStream(ctypes.c_void_p(rank.stream))
        error = ctypes.c_int()
        rank.device.check(rank.device.hccl.HcclGetCommAsyncError(rank.comm, ctypes.byref(error)))
        return code, error.value

    assert on_ranks(device, 2, work)[0] == (507048, 21)


def test_a_group_that_stays_incomplete_is_a_timeout(device: Cann) -> None:
    device.configure(wait_ms=50)
    root, comm = new_root(device), ctypes.c_void_p()
    assert device.hccl.HcclCommInitRootInfo(2, root, 0, ctypes.byref(comm)) == 9
    assert device.hccl.HcclCommInitRootInfo(2, root, 2, ctypes.byref(comm)) == 1


def test_an_injected_stall_ends_as_a_timeout_on_both_ranks(device: Cann) -> None:
    device.configure(wait_ms=100)

    def work(rank: Rank) -> int:
        values = rank.tensor(np.ones(8))
        if rank.rank == 0:
            rank.device.configure(faults="stall=1")
        rank.all_reduce(values, values, 8)
        return rank.device.acl.aclrtSynchronizeStream(ctypes.c_void_p(rank.stream))

    assert on_ranks(device, 2, work) == [507048, 507048]


def test_an_abort_from_another_thread_ends_the_wait(device: Cann) -> None:
    device.configure(wait_ms=20000)
    started = threading.Event()
    ranks: list[Rank] = []

    def work(rank: Rank) -> int:
        if rank.rank == 1:
            started.wait(10)
            rank.device.set_device(0)
            return rank.device.acl.aclrtStreamAbort(ctypes.c_void_p(ranks[0].stream))
        ranks.append(rank)
        values = rank.tensor(np.ones(8))
        rank.all_reduce(values, values, 8)
        started.set()
        return rank.device.acl.aclrtSynchronizeStream(ctypes.c_void_p(rank.stream))

    assert on_ranks(device, 2, work) == [107023, 0]


def test_what_hccl_does_not_take_is_refused(device: Cann) -> None:
    def work(rank: Rank) -> list[int]:
        values = rank.tensor(np.ones(8), "bf16")

        def answer(dtype: int, op: int, offset: int = 0) -> int:
            address = ctypes.c_void_p(values.address + offset)
            return rank.device.hccl.HcclAllReduce(
                address,
                address,
                ctypes.c_uint64(4),
                dtype,
                op,
                rank.comm,
                ctypes.c_void_p(rank.stream),
            )

        codes = [
            answer(BF16, PROD),
            answer(I16, PROD),
            answer(99, SUM),
            answer(BF16, 7),
            answer(BF16, SUM, 1),
        ]
        rank.device.configure(profile="310p")
        codes.append(answer(BF16, SUM))
        return codes

    assert on_ranks(device, 1, work) == [[5, 5, 5, 5, 1, 5]]


CHILD = """
import ctypes, sys
import numpy as np
from cann import cann
from test_hccl import Rank
device = cann()
device.configure(schedule=sys.argv[3], wait_ms=10000)
root = ctypes.create_string_buffer(bytes.fromhex(sys.argv[1]), 4108)
rank = Rank(device, root, int(sys.argv[2]), 2)
values = rank.tensor(np.arange(1000) * (1 + rank.rank))
for _ in range(5):
    rank.all_reduce(values, values, 1000)
if rank.rank == 0 or sys.argv[3] != "lazy":
    device.synchronize(rank.stream)
    assert (device.read(values) == np.arange(1000) * 3 * 16).all(), device.read(values)[:5]
else:
    sys.stdin.read()  # never synchronises: a real device would go on by itself
print("right")
"""


@pytest.mark.parametrize("schedule", ["immediate", "lazy", "random:2"])
def test_collectives_between_processes(schedule: str) -> None:
    root = new_root(cann()).raw.rstrip(b"\0").hex()
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, root, str(rank), schedule],
            cwd=Path(__file__).parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [children[0].communicate(timeout=60)[0], children[1].communicate(timeout=60)[0]]
    assert outputs == ["right\n", "right\n"]
