# SPDX-License-Identifier: Apache-2.0
"""Captured graphs: what a capture forbids, with the codes, and what a replay sees."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from cann import D2H, H2D, Cann, Tensor, refused

GLOBAL, THREAD_LOCAL, RELAXED = 0, 1, 2
EXTERNAL = 0x20
SCHEDULES = ("immediate", "lazy", "random:1", "random:2")


class Capture:
    """What a capture gave."""

    graph = 0


def pointer(value: int | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(value)


def begin(device: Cann, stream: int | None, mode: int = THREAD_LOCAL) -> None:
    device.check(device.acl.aclmdlRICaptureBegin(pointer(stream), mode))


def end(device: Cann, stream: int) -> int:
    graph = ctypes.c_void_p()
    device.check(device.acl.aclmdlRICaptureEnd(pointer(stream), ctypes.byref(graph)))
    return int(graph.value or 0)


@contextmanager
def capturing(device: Cann, stream: int, mode: int = THREAD_LOCAL) -> Iterator[Capture]:
    capture = Capture()
    begin(device, stream, mode)
    yield capture
    capture.graph = end(device, stream)


def replay(device: Cann, graph: int, stream: int) -> None:
    device.check(device.acl.aclmdlRIExecuteAsync(pointer(graph), pointer(stream)))


def double(device: Cann, stream: int, source: Tensor, to: Tensor) -> None:
    device.enqueue(stream, "Muls", source, device.scalar(2.0, "f32"), to)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_replay_runs_what_was_captured_and_the_capture_runs_nothing(
    device: Cann, schedule: str
) -> None:
    device.configure(schedule=schedule)
    stream, values = device.stream(), device.tensor(np.ones(4), "f32")
    with capturing(device, stream) as capture:
        for _ in range(3):
            double(device, stream, values, values)
    device.synchronize(stream)
    assert (device.read(values) == 1).all()
    for _ in range(2):
        replay(device, capture.graph, stream)
    device.synchronize(stream)
    assert (device.read(values) == 64).all()
    device.check(device.acl.aclmdlRIDestroy(pointer(capture.graph)))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_forked_stream_takes_part_and_is_joined(device: Cann, schedule: str) -> None:
    device.configure(schedule=schedule)
    first, second = device.stream(), device.stream()
    fork, join = device.event(), device.event()
    values, out = device.tensor(np.ones(4), "f32"), device.tensor(np.zeros(4), "f32")
    with capturing(device, first) as capture:
        double(device, first, values, values)
        device.record(fork, first)
        device.wait(second, fork)
        double(device, second, values, out)
        device.record(join, second)
        device.wait(first, join)
        double(device, first, out, out)
    replay(device, capture.graph, first)
    device.synchronize(first)
    assert (device.read(out) == 8).all()


def test_a_forked_stream_that_is_not_joined_is_refused(device: Cann) -> None:
    first, second, fork = device.stream(), device.stream(), device.event()
    values = device.tensor(np.ones(4), "f32")
    begin(device, first)
    device.record(fork, first)
    device.wait(second, fork)
    double(device, second, values, values)
    refused(107025, lambda: end(device, first))
    device.synchronize(second)  # both are free again
    assert device.live("graphs") == 0


def status_of(device: Cann, stream: int) -> int:
    status, graph = ctypes.c_int(), ctypes.c_void_p()
    device.check(
        device.acl.aclmdlRICaptureGetInfo(
            pointer(stream), ctypes.byref(status), ctypes.byref(graph)
        )
    )
    return status.value


def forbidden(
    device: Cann, stream: int, values: Tensor
) -> dict[str, tuple[int, Callable[[], None]]]:
    """Calls that a capture on this thread forbids, with their codes."""
    host, event = np.zeros(16, np.uint8), device.event()
    status = ctypes.c_int()
    query = device.acl.aclrtQueryEventStatus
    return {
        "stream": (107030, lambda: device.synchronize(stream)),
        "device": (107030, lambda: device.check(device.acl.aclrtSynchronizeDevice())),
        "event": (107030, lambda: device.check(device.acl.aclrtSynchronizeEvent(pointer(event)))),
        "query": (107030, lambda: device.check(query(pointer(event), ctypes.byref(status)))),
        "copy": (107030, lambda: device.copy(host, values.address, 16, D2H)),
        "pageable": (107041, lambda: device.copy(values.address, host, 16, H2D, stream)),
    }


@pytest.mark.parametrize("call", ["stream", "device", "event", "query", "copy", "pageable"])
def test_what_a_capture_forbids(device: Cann, call: str) -> None:
    stream, values = device.stream(), device.tensor(np.ones(4), "f32")
    code, action = forbidden(device, stream, values)[call]
    begin(device, stream)
    assert status_of(device, stream) == 1
    refused(code, action)
    if call in ("stream", "pageable"):  # on the captured stream itself: the capture is lost
        assert status_of(device, stream) == 2
        refused(507903, lambda: double(device, stream, values, values))
        refused(507903, lambda: end(device, stream))
    else:
        end(device, stream)
    assert status_of(device, stream) == 0


def test_a_relaxed_capture_forbids_only_its_own_stream(device: Cann) -> None:
    stream, values = device.stream(), device.tensor(np.ones(4), "f32")
    calls = forbidden(device, stream, values)
    begin(device, stream, RELAXED)
    for name in ("device", "event", "copy"):
        calls[name][1]()
    refused(107030, calls["stream"][1])


def test_a_global_capture_binds_other_threads_and_a_local_one_does_not(device: Cann) -> None:
    values, codes = device.tensor(np.ones(4), "f32"), []

    def other() -> None:
        device.set_device(0)
        out = np.zeros(4, np.float32)
        address = pointer(values.address)
        size = ctypes.c_size_t(16)
        codes.append(device.acl.aclrtMemcpy(pointer(out.ctypes.data), size, address, size, D2H))

    for mode in (GLOBAL, THREAD_LOCAL):
        stream = device.stream()
        begin(device, stream, mode)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        end(device, stream)
    assert codes == [107030, 0]


def test_captures_begin_and_end_where_they_should(device: Cann) -> None:
    stream, other, codes = device.stream(), device.stream(), []
    refused(107031, lambda: begin(device, None))
    refused(107029, lambda: end(device, stream))
    begin(device, stream)
    refused(107027, lambda: begin(device, stream))
    refused(107029, lambda: end(device, other))

    def elsewhere() -> None:
        device.set_device(0)
        graph = ctypes.c_void_p()
        codes.append(device.acl.aclmdlRICaptureEnd(pointer(stream), ctypes.byref(graph)))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert codes == [107038]
    end(device, stream)


def test_a_capture_cannot_wait_for_what_it_did_not_record(device: Cann) -> None:
    stream, other, event = device.stream(), device.stream(), device.event()
    device.record(event, other)
    begin(device, stream)
    refused(107024, lambda: device.wait(stream, event))
    refused(507903, lambda: end(device, stream))


def test_a_running_graph_cannot_be_destroyed(device: Cann) -> None:
    device.configure(schedule="lazy")
    stream, values = device.stream(), device.tensor(np.ones(4), "f32")
    with capturing(device, stream) as capture:
        double(device, stream, values, values)
    replay(device, capture.graph, stream)
    destroy = device.acl.aclmdlRIDestroy
    assert destroy(pointer(capture.graph)) == 107037
    device.synchronize(stream)
    assert destroy(pointer(capture.graph)) == 0
    assert destroy(pointer(capture.graph)) == 107017


class Updatable:
    """A captured addition whose factor a task update changes, ordered by an external event."""

    def __init__(self, device: Cann, resets: bool = True) -> None:
        self.device, self.stream, self.side = device, device.stream(), device.stream()
        self.x, self.y = device.tensor(np.ones(4), "f32"), device.tensor(np.zeros(4), "f32")
        self.ready = device.event(EXTERNAL)
        acl, group = device.acl, ctypes.c_void_p()
        with capturing(device, self.stream) as capture:
            device.wait(self.stream, self.ready)
            if resets:
                device.check(acl.aclrtResetEvent(pointer(self.ready), pointer(self.stream)))
            device.check(acl.aclmdlRICaptureTaskGrpBegin(pointer(self.stream)))
            self.multiply(self.stream, 2.0)
            device.check(acl.aclmdlRICaptureTaskGrpEnd(pointer(self.stream), ctypes.byref(group)))
        self.graph, self.group = capture.graph, group

    def multiply(self, stream: int, factor: float) -> None:
        self.device.enqueue(stream, "Muls", self.x, self.device.scalar(factor, "f32"), self.y)

    def update(self, *factors: float) -> int:
        acl = self.device.acl
        self.device.check(acl.aclmdlRICaptureTaskUpdateBegin(pointer(self.side), self.group))
        for factor in factors:
            self.multiply(self.side, factor)
        return acl.aclmdlRICaptureTaskUpdateEnd(pointer(self.side))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_update_that_the_replay_waits_for_counts(device: Cann, schedule: str) -> None:
    device.configure(schedule=schedule)
    work = Updatable(device)
    for factor in (3.0, 5.0, 7.0):
        replay(device, work.graph, work.stream)
        device.check(work.update(factor))
        device.record(work.ready, work.side)
        device.synchronize(work.stream)
        assert (device.read(work.y) == factor).all()


def test_without_a_reset_a_later_replay_uses_what_was_there(device: Cann) -> None:
    device.configure(schedule="lazy")
    work = Updatable(device, resets=False)
    results = []
    for factor in (3.0, 5.0):
        device.check(work.update(factor))
        device.record(work.ready, work.side)
        replay(device, work.graph, work.stream)
        device.synchronize(work.stream)
        results.append(float(device.read(work.y)[0]))
    assert results == [3.0, 3.0]  # stale: the second replay did not wait


def test_an_update_has_the_same_operators_as_the_group(device: Cann) -> None:
    work = Updatable(device)
    assert work.update() == 107033
    assert work.update(1.0, 2.0) == 107033
    acl = device.acl
    device.check(acl.aclmdlRICaptureTaskUpdateBegin(pointer(work.side), work.group))
    device.enqueue(work.side, "Exp", work.x, work.y)
    assert acl.aclmdlRICaptureTaskUpdateEnd(pointer(work.side)) == 207019
    assert acl.aclmdlRICaptureTaskUpdateEnd(pointer(work.side)) == 107033
    assert acl.aclmdlRICaptureTaskGrpBegin(pointer(work.stream)) == 107029


def test_captures_use_up_streams(device: Cann) -> None:
    streams = [device.stream() for _ in range(3)]
    device.configure(faults=f"streams={device.live('streams') + 1}")
    with capturing(device, streams[0]) as first:
        pass
    assert first.graph
    text = refused(207008, lambda: begin(device, streams[1]))
    assert "none is left" in text
    refused(207008, device.stream)
    device.check(device.acl.aclmdlRIDestroy(pointer(first.graph)))
    with capturing(device, streams[1]):
        pass
