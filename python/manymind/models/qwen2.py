# SPDX-License-Identifier: Apache-2.0
"""Qwen2 and Qwen2.5: Llama with biases on q, k and v, and an optional attention window in the upper
layers."""

from __future__ import annotations

from manymind.checkpoint import Checkpoint
from manymind.models import gguf, huggingface
from manymind.models.config import AttentionConfig, DecoderConfig, FfnConfig
from manymind.models.family import Dimensions, ModelSource, windowed_layers
from manymind.models.fields import Fields
from manymind.models.weights import SourceNames


def from_huggingface(checkpoint: Checkpoint) -> ModelSource:
    config = Fields(checkpoint.config)
    dims = huggingface.dimensions(config)
    ffn = FfnConfig(dims.intermediate_size, huggingface.activation(config, "hidden_act", "silu"))
    windows = huggingface.optional_windows(config, dims.num_layers)
    tied = config.boolean("tie_word_embeddings", False)
    decoder = DecoderConfig(
        architecture="qwen2",
        vocab_size=dims.vocab_size,
        hidden_size=dims.hidden_size,
        context_length=dims.context_length,
        norm_eps=dims.norm_eps,
        ropes=(huggingface.uniform_rope(config, dims),),
        layers=windowed_layers(_attention(dims), ffn, windows),
        tie_word_embeddings=tied,
        bos_token_id=huggingface.bos_token_id(config),
        eos_token_ids=huggingface.eos_token_ids(checkpoint),
    )
    ignored = huggingface.IGNORED_IF_TIED if tied else huggingface.IGNORED
    return ModelSource(decoder, SourceNames(huggingface.STEMS, ignored=ignored))


def from_gguf(checkpoint: Checkpoint) -> ModelSource:
    dims = gguf.dimensions(checkpoint)
    ffn = FfnConfig(dims.intermediate_size)
    decoder = DecoderConfig(
        architecture="qwen2",
        vocab_size=dims.vocab_size,
        hidden_size=dims.hidden_size,
        context_length=dims.context_length,
        norm_eps=dims.norm_eps,
        ropes=(gguf.rope_config(checkpoint, dims, "neox"),),
        layers=windowed_layers(_attention(dims), ffn, [0] * dims.num_layers),
        tie_word_embeddings=gguf.is_tied(checkpoint),
        bos_token_id=gguf.bos_token_id(checkpoint),
        eos_token_ids=gguf.eos_token_ids(checkpoint),
    )
    return ModelSource(decoder, SourceNames(gguf.STEMS, ignored=gguf.IGNORED))


def _attention(dims: Dimensions) -> AttentionConfig:
    return AttentionConfig(
        num_heads=dims.num_heads,
        num_kv_heads=dims.num_kv_heads,
        head_dim=dims.head_dim,
        scale=dims.default_scale,
        qkv_bias=True,
    )
