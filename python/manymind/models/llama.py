# SPDX-License-Identifier: Apache-2.0
"""Llama family: Llama 2, Llama 3.x, SmolLM2 and others of that architecture."""

from __future__ import annotations

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.errors import UnsupportedModelError
from manymind.models import gguf, huggingface
from manymind.models.config import AttentionConfig, FfnConfig, LayerConfig
from manymind.models.family import Dimensions, ModelSource


def from_huggingface(checkpoint: Checkpoint) -> ModelSource:
    config = Fields(checkpoint.config)
    dims = huggingface.dimensions(config)
    bias = config.boolean("attention_bias", False)
    attention = _attention(dims, qkv_bias=bias, o_bias=bias)
    activation = huggingface.activation(config, "hidden_act", "silu")
    ffn = FfnConfig(dims.intermediate_size, activation, bias=config.boolean("mlp_bias", False))
    layers = (LayerConfig(attention, ffn),) * dims.num_layers
    return huggingface.uniform_source("llama", checkpoint, dims, layers)


def from_gguf(checkpoint: Checkpoint) -> ModelSource:
    """The format stores the rows of q and k permuted within each head for an interleaved rope."""
    if gguf.fields(checkpoint).integer("attention.sliding_window", 0, low=0):
        raise UnsupportedModelError("attention.sliding_window: expected none in this architecture")
    dims = gguf.dimensions(checkpoint)
    attention = _attention(
        dims,
        qkv_bias=gguf.has_bias(checkpoint, "attn_q"),
        o_bias=gguf.has_bias(checkpoint, "attn_output"),
    )
    ffn = FfnConfig(dims.intermediate_size, bias=gguf.has_bias(checkpoint, "ffn_down"))
    layers = (LayerConfig(attention, ffn),) * dims.num_layers
    return gguf.uniform_source(checkpoint, dims, layers, "interleaved")


def _attention(dims: Dimensions, qkv_bias: bool, o_bias: bool) -> AttentionConfig:
    return AttentionConfig(
        num_heads=dims.num_heads,
        num_kv_heads=dims.num_kv_heads,
        head_dim=dims.head_dim,
        scale=dims.default_scale,
        qkv_bias=qkv_bias,
        o_bias=o_bias,
    )
