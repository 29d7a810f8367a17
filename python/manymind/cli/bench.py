# SPDX-License-Identifier: Apache-2.0
"""``manymind bench``: a closed loop of requests against the engine of this process."""

from __future__ import annotations

import json
import queue
import random
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manymind.api import Pipeline, pipeline
from manymind.config import EngineConfig, GenerationConfig
from manymind.dispatcher import Subscription
from manymind.validation import require, require_int

if TYPE_CHECKING:
    from manymind import _turbomind

_PROMPT_SEED = 0
_PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Load:
    """num_prompts requests of input_len + output_len tokens, at most ``concurrency`` of them in
    flight.
    """

    input_len: int
    output_len: int
    num_prompts: int
    concurrency: int

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            require_int(name, value, 1)

    @property
    def in_flight(self) -> int:
        """Most requests at once."""
        return min(self.concurrency, self.num_prompts)


@dataclass
class Trace:
    """Times of one request in seconds of the performance counter."""

    submitted: float
    arrivals: list[float] = field(default_factory=list)
    tokens: int = 0

    @property
    def ttft(self) -> float:
        """Submission to first token."""
        return self.arrivals[0] - self.submitted

    @property
    def tpot(self) -> float:
        """Mean time of a token after the first."""
        return (self.arrivals[-1] - self.arrivals[0]) / max(self.tokens - 1, 1)

    @property
    def gaps(self) -> list[float]:
        """Times between outputs."""
        return [
            later - earlier
            for earlier, later in zip(self.arrivals, self.arrivals[1:], strict=False)
        ]


def run(
    model: str,
    load: Load,
    json_path: str | None,
    backend: str,
    num_threads: int,
    weight_dtype: str,
    kv_cache_dtype: str,
) -> None:
    """Loads the model, warms up with one request, measures and prints."""
    out = Path(json_path) if json_path is not None else None
    if out is not None:
        require(out.parent.is_dir(), "json", "a file in an existing folder", json_path)
    config = EngineConfig(
        backend=backend,
        num_threads=num_threads,
        weight_dtype=weight_dtype,
        kv_cache_dtype=kv_cache_dtype,
        max_batch_size=load.in_flight,
    )
    with pipeline(model, config) as pipe:
        prompts = _random_prompts(pipe, load, load.num_prompts + 1)
        run_load(pipe, prompts[-1:], Load(load.input_len, min(load.output_len, 4), 1, 1))
        start = time.perf_counter()
        traces = run_load(pipe, prompts[:-1], load)
        result = _report(model, load, traces, time.perf_counter() - start)
    print(_as_text(result))
    if out is not None:
        out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def run_load(pipe: Pipeline, prompts: Sequence[Sequence[int]], load: Load) -> list[Trace]:
    """Keeps ``concurrency`` requests in flight until all prompts are answered; raises the first
    request's error.
    """
    runtime = pipe.runtime
    (params,) = runtime.sampling_params(
        [GenerationConfig(max_new_tokens=load.output_len, ignore_eos=True)]
    )
    events: queue.SimpleQueue[tuple[float, list[_turbomind.Output]]] = queue.SimpleQueue()
    subscription = Subscription(lambda outputs: events.put((time.perf_counter(), outputs)))
    traces: dict[int, Trace] = {}
    waiting = list(reversed(prompts))
    in_flight = 0
    while waiting or in_flight:
        while waiting and in_flight < load.in_flight:
            submitted = time.perf_counter()
            request_id = runtime.dispatcher.submit(waiting.pop(), params, subscription)
            traces[request_id] = Trace(submitted)
            in_flight += 1
        now, outputs = events.get()
        for output in outputs:
            _record(traces[output.request_id], now, output)
            in_flight -= int(output.finished)
    return list(traces.values())


def _record(trace: Trace, now: float, output: _turbomind.Output) -> None:
    if output.error is not None:
        raise output.error
    if output.token_ids:
        trace.arrivals.append(now)
        trace.tokens += len(output.token_ids)


def _random_prompts(pipe: Pipeline, load: Load, count: int) -> list[list[int]]:
    draw = random.Random(_PROMPT_SEED)
    vocab_size = pipe.runtime.tokenizer.vocab_size
    return [[draw.randrange(vocab_size) for _ in range(load.input_len)] for _ in range(count)]


def _report(model: str, load: Load, traces: Sequence[Trace], seconds: float) -> dict[str, Any]:
    generated = sum(trace.tokens for trace in traces)
    total = generated + load.input_len * load.num_prompts
    return {
        "model": model,
        **asdict(load),
        "in_flight": load.in_flight,
        "seconds": seconds,
        "output_tokens_per_second": generated / seconds,
        "total_tokens_per_second": total / seconds,
        "ttft_ms": _percentiles([trace.ttft for trace in traces]),
        "tpot_ms": _percentiles([trace.tpot for trace in traces if trace.tokens > 1]),
        "itl_ms": _percentiles([gap for trace in traces for gap in trace.gaps]),
        "peak_memory_bytes": _peak_memory_bytes(),
    }


def _percentiles(seconds: list[float]) -> dict[str, float | None]:
    """In milliseconds, nearest rank; None without samples."""
    ordered = sorted(seconds)
    return {
        f"p{percent}": 1e3 * ordered[max(0, -(-percent * len(ordered) // 100) - 1)]
        if ordered
        else None
        for percent in _PERCENTILES
    }


def _peak_memory_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _as_text(result: dict[str, Any]) -> str:
    lines = [
        f"{result['model']}: {result['num_prompts']} prompts of {result['input_len']} tokens, "
        f"{result['output_len']} generated each, {result['in_flight']} in flight: "
        f"{result['seconds']:.2f} s",
        f"output tokens/s  {result['output_tokens_per_second']:10.1f}",
        f"total tokens/s   {result['total_tokens_per_second']:10.1f}",
    ]
    for name in ("ttft", "tpot", "itl"):
        row = result[f"{name}_ms"]
        cells = "  ".join(
            f"{key} {value:8.2f}" if value is not None else f"{key}        -"
            for key, value in row.items()
        )
        lines.append(f"{name.upper():4} ms          {cells}")
    lines.append(f"peak memory MiB  {result['peak_memory_bytes'] / 2**20:10.1f}")
    return "\n".join(lines)
