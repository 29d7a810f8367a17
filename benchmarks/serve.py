# SPDX-License-Identifier: Apache-2.0
"""Serving workloads on one engine in this process, on any back end.

Prompts are fresh random token ids, requests greedy and of fixed length; all requests of a run are
handed over at once. Every measurement follows a warm-up of the same shape. One JSON line per
measurement goes to --out.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manymind import EngineConfig
from manymind._turbomind import SamplingParams
from manymind.checkpoint import open_checkpoint
from manymind.native import start_engine

_POLL_MS = 1000
_LOWEST_ID = 1000

Prompt = list[int]


@dataclass(frozen=True)
class Sizes:
    """How much of each workload to run."""

    throughput_requests: int
    decode_batches: Sequence[int]
    repeats: int


class Server:
    """The engine without its text side: token ids in, token counts out."""

    def __init__(self, model: Path, config: EngineConfig) -> None:
        started = time.perf_counter()
        self._checkpoint = open_checkpoint(model)
        self.engine, self.memory_plan = start_engine(self._checkpoint, config)
        self.start_seconds = time.perf_counter() - started

    def seconds(self, prompts: Sequence[Prompt], new_tokens: int) -> float:
        """Wall time from the first submission to the last output token."""
        params = SamplingParams()
        params.temperature = 0.0
        params.max_new_tokens = new_tokens
        params.ignore_eos = True
        started = time.perf_counter()
        for prompt in prompts:
            self.engine.submit(prompt, params)
        self._wait(len(prompts), len(prompts) * new_tokens)
        return time.perf_counter() - started

    def between(
        self, prompts: Sequence[Prompt], first: int, last: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The engine's counters when all answers together have so many tokens for each prompt."""
        params = SamplingParams()
        params.temperature = 0.0
        # Nothing ends before the last step that counts.
        params.max_new_tokens = 2 * last
        params.ignore_eos = True
        ids = [self.engine.submit(prompt, params) for prompt in prompts]
        counters = []
        received = 0
        for tokens in (first, last):
            while received < tokens * len(prompts):
                received += sum(len(output.token_ids) for output in self.engine.poll(_POLL_MS))
            counters.append({**self.engine.stats(), "wall_seconds": time.perf_counter()})
        for request in ids:
            self.engine.cancel(request)
        unfinished = len(ids)
        while unfinished:
            unfinished -= sum(output.finished for output in self.engine.poll(_POLL_MS))
        return counters[0], counters[1]

    def close(self) -> None:
        """Stops the engine."""
        self.engine.stop()
        self._checkpoint.close()

    def _wait(self, requests: int, tokens: int) -> None:
        received = 0
        while requests > 0:
            for output in self.engine.poll(_POLL_MS):
                received += len(output.token_ids)
                requests -= output.finished
                if output.error is not None:
                    raise output.error
        if received != tokens:
            raise RuntimeError(f"expected {tokens} tokens, received {received}")


