# SPDX-License-Identifier: Apache-2.0
"""Configurations and weight bindings of every family, against transformers' logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from decoder_reference import decoder_logits
from golden_data import TINY_CHECKPOINTS, logits_file

from manymind.checkpoint import open_checkpoint
from manymind.models import load_model


@pytest.mark.parametrize("path", TINY_CHECKPOINTS, ids=lambda path: path.name)
def test_described_decoder_gives_transformers_logits(path: Path) -> None:
    golden = np.load(logits_file(path))
    with open_checkpoint(path) as checkpoint:
        model = load_model(checkpoint)
        logits = decoder_logits(model.config, model.weights, golden["ids"].tolist())
    # transformers computes in float32: its rounding is all that may differ.
    np.testing.assert_allclose(logits, golden["logits"], rtol=0, atol=2e-4)


def test_golden_sequence_reaches_beyond_the_window() -> None:
    windows = set()
    for path in TINY_CHECKPOINTS:
        with open_checkpoint(path) as checkpoint:
            layers = load_model(checkpoint).config.layers
        windows |= {layer.attention.window for layer in layers}
        length = len(np.load(logits_file(path))["ids"])
        assert all(layer.attention.window < length for layer in layers)
    assert windows == {0, 16}
