# SPDX-License-Identifier: Apache-2.0
"""Weights that become int8 at load: their definition in numpy, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoder_reference import decoder_logits, dequantize
from exact_engine import EXACT
from golden_data import GOLDEN, TINY_CHECKPOINTS, logits_file
from test_golden_logits import TOLERANCE, engine, run

from manymind import EngineConfig, pipeline
from manymind.checkpoint import open_checkpoint
from manymind.errors import BackendError, InvalidParameterError
from manymind.models import WeightSource, load_model
from manymind.native import start_engine

FOLDERS = [path for path in TINY_CHECKPOINTS if path.is_dir()]
CHECKPOINTS = pytest.mark.parametrize("path", FOLDERS, ids=lambda path: path.name)


def rounded(weights: Mapping[str, WeightSource]) -> dict[str, WeightSource]:
    """Matrices as codes times the row's scale: its largest magnitude over 127."""
    found = dict(weights)
    for name, weight in weights.items():
        if len(weight.shape) < 2:
            continue
        values = dequantize(weight.format, weight.shape, weight.data)
        largest = np.abs(values).max(axis=1, keepdims=True)
        codes = np.rint(values * 127 / np.where(largest, largest, 1))
        near = (codes * (largest / 127).astype(np.float32)).astype(np.float32)
        found[name] = dataclasses.replace(weight, format="f32", data=memoryview(near.tobytes()))
    return found


def logits_of(path: Path, ids: list[int], **fields: Any) -> np.ndarray:
    with engine(path, **fields) as native:
        return run(native, ids, max_new_tokens=1, output_logits="all")[1]


@CHECKPOINTS
def test_int8_weights_are_what_their_definition_says(path: Path) -> None:
    ids = np.load(logits_file(path))["ids"].tolist()
    with open_checkpoint(path) as checkpoint:
        model = load_model(checkpoint)
        expected = decoder_logits(model.config, rounded(model.weights), ids)
    found = logits_of(path, ids, weight_dtype="int8")
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    plain = np.load(logits_file(path))["logits"]
    assert np.abs(plain - expected).mean() > 2e-3  # or the comparison would show nothing


@CHECKPOINTS
def test_int8_products_stay_close(path: Path) -> None:
    golden = np.load(logits_file(path))
    fields = {"compute_dtype": "auto", "kv_cache_dtype": "auto", "weight_dtype": "int8"}
    logits = logits_of(path, golden["ids"].tolist(), **fields)
    shift = np.abs(logits - golden["logits"]).mean() / np.abs(golden["logits"]).mean()
    assert shift < 0.08
    plain = logits_of(path, golden["ids"].tolist(), **{**fields, "weight_dtype": "auto"})
    assert not np.array_equal(logits, plain)


def test_ranks_agree_with_one() -> None:
    path = GOLDEN / "tiny" / "llama"
    ids = np.load(logits_file(path))["ids"].tolist()
    one, two = (logits_of(path, ids, weight_dtype="int8", tp=ranks) for ranks in (1, 2))
    np.testing.assert_allclose(two, one, rtol=0, atol=3e-4)


def test_a_model_without_floats_is_refused(smollm2_path: Path) -> None:
    with pytest.raises(BackendError, match="weight_dtype: expected a model with weights of floats"):
        pipeline(smollm2_path, EngineConfig(weight_dtype="int8"))
    with pytest.raises(InvalidParameterError, match="weight_dtype"):
        EngineConfig(weight_dtype="int3")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = GOLDEN / "tiny" / "llama"
    with open_checkpoint(path) as checkpoint:
        name, source = next((n, t) for n, t in checkpoint.tensors.items() if len(t.shape) == 2)
        data = np.frombuffer(source.data, np.uint8).copy()
        data[-4:] = np.frombuffer(np.float32(np.inf).tobytes(), np.uint8)
        checkpoint.tensors[name] = dataclasses.replace(source, data=memoryview(data.tobytes()))
        with pytest.raises(InvalidParameterError, match="expected finite values"):
            start_engine(checkpoint, EngineConfig(**{**EXACT, "weight_dtype": "int8"}))
