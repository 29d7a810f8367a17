# SPDX-License-Identifier: Apache-2.0
"""The JSON spoken between the runner and an adapter process.

The runner writes one JSON request to the adapter's standard input; the adapter's last line on
standard output is one JSON reply. Anything else an engine prints is ignored.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from harness.workloads import WORKLOADS, Workload


class UnsupportedError(Exception):
    """The engine cannot run this workload or read this file; the message says why."""


@dataclass(frozen=True)
class Request:
    """What an adapter is asked to do."""

    model: str
    threads: int
    workload: str
    options: dict[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> Workload:
        """The workload this request names."""
        return WORKLOADS[self.workload]


@dataclass(frozen=True)
class Reply:
    """What an adapter measured: `samples` in the workload's unit, peak resident memory in bytes."""

    samples: list[float]
    peak_rss_bytes: int
    engine_version: str
    settings: str = ""
    error: str = ""


def serve(measure: Callable[[Request], Reply]) -> None:
    """Answer the one request on standard input."""
    request = Request(**json.loads(sys.stdin.read()))
    try:
        reply = measure(request)
    except UnsupportedError as error:
        reply = Reply(samples=[], peak_rss_bytes=0, engine_version="", error=str(error))
    print("\n" + json.dumps(asdict(reply)), flush=True)


def ask(command: Sequence[str], request: Request, root: Path, timeout_s: float) -> Reply:
    """Run an adapter in `root` and return its reply; a crash becomes a reply with `error` set."""
    finished = subprocess.run(
        command,
        cwd=root,
        input=json.dumps(asdict(request)),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if finished.returncode != 0:
        lines = finished.stderr.strip().splitlines() or ["no message"]
        message = f"exit status {finished.returncode}: {lines[-1]}"
        return Reply(samples=[], peak_rss_bytes=0, engine_version="", error=message)
    return Reply(**json.loads(finished.stdout.splitlines()[-1]))


def peak_rss_bytes() -> int:
    """This process's largest resident set.

    Read from the kernel's high-water mark of this address space: `ru_maxrss` would also count the
    parent's pages at the moment of the fork.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmHWM line; peak memory needs Linux")


def seconds_to_first_byte(command: Sequence[str]) -> float:
    """Time from the start of `command` to its first byte of standard output, which it is then let
    finish. Raises `UnsupportedError` when it ends without output."""
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process:
            assert process.stdout is not None
            first = process.stdout.read(1)
            elapsed = time.perf_counter() - start
            process.stdout.read()
        errors.seek(0)
        lines = errors.read().decode(errors="replace").strip().splitlines()
    if not first:
        raise UnsupportedError(lines[-1] if lines else "no output")
    return elapsed


def steady_decode_rate(token_times: Sequence[Sequence[float]]) -> float:
    """Aggregate tokens/s while every sequence of the batch is decoding.

    `token_times[i]` holds the arrival time in seconds of each token of sequence i. The window runs
    from the last sequence's first token to the first sequence's last token, so neither the prefill
    nor a thinning batch at the end counts; a lock-step benchmark of N sequences measures the same.
    """
    start = max(times[0] for times in token_times)
    end = min(times[-1] for times in token_times)
    if end <= start:
        raise UnsupportedError("the sequences never decoded together: too few slots or blocks")
    tokens = sum(1 for times in token_times for moment in times if start < moment <= end)
    return tokens / (end - start)
