# SPDX-License-Identifier: Apache-2.0
"""Embeddings of an encoder by transformers, for tests without torch; part of make_golden.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from reference_embeddings import TEXTS, embed


def make_embeddings(folder: Path, model: Path) -> None:
    """embeddings.json: the texts; embeddings.npz: float32 [texts, hidden_size], ``rows`` pooled by
    the mean and ``first`` by the class token.
    """
    (folder / "embeddings.json").write_text(json.dumps(TEXTS, indent=1) + "\n", encoding="utf-8")
    first = embed(model, TEXTS, pools_first=True)
    np.savez_compressed(folder / "embeddings.npz", rows=embed(model, TEXTS), first=first)
