# SPDX-License-Identifier: Apache-2.0
"""Compare engines on one GGUF file and one CPU, side by side.

    python benchmarks/compare_cpu.py --model model.gguf --llama-bin DIR --json out.json

Engines take turns within every workload (A B A B ...), each run is its own process, the first round
is discarded, and medians are reported. A run during which other processes used more than
`--max-interference` of the CPUs is repeated a few times and the least disturbed one counts.
Standard library only; engines may live in other Python environments
(`--python openvino=/path/to/python`).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.interference import Interference, wait_until_quiet
from harness.protocol import Reply, Request, ask
from harness.report import Series, markdown
from harness.workloads import WORKLOADS

ADAPTERS = {
    "manymind": "engines.manymind_engine",
    "llama.cpp": "engines.llama_cpp",
    "openvino": "engines.openvino_genai",
}
SUBJECT = "manymind"
_MAX_ATTEMPTS = 4
_ROOT = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Settings:
    """The command line, parsed."""

    model: Path
    threads: int
    engines: list[str]
    workloads: list[str]
    repeats: int
    max_interference: float
    patience_s: float
    timeout_s: float
    pythons: dict[str, str]
    options: dict[str, dict[str, str]]
    json_path: Path | None


def _names(text: str, known: Sequence[str], argument: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise SystemExit(f"{argument}: expected some of {', '.join(known)}; found {text!r}")
    return names


def _pairs(values: Sequence[str], argument: str) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for value, (_, separator, _) in zip(values, pairs, strict=True):
        if not separator:
            raise SystemExit(f"{argument}: expected NAME=VALUE; found {value!r}")
    return {name: value for name, _, value in pairs}


def _engine_options(arguments: argparse.Namespace) -> dict[str, dict[str, str]]:
    options: dict[str, dict[str, str]] = {engine: {} for engine in ADAPTERS}
    if arguments.llama_bin:
        options["llama.cpp"]["bin"] = str(Path(arguments.llama_bin).resolve())
    for name, value in _pairs(arguments.option, "--option").items():
        engine, separator, key = name.partition(":")
        if not separator or engine not in ADAPTERS:
            raise SystemExit(f"--option: expected ENGINE:KEY=VALUE; found {name}={value}")
        options[engine][key] = value
    return options


def parse_arguments(argv: Sequence[str]) -> Settings:
    """The settings of a command line; a bad value ends the process with a message naming it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, type=Path, help="a .gguf file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engines", default=",".join(ADAPTERS))
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=5, help="counted rounds")
    parser.add_argument("--max-interference", type=float, default=0.05, metavar="SHARE")
    parser.add_argument("--patience", type=float, default=300.0, metavar="SECONDS")
    parser.add_argument("--timeout", type=float, default=900.0, metavar="SECONDS")
    parser.add_argument("--llama-bin", default="", metavar="DIR", help="llama.cpp's programs")
    parser.add_argument("--python", action="append", default=[], metavar="ENGINE=PATH")
    parser.add_argument("--option", action="append", default=[], metavar="ENGINE:KEY=VALUE")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args(argv)
    if not arguments.model.is_file():
        raise SystemExit(f"--model: expected a file; found {arguments.model}")
    return Settings(
        model=arguments.model.resolve(),
        threads=arguments.threads,
        engines=_names(arguments.engines, list(ADAPTERS), "--engines"),
        workloads=_names(arguments.workloads, list(WORKLOADS), "--workloads"),
        repeats=arguments.repeats,
        max_interference=arguments.max_interference,
        patience_s=arguments.patience,
        timeout_s=arguments.timeout,
        pythons=_pairs(arguments.python, "--python"),
        options=_engine_options(arguments),
        json_path=arguments.json,
    )


def _run_once(settings: Settings, engine: str, workload: str) -> tuple[Reply, float]:
    """One process of one engine: the least disturbed of the attempts, ending at a quiet one."""
    command = [settings.pythons.get(engine, sys.executable), "-m", ADAPTERS[engine]]
    request = Request(str(settings.model), settings.threads, workload, settings.options[engine])
    attempts: list[tuple[Reply, float]] = []
    for _ in range(_MAX_ATTEMPTS):
        wait_until_quiet(settings.max_interference, settings.patience_s)
        with Interference() as interference:
            reply = ask(command, request, _ROOT, settings.timeout_s)
        attempts.append((reply, interference.share))
        if reply.error or interference.share <= settings.max_interference:
            return attempts[-1]
    return min(attempts, key=lambda attempt: attempt[1])


def _record(series: Series, reply: Reply, interference: float) -> None:
    series.error = reply.error
    series.settings = reply.settings
    if not reply.error:
        series.engine_version = reply.engine_version
        series.samples += reply.samples
        series.peak_rss_bytes.append(reply.peak_rss_bytes)
        series.interference.append(interference)


def _compare_workload(settings: Settings, workload: str) -> list[Series]:
    of_engine = {engine: Series(workload, engine) for engine in settings.engines}
    for turn in range(settings.repeats + 1):
        for engine, series in of_engine.items():
            if series.error:
                continue
            reply, interference = _run_once(settings, engine, workload)
            if turn > 0 or reply.error:
                _record(series, reply, interference)
            shown = ", ".join(f"{value:.4g}" for value in reply.samples) or reply.error
            note = "discarded" if turn == 0 else f"others {interference:.0%}"
            print(f"{workload:20} {engine:10} {shown} ({note})", file=sys.stderr, flush=True)
    return list(of_engine.values())


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _write_json(settings: Settings, all_series: list[Series]) -> None:
    if settings.json_path is None:
        return
    document = {
        "model": settings.model.name,
        "threads": settings.threads,
        "cpu": _cpu_name(),
        "python": platform.python_version(),
        "series": [asdict(series) for series in all_series],
    }
    settings.json_path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def main(argv: Sequence[str]) -> None:
    """Run the comparison, write the JSON after every workload, print the table."""
    settings = parse_arguments(argv)
    all_series: list[Series] = []
    for workload in settings.workloads:
        all_series += _compare_workload(settings, workload)
        _write_json(settings, all_series)
    print(markdown(all_series, settings.engines, SUBJECT))


if __name__ == "__main__":
    main(sys.argv[1:])
