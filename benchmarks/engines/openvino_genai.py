# SPDX-License-Identifier: Apache-2.0
"""OpenVINO GenAI: `ContinuousBatchingPipeline` on the GGUF file, driven step by step.

Everything is at its default but the thread count and what the workload needs: a KV cache large
enough for all sequences, no prefix caching unless a prefix is shared.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import numpy as np
import openvino
import openvino_genai
from harness.protocol import (
    Reply,
    Request,
    UnsupportedError,
    peak_rss_bytes,
    seconds_to_first_byte,
    serve,
    steady_decode_rate,
)
from harness.workloads import FIRST_TOKEN_PROMPT, Kind, Workload, prompts, token_ids

_CACHE_GIB = 1
_WARM_UP_SEED = 7

_FIRST_TOKEN_PROGRAM = """
import sys
import openvino_genai
model, threads, prompt = sys.argv[1:]
config = openvino_genai.GenerationConfig()
config.max_new_tokens = 1
pipeline = openvino_genai.ContinuousBatchingPipeline(
    model, openvino_genai.SchedulerConfig(), "CPU", {"INFERENCE_NUM_THREADS": int(threads)})
print(pipeline.generate([prompt], [config])[0].m_generation_ids, flush=True)
"""


def _generation_config(output_tokens: int) -> Any:
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = output_tokens
    config.ignore_eos = True
    return config


def _open(request: Request) -> Any:
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = _CACHE_GIB
    scheduler.enable_prefix_caching = request.spec.kind is Kind.SHARED_PREFIX
    if "max_num_batched_tokens" in request.options:
        scheduler.max_num_batched_tokens = int(request.options["max_num_batched_tokens"])
    properties = {"INFERENCE_NUM_THREADS": request.threads}
    try:
        return openvino_genai.ContinuousBatchingPipeline(
            request.model, scheduler, "CPU", properties
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UnsupportedError(f"cannot load this file: {reason}") from error


def _run(pipeline: Any, batch: list[list[int]], output_tokens: int) -> list[list[float]]:
    """Generate for all of `batch` together; returns each token's arrival time by sequence."""
    config = _generation_config(output_tokens)
    handles = [
        pipeline.add_request(index, openvino.Tensor(np.array([ids], dtype=np.int64)), config)
        for index, ids in enumerate(batch)
    ]
    times: list[list[float]] = [[] for _ in batch]
    while pipeline.has_non_finished_requests():
        pipeline.step()
        now = time.perf_counter()
        for index, handle in enumerate(handles):
            while handle.can_read():
                (output,) = handle.read().values()
                times[index] += [now] * len(output.generated_ids)
    return times


def _sample(pipeline: Any, workload: Workload, index: int) -> float:
    batch = prompts(workload, index)
    if workload.prefix_sent_before:
        _run(pipeline, [batch[0][: workload.prompt_tokens]], 1)
    start = time.perf_counter()
    times = _run(pipeline, batch, workload.output_tokens)
    elapsed = time.perf_counter() - start
    if workload.kind is Kind.PREFILL:
        return workload.prompt_tokens / elapsed
    if workload.kind is Kind.DECODE:
        return steady_decode_rate(times)
    return elapsed


def measure(request: Request) -> Reply:
    """Measure one workload in this process; raises `UnsupportedError` if the file is refused."""
    workload = request.spec
    if workload.kind is Kind.FIRST_TOKEN:
        command = [sys.executable, "-c", _FIRST_TOKEN_PROGRAM, request.model]
        command += [str(request.threads), FIRST_TOKEN_PROMPT]
        samples = [seconds_to_first_byte(command) for _ in range(workload.samples)]
    else:
        pipeline = _open(request)
        _run(pipeline, [token_ids(max(workload.prompt_tokens, 128), _WARM_UP_SEED)], 8)
        samples = [_sample(pipeline, workload, index) for index in range(workload.samples)]
    return Reply(
        samples=[statistics.median(samples)],
        peak_rss_bytes=peak_rss_bytes(),
        engine_version=f"openvino-genai {openvino_genai.__version__.split('-')[0]}",
    )


if __name__ == "__main__":
    serve(measure)
