# SPDX-License-Identifier: Apache-2.0
"""The engine's teacher-forced logits on real weights and real text, against transformers in float32
on the dequantised weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from golden_data import GOLDEN
from reference import Reference, load_reference, mean_kl

from manymind import EngineConfig, _turbomind
from manymind.checkpoint import open_checkpoint
from manymind.native import start_engine
from manymind.tokenizer import load_tokenizer

NUM_TOKENS = 2048
ROWS = 256


def token_ids(path: Path) -> list[int]:
    with open_checkpoint(path) as checkpoint:
        ids = load_tokenizer(checkpoint).encode((GOLDEN / "text.txt").read_text(encoding="utf-8"))
    assert len(ids) >= NUM_TOKENS
    return ids[:NUM_TOKENS]


def engine_chunks(
    path: Path, ids: list[int], config: EngineConfig
) -> Iterator[tuple[int, np.ndarray]]:
    """Logits in slices of ROWS positions, as they come: a large vocabulary needs no gigabytes."""
    params = _turbomind.SamplingParams()
    params.max_new_tokens = 1
    params.output_logits = "all"
    with open_checkpoint(path) as checkpoint:
        native, _ = start_engine(checkpoint, config)
        native.submit(ids, params)
        start, held = 0, np.empty((0, 0), np.float32)
        finished = False
        while not finished:
            for output in native.poll(1000):
                assert output.error is None
                finished = output.finished
                rows = output.take_logits()
                if rows is not None:
                    held = np.concatenate([held, rows]) if held.size else rows
            while len(held) >= ROWS:
                yield start, held[:ROWS]
                start, held = start + ROWS, held[ROWS:]
        native.stop()


@pytest.fixture(scope="module", params=["smollm2", "gemma"])
def model(request: pytest.FixtureRequest) -> tuple[Path, list[int], Reference]:
    path: Path = request.getfixturevalue(f"{request.param}_path")
    return path, token_ids(path), load_reference(path)


@pytest.mark.parametrize(
    ("compute_dtype", "kv_cache_dtype", "limit"),
    [("auto", "auto", 1e-3), ("float32", "float32", 1e-6)],
    ids=["default", "float32"],
)
def test_mean_kl_over_real_text(
    model: tuple[Path, list[int], Reference],
    compute_dtype: str,
    kv_cache_dtype: str,
    limit: float,
) -> None:
    path, ids, reference = model
    config = EngineConfig(
        compute_dtype=compute_dtype,
        kv_cache_dtype=kv_cache_dtype,
        session_len=NUM_TOKENS + 16,
        max_batch_size=1,
        max_prefill_token_num=ROWS,
    )
    found = mean_kl(reference.logit_chunks(ids, rows=ROWS), engine_chunks(path, ids, config))
    print(f"mean KL {found:.3g} nats over {len(ids)} tokens of {path.name}")
    assert 0 <= found + 1e-12 < limit
