# SPDX-License-Identifier: Apache-2.0
"""Mistral (dense): Llama without biases, every layer with the same optional attention window.

GGUF files of these models call their architecture "llama".
"""

from __future__ import annotations

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.models import huggingface
from manymind.models.config import AttentionConfig, FfnConfig
from manymind.models.family import ModelSource, windowed_layers


def from_huggingface(checkpoint: Checkpoint) -> ModelSource:
    config = Fields(checkpoint.config)
    dims = huggingface.dimensions(config)
    attention = AttentionConfig(
        num_heads=dims.num_heads,
        num_kv_heads=dims.num_kv_heads,
        head_dim=dims.head_dim,
        scale=dims.default_scale,
    )
    ffn = FfnConfig(dims.intermediate_size, huggingface.activation(config, "hidden_act", "silu"))
    # Later models write null: no window. Absent, the first model's holds.
    absent = "sliding_window" not in checkpoint.config
    window = config.integer("sliding_window", 4096 if absent else 0, low=0)
    layers = windowed_layers(attention, ffn, [window] * dims.num_layers)
    return huggingface.uniform_source("mistral", checkpoint, dims, layers)
