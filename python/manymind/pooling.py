# SPDX-License-Identifier: Apache-2.0
"""Embeddings from a decoder: the last hidden state of the last token, scaled to length 1.

Source: last-token pooling of Neelakantan et al. 2022 (arXiv:2201.10005).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from manymind.config import GenerationConfig, Response

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# What to ask the engine for. The token that is drawn is of no interest, but one that ends the
# answer would take its row along.
POOLING_CONFIG = GenerationConfig(
    max_new_tokens=1, ignore_eos=True, output_last_hidden_state="generation"
)


def last_token_rows(answers: Sequence[Response]) -> npt.NDArray[np.float32]:
    """float32 [answers, hidden_size]."""
    import numpy as np

    rows = np.concatenate([np.from_dlpack(answer.last_hidden_state) for answer in answers])
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: npt.NDArray[np.float32] = rows / np.maximum(lengths, np.finfo(np.float32).tiny)
    return scaled.astype(np.float32)
