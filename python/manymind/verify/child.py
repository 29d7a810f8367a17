# SPDX-License-Identifier: Apache-2.0
"""A process of its own for whatever touches a device: a fault there ends it and not the report.

It reads its arguments as JSON from standard input and prints a JSON object as its last line.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from manymind.config import EngineConfig
from manymind.errors import ManymindError
from manymind.native import plugin_paths, start_engine

if TYPE_CHECKING:
    import numpy as np

    from manymind import _turbomind

PROMPT_LENGTHS = (3, 17, 120)  # the last one's answer crosses the border of a 128-token block
_POLL_MS = 1000


def call(task: str, limit: float, **arguments: Any) -> dict[str, Any]:
    """Runs a task in a child; {"error": kind, "text": why} if it failed in whatever way."""
    command = [sys.executable, "-m", "manymind.verify.child"]
    request = json.dumps({"task": task, **arguments})
    try:
        done = subprocess.run(
            command, input=request, capture_output=True, text=True, timeout=limit, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": "timeout", "text": f"no answer after {limit:.0f} s"}
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        tail = " | ".join(done.stderr.strip().splitlines()[-3:])
        return {"error": "crash", "text": f"the process ended with {done.returncode}: {tail}"}
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def probe(backend: str) -> dict[str, Any]:
    """What the plug-in says of this machine."""
    from manymind import _turbomind

    found = [item for item in _turbomind.list_plugins(plugin_paths()) if item["name"] == backend]
    if not found:
        return {"error": "plug-in", "text": f"no {backend} plug-in is installed"}
    # The plug-in opens CANN's libraries globally; only the emulator's have this function.
    emulated = hasattr(ctypes.CDLL(None), "fakecannConfigure")
    return {"plugin": found[0], "emulated": emulated}


def prompts(vocab_size: int) -> list[list[int]]:
    """Token ids; the same in every process."""
    import numpy as np

    random = np.random.default_rng(11)
    return [random.integers(2, vocab_size, length).tolist() for length in PROMPT_LENGTHS]


def answer(
    model: str, config: Mapping[str, Any], tokens: int, logits: str | None, seconds: float
) -> dict[str, Any]:
    """Answers the prompts together, again and again for so many seconds, at least once.

    Returns the different answers each prompt got. Logits of the first round go to a file.
    """
    import numpy as np

    from manymind.checkpoint import open_checkpoint

    with open_checkpoint(model) as checkpoint:
        engine, _ = start_engine(checkpoint, EngineConfig(**config))
    texts = prompts(engine.vocab_size)
    answers: list[list[list[int]]] = [[] for _ in texts]
    end = time.monotonic() + seconds
    keep = logits is not None
    while True:
        given, rows = _round(engine, texts, tokens, keep)
        for seen, one in zip(answers, given, strict=True):
            if one not in seen:
                seen.append(one)
        if logits is not None and keep:
            np.savez(logits, *rows)
        keep = False
        if time.monotonic() >= end:
            break
    stats = engine.stats()
    engine.stop()
    names = ("graph_replays", "kv_blocks_used", "failed_steps", "device_recoveries")
    return {"answers": answers, **{name: stats[name] for name in names}}


def _round(
    engine: _turbomind.Engine, texts: list[list[int]], tokens: int, keep: bool
) -> tuple[list[list[int]], list[np.ndarray[Any, Any]]]:
    """One answer to each prompt, with logits if they are to be kept. Another request goes along
    and is cancelled, so that rows come and go.
    """
    import numpy as np

    from manymind import _turbomind

    params = _turbomind.SamplingParams()
    params.max_new_tokens = tokens
    params.ignore_eos = True
    params.temperature = 0.0
    if keep:
        params.output_logits = "all"
    ids = [engine.submit(text, params) for text in texts]
    cancelled = engine.submit(texts[0], params)
    engine.cancel(cancelled)
    waiting = {*ids, cancelled}
    given: dict[int, list[int]] = {number: [] for number in waiting}
    rows: dict[int, list[np.ndarray[Any, Any]]] = {number: [] for number in waiting}
    while waiting:
        for output in engine.poll(_POLL_MS):
            if output.error is not None and output.request_id != cancelled:
                raise output.error
            given[output.request_id] += output.token_ids
            block = output.take_logits() if keep else None
            if block is not None:
                rows[output.request_id].append(block)
            if output.finished:
                waiting.discard(output.request_id)
    return [given[i] for i in ids], [np.concatenate(rows[i]) for i in ids] if keep else []


def main() -> None:
    """Runs the task that standard input asks for."""
    request = json.loads(sys.stdin.read())
    tasks: dict[str, Callable[..., dict[str, Any]]] = {"probe": probe, "answer": answer}
    try:
        result = tasks[request.pop("task")](**request)
    except ManymindError as error:
        result = {"error": type(error).__name__, "text": str(error)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