class Workloads:
    """Runs workloads by name and emits their measurements."""

    def __init__(self, server: Server, sizes: Sizes, out: Path | None, tag: str) -> None:
        self._server = server
        self._sizes = sizes
        self._out = out
        self._tag = tag
        self._random = random.Random(7)

    def emit(self, workload: str, **values: Any) -> None:
        """Prints one measurement and appends it to the file."""
        line = json.dumps({"tag": self._tag, "workload": workload, **values})
        print(line, flush=True)
        if self._out is not None:
            with self._out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def warm_up(self) -> None:
        """Makes the engine meet small and middle batches, so that captures are not timed."""
        for batch in (1, 8, 64):
            self._server.seconds(self._prompts(batch, 512), 16)

    def throughput(self) -> None:
        """Many requests of 1024 input and 256 output tokens."""
        requests, length, new_tokens = self._sizes.throughput_requests, 1024, 256
        self._server.seconds(self._prompts(requests, length), new_tokens)
        for _ in range(max(1, self._sizes.repeats - 1)):
            seconds = self._server.seconds(self._prompts(requests, length), new_tokens)
            self.emit(
                "throughput",
                requests=requests,
                seconds=round(seconds, 3),
                output_tokens_per_second=round(requests * new_tokens / seconds, 1),
                total_tokens_per_second=round(requests * (length + new_tokens) / seconds, 1),
            )

    def decode(self) -> None:
        """Milliseconds per step: the difference between 128 and 1 output tokens after 512."""
        length, new_tokens = 512, 128
        for batch in self._sizes.decode_batches:
            self._server.seconds(self._prompts(batch, length), new_tokens)
            first, full = [], []
            before = self._server.engine.stats()
            for _ in range(self._sizes.repeats):
                first.append(self._server.seconds(self._prompts(batch, length), 1))
                full.append(self._server.seconds(self._prompts(batch, length), new_tokens))
            steps = new_tokens - 1
            median = statistics.median(full) - statistics.median(first)
            self.emit(
                "decode",
                batch=batch,
                step_ms=round(1e3 * median / steps, 3),
                lowest_ms=round(1e3 * (min(full) - max(first)) / steps, 3),
                highest_ms=round(1e3 * (max(full) - min(first)) / steps, 3),
                host_ms=round(_host_ms(before, self._server.engine.stats()), 3),
            )

    def steady(self) -> None:
        """What a step costs the engine's thread while a batch neither grows nor shrinks."""
        for batch in self._sizes.decode_batches:
            begin, end = self._server.between(self._prompts(batch, 512), 64, 264)
            steps = end["steps"] - begin["steps"]
            self.emit(
                "steady",
                batch=batch,
                steps=steps,
                **{
                    name: round(1e3 * (end[key] - begin[key]) / steps, 4)
                    for name, key in _PARTS.items()
                },
                host_ms=round(_host_ms(begin, end), 4),
            )

    def prefill(self) -> None:
        """Seconds until the last request's first token."""
        for requests, length in ((1, 4096), (1, 15000), (16, 4096)):
            self._server.seconds(self._prompts(requests, length), 1)
            times = [
                self._server.seconds(self._prompts(requests, length), 1)
                for _ in range(self._sizes.repeats)
            ]
            seconds = statistics.median(times)
            self.emit(
                "prefill",
                requests=requests,
                length=length,
                seconds=round(seconds, 4),
                tokens_per_second=round(requests * length / seconds, 1),
                all_seconds=[round(value, 4) for value in times],
            )

    def shared_prefix(self) -> None:
        """256 requests of 2048 common and 64 own tokens, 64 output tokens, twice per prefix."""
        requests, common, own, new_tokens = 256, 2048, 64, 64
        self._server.seconds(self._prompts(requests, own, self._ids(common)), new_tokens)
        for _ in range(self._sizes.repeats):
            prefix = self._ids(common)
            cold = self._server.seconds(self._prompts(requests, own, prefix), new_tokens)
            warm = self._server.seconds(self._prompts(requests, own, prefix), new_tokens)
            self.emit("shared_prefix", cold_seconds=round(cold, 4), warm_seconds=round(warm, 4))

    def _ids(self, count: int) -> Prompt:
        return self._random.choices(range(_LOWEST_ID, self._server.engine.vocab_size), k=count)

    def _prompts(self, count: int, length: int, prefix: Sequence[int] = ()) -> list[Prompt]:
        return [[*prefix, *self._ids(length)] for _ in range(count)]


def _host_ms(before: dict[str, Any], after: dict[str, Any]) -> float:
    """What a step between the two took of the engine's thread, without waiting for the device."""

    def spent(name: str) -> float:
        return float(after[name] - before[name])

    seconds = spent("schedule_seconds") + spent("execute_seconds") + spent("output_seconds")
    return 1e3 * (seconds - spent("wait_seconds")) / spent("steps")


_NAMES = ("decode", "prefill", "throughput", "shared_prefix", "steady")
# What a step takes, and the engine's thread in it; execute_ms holds wait_ms.
_PARTS = {
    f"{part}_ms": f"{part}_seconds" for part in ("wall", "schedule", "execute", "wait", "output")
}


def main() -> None:
    """Starts the engine once and runs the workloads asked for."""
    arguments = _arguments()
    config = EngineConfig(
        backend=arguments.backend,
        tp=arguments.tp,
        dtype=arguments.dtype,
        session_len=arguments.session_len,
        max_batch_size=arguments.max_batch_size,
        max_prefill_token_num=arguments.max_prefill_token_num,
        cache_max_entry_count=arguments.cache_max_entry_count,
        enable_prefix_caching="shared_prefix" in arguments.run,
        plugin_paths=arguments.plugin,
        backend_config=dict(entry.split("=", 1) for entry in arguments.backend_config),
    )
    server = Server(arguments.model, config)
    sizes = Sizes(arguments.throughput_requests, arguments.decode_batches, arguments.repeats)
    workloads = Workloads(server, sizes, arguments.out, arguments.tag)
    workloads.emit("start", seconds=round(server.start_seconds, 2), memory=server.memory_plan)
    workloads.warm_up()
    for name in arguments.run:
        getattr(workloads, name)()
    workloads.emit("stats", **server.engine.stats())
    server.close()


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(_NAMES):
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(_NAMES)}, found {unknown}")
    return names


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a checkpoint")
    parser.add_argument("--run", type=_names, default=list(_NAMES[:3]), help=", ".join(_NAMES))
    parser.add_argument("--out", type=Path, help="file that measurements are appended to")
    parser.add_argument("--tag", default="", help="copied into every measurement")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--plugin", action="append", default=[], help="path of a plug-in")
    parser.add_argument("--backend-config", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--session-len", type=int, default=16384)
    parser.add_argument("--max-batch-size", type=int, default=512)
    parser.add_argument("--max-prefill-token-num", type=int, default=8192)
    parser.add_argument("--cache-max-entry-count", type=float, default=0.9)
    parser.add_argument("--throughput-requests", type=int, default=512)
    parser.add_argument(
        "--decode-batches",
        type=lambda text: [int(word) for word in text.split(",")],
        default=[1, 8, 32, 64, 128, 256],
    )
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
