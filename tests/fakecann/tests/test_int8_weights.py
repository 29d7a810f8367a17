# SPDX-License-Identifier: Apache-2.0
"""Weights that become int8 at load, multiplied as W8A8 by the Ascend plug-in on the emulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cann import LIBRARIES

LLAMA = Path(__file__).resolve().parents[2] / "golden" / "tiny" / "llama"
GOLDEN = np.load(LLAMA / "logits.npz")

CHILD = """
import json, sys
import numpy as np
from manymind import EngineConfig, GenerationConfig, pipeline
from manymind.errors import ManymindError
model, backend, dtype, ids, out = sys.argv[1:]
config = EngineConfig(backend=backend, dtype=dtype, kv_cache_dtype=dtype, num_kv_blocks=16,
                      max_batch_size=2, weight_dtype="int8")
try:
    with pipeline(model, config) as pipe:
        wish = GenerationConfig(max_new_tokens=1, output_logits="all")
        (answer,) = pipe.generate([json.loads(ids)], wish)
        np.save(out, np.asarray(answer.logits))
except ManymindError as error:
    print(f"{type(error).__name__}: {error}")
"""


def run(tmp_path: Path, backend: str, dtype: str, **settings: str) -> Any:
    """Logits of the golden prompt, or the text of a typed error."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(LIBRARIES)}
    environment.update({f"FAKECANN_{name}": value for name, value in settings.items()})
    out = tmp_path / f"{backend}.npy"
    ids = json.dumps(GOLDEN["ids"].tolist())
    command = [sys.executable, "-c", CHILD, str(LLAMA), backend, dtype, ids, str(out)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout or np.load(out)


def shift(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).mean() / np.abs(expected).mean())


@pytest.mark.parametrize("schedule", ["immediate", "lazy", "random:5"])
def test_logits_are_close_to_the_cpus(tmp_path: Path, schedule: str) -> None:
    found = run(tmp_path, "ascend", "bfloat16", SCHEDULE=schedule)
    assert shift(found, run(tmp_path, "cpu", "float32")) < 0.06
    assert shift(found, GOLDEN["logits"]) < 0.08


def test_float32_activations_are_refused_with_the_reason(tmp_path: Path) -> None:
    error = run(tmp_path, "ascend", "float32")
    assert error.startswith("BackendError: weight_dtype: expected")
    assert "quantised products take float16 and bfloat16 activations" in error
