# SPDX-License-Identifier: Apache-2.0
"""Where the golden data lies; tools/make_golden.py makes it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
ENCODER = GOLDEN / "tiny" / "bert"
TINY_FOLDERS = sorted(set((GOLDEN / "tiny").iterdir()) - {ENCODER})  # of decoders
TINY_GGUFS = [path for path in sorted((GOLDEN / "gguf").glob("*.gguf")) if "_" in path.name]
TINY_CHECKPOINTS = [*TINY_FOLDERS, *TINY_GGUFS]


def logits_file(checkpoint: Path) -> Path:
    """The npz with ``ids`` [n] and ``logits`` [n, vocab_size] of a tiny checkpoint."""
    return checkpoint / "logits.npz" if checkpoint.is_dir() else checkpoint.with_suffix(".npz")


@cache
def golden_texts() -> dict[str, Any]:
    """texts.json."""
    content: dict[str, Any] = json.loads((GOLDEN / "texts.json").read_text())
    return content
