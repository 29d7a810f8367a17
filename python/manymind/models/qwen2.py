# SPDX-License-Identifier: Apache-2.0
"""Qwen2 and Qwen2.5: Llama with biases on q, k and v, and an optional window in the upper
layers."""

from __future__ import annotations

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.models import gguf, huggingface
from manymind.models.config import AttentionConfig, FfnConfig
from manymind.models.family import Dimensions, ModelSource, windowed_layers


def from_huggingface(checkpoint: Checkpoint) -> ModelSource:
    config = Fields(checkpoint.config)
    dims = huggingface.dimensions(config)
    ffn = FfnConfig(dims.intermediate_size, huggingface.activation(config, "hidden_act", "silu"))
    windows = huggingface.optional_windows(config, dims.num_layers)
    layers = windowed_layers(_attention(dims), ffn, windows)
    return huggingface.uniform_source("qwen2", checkpoint, dims, layers)


def from_gguf(checkpoint: Checkpoint) -> ModelSource:
    dims = gguf.dimensions(checkpoint)
    ffn = FfnConfig(dims.intermediate_size)
    layers = windowed_layers(_attention(dims), ffn, [0] * dims.num_layers)
    return gguf.uniform_source(checkpoint, dims, layers, "neox")


def _attention(dims: Dimensions) -> AttentionConfig:
    return AttentionConfig(
        num_heads=dims.num_heads,
        num_kv_heads=dims.num_kv_heads,
        head_dim=dims.head_dim,
        scale=dims.default_scale,
        qkv_bias=True,
    )
