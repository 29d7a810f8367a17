# SPDX-License-Identifier: Apache-2.0
"""The golden data in the repository is what its makers give today."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from golden_data import GOLDEN
from make_golden import make_golden

from manymind.fetch import resolve_model


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    names = ("smollm2", "gemma3-270m", "minilm")
    make_golden(folder, {name: resolve_model(name) for name in names})
    return folder


def test_every_golden_file_is_made(fresh: Path) -> None:
    made = {path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()}
    kept = {path.relative_to(GOLDEN) for path in GOLDEN.rglob("*") if path.is_file()}
    inputs = {Path(name) for name in ("text.txt", "corpus.txt", "guided_schemas.json")}
    assert kept - made == inputs
    assert made <= kept


def test_checkpoints_are_the_same(fresh: Path) -> None:
    for path in fresh.rglob("*"):
        if path.suffix in (".gguf", ".safetensors"):
            assert path.read_bytes() == (GOLDEN / path.relative_to(fresh)).read_bytes(), path


def test_arrays_are_the_same(fresh: Path) -> None:
    for path in fresh.rglob("*.npz"):
        found, kept = np.load(path), np.load(GOLDEN / path.relative_to(fresh))
        assert found.files == kept.files
        for name in found.files:
            # float32 sums may be ordered differently on another processor.
            np.testing.assert_allclose(found[name], kept[name], rtol=0, atol=2e-4)


def test_texts_are_the_same(fresh: Path) -> None:
    assert json.loads((fresh / "texts.json").read_text()) == json.loads(
        (GOLDEN / "texts.json").read_text()
    )
