# SPDX-License-Identifier: Apache-2.0
"""Whole models on the Ascend plug-in and the emulator: what float32 on one rank does not show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cann import LIBRARIES

TINY = Path(__file__).resolve().parents[2] / "golden" / "tiny"
CHILD = Path(__file__).with_name("engine_child.py")
SCHEDULES = ("immediate", "lazy", "random:5")


def run(
    model: str,
    backend: str,
    dtype: str,
    tp: int = 1,
    tokens: int = 10,
    prompts: int = 3,
    kv_dtype: str | None = None,
    **settings: str,
) -> dict[str, Any]:
    """What the child printed; settings are the emulator's, without their prefix."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(LIBRARIES)}
    environment.update({f"FAKECANN_{name}": value for name, value in settings.items()})
    command = [
        sys.executable,
        CHILD,
        TINY / model,
        backend,
        dtype,
        str(tp),
        str(tokens),
        str(prompts),
        kv_dtype or dtype,
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@cache
def cpu_tokens(model: str) -> list[list[int]]:
    """What the CPU back end answers in float32."""
    tokens: list[list[int]] = run(model, "cpu", "float32")["tokens"]
    return tokens


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_half_precision_does_not_depend_on_the_schedule(schedule: str) -> None:
    """Fused attention, fractal weights and graphs, which float32 does not take."""
    tokens = run("llama", "ascend", "bfloat16", SCHEDULE=schedule)["tokens"]
    assert [row[:8] for row in tokens] == [row[:8] for row in cpu_tokens("llama")]


@pytest.mark.parametrize("schedule", ["lazy", "random:9"])
@pytest.mark.parametrize("model", ["llama", "qwen2"])
def test_two_ranks(model: str, schedule: str) -> None:
    assert run(model, "ascend", "float32", tp=2, SCHEDULE=schedule)["tokens"] == cpu_tokens(model)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_int8_cache_gives_what_it_gives_on_the_cpu(schedule: str) -> None:
    """The rounding of the codes, which is far more than what the back ends' sums differ by."""
    expected = run("qwen2", "cpu", "float32", kv_dtype="int8")
    whole = run("qwen2", "ascend", "float32", SCHEDULE=schedule)
    found = run("qwen2", "ascend", "float32", kv_dtype="int8", SCHEDULE=schedule)
    assert found["tokens"] == expected["tokens"]
    logits, rounded, exact = (np.asarray(each["logits"]) for each in (found, expected, whole))
    assert np.abs(logits - rounded).max() < 1e-3
    assert np.abs(logits - exact).max() > 0.1
    assert found["kv_bytes_per_token"] < 0.3 * whole["kv_bytes_per_token"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_decode_step_prepares_few_operators(dtype: str) -> None:
    """Attention, which reads lengths on the host, once a layer; most else is launched again."""
    layers, steps = 2, 20
    short, long = (
        run("llama", "ascend", dtype, tokens=tokens, prompts=1) for tokens in (8, 8 + steps)
    )
    assert len(long["tokens"][0]) - len(short["tokens"][0]) == steps
    assert (long["preparations"] - short["preparations"]) / steps <= layers + 3


def test_other_products() -> None:
    """CANN 8.5 has fused attention of one head size, the 950 none here; 310P is refused by name."""
    for profile in ("a2-8.5", "a3", "950"):
        result = run("llama", "ascend", "bfloat16", PROFILE=profile)
        assert [row[:8] for row in result["tokens"]] == [row[:8] for row in cpu_tokens("llama")]
    refused = run("llama", "ascend", "float16", PROFILE="310p")
    assert "310P" in refused["text"]


def test_a_block_size_outside_the_contract_is_refused() -> None:
    """vllm-ascend#13853: silently wrong numbers there."""
    code = (
        "from manymind import EngineConfig, pipeline\n"
        f"pipeline({str(TINY / 'llama')!r}, EngineConfig(backend='ascend', block_size=64))"
    )
    environment = {**os.environ, "LD_LIBRARY_PATH": str(LIBRARIES)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60
    )
    message = "InvalidParameterError: block_size: expected one of 128, found 64"
    assert message in done.stderr
