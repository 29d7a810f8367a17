# SPDX-License-Identifier: Apache-2.0
"""Measure what this CPU can do at most, to compare an engine with the machine (a roofline).

    python benchmarks/machine_limits.py --threads 1,2 --json limits.json

Compiles `machine_limits.cc` with the system's C++ compiler into a temporary folder and runs it.
Reported per thread count: reads from memory and from the last-level cache in GB/s (1e9 bytes), fp32
fused multiply-add, bf16 and int8 dot products in 1e12 operations per second (a multiply and an add
count as two). What the CPU cannot do is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.interference import Interference

_SOURCE = Path(__file__).resolve().with_suffix(".cc")
_GIGA, _TERA = 1e9, 1e12


@dataclass(frozen=True)
class Limit:
    """One probe's rates over its repeats, in `unit`; `spread` is half the range over the median."""

    probe: str
    threads: int
    unit: str
    median: float
    best: float
    spread: float


def _compile(compiler: str, folder: Path) -> Path:
    program = folder / "machine_limits"
    command = [compiler, "-std=c++20", "-O3", "-Wall", "-Wextra", "-pthread", str(_SOURCE)]
    subprocess.run([*command, "-o", str(program)], check=True)
    return program


def _limit(probe: str, threads: int, rates: Sequence[float]) -> Limit:
    reads = probe.endswith("_read")
    scaled = [rate / (_GIGA if reads else _TERA) for rate in rates]
    median = statistics.median(scaled)
    return Limit(
        probe=probe,
        threads=threads,
        unit="GB/s" if reads else "TOP/s",
        median=median,
        best=max(scaled),
        spread=(max(scaled) - min(scaled)) / 2 / median,
    )


def measure(compiler: str, threads: Sequence[int], seconds: float, repeats: int) -> list[Limit]:
    """Every probe at every thread count; `CalledProcessError` if the probe does not build."""
    limits = []
    with tempfile.TemporaryDirectory() as folder:
        program = _compile(compiler, Path(folder))
        for count in threads:
            command = [str(program), str(count), str(seconds), str(repeats)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            limits += [_limit(probe, count, rates) for probe, rates in found.items()]
    return limits


def _table(limits: Sequence[Limit]) -> str:
    lines = ["| probe | threads | median | best | spread |", "| --- | --- | --- | --- | --- |"]
    for limit in limits:
        rates = f"{limit.median:.3g} {limit.unit} | {limit.best:.3g} | {limit.spread:.0%}"
        lines.append(f"| {limit.probe} | {limit.threads} | {rates} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Measure, print a table, and write the JSON if asked to."""
    parser = argparse.ArgumentParser(description="Measure the limits of this CPU.")
    parser.add_argument("--compiler", default="c++")
    parser.add_argument("--threads", default=f"1,{os.cpu_count()}")
    parser.add_argument("--seconds", type=float, default=0.3, help="per probe and repeat")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(argv)
    threads = sorted({int(count) for count in arguments.threads.split(",")})
    with Interference() as interference:
        limits = measure(arguments.compiler, threads, arguments.seconds, arguments.repeats)
    print(_table(limits))
    print(f"\nother processes used {interference.share:.0%} of the CPUs meanwhile")
    if arguments.json is not None:
        document = {"others": interference.share, "limits": [asdict(limit) for limit in limits]}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
