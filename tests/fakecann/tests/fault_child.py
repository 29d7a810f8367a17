# SPDX-License-Identifier: Apache-2.0
"""Asks the tiny Llama on the emulator while faults are injected, and once more after each.

Reads {"dtype", "tp", "faults": [[fault, when], ...]} from standard input, when being "start" (the
engine is made under it), "first" (its first requests meet it), "later" (after answers that
captured graphs) or "stop" (as "first", but the engine is closed while they are at work);
"settings", if any, are the back end's. Prints a list of {"found", "next"}: token ids or
{"error", "text"}.
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading
import time
from typing import Any

from test_engine import TINY

from manymind import EngineConfig, GenerationConfig, Pipeline, pipeline
from manymind.errors import ManymindError

PROMPTS = ["hello", "one two three four"]
OTHER_SHAPES = ["a b c d e f g h", "i j k l m n o p q r s t u v"]  # executors are made anew


def inject(fault: str) -> None:
    """Takes the place of the fault before."""
    acl = ctypes.CDLL("libacl_rt.so", ctypes.RTLD_GLOBAL)
    if acl.fakecannConfigure(b"FAULTS", fault.encode()) != 0:
        raise ValueError(f"no such fault: {fault}")


def described(error: ManymindError) -> dict[str, str]:
    return {"error": type(error).__name__, "text": str(error)}


def ask(pipe: Pipeline, prompts: list[str]) -> Any:
    try:
        outputs = pipe(prompts, GenerationConfig(max_new_tokens=12, do_sample=False))
    except ManymindError as error:
        return described(error)
    return [output.token_ids for output in outputs]


def stop(pipe: Pipeline) -> Any:
    """What requests end with that wait for a stalled collective when the engine is closed."""
    acl, left = ctypes.CDLL("libacl_rt.so", ctypes.RTLD_GLOBAL), ctypes.c_int64(-1)
    ends: list[Any] = []
    asking = threading.Thread(target=lambda: ends.append(ask(pipe, PROMPTS)))
    asking.start()
    while left.value != 0:
        time.sleep(0.01)
        acl.fakecannFaultLeft(b"stall", ctypes.byref(left))
    pipe.close()
    asking.join()
    return ends[0]


def one(config: EngineConfig, fault: str, when: str) -> dict[str, Any]:
    if when == "start":
        inject(fault)
    try:
        with pipeline(TINY / "llama", config) as pipe:
            if when == "later":
                ask(pipe, PROMPTS)
            inject(fault)
            if when == "stop":
                return {"found": stop(pipe), "next": None}
            found = ask(pipe, OTHER_SHAPES if when == "later" else PROMPTS)
            inject("")
            return {"found": found, "next": ask(pipe, PROMPTS)}
    except ManymindError as error:
        inject("")
        with pipeline(TINY / "llama", config) as pipe:
            return {"found": described(error), "next": ask(pipe, PROMPTS)}


def main() -> None:
    """Every fault meets an engine of its own."""
    task = json.loads(sys.stdin.read())
    dtype = task["dtype"]
    config = EngineConfig(
        backend="ascend",
        dtype=dtype,
        kv_cache_dtype=dtype,
        num_kv_blocks=64,
        max_batch_size=8,
        tp=task["tp"],
        backend_config=task.get("settings", {}),
    )
    print(json.dumps([one(config, fault, when) for fault, when in task["faults"]]))


if __name__ == "__main__":
    main()
