# SPDX-License-Identifier: Apache-2.0
"""The helpers that other parity tests measure with."""

from __future__ import annotations

import numpy as np
import pytest
from golden_data import TINY_GGUFS, logits_file
from reference import load_reference, mean_kl


def test_chunks_are_the_whole() -> None:
    path = TINY_GGUFS[0]
    ids = np.load(logits_file(path))["ids"].tolist()
    reference = load_reference(path)
    chunks = list(reference.logit_chunks(ids, rows=10))
    assert [start for start, _ in chunks] == [0, 10, 20, 30, 40]
    np.testing.assert_allclose(
        np.concatenate([rows for _, rows in chunks]), reference.logits(ids), atol=1e-5
    )


def test_mean_kl() -> None:
    first = np.log(np.array([[0.5, 0.5], [0.9, 0.1]]))
    second = np.log(np.array([[0.25, 0.75], [0.9, 0.1]])) + 3.0
    expected = (0.5 * np.log(2.0) + 0.5 * np.log(0.5 / 0.75)) / 2
    assert mean_kl([(0, first)], [(0, second)]) == pytest.approx(expected)
    assert mean_kl([(0, first)], [(0, first)]) == pytest.approx(0.0)
    with pytest.raises(ValueError, match="slices"):
        mean_kl([(0, first)], [(1, first)])
