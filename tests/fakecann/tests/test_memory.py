# SPDX-License-Identifier: Apache-2.0
"""Device memory: what the host may not do, and what a device sees of memory that is gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from cann import D2D, D2H, H2D, Cann, refused

HERE = Path(__file__).resolve().parent
TOUCH = """
import ctypes
from cann import cann
client = cann()
address = client.malloc(64)
print("before", flush=True)
{access}
print("after", flush=True)
"""


def run_child(source: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source], cwd=HERE, capture_output=True, text=True, check=False
    )


def test_the_host_cannot_read_or_write_device_memory() -> None:
    for access in (
        "print(ctypes.c_uint8.from_address(address).value)",
        "ctypes.c_uint8.from_address(address).value = 1",
    ):
        child = run_child(TOUCH.format(access=access))
        assert child.stdout == "before\n", child
        assert child.returncode == -11, child


def test_fresh_memory_is_not_a_number(device: Cann) -> None:
    for size in (64, 40 << 20):  # the second lies in copy-on-write pages
        address = device.malloc(size)
        out = np.zeros(16, np.float32)
        device.copy(out, address + size - 64, 64, D2H)
        assert np.isnan(out).all()
        device.free(address)


def test_addresses_are_aligned_to_64_and_never_given_out_twice(device: Cann) -> None:
    seen: set[int] = set()
    for _ in range(50):
        address = device.malloc(100)
        assert address % 64 == 0
        assert address not in seen
        seen.add(address)
        device.free(address)


def test_free_wants_what_malloc_gave_once(device: Cann) -> None:
    address = device.malloc(128)
    refused(107000, lambda: device.free(address + 64))
    device.free(address)
    refused(107000, lambda: device.free(address))
    refused(107000, lambda: device.malloc(0))


def test_copies_stay_inside_one_allocation(device: Cann) -> None:
    address, host = device.malloc(64), np.zeros(256, np.uint8)
    refused(507015, lambda: device.copy(address, host, 256, H2D))
    device.free(address)
    refused(507015, lambda: device.copy(address, host, 64, H2D))


def test_the_kind_of_a_copy_is_that_of_its_addresses(device: Cann) -> None:
    address, host = device.malloc(64), np.zeros(64, np.uint8)
    for kind in (D2H, D2D, 0):
        refused(107000, lambda kind=kind: device.copy(address, host, 64, kind))
    device.copy(address, host, 64, 4)  # to be found out from the addresses
    refused(207000, lambda: device.copy(host, host, 64, 0, stream=None))


def test_memory_runs_out_and_comes_back(device: Cann) -> None:
    device.configure(memory_mb=1)
    first = device.malloc(900 << 10)
    refused(207001, lambda: device.malloc(200 << 10))
    device.free(first)
    device.free(device.malloc(900 << 10))


def test_memory_of_another_device_is_out_of_reach(device: Cann) -> None:
    here = device.tensor(np.ones(8), "f32")
    device.set_device(1)
    there = device.tensor(np.ones(8), "f32")
    device.enqueue(None, "Exp", here, there)
    text = refused(507015, lambda: device.synchronize(None))
    assert "memory of device 0 used on device 1" in text


def test_tensors_are_aligned_and_lie_in_device_memory(device: Cann) -> None:
    address = device.malloc(256)
    assert device.describe(address + 4, (2,), "f32") == 0
    host = np.zeros(32, np.float32)
    aligned = host.ctypes.data + (-host.ctypes.data) % 32
    outside = device.describe(aligned, (2,), "f32")
    text = refused(
        161002, lambda: device.plan("Exp", outside, device.describe(address, (2,), "f32"))
    )
    assert "does not lie in device memory" in text


def test_a_view_larger_than_its_allocation_is_an_ai_core_exception(device: Cann) -> None:
    small = device.tensor(np.ones(8), "f32", shape=(64,))
    out = device.tensor(np.ones(64), "f32")
    device.enqueue(None, "Exp", small, out)
    refused(507015, lambda: device.synchronize(None))
