# SPDX-License-Identifier: Apache-2.0
"""Llama family: Llama 2, Llama 3.x, SmolLM2 and others of that architecture."""

from __future__ import annotations

from manymind.checkpoint import Checkpoint
from manymind.errors import UnsupportedModelError
from manymind.models import gguf, huggingface
from manymind.models.config import AttentionConfig, DecoderConfig, FfnConfig, LayerConfig
from manymind.models.family import ModelSource
from manymind.models.fields import Fields
from manymind.models.weights import SourceNames


def from_huggingface(checkpoint: Checkpoint) -> ModelSource:
    config = Fields(checkpoint.config)
    dims = huggingface.dimensions(config)
    bias = config.boolean("attention_bias", False)
    attention = AttentionConfig(
        num_heads=dims.num_heads,
        num_kv_heads=dims.num_kv_heads,
        head_dim=dims.head_dim,
        scale=dims.default_scale,
        qkv_bias=bias,
        o_bias=bias,
    )
    ffn = FfnConfig(
        dims.intermediate_size,
        huggingface.activation(config, "hidden_act", "silu"),
        bias=config.boolean("mlp_bias", False),
    )
    tied = config.boolean("tie_word_embeddings", False)
    decoder = DecoderConfig(
        architecture="llama",
        vocab_size=dims.vocab_size,
        hidden_size=dims.hidden_size,
        context_length=dims.context_length,
        norm_eps=dims.norm_eps,
        ropes=(huggingface.uniform_rope(config, dims),),
        layers=(LayerConfig(attention, ffn),) * dims.num_layers,
        tie_word_embeddings=tied,
        bos_token_id=huggingface.bos_token_id(config),
        eos_token_ids=huggingface.eos_token_ids(checkpoint),
    )
    ignored = huggingface.IGNORED_IF_TIED if tied else huggingface.IGNORED
    return ModelSource(decoder, SourceNames(huggingface.STEMS, ignored=ignored))


def from_gguf(checkpoint: Checkpoint) -> ModelSource:
    """The format stores the rows of q and k permuted within each head, so that the rotation is
    interleaved."""
    dims = gguf.dimensions(checkpoint)
    if gguf.fields(checkpoint).integer("attention.sliding_window", 0, low=0):
        raise UnsupportedModelError("attention.sliding_window: expected none in this architecture")
    attention = AttentionConfig(
        num_heads=dims.num_heads,
        num_kv_heads=dims.num_kv_heads,
        head_dim=dims.head_dim,
        scale=dims.default_scale,
        qkv_bias="blk.0.attn_q.bias" in checkpoint.tensors,
        o_bias="blk.0.attn_output.bias" in checkpoint.tensors,
    )
    ffn = FfnConfig(dims.intermediate_size, bias="blk.0.ffn_down.bias" in checkpoint.tensors)
    decoder = DecoderConfig(
        architecture="llama",
        vocab_size=dims.vocab_size,
        hidden_size=dims.hidden_size,
        context_length=dims.context_length,
        norm_eps=dims.norm_eps,
        ropes=(gguf.rope_config(checkpoint, dims, "interleaved"),),
        layers=(LayerConfig(attention, ffn),) * dims.num_layers,
        tie_word_embeddings=gguf.is_tied(checkpoint),
        bos_token_id=gguf.bos_token_id(checkpoint),
        eos_token_ids=gguf.eos_token_ids(checkpoint),
    )
    return ModelSource(decoder, SourceNames(gguf.STEMS, ignored=gguf.IGNORED))
