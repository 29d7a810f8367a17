# SPDX-License-Identifier: Apache-2.0
"""Embeddings by transformers: BERT, the mean of what is no padding or the class token, scaled to
length 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModel, AutoTokenizer

# Short and long, with punctuation, accents, another script, nothing but spaces, unknown characters.
TEXTS = (
    "This is an example sentence",
    "Each sentence is converted",
    "The capital of Japan is Tokyo.",
    "Wie heißt die Hauptstadt von Frankreich? Él dijo: ¡mañana!",
    "東京は日本の首都です。",
    "   ",
    "x",
    "don't e-mail me at a.b@c.org, it's 3.14% (or so)...",
    "emoji 🙂 and \u200bzero width",
    "the river and the house by the light of the stone " * 20,
)


def embed(folder: Path, texts: Sequence[str], pools_first: bool = False) -> npt.NDArray[np.float32]:
    """float32 [texts, hidden_size]; the mean is that of all-MiniLM-L6-v2's own README."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = tokenizer(list(texts), padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    pooled = hidden[:, 0] if pools_first else (hidden * mask).sum(1) / mask.sum(1)
    rows: npt.NDArray[np.float32] = torch.nn.functional.normalize(pooled, dim=1).numpy()
    return rows
