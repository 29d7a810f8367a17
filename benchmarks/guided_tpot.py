# SPDX-License-Identifier: Apache-2.0
"""Time per output token with and without a JSON Schema, all sequences in one batch.

    python benchmarks/guided_tpot.py smollm2 --batch 32 --rounds 5

Free and guided rounds take turns, so that what else the machine does meets both. A round is timed
from when every sequence has its first token until the first one ends.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from manymind import EngineConfig, GenerationConfig, Pipeline, pipeline

# Long answers: no sequence may end while the round is timed.
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        **{f"field_{i}": {"type": "string", "minLength": 40} for i in range(6)},
        "count": {"type": "integer", "minimum": 0},
        "kind": {"enum": ["first", "second", "third"]},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
    },
    "additionalProperties": False,
}
SCHEMA["required"] = list(SCHEMA["properties"])
PROMPT = "Describe an interesting place as JSON, number {}."


def time_round(pipe: Pipeline, batch: int, tokens: int, seed: int, guided: bool) -> float:
    """Seconds per token of a sequence."""
    schema = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
    configs = [
        GenerationConfig(
            max_new_tokens=tokens,
            do_sample=True,
            temperature=1.0,
            random_seed=seed + i,
            ignore_eos=not guided,
            response_format=schema if guided else None,
        )
        for i in range(batch)
    ]
    started: set[int] = set()
    begin, before, count = 0.0, 0, 0
    for piece in pipe.stream_infer([PROMPT.format(i) for i in range(batch)], configs):
        count += len(piece.token_ids)
        started.add(piece.index)
        if len(started) == batch and not begin:
            begin, before = time.perf_counter(), count
        if piece.finish_reason is not None:
            break
    return (time.perf_counter() - begin) * batch / (count - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with pipeline(options.model, EngineConfig(max_batch_size=options.batch)) as pipe:
        times: dict[bool, list[float]] = {False: [], True: []}
        for round_index in range(-1, options.rounds):  # the first one warms up
            for guided in (False, True):
                seed = 1000 * (round_index + 1)
                took = time_round(pipe, options.batch, options.tokens, seed, guided)
                if round_index >= 0:
                    times[guided].append(took)
        stats = pipe.stats()
    free, with_schema = (statistics.median(times[guided]) * 1e3 for guided in (False, True))
    print(f"TPOT free {free:.2f} ms, guided {with_schema:.2f} ms: {with_schema / free - 1:+.1%}")
    more = sorted(b / a - 1 for a, b in zip(times[False], times[True], strict=True))
    print(f"pairs of rounds {statistics.median(more):+.1%}, {more[0]:+.1%} to {more[-1]:+.1%}")
    print(f"masks took {stats['guide_seconds'] / stats['execute_seconds']:.2%} of the steps' time")


if __name__ == "__main__":
    main()
