# SPDX-License-Identifier: Apache-2.0
"""Gemma 3 (text): local and global attention layers with a rope each, norms on q and k and around
every block, scaled embeddings, GELU.

Source: Gemma 3 Technical Report (arXiv:2503.19786).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.checkpoint.token_ids import bos_token_id, eos_token_ids
from manymind.errors import UnsupportedModelError
from manymind.models import gguf, huggingface, rope
from manymind.models.config import (
    Activation,
    AttentionConfig,
    DecoderConfig,
    FfnConfig,
    LayerConfig,
    RopeConfig,
)
from manymind.models.family import Dimensions, ModelSource
from manymind.models.weights import SourceNames

_STEMS = {
    **huggingface.STEMS,
    "post_attn_norm": "model.layers.{i}.post_attention_layernorm",
    "ffn_norm": "model.layers.{i}.pre_feedforward_layernorm",
    "post_ffn_norm": "model.layers.{i}.post_feedforward_layernorm",
}
_LOCAL_PER_GLOBAL = 6  # every 6th layer is global
_GLOBAL_THETA, _LOCAL_THETA = 1e6, 1e4
_LAYERS_OF_27B = 62


@dataclass(frozen=True)
class _Options:
    """What distinguishes the members of the family, beyond their dimensions."""

    windows: list[int]  # of each layer; 0 = global
    global_rope: RopeConfig
    local_rope: RopeConfig
    attention_scale: float
    attention_softcap: float
    logit_softcap: float
    activation: Activation = "gelu_tanh"
    bias: bool = False


def from_huggingface(checkpoint: Checkpoint) -> ModelSource:
    config = Fields(checkpoint.config)
    if config.boolean("use_bidirectional_attention", False):
        raise UnsupportedModelError("use_bidirectional_attention: expected false, found true")
    dims = huggingface.dimensions(config, head_dim=256)
    global_rope, local_rope = _huggingface_ropes(config, dims)
    options = _Options(
        windows=_huggingface_windows(config, dims.num_layers),
        global_rope=global_rope,
        local_rope=local_rope,
        attention_scale=config.positive("query_pre_attn_scalar", 256) ** -0.5,
        attention_softcap=config.number("attn_logit_softcapping", 0.0),
        logit_softcap=config.number("final_logit_softcapping", 0.0),
        activation=huggingface.activation(config, "hidden_activation", "gelu_pytorch_tanh"),
        bias=config.boolean("attention_bias", False),
    )
    tied = config.boolean("tie_word_embeddings", True)
    # Norm gains are stored as differences from 1.
    names = SourceNames(_STEMS, norm_offset=1.0, ignored=huggingface.ignored_tensors(tied))
    return ModelSource(_decoder(checkpoint, dims, options, tied), names)


def from_gguf(checkpoint: Checkpoint) -> ModelSource:
    metadata = gguf.fields(checkpoint)
    dims = gguf.dimensions(checkpoint)
    window = metadata.integer("attention.sliding_window")
    # The format has no key for the 27B member's scale: 1/sqrt(hidden_size / num_heads).
    per_head = dims.hidden_size / dims.num_heads
    scale_of_27b = per_head**-0.5 if dims.num_layers == _LAYERS_OF_27B else dims.default_scale
    local_theta = metadata.number("rope.freq_base_swa", _LOCAL_THETA)
    options = _Options(
        windows=[window if (i + 1) % _LOCAL_PER_GLOBAL else 0 for i in range(dims.num_layers)],
        global_rope=gguf.rope_config(checkpoint, dims, "neox", _GLOBAL_THETA),
        local_rope=rope.default_rope(dims.head_dim, local_theta, "neox"),
        attention_scale=metadata.number("attention.scale", scale_of_27b),
        attention_softcap=metadata.number("attn_logit_softcapping", 0.0),
        logit_softcap=metadata.number("final_logit_softcapping", 0.0),
    )
    decoder = _decoder(checkpoint, dims, options, gguf.is_tied(checkpoint))
    return ModelSource(decoder, gguf.NAMES)


def _decoder(
    checkpoint: Checkpoint, dims: Dimensions, options: _Options, tied: bool
) -> DecoderConfig:
    return DecoderConfig(
        architecture="gemma3",
        vocab_size=dims.vocab_size,
        hidden_size=dims.hidden_size,
        context_length=dims.context_length,
        norm_eps=dims.norm_eps,
        ropes=(options.global_rope, options.local_rope),
        layers=tuple(_layer(dims, options, window) for window in options.windows),
        embed_scale=math.sqrt(dims.hidden_size),
        tie_word_embeddings=tied,
        logit_softcap=options.logit_softcap,
        bos_token_id=bos_token_id(checkpoint),
        eos_token_ids=eos_token_ids(checkpoint),
    )


def _layer(dims: Dimensions, options: _Options, window: int) -> LayerConfig:
    attention = AttentionConfig(
        num_heads=dims.num_heads,
        num_kv_heads=dims.num_kv_heads,
        head_dim=dims.head_dim,
        scale=options.attention_scale,
        window=window,
        softcap=options.attention_softcap,
        qkv_bias=options.bias,
        o_bias=options.bias,
        qk_norm=True,
        rope=1 if window else 0,
    )
    ffn = FfnConfig(dims.intermediate_size, options.activation)
    return LayerConfig(attention, ffn, post_attention_norm=True, post_ffn_norm=True)


def _huggingface_windows(config: Fields, num_layers: int) -> list[int]:
    window = config.integer("sliding_window", 4096)
    period = config.integer("sliding_window_pattern", _LOCAL_PER_GLOBAL)
    default = [
        "sliding_attention" if (index + 1) % period else "full_attention"
        for index in range(num_layers)
    ]
    types = huggingface.layer_types(config, num_layers, default)
    return [window if kind == "sliding_attention" else 0 for kind in types]


def _huggingface_ropes(config: Fields, dims: Dimensions) -> tuple[RopeConfig, RopeConfig]:
    """Global and local rope: nested by layer type since transformers 5, separate keys before."""
    parameters = huggingface.rope_parameters(config)
    nested = "full_attention" in parameters or "sliding_attention" in parameters
    global_parameters = parameters.nested("full_attention") if nested else parameters
    local_parameters = parameters.nested("sliding_attention")
    global_theta = config.number("rope_theta", _GLOBAL_THETA)
    local_theta = config.number("rope_local_base_freq", _LOCAL_THETA)
    dim, length = dims.head_dim, dims.context_length
    return (
        huggingface.rope_config(global_parameters, dim, global_theta, length),
        huggingface.rope_config(local_parameters, dim, local_theta, length),
    )
