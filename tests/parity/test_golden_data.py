# SPDX-License-Identifier: Apache-2.0
"""The golden data in the repository is what its makers give today."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from golden_data import GOLDEN
from make_golden import ROUNDING, copy_changes, make_golden

from manymind.fetch import resolve_model


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    names = ("smollm2", "gemma3-270m")
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
            np.testing.assert_allclose(found[name], kept[name], rtol=0, atol=ROUNDING)


def test_texts_are_the_same(fresh: Path) -> None:
    assert json.loads((fresh / "texts.json").read_text()) == json.loads(
        (GOLDEN / "texts.json").read_text()
    )


def test_what_differs_by_rounding_alone_is_left(fresh: Path, tmp_path: Path) -> None:
    kept = tmp_path / "golden"
    shutil.copytree(GOLDEN, kept)
    assert copy_changes(fresh, kept) == []
    logits = Path("tiny", "llama", "logits.npz")
    values = dict(np.load(kept / logits))
    np.savez_compressed(kept / logits, ids=values["ids"], logits=values["logits"] + 1e-3)
    config = Path("tiny", "llama", "config.json")
    (kept / config).unlink()
    assert copy_changes(fresh, kept) == [config, logits]
    assert (kept / logits).read_bytes() == (fresh / logits).read_bytes()
