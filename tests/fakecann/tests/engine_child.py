# SPDX-License-Identifier: Apache-2.0
"""Answers prompts on one back end, in a process of its own, and prints what came of each as JSON.

Arguments: model, back end, dtype, ranks, most new tokens, prompts and, where it is
another one, dtype of the KV cache.
"""

from __future__ import annotations

import ctypes
import json
import sys

from manymind import EngineConfig, GenerationConfig, pipeline
from manymind.errors import ManymindError

PROMPTS = ["the cat sat on", "hello", "one two three four five six seven eight nine ten"]


def main() -> None:
    """Runs the prompts together."""
    model, backend, dtype, tp, tokens, prompts, *others = sys.argv[1:]
    config = EngineConfig(
        backend=backend,
        dtype=dtype,
        kv_cache_dtype=others[0] if others else dtype,
        num_kv_blocks=64,
        max_batch_size=8,
        tp=int(tp),
    )
    try:
        with pipeline(model, config) as pipe:
            outputs = pipe(
                PROMPTS[: int(prompts)],
                GenerationConfig(
                    max_new_tokens=int(tokens), do_sample=False, output_logits="generation"
                ),
            )
            lines = {line["name"]: line["bytes"] for line in pipe.memory_plan["lines"]}
        result = {
            "tokens": [output.token_ids for output in outputs],
            "logits": outputs[0].logits.tolist(),
            "kv_bytes_per_token": lines["KV cache"] / pipe.memory_plan["kv_capacity"],
        }
        if backend == "ascend":
            count = ctypes.CDLL("libnnopbase.so").fakecannPreparations
            count.restype = ctypes.c_uint64
            result["preparations"] = count()
    except ManymindError as error:
        result = {"error": type(error).__name__, "text": str(error)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
