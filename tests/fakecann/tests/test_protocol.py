# SPDX-License-Identifier: Apache-2.0
"""The two phases of an operator: executors, workspaces, lifetimes."""

from __future__ import annotations

import ctypes

import numpy as np
from cann import Cann, Tensor, refused


def pair(device: Cann) -> tuple[Tensor, Tensor]:
    return device.tensor(np.arange(4.0), "f32"), device.tensor(np.zeros(4), "f32")


def repeatable(device: Cann, executor: int) -> int:
    return device.nnop.aclSetAclOpExecutorRepeatable(ctypes.c_void_p(executor))


def test_an_executor_serves_one_launch(device: Cann) -> None:
    x, y = pair(device)
    size, executor = device.plan("Exp", x, y)
    workspace = device.malloc(size)
    device.launch("Exp", workspace, size, executor, None)
    text = refused(161002, lambda: device.launch("Exp", workspace, size, executor, None))
    assert "serves one launch" in text
    assert repeatable(device, executor) == 161002


def test_a_repeatable_executor_takes_other_addresses(device: Cann) -> None:
    x, y = pair(device)
    other, target = device.tensor(np.full(4, 3.0), "f32"), device.tensor(np.zeros(4), "f32")
    size, executor = device.plan("Muls", x, device.scalar(2.0, "f32"), y)
    workspace = device.malloc(size)
    assert repeatable(device, executor) == 0
    device.launch("Muls", workspace, size, executor, None)
    for index, tensor, address in ((0, x, other), (1, y, target)):
        code = device.nnop.aclSetTensorAddr(
            ctypes.c_void_p(executor),
            ctypes.c_size_t(index),
            ctypes.c_void_p(tensor.handle),
            ctypes.c_void_p(address.address),
        )
        assert code == 0
    device.launch("Muls", workspace, size, executor, None)
    device.synchronize(None)
    assert (device.read(y) == [0, 2, 4, 6]).all()
    assert (device.read(target) == 6).all()
    assert device.nnop.aclDestroyAclOpExecutor(ctypes.c_void_p(executor)) == 0
    assert device.nnop.aclDestroyAclOpExecutor(ctypes.c_void_p(executor)) == 161002


def test_a_launch_keeps_the_addresses_it_was_given(device: Cann) -> None:
    device.configure(schedule="lazy")
    x, y = pair(device)
    target = device.tensor(np.zeros(4), "f32")
    size, executor = device.plan("Muls", x, device.scalar(2.0, "f32"), y)
    workspace = device.malloc(size)
    assert repeatable(device, executor) == 0
    device.launch("Muls", workspace, size, executor, None)
    handle, address = ctypes.c_void_p(y.handle), ctypes.c_void_p(target.address)
    code = device.nnop.aclSetTensorAddr(
        ctypes.c_void_p(executor), ctypes.c_size_t(1), handle, address
    )
    assert code == 0
    device.synchronize(None)
    assert (device.read(y) == [0, 2, 4, 6]).all()


def test_only_repeatable_executors_take_addresses(device: Cann) -> None:
    x, y = pair(device)
    _, executor = device.plan("Exp", x, y)
    code = device.nnop.aclSetTensorAddr(
        ctypes.c_void_p(executor),
        ctypes.c_size_t(0),
        ctypes.c_void_p(x.handle),
        ctypes.c_void_p(y.address),
    )
    assert code == 161002


def test_a_workspace_is_large_enough_and_on_the_device(device: Cann) -> None:
    x, y = pair(device)
    size, executor = device.plan("Exp", x, y)
    assert size >= 32
    workspace, host = device.malloc(size), np.zeros(size, np.uint8)
    small, elsewhere = device.malloc(32), host.ctypes.data

    def launch(address: int, bytes_: int) -> None:
        device.launch("Exp", address, bytes_, executor, None)

    assert "asked for a workspace" in refused(161002, lambda: launch(workspace, size - 1))
    assert "not device memory" in refused(161002, lambda: launch(elsewhere, size))
    assert "not aligned" in refused(161002, lambda: launch(workspace + 8, size))
    assert "not one live allocation" in refused(161002, lambda: launch(small, size + 4096))
    device.free(workspace)
    assert "not one live allocation" in refused(161002, lambda: launch(workspace, size))
    device.launch("Exp", device.malloc(size), size, executor, None)


def test_sizes_of_workspaces_vary_and_can_be_exact(device: Cann) -> None:
    x, y = pair(device)
    assert len({device.plan("Exp", x, y)[0] for _ in range(20)}) > 10
    device.configure(workspace="exact")
    assert {device.plan("Exp", x, y)[0] for _ in range(5)} == {0}


def test_a_workspace_that_aliases_a_tensor_spoils_it(device: Cann) -> None:
    values = device.tensor(np.ones(200000), "f32")
    size, executor = device.plan("Muls", values, device.scalar(1.0, "f32"), values)
    device.launch("Muls", values.address, size, executor, None)
    device.synchronize(None)
    assert not (device.read(values)[: size // 4] == 1).any()
    assert (device.read(values)[size // 4 :] == 1).all()


def test_tensors_live_until_the_launch(device: Cann) -> None:
    x, y = pair(device)
    size, executor = device.plan("Exp", x, y)
    assert device.nnop.aclDestroyTensor(ctypes.c_void_p(x.handle)) == 0
    text = refused(161002, lambda: device.launch("Exp", device.malloc(size), size, executor, None))
    assert "destroyed between the two phases" in text
    assert device.nnop.aclDestroyTensor(ctypes.c_void_p(x.handle)) == 161002
    refused(161002, lambda: device.plan("Exp", x, y))


def test_destroying_a_list_destroys_its_members(device: Cann) -> None:
    x, y = pair(device)
    parts = device.list_of([x.handle, y.handle])
    assert device.nnop.aclDestroyTensorList(ctypes.c_void_p(parts)) == 0
    assert device.nnop.aclDestroyTensor(ctypes.c_void_p(x.handle)) == 161002


def test_an_executor_belongs_to_its_operator(device: Cann) -> None:
    x, y = pair(device)
    size, executor = device.plan("Exp", x, y)
    workspace = device.malloc(size)
    refused(161002, lambda: device.launch("Tanh", workspace, size, executor, None))
    device.launch("Exp", workspace, size, executor, None)


def test_indices_outside_their_range_are_errors_of_the_device(device: Cann) -> None:
    table, out = device.tensor(np.ones((4, 8)), "f16"), device.tensor(np.ones((2, 8)), "f16")
    for wrong in (-1, 4):
        device.enqueue(None, "Embedding", table, device.tensor([0, wrong], "i64"), out)
        assert f"index {wrong} of 4" in refused(507015, lambda: device.synchronize(None))


def test_slots_are_in_range_and_written_once(device: Cann) -> None:
    rows, cache = device.tensor(np.ones((2, 1, 16)), "f16"), np.zeros((2, 4, 1, 16))
    keys, values = device.tensor(cache, "f16"), device.tensor(cache, "f16")
    for slots in ([0, -1], [0, 8], [3, 3]):
        where = device.tensor(slots, "i32")
        arguments = (rows, keys, where, rows, values, None, None, None, "Norm", None, None, None)
        device.enqueue(None, "ScatterPaKvCache", *arguments)
        assert "slot" in refused(507015, lambda: device.synchronize(None))
