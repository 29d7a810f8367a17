# SPDX-License-Identifier: Apache-2.0
"""llama.cpp through its own programs, all in the folder given by the option `bin`.

Prefill by `llama-bench`, decode by `llama-batched-bench` (neither samples nor detokenises, which
favours it a little), a shared prefix by `llama-server`, the first token by `llama-completion`.
"""

from __future__ import annotations

import json
import resource
import socket
import statistics
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.protocol import Reply, Request, UnsupportedError, seconds_to_first_byte, serve
from harness.workloads import FIRST_TOKEN_PROMPT, Kind, Workload, prompts, token_ids

_START_LIMIT_S = 60.0
_WARM_UP_SEED = 7


def _program(request: Request, name: str) -> str:
    path = Path(request.options.get("bin", "")) / name
    if not path.is_file():
        raise UnsupportedError(f"{name} not found; give the folder of llama.cpp by --llama-bin")
    return str(path)


def _output(command: Sequence[str]) -> str:
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        lines = finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"]
        raise UnsupportedError(lines[-1])
    return finished.stdout


def _version(request: Request) -> str:
    command = [_program(request, "llama-server"), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (said.stdout + said.stderr).splitlines()
    return "llama.cpp " + next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("version:")), "unknown"
    )


def _prefill(request: Request) -> list[float]:
    workload = request.spec
    command = [_program(request, "llama-bench"), "-m", request.model, "-t", str(request.threads)]
    command += ["-p", str(workload.prompt_tokens), "-n", "0", "-r", str(workload.samples)]
    (result,) = json.loads(_output([*command, "-o", "json"]))
    return [float(rate) for rate in result["samples_ts"]]


def _decode(request: Request) -> list[float]:
    workload = request.spec
    command = [_program(request, "llama-batched-bench"), "-m", request.model]
    command += ["-t", str(request.threads), "-c", str(workload.total_tokens)]
    command += ["-npp", str(workload.prompt_tokens), "-ntg", str(workload.output_tokens)]
    command += ["-npl", ",".join([str(workload.sequences)] * workload.samples)]
    lines = _output([*command, "--output-format", "jsonl"]).splitlines()
    results = [json.loads(line) for line in lines if line.startswith("{")]
    return [float(result["speed_tg"]) for result in results]


def _first_token(request: Request) -> list[float]:
    command = [_program(request, "llama-completion"), "-m", request.model]
    command += ["-t", str(request.threads), "-c", "512", "-n", "1", "--temp", "0", "--no-warmup"]
    command += ["-no-cnv", "--no-display-prompt", "--simple-io", "-p", FIRST_TOKEN_PROMPT]
    return [seconds_to_first_byte(command) for _ in range(request.spec.samples)]


def _post(base: str, prompt: list[int], output_tokens: int) -> dict[str, Any]:
    body = {
        "prompt": prompt,
        "n_predict": output_tokens,
        "ignore_eos": True,
        "temperature": 0.0,
        "cache_prompt": True,
    }
    request = urllib.request.Request(
        f"{base}/completion",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=600) as response:
        answer: dict[str, Any] = json.load(response)
    return answer


def _wait_until_ready(base: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise UnsupportedError(f"llama-server ended with status {server.returncode}")
        try:
            with urllib.request.urlopen(f"{base}/health", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.02)
    raise UnsupportedError(f"llama-server was not ready within {_START_LIMIT_S:.0f} s")


@contextmanager
def _server(request: Request) -> Iterator[str]:
    """A running llama-server; yields its base address.

    One slot by default: on two cores requests in turn, each reusing the slot's prefix, took a
    quarter of the time of 32 slots.
    """
    slots = int(request.options.get("slots", "1"))
    tokens = slots * request.spec.request_tokens
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [_program(request, "llama-server"), "-m", request.model, "-np", str(slots)]
    command += ["-t", str(request.threads), "-c", str(tokens), "--port", str(port)]
    command += request.options.get("server_flags", "").split()
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) as server:
        try:
            base = f"http://127.0.0.1:{port}"
            _wait_until_ready(base, server)
            yield base
        finally:
            server.terminate()


def _check_complete(answers: Sequence[dict[str, Any]], workload: Workload) -> None:
    produced = {answer["tokens_predicted"] for answer in answers}
    if produced != {workload.output_tokens}:
        raise UnsupportedError(f"wanted {workload.output_tokens} tokens a request, got {produced}")


def _shared_prefix(request: Request) -> list[float]:
    workload = request.spec
    batch = prompts(workload, sample=0)
    with _server(request) as base, ThreadPoolExecutor(workload.sequences) as clients:
        _post(base, token_ids(128, _WARM_UP_SEED), 8)
        if workload.prefix_sent_before:
            _post(base, batch[0][: workload.prompt_tokens], 1)
        start = time.perf_counter()
        answers = list(clients.map(lambda ids: _post(base, ids, workload.output_tokens), batch))
        elapsed = time.perf_counter() - start
    _check_complete(answers, workload)
    return [elapsed]


_MEASURES = {
    Kind.PREFILL: _prefill,
    Kind.DECODE: _decode,
    Kind.SHARED_PREFIX: _shared_prefix,
    Kind.FIRST_TOKEN: _first_token,
}


def measure(request: Request) -> Reply:
    """Measure one workload; raises `UnsupportedError` when a program is missing or fails."""
    samples = _MEASURES[request.spec.kind](request)
    return Reply(
        samples=[statistics.median(samples)],
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        engine_version=_version(request),
    )


if __name__ == "__main__":
    serve(measure)
