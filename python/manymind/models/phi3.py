# SPDX-License-Identifier: Apache-2.0
"""Phi-3 and Phi-4 (dense): Llama without biases, with q, k and v in one matrix, gate and up in
another, and an optional window that all layers share.

Models whose context is extended by LongRoPE are refused: it takes other frequencies once a sequence
is longer than the original context, so that keys in the cache would have to be rotated anew.
"""

from __future__ import annotations

from dataclasses import replace

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.errors import UnsupportedModelError
from manymind.models import gguf, huggingface
from manymind.models.config import AttentionConfig, FfnConfig, LayerConfig
from manymind.models.family import Dimensions, ModelSource, windowed_layers

# Parts of one matrix share its name; see SourceNames.stems.
_QKV = "model.layers.{i}.self_attn.qkv_proj"
_GATE_UP = "model.layers.{i}.mlp.gate_up_proj"
STEMS = {
    **huggingface.STEMS,
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), _QKV),
    **dict.fromkeys(("gate_proj", "up_proj"), _GATE_UP),
}
GGUF_STEMS = {
    **gguf.STEMS,
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), "blk.{i}.attn_qkv"),
    "gate_proj": "blk.{i}.ffn_up",
}

# What configurations of this family have called LongRoPE.
_LONGROPE = ("longrope", "su", "yarn")
_LONGROPE_FACTORS = ("rope_factors_long.weight", "rope_factors_short.weight")


def from_huggingface(checkpoint: Checkpoint) -> ModelSource:
    config = Fields(checkpoint.config)
    _refuse_rope_options(config)
    dims = huggingface.dimensions(config)
    dims = replace(dims, norm_eps=config.number("rms_norm_eps", 1e-5))
    ffn = FfnConfig(dims.intermediate_size, huggingface.activation(config, "hidden_act", "silu"))
    layers = _layers(dims, ffn, config.integer("sliding_window", 0, low=0))
    source = huggingface.uniform_source("phi3", checkpoint, dims, layers)
    return replace(source, names=replace(source.names, stems=STEMS))


def from_gguf(checkpoint: Checkpoint) -> ModelSource:
    for name in _LONGROPE_FACTORS:
        if name in checkpoint.tensors:
            raise UnsupportedModelError(f"{name}: expected no factors of longrope, found some")
    dims = gguf.dimensions(checkpoint)
    window = gguf.fields(checkpoint).integer("attention.sliding_window", 0, low=0)
    layers = _layers(dims, FfnConfig(dims.intermediate_size), window)
    source = gguf.uniform_source(checkpoint, dims, layers, "neox")
    return replace(source, names=replace(source.names, stems=GGUF_STEMS))


def _layers(dims: Dimensions, ffn: FfnConfig, window: int) -> tuple[LayerConfig, ...]:
    attention = AttentionConfig(
        num_heads=dims.num_heads,
        num_kv_heads=dims.num_kv_heads,
        head_dim=dims.head_dim,
        scale=dims.default_scale,
    )
    return windowed_layers(attention, ffn, [window] * dims.num_layers)


def _refuse_rope_options(config: Fields) -> None:
    parameters = huggingface.rope_parameters(config)
    kind = parameters.string("rope_type", parameters.string("type", "default"))
    if kind in _LONGROPE:
        raise UnsupportedModelError(f"rope_type: expected none of longrope's names, found {kind}")
    huggingface.require_whole_rotation(config)
