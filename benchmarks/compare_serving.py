# SPDX-License-Identifier: Apache-2.0
"""Compare servers with OpenAI's interface on one GGUF file and one machine, side by side.

    python benchmarks/compare_serving.py --model model.gguf --llama-server build/bin/llama-server \\
        --threads 2 --clients 8,32 --rounds 3 --json out.json

Servers take turns (A B A B ...), each is a process of its own that is alone while it is measured,
and all get the same requests from the same client: closed loops of ``--clients`` clients, greedy,
every answer of the same length. Needs manymind installed; ``--vllm`` names a Python that has
vLLM, which serves ``--vllm-model``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from served import manymind_command, served

from manymind.load.runner import Target, run
from manymind.load.statistics import Objectives, summary
from manymind.load.workload import Arrivals, DataConfig, conversations

_PORT = 18080
_WARM_UP = 2  # requests
_COLUMNS = (
    ("requests/s", "requests_per_second", None),
    ("output tokens/s", "output_tokens_per_second", None),
    ("TTFT p50, ms", "ttft_ms", "p50"),
    ("TTFT p99, ms", "ttft_ms", "p99"),
    ("TPOT p50, ms", "tpot_ms", "p50"),
)


@dataclass(frozen=True)
class Peer:
    """A server: how it is started, and how its requests say that answers have full length."""

    name: str
    command: Sequence[str]
    health: str


def main() -> None:
    """Measures and prints a table."""
    options = _options()
    results: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for round_number in range(options.rounds):
        for peer in _peers(options):
            measured = _measure(peer, options, round_number)
            for clients, result in measured.items():
                results.setdefault(peer.name, {}).setdefault(clients, []).append(result)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(_table(results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--llama-server", type=Path)
    parser.add_argument("--vllm", type=Path, help="Python that has vLLM")
    parser.add_argument("--vllm-model", type=Path, help="folder of the same model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clients", default="8,32")
    parser.add_argument("--input-len", type=int, default=64, help="words")
    parser.add_argument("--output-len", type=int, default=32, help="tokens")
    parser.add_argument("--requests-per-client", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.clients = [int(item) for item in options.clients.split(",")]
    return options


def _peers(options: argparse.Namespace) -> list[Peer]:
    url = f"http://127.0.0.1:{_PORT}"
    slots = max(options.clients)
    context = 512  # tokens per sequence; enough for the lengths above
    found = [
        Peer(
            "manymind",
            manymind_command(
                options.model, _PORT, f"--num_threads={options.threads}",
                f"--max_batch_size={slots}", f"--session_len={context}",
            ),
            f"{url}/ready",
        )
    ]  # fmt: skip
    if options.llama_server is not None:
        command = [
            str(options.llama_server), "-m", str(options.model), "--port", str(_PORT),
            "-t", str(options.threads), "-np", str(slots), "-c", str(slots * context),
            "--alias", "model", "--no-webui", "--log-disable",
        ]  # fmt: skip
        found.append(Peer("llama.cpp", command, f"{url}/health"))
    if options.vllm is not None:
        command = [
            str(options.vllm), "-m", "vllm.entrypoints.openai.api_server", "--port", str(_PORT),
            "--model", str(options.vllm_model), "--served-model-name", "model",
            "--max-model-len", str(context), "--max-num-seqs", str(slots),
            "--gpu-memory-utilization", "0.5",  # of the main memory, on a CPU
        ]  # fmt: skip
        found.append(Peer("vLLM", command, f"{url}/health"))
    return found


def _measure(
    peer: Peer, options: argparse.Namespace, round_number: int
) -> dict[int, dict[str, Any]]:
    target = Target(f"http://127.0.0.1:{_PORT}", "model", body={"ignore_eos": True})
    results = {}
    with tempfile.TemporaryFile() as log, served(peer.command, peer.health, log):
        for clients in options.clients:
            number = clients * options.requests_per_client
            seed = 1000 * round_number + clients

            def load(count: int, seed: int) -> dict[str, Any]:
                data = DataConfig(
                    num_requests=count,
                    input_len=options.input_len,
                    output_len=options.output_len,
                    seed=seed,
                )
                arrivals = Arrivals(concurrency=clients)  # noqa: B023
                traces, seconds = asyncio.run(run(target, conversations(data), arrivals))
                return summary(traces, seconds, Objectives())

            load(_WARM_UP, seed + 500)
            result = results[clients] = load(number, seed)
            # What was answered must be whole, or rates would compare different work; requests that
            # were not answered are counted in the table.
            expected = result["completed"] * options.output_len
            if result["output_tokens"] != expected:
                raise SystemExit(f"{peer.name}: expected {expected} tokens, found {result}")
    return results


def _table(results: dict[str, dict[int, list[dict[str, Any]]]]) -> str:
    """Medians over the rounds, with half the range; the requests without an answer of all rounds
    together.
    """
    names = list(results)
    lines = [f"| clients | | {' | '.join(names)} |", "| --- | --- |" + " --- |" * len(names)]
    for clients in results[names[0]]:
        for title, key, part in _COLUMNS:
            cells = [_cell(results[name][clients], key, part) for name in names]
            lines.append(f"| {clients} | {title} | {' | '.join(cells)} |")
        cells = [_unanswered(results[name][clients]) for name in names]
        lines.append(f"| {clients} | without an answer | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(rounds: Sequence[dict[str, Any]], key: str, part: str | None) -> str:
    found = [result[key] for result in rounds if result["completed"]]
    values = [value if part is None else value[part] for value in found if value is not None]
    if not values:
        return "none"
    middle = statistics.median(values)
    half = (max(values) - min(values)) / 2 / middle
    return f"{middle:,.1f} ± {half:.0%}"


def _unanswered(rounds: Sequence[dict[str, Any]]) -> str:
    count = sum(result["requests"] - result["completed"] for result in rounds)
    return f"{count} of {sum(result['requests'] for result in rounds)}"


if __name__ == "__main__":
    main()
