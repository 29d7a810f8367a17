# SPDX-License-Identifier: Apache-2.0
"""``benchmarks/soak.py``, shortened, and that it would notice what it looks for."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manymind.load.runner import Trace

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

from soak import Findings, Sample, judge  # noqa: E402


def test_an_overloaded_server_keeps_its_promises(tmp_path: Path) -> None:
    """Seconds instead of the half hour of a release, and a model that costs next to nothing."""
    out = tmp_path / "out.json"
    command = [sys.executable, str(BENCHMARKS / "soak.py"), "--model=tiny-vlm", "--minutes=0.05"]
    command += ["--admitted=24", "--output-len=16"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = subprocess.run(
        [*command, f"--port={port}", f"--json={out}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["refused"] > 0
    assert found["completed"] > 0
    assert found["requests"] == found["completed"] + found["refused"]
    assert found["most_kv_blocks"] > found["kv_blocks_at_end"] == 0
    assert found["bad_requests"]


def findings() -> Findings:
    """90 s of a server without fault."""
    found = Findings()
    for second in range(90):
        found.traces.append(Trace(second, second, second + 2.0, [second + 1.0], 200))
        found.samples.append(Sample(second + 0.5, 500 << 20, 9, 1, 0, 1))
    found.samples.append(Sample(90.0, 500 << 20, 0, 0, 0, 0))
    return found


def leak_memory(found: Findings) -> None:
    for sample in found.samples[60:]:
        sample.resident_bytes = 600 << 20


def starve(found: Findings) -> None:
    for trace in found.traces[20:25]:
        trace.pieces = [trace.due + 60.0]


FAULTS: list[tuple[Callable[[Findings], Any], str]] = [
    (leak_memory, "resident memory grew"),
    (starve, "p99 TTFT"),
    (lambda found: setattr(found.samples[-1], "kv_blocks_used", 1), "not idle"),
    (lambda found: setattr(found.samples[-1], "active", 1), "not idle"),
    (lambda found: setattr(found.traces[5], "status", 500), "1 requests failed"),
    (lambda found: setattr(found.traces[5], "status", 0), "1 requests failed"),
    (lambda found: found.wrong.append("/x: expected 400, found 200"), "/x"),
]


@pytest.mark.parametrize(("spoil", "message"), FAULTS)
def test_faults_are_found(spoil: Callable[[Findings], Any], message: str) -> None:
    found = findings()
    assert judge(found, 24)[0] == []
    spoil(found)
    assert [text for text in judge(found, 24)[0] if message in text]


def test_refusals_are_no_faults() -> None:
    found = findings()
    found.traces.append(Trace(1.0, 1.0, 1.1, [], 429, "busy"))
    wrong, numbers = judge(found, 24)
    assert (wrong, numbers["refused"]) == ([], 1)
