# SPDX-License-Identifier: Apache-2.0
"""The engine against transformers' logits of tiny checkpoints of all families and formats."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exact_engine import EXACT
from golden_data import GOLDEN, TINY_CHECKPOINTS, logits_file

from manymind import EngineConfig, _turbomind
from manymind.checkpoint import open_checkpoint
from manymind.native import start_engine

CHECKPOINTS = pytest.mark.parametrize("path", TINY_CHECKPOINTS, ids=lambda path: path.name)
# Both sides add float32 in their own order: that rounding is all that may differ.
TOLERANCE = 3e-4


@contextmanager
def engine(path: Path, **fields: Any) -> Iterator[_turbomind.Engine]:
    """The native engine alone, fed with token ids."""
    with open_checkpoint(path) as checkpoint:
        native, _ = start_engine(checkpoint, EngineConfig(**{**EXACT, **fields}))
        yield native
        native.stop()


def run(native: _turbomind.Engine, ids: list[int], **fields: Any) -> tuple[list[int], np.ndarray]:
    """Tokens and logits of one request."""
    params = _turbomind.SamplingParams()
    for name, value in fields.items():
        setattr(params, name, value)
    native.submit(ids, params)
    tokens: list[int] = []
    rows: list[np.ndarray] = []
    while True:
        for output in native.poll(1000):
            assert output.error is None
            tokens += output.token_ids
            block = output.take_logits()
            if block is not None:
                rows.append(block)
            if output.finished:
                return tokens, np.concatenate(rows)


def golden(path: Path) -> tuple[list[int], np.ndarray]:
    data = np.load(logits_file(path))
    return data["ids"].tolist(), data["logits"]


@CHECKPOINTS
@pytest.mark.parametrize("chunk", [512, 5], ids=["whole", "chunked"])
def test_prompt_logits(path: Path, chunk: int) -> None:
    ids, expected = golden(path)
    with engine(path, max_prefill_token_num=chunk) as native:
        _, logits = run(native, ids, max_new_tokens=1, output_logits="all")
    np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE)


@CHECKPOINTS
def test_decode_continues_where_prefill_ended(path: Path) -> None:
    """Each further golden token extends a cached prefix by one row, as decode does."""
    ids, expected = golden(path)
    half = len(ids) // 2
    with engine(path) as native:
        for end in range(half, len(ids)):
            _, logits = run(native, ids[:end], max_new_tokens=1, output_logits="generation")
            np.testing.assert_allclose(logits[0], expected[end - 1], rtol=0, atol=TOLERANCE)


@CHECKPOINTS
def test_generated_tokens_have_the_logits_of_a_prompt(path: Path) -> None:
    ids, _ = golden(path)
    with engine(path, enable_prefix_caching=False) as native:
        tokens, decoded = run(
            native, ids[:20], max_new_tokens=20, ignore_eos=True, output_logits="generation"
        )
        _, whole = run(native, ids[:20] + tokens, max_new_tokens=1, output_logits="all")
    np.testing.assert_array_equal(decoded, whole[19:39])
    assert decoded.argmax(axis=1).tolist() == tokens


@CHECKPOINTS
def test_default_precision_stays_close(path: Path) -> None:
    ids, expected = golden(path)
    with engine(path, compute_dtype="auto", kv_cache_dtype="auto") as native:
        _, logits = run(native, ids, max_new_tokens=1, output_logits="all")
    shift = np.abs(logits - expected).mean() / np.abs(expected).mean()
    assert shift < 0.06


def test_logits_are_capped_where_the_config_says_so(tmp_path: Path) -> None:
    """The cap is small against these logits, so an engine without it would be far off."""
    folder = shutil.copytree(GOLDEN / "tiny" / "gemma3", tmp_path / "gemma3")
    config = json.loads((folder / "config.json").read_text())
    ids, expected = golden(folder)
    cap = float(np.abs(expected).max()) / 2
    (folder / "config.json").write_text(json.dumps({**config, "final_logit_softcapping": cap}))
    with engine(folder) as native:
        _, logits = run(native, ids, max_new_tokens=1, output_logits="all")
    np.testing.assert_allclose(logits, cap * np.tanh(expected / cap), rtol=0, atol=TOLERANCE)
