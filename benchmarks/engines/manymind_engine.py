# SPDX-License-Identifier: Apache-2.0
"""manymind through its Python API; token arrival times are taken as the engine's steps come in."""

from __future__ import annotations

import queue
import statistics
import sys
import time

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

import manymind
from manymind.dispatcher import Subscription

_WARM_UP_SEED = 7

_FIRST_TOKEN_PROGRAM = """
import sys
from manymind import EngineConfig, GenerationConfig, pipeline
model, threads, prompt = sys.argv[1:]
with pipeline(model, EngineConfig(num_threads=int(threads))) as pipe:
    for piece in pipe.stream_infer(prompt, GenerationConfig(max_new_tokens=1), do_preprocess=False):
        print(piece.text, flush=True)
"""


def _generation_config(output_tokens: int) -> manymind.GenerationConfig:
    return manymind.GenerationConfig(max_new_tokens=output_tokens, do_sample=False, ignore_eos=True)


def _open(request: Request) -> manymind.Pipeline:
    workload = request.spec
    config = manymind.EngineConfig(
        num_threads=request.threads,
        max_batch_size=max(workload.sequences, 1),
        session_len=max(workload.request_tokens, 512),
        enable_prefix_caching=workload.kind is Kind.SHARED_PREFIX,
    )
    try:
        return manymind.pipeline(request.model, config)
    except manymind.errors.ManymindError as error:
        raise UnsupportedError(str(error)) from error


def _token_times(
    pipe: manymind.Pipeline, batch: list[list[int]], output_tokens: int
) -> list[list[float]]:
    """Generate for all of `batch` together; returns each token's arrival time by sequence."""
    steps: queue.SimpleQueue[tuple[float, list[object]]] = queue.SimpleQueue()
    subscription = Subscription(lambda outputs: steps.put((time.perf_counter(), outputs)))
    runtime = pipe.runtime
    (params,) = runtime.sampling_params([_generation_config(output_tokens)])
    place = {
        runtime.dispatcher.submit(ids, params, subscription): index
        for index, ids in enumerate(batch)
    }
    times: list[list[float]] = [[] for _ in batch]
    unfinished = len(batch)
    while unfinished:
        now, outputs = steps.get()
        for output in outputs:
            if output.error is not None:
                raise output.error
            times[place[output.request_id]] += [now] * len(output.token_ids)
            unfinished -= int(output.finished)
    return times


def _sample(pipe: manymind.Pipeline, workload: Workload, index: int) -> float:
    batch = prompts(workload, index)
    if workload.kind is Kind.DECODE:
        return steady_decode_rate(_token_times(pipe, batch, workload.output_tokens))
    if workload.prefix_sent_before:
        pipe.generate([batch[0][: workload.prompt_tokens]], _generation_config(1))
    config = _generation_config(workload.output_tokens)
    start = time.perf_counter()
    responses = pipe.generate(batch, config)
    elapsed = time.perf_counter() - start
    produced = {response.generate_token_len for response in responses}
    if produced != {workload.output_tokens}:
        raise UnsupportedError(f"wanted {workload.output_tokens} tokens a request, got {produced}")
    return workload.prompt_tokens / elapsed if workload.kind is Kind.PREFILL else elapsed


def measure(request: Request) -> Reply:
    """Measure one workload in this process; raises `UnsupportedError` if the file is refused."""
    workload = request.spec
    if workload.kind is Kind.FIRST_TOKEN:
        command = [sys.executable, "-c", _FIRST_TOKEN_PROGRAM, request.model]
        command += [str(request.threads), FIRST_TOKEN_PROMPT]
        samples = [seconds_to_first_byte(command) for _ in range(workload.samples)]
    else:
        with _open(request) as pipe:
            warm_up = token_ids(max(workload.prompt_tokens, 128), _WARM_UP_SEED)
            pipe.generate([warm_up], _generation_config(8))
            samples = [_sample(pipe, workload, index) for index in range(workload.samples)]
    return Reply(
        samples=[statistics.median(samples)],
        peak_rss_bytes=peak_rss_bytes(),
        engine_version=f"manymind {manymind.__version__}",
    )


if __name__ == "__main__":
    serve(measure)
