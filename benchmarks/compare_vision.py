# SPDX-License-Identifier: Apache-2.0
"""Compare engines on pictures: time to the first token, throughput, repeated pictures,
preprocessing.

    python benchmarks/vision/make_model.py FOLDER      # once; needs torch and transformers
    python benchmarks/compare_vision.py --model FOLDER --json out.json

    python benchmarks/compare_vision.py --model FOLDER \\
        --llama-server build/bin/llama-server --llama-text text.gguf --llama-mmproj mmproj.gguf

The second form adds llama.cpp, on GGUF files of the same folder (its convert_hf_to_gguf.py, once
without and once with --mmproj; it does not know the tokenizer, so that its get_vocab_base_pre has
to be made to return "smollm"). Engines take turns within every workload, each run is its own
process, the median of the counted rounds is reported; "manymind-int8" is manymind with
``weight_dtype="int8"``. Workloads: 1, 8 and 32 requests at once, each
with a picture of its own and 32 tokens of answer; "repeated": a new picture, the same again, and a
further question about it; "preprocess": pictures of 1080 x 1920 per second, without decoding, in
one thread and in ``--threads`` at once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from harness.interference import Interference, wait_until_quiet

_FOLDER = Path(__file__).resolve().parent / "vision"
WORKLOADS = ("repeated", "1", "8", "32", "preprocess")
ENGINES = {
    "manymind": ["manymind_worker.py", "auto"],
    "manymind-int8": ["manymind_worker.py", "int8"],
    "transformers": ["transformers_worker.py"],
    "llama.cpp": ["llama_cpp_worker.py"],
}


def run(engine: str, arguments: argparse.Namespace, workload: str) -> dict[str, float]:
    """One process; its last line of output is the result."""
    script, *options = ENGINES[engine]
    if engine == "llama.cpp":
        options = [arguments.llama_server, arguments.llama_text, arguments.llama_mmproj]
    elif engine == "transformers":
        options = [arguments.transformers_dtype]
    command = [sys.executable, script, arguments.model, workload, str(arguments.threads), *options]
    finished = subprocess.run(command, cwd=_FOLDER, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise SystemExit(f"{engine} {workload}: {finished.stderr.strip().splitlines()[-1]}")
    values: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    return values


def measure(arguments: argparse.Namespace, workload: str) -> dict[str, dict[str, list[float]]]:
    """Engine -> quantity -> one value per round; "interference": share of the CPUs that others
    took meanwhile."""
    # llama.cpp's preprocessing cannot be called by itself.
    engines = [
        engine
        for engine in arguments.engines
        if engine != "llama.cpp" or (arguments.llama_server and workload != "preprocess")
    ]
    found: dict[str, dict[str, list[float]]] = {engine: {} for engine in engines}
    for _ in range(arguments.repeats):
        for engine in engines:
            wait_until_quiet(arguments.max_interference, arguments.patience)
            with Interference() as interference:
                values = run(engine, arguments, workload)
            for name, value in {**values, "interference": interference.share}.items():
                found[engine].setdefault(name, []).append(value)
    return found


def table(results: dict[str, dict[str, dict[str, list[float]]]]) -> str:
    """Medians, with the spread of the rounds."""
    lines = [
        "| Workload | Engine | Quantity | Median | Spread |",
        "| --- | --- | --- | --- | --- |",
    ]
    for workload, engines in results.items():
        for engine, quantities in engines.items():
            for name, values in quantities.items():
                middle = statistics.median(values)
                spread = (max(values) - min(values)) / 2 / middle if middle else 0.0
                cells = (workload, engine, name, f"{middle:.3f}", f"±{spread:.0%}")
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # Workers run in a folder of their own.
    parser.add_argument(
        "--model", required=True, type=os.path.abspath, help="a folder that make_model.py wrote"
    )
    for name in ("server", "text", "mmproj"):
        parser.add_argument(f"--llama-{name}", metavar="FILE", type=os.path.abspath)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--transformers-dtype",
        choices=("bfloat16", "float32"),
        default="bfloat16",
        help="float32 is several times as fast without instructions for bf16 (AMX, AVX512-BF16)",
    )
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-interference", type=float, default=0.05, metavar="SHARE")
    parser.add_argument("--patience", type=float, default=300.0, metavar="SECONDS")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    llama = (arguments.llama_server, arguments.llama_text, arguments.llama_mmproj)
    if any(llama) and not all(llama):
        parser.error("expected --llama-server, --llama-text and --llama-mmproj, or none of them")
    results = {workload: measure(arguments, workload) for workload in arguments.workloads}
    if arguments.json:
        report = {"machine": platform.processor() or platform.machine(), "results": results}
        arguments.json.write_text(json.dumps(report, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
