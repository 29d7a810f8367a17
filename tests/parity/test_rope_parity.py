# SPDX-License-Identifier: Apache-2.0
"""Inverse frequencies against transformers' float32 ones, at the sizes of published models."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from manymind.checkpoint.fields import Fields
from manymind.models.huggingface import rope_config


@pytest.mark.parametrize(
    "parameters",
    [
        {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
        {
            "rope_type": "llama3",
            "rope_theta": 5e5,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        {
            "rope_type": "yarn",
            "rope_theta": 1e6,
            "factor": 4.0,
            "original_max_position_embeddings": 32768,
        },
        {
            "rope_type": "yarn",
            "rope_theta": 1e4,
            "factor": 16.0,
            "original_max_position_embeddings": 4096,
            "beta_fast": 64.0,
            "beta_slow": 2.0,
            "attention_factor": 1.25,
            "truncate": False,
        },
    ],
    ids=lambda parameters: parameters["rope_type"],
)
def test_equals_transformers(parameters: dict[str, Any]) -> None:
    config = LlamaConfig(
        hidden_size=2048,
        num_attention_heads=16,
        max_position_embeddings=131072,
        rope_parameters=dict(parameters),
    )
    expected, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, device="cpu")
    found = rope_config(Fields(parameters), 128, 1e4, 131072)
    assert found.inv_freq == pytest.approx(expected.tolist(), rel=1e-5)
    assert found.attention_factor == pytest.approx(factor)
