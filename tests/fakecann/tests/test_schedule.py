# SPDX-License-Identifier: Apache-2.0
"""Streams run as late as they may, or in any order that events allow; what a host forgot shows."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from cann import D2H, H2D, Cann, refused

SCHEDULES = ("immediate", "lazy", "random:1", "random:2", "random:3")


def doubled(device: Cann, stream: int, source: object, to: object) -> None:
    device.enqueue(stream, "Muls", source, device.scalar(2.0, "f32"), to)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_stream_keeps_its_order(device: Cann, schedule: str) -> None:
    device.configure(schedule=schedule)
    stream, values = device.stream(), device.tensor(np.ones(16), "f32")
    for _ in range(10):
        doubled(device, stream, values, values)
    device.synchronize(stream)
    assert (device.read(values) == 1024).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_event_orders_two_streams(device: Cann, schedule: str) -> None:
    device.configure(schedule=schedule)
    first, second, event = device.stream(), device.stream(), device.event()
    values, out = device.tensor(np.ones(16), "f32"), device.tensor(np.zeros(16), "f32")
    doubled(device, first, values, values)
    device.record(event, first)
    device.wait(second, event)
    doubled(device, second, values, out)
    device.synchronize(second)
    assert (device.read(out) == 4).all()


def test_a_forgotten_event_shows_under_some_seed(device: Cann) -> None:
    found = set()
    for seed in range(20):
        device.configure(schedule=f"random:{seed}")
        first, second = device.stream(), device.stream()
        values, out = device.tensor(np.ones(1), "f32"), device.tensor(np.zeros(1), "f32")
        doubled(device, first, values, values)
        doubled(device, second, values, out)
        device.synchronize(first)
        device.synchronize(second)
        found.add(float(device.read(out)[0]))
    assert found == {2.0, 4.0}


def test_the_same_seed_gives_the_same_order(device: Cann) -> None:
    def outcome() -> list[float]:
        device.configure(schedule="random:7")
        results = []
        for _ in range(10):
            first, second = device.stream(), device.stream()
            values, out = device.tensor(np.ones(1), "f32"), device.tensor(np.zeros(1), "f32")
            doubled(device, first, values, values)
            doubled(device, second, values, out)
            device.synchronize(first)
            device.synchronize(second)
            results.append(float(device.read(out)[0]))
        return results

    assert outcome() == outcome()


def test_a_pinned_buffer_reused_too_early_shows(device: Cann) -> None:
    device.configure(schedule="lazy")
    stream, staging, target = device.stream(), device.pinned(64), device.malloc(64)
    staging[:] = 1
    device.copy(target, staging, 64, H2D, stream)
    staging[:] = 2  # before the copy has run
    device.synchronize(stream)
    out = np.zeros(64, np.uint8)
    device.copy(out, target, 64, D2H)
    assert (out == 2).all()


def test_a_pageable_copy_has_been_made_when_the_call_returns(device: Cann) -> None:
    device.configure(schedule="lazy")
    stream, source, target = device.stream(), np.ones(64, np.uint8), device.malloc(64)
    device.copy(target, source, 64, H2D, stream)
    source[:] = 2
    device.synchronize(stream)
    out = np.zeros(64, np.uint8)
    device.copy(out, target, 64, D2H)
    assert (out == 1).all()


def test_a_read_without_synchronisation_sees_nothing(device: Cann) -> None:
    device.configure(schedule="lazy")
    stream, values = device.stream(), device.tensor(np.ones(4), "f32")
    doubled(device, stream, values, values)
    assert (device.read(values) == 1).all()
    device.synchronize(stream)
    assert (device.read(values) == 2).all()


def test_memory_freed_under_a_waiting_task_is_an_ai_core_exception(device: Cann) -> None:
    device.configure(schedule="lazy")
    stream, values = device.stream(), device.tensor(np.ones(4), "f32")
    doubled(device, stream, values, values)
    device.free(values.address)
    refused(507015, lambda: device.synchronize(stream))
    device.synchronize(stream)  # reported once, then the stream goes on


def test_a_workspace_freed_under_a_waiting_task_is_seen_too(device: Cann) -> None:
    device.configure(schedule="lazy")
    stream, values = device.stream(), device.tensor(np.ones(4), "f32")
    workspace = device.enqueue(stream, "Exp", values, values)
    device.free(workspace)
    refused(507015, lambda: device.synchronize(stream))


def test_a_lazy_device_answers_polls_and_ends(device: Cann) -> None:
    device.configure(schedule="lazy")
    stream, event, values = device.stream(), device.event(), device.tensor(np.ones(4), "f32")
    for _ in range(3):
        doubled(device, stream, values, values)
    device.record(event, stream)
    answers = []
    while not answers or answers[-1] != 1:
        status = ctypes.c_int(-1)
        device.check(device.acl.aclrtQueryEventStatus(ctypes.c_void_p(event), ctypes.byref(status)))
        answers.append(status.value)
    assert answers == [0, 0, 0, 0, 1]


def test_a_host_function_runs_in_its_place_and_may_not_call_back(device: Cann) -> None:
    seen: list[tuple[float, int]] = []
    stream, values = device.stream(), device.tensor(np.ones(1), "f32")
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

    def note(_: int) -> None:
        code = device.acl.aclrtSynchronizeStream(ctypes.c_void_p(stream))
        seen.append((0.0, code))

    callback = kind(note)
    device.configure(schedule="lazy")
    doubled(device, stream, values, values)
    device.check(device.acl.aclrtLaunchHostFunc(ctypes.c_void_p(stream), callback, None))
    assert not seen
    device.synchronize(stream)
    assert seen == [(0.0, 207000)]


def test_streams_belong_to_their_context(device: Cann) -> None:
    stream = device.stream()
    device.set_device(1)
    refused(107003, lambda: device.synchronize(stream))
    device.set_device(0)
    device.synchronize(stream)


def test_a_wait_that_nothing_can_end_times_out(device: Cann) -> None:
    device.configure(wait_ms=50)
    stream, event = device.stream(), device.event(0x20)
    device.wait(stream, event)  # nobody records it
    refused(507046, lambda: device.synchronize(stream))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("what", ["stream", "event"])
def test_a_bounded_wait_may_be_over_before_the_work(device: Cann, what: str, schedule: str) -> None:
    """Who takes its end for the work's reads what is not there yet; asked again, it comes to it."""
    device.configure(schedule=schedule)
    stream, event, values = device.stream(), device.event(), device.tensor(np.ones(4), "f32")
    for _ in range(5):
        doubled(device, stream, values, values)
    device.record(event, stream)
    wait = {
        "stream": (device.acl.aclrtSynchronizeStreamWithTimeout, stream, 507046),
        "event": (device.acl.aclrtSynchronizeEventWithTimeout, event, 507047),
    }
    function, handle, early = wait[what]
    codes = [-1]
    while codes[-1] != 0:
        codes.append(function(ctypes.c_void_p(handle), 1000))
    assert set(codes[1:-1]) <= {early}
    if not schedule.startswith("random"):
        assert len(codes) == (2 if schedule == "immediate" else 7)
    assert (device.read(values) == 32).all()


def test_events_keep_their_rules(device: Cann) -> None:
    stream = device.stream()
    plain = device.event(0x10)
    refused(107000, lambda: device.wait(stream, plain))
    event = device.event()
    code = device.acl.aclrtResetEvent(ctypes.c_void_p(event), ctypes.c_void_p(stream))
    assert code == 207000
    device.wait(stream, event)  # never recorded: nothing to wait for
    device.synchronize(stream)
