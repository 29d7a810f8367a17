# SPDX-License-Identifier: Apache-2.0
"""Injected faults under a whole engine: the requests concerned end with a typed error that says
what to do, and the next ones are answered as if nothing had been.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cann import LIBRARIES

CHILD = Path(__file__).with_name("fault_child.py")
RESTART = "start the engine in a new process"
NO_MEMORY = ("OutOfMemoryError", "lower cache_max_entry_count or num_kv_blocks")
NO_RESOURCE = ("OutOfMemoryError", "no stream or event left")
DEVICE = ("BackendError", "507015")
TILING = ("BackendError", "report it with this message")
STALL = ("BackendError", "a rank did not reach a collective")
TIMEOUT = ("BackendError", "find their ports free")


class Case(NamedTuple):
    """A fault, when it strikes, and the error and words expected of it; None: an answer."""

    fault: str
    when: str
    expected: tuple[str, str] | None


ONE_RANK = [
    Case("memory=100000", "start", NO_MEMORY),
    Case("memory=0", "first", NO_MEMORY),
    # The allocation of a graph's update, between its beginning and its end.
    Case("call=aclrtMalloc:2:207001", "first", NO_MEMORY),
    Case("call=aclmdlRICaptureTaskUpdateBegin:2:207005", "first", NO_RESOURCE),
    Case("call=aclmdlRIExecuteAsync:1:507011", "first", ("BackendError", "507011")),
    Case("task=40:507015", "later", DEVICE),
    Case("task=200:507014", "later", ("BackendError", "507014")),
    Case("call=aclnnRmsNormGetWorkspaceSize:1:561002", "later", TILING),
    # What cannot be captured runs eagerly.
    Case("streams=0", "first", None),
    Case("events=0", "first", None),
    Case("unjoined=1", "first", None),
    Case("call=aclmdlRICaptureTaskGrpBegin:1:207005", "first", None),
]
# Rank 0 or 1 meets the fault and the other one does not.
TWO_RANKS = [
    Case("call=HcclCommInitRootInfo:1:9", "start", TIMEOUT),
    Case("stall=3", "first", STALL),
    Case("call=HcclAllReduce:1:9", "later", TIMEOUT),
    Case("call=aclnnRmsNormGetWorkspaceSize:1:561002", "later", TILING),
]


def run(
    faults: list[Case], tp: int, schedule: str, wait_ms: int = 150, **settings: str
) -> tuple[list[dict[str, Any]], str]:
    """What came of each fault, and the log. Settings are the back end's."""
    emulator = {"SCHEDULE": schedule, "WAIT_MS": str(wait_ms)}
    environment = {**os.environ, "LD_LIBRARY_PATH": str(LIBRARIES)}
    environment.update({f"FAKECANN_{name}": value for name, value in emulator.items()})
    task = {
        "dtype": "bfloat16",
        "tp": tp,
        "faults": [(case.fault, case.when) for case in faults],
        "settings": settings,
    }
    done = subprocess.run(
        [sys.executable, CHILD],
        input=json.dumps(task),
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return results, done.stderr


@cache
def undisturbed(tp: int) -> Any:
    """What is answered where nothing fails."""
    return run([Case("", "first", None)], tp, "immediate")[0][0]["found"]


@pytest.mark.parametrize(("cases", "tp"), [(ONE_RANK, 1), (TWO_RANKS, 2)], ids=["1", "2"])
def test_the_next_request_is_answered(cases: list[Case], tp: int) -> None:
    results, _ = run(cases, tp, "lazy")
    for case, result in zip(cases, results, strict=True):
        if case.expected is None:
            assert result["found"] == undisturbed(tp), case
        else:
            error, words = case.expected
            assert result["found"]["error"] == error, (case, result)
            assert words in result["found"]["text"], (case, result)
        assert result["next"] == undisturbed(tp), case


A_DAY = 86_400_000  # longer than HCCL's own half an hour


@pytest.mark.parametrize("schedule", ["immediate", "lazy", "random:5"])
def test_requests_do_not_wait_for_the_limit_of_hccl(schedule: str) -> None:
    """Neither where a rank fails and the other one waits for it, nor where a collective stalls."""
    cases = [TWO_RANKS[-1], Case("stall=3", "first", ("BackendError", "the stall_seconds of 1 "))]
    results, _ = run(cases, 2, schedule, A_DAY, stall_seconds="1")
    for case, result in zip(cases, results, strict=True):
        assert case.expected is not None
        error, words = case.expected
        assert result["found"]["error"] == error, (case, result)
        assert words in result["found"]["text"], (case, result)
        assert result["next"] == undisturbed(2), case


def test_an_engine_is_closed_while_a_collective_stalls() -> None:
    (result,), _ = run([Case("stall=3", "stop", None)], 2, "lazy", A_DAY, stall_seconds="0")
    assert result["found"]["error"] == "BackendError"


def test_a_lost_device_asks_for_a_new_process() -> None:
    (result,), _ = run([Case("lost=40", "later", None)], 1, "lazy")
    assert result["found"]["error"] == result["next"]["error"] == "BackendError"
    assert "507899" in result["found"]["text"]
    assert RESTART in result["next"]["text"]


def test_what_a_capture_met_first_is_what_is_reported() -> None:
    """Not the refusals that follow from it, which say only that a capture is active."""
    fault = "call=aclmdlRICaptureTaskGrpEnd:1:207005"  # leaves a group open, which ends the capture
    (result,), log = run([Case(fault, "first", None)], 1, "lazy")
    assert result["found"] == result["next"] == undisturbed(1)
    warnings = [line for line in log.splitlines() if "not captured any more" in line]
    assert len(warnings) == 1
    assert "207005" in warnings[0]
    assert "no stream or event left" in warnings[0]
    assert "107030" not in log
    assert "507903" not in log
