# SPDX-License-Identifier: Apache-2.0
"""Qwen3 (dense): Llama with an RMS norm over each head of q and k, and an optional window."""

from __future__ import annotations

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.models import gguf, huggingface
from manymind.models.config import AttentionConfig, FfnConfig
from manymind.models.family import Dimensions, ModelSource, windowed_layers


def from_huggingface(checkpoint: Checkpoint) -> ModelSource:
    config = Fields(checkpoint.config)
    dims = huggingface.dimensions(config, head_dim=128)
    bias = config.boolean("attention_bias", False)
    ffn = FfnConfig(dims.intermediate_size, huggingface.activation(config, "hidden_act", "silu"))
    windows = huggingface.optional_windows(config, dims.num_layers)
    layers = windowed_layers(_attention(dims, bias, bias), ffn, windows)
    return huggingface.uniform_source("qwen3", checkpoint, dims, layers)


def from_gguf(checkpoint: Checkpoint) -> ModelSource:
    dims = gguf.dimensions(checkpoint)
    attention = _attention(
        dims,
        qkv_bias=gguf.has_bias(checkpoint, "attn_q"),
        o_bias=gguf.has_bias(checkpoint, "attn_output"),
    )
    ffn = FfnConfig(dims.intermediate_size)
    layers = windowed_layers(attention, ffn, [0] * dims.num_layers)
    return gguf.uniform_source(checkpoint, dims, layers, "neox")


def _attention(dims: Dimensions, qkv_bias: bool, o_bias: bool) -> AttentionConfig:
    return AttentionConfig(
        num_heads=dims.num_heads,
        num_kv_heads=dims.num_kv_heads,
        head_dim=dims.head_dim,
        scale=dims.default_scale,
        qkv_bias=qkv_bias,
        o_bias=o_bias,
        qk_norm=True,
    )
