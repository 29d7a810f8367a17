# SPDX-License-Identifier: Apache-2.0
"""What the families share when read from a GGUF file (metadata keys and tensor names)."""

from __future__ import annotations

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.checkpoint.token_ids import bos_token_id, eos_token_ids
from manymind.errors import CheckpointError, UnsupportedModelError
from manymind.models import rope
from manymind.models.config import DecoderConfig, LayerConfig, RopeConfig, RopeStyle
from manymind.models.family import MAX_HEAD_DIM, MAX_LAYERS, Dimensions, ModelSource
from manymind.models.weights import SourceNames

# See SourceNames.stems.
STEMS = {
    "embed_tokens": "token_embd",
    "attn_norm": "blk.{i}.attn_norm",
    "q_proj": "blk.{i}.attn_q",
    "k_proj": "blk.{i}.attn_k",
    "v_proj": "blk.{i}.attn_v",
    "o_proj": "blk.{i}.attn_output",
    "q_norm": "blk.{i}.attn_q_norm",
    "k_norm": "blk.{i}.attn_k_norm",
    "ffn_norm": "blk.{i}.ffn_norm",
    "gate_proj": "blk.{i}.ffn_gate",
    "up_proj": "blk.{i}.ffn_up",
    "down_proj": "blk.{i}.ffn_down",
    "post_attn_norm": "blk.{i}.post_attention_norm",
    "post_ffn_norm": "blk.{i}.post_ffw_norm",
    "final_norm": "output_norm",
    "lm_head": "output",
}

_ROPE_FACTORS = "rope_freqs.weight"

# Adjustments of YaRN that only some models use.
_UNSUPPORTED_SCALING = ("attn_factor", "yarn_log_multiplier", "yarn_ext_factor", "yarn_attn_factor")

# The rope factors are read into the configuration.
NAMES = SourceNames(STEMS, ignored=(r"rope_freqs\.weight",))


def uniform_source(
    checkpoint: Checkpoint, dims: Dimensions, layers: tuple[LayerConfig, ...], style: RopeStyle
) -> ModelSource:
    """A family with one rope and nothing outside its layers to configure."""
    decoder = DecoderConfig(
        architecture=architecture(checkpoint),
        vocab_size=dims.vocab_size,
        hidden_size=dims.hidden_size,
        context_length=dims.context_length,
        norm_eps=dims.norm_eps,
        ropes=(rope_config(checkpoint, dims, style),),
        layers=layers,
        tie_word_embeddings=is_tied(checkpoint),
        bos_token_id=bos_token_id(checkpoint),
        eos_token_ids=eos_token_ids(checkpoint),
    )
    return ModelSource(decoder, NAMES)


def architecture(checkpoint: Checkpoint) -> str:
    return Fields(checkpoint.config, "general.").string("architecture")


def fields(checkpoint: Checkpoint) -> Fields:
    """The metadata of the file's architecture, without its prefix."""
    return Fields(checkpoint.config, f"{architecture(checkpoint)}.")


def dimensions(checkpoint: Checkpoint) -> Dimensions:
    metadata = fields(checkpoint)
    if metadata.integer("expert_count", 0, low=0):
        raise UnsupportedModelError("expert_count: expected a dense model, found experts")
    if Fields(checkpoint.config).integer("split.count", 1, low=0) > 1:
        raise UnsupportedModelError("split.count: expected one file, found a split one: merge it")
    heads = metadata.integer("attention.head_count")
    hidden = metadata.integer("embedding_length")
    head_dim = metadata.integer("attention.key_length", max(hidden // heads, 1), high=MAX_HEAD_DIM)
    if metadata.integer("attention.value_length", head_dim) != head_dim:
        raise UnsupportedModelError("attention.value_length: expected attention.key_length")
    return Dimensions(
        vocab_size=_vocab_size(checkpoint),
        hidden_size=hidden,
        intermediate_size=metadata.integer("feed_forward_length"),
        num_layers=metadata.integer("block_count", high=MAX_LAYERS),
        num_heads=heads,
        num_kv_heads=metadata.integer("attention.head_count_kv", heads),
        head_dim=head_dim,
        context_length=metadata.integer("context_length"),
        norm_eps=metadata.number("attention.layer_norm_rms_epsilon"),
    )


def rope_config(
    checkpoint: Checkpoint, dims: Dimensions, style: RopeStyle, default_theta: float = 10000.0
) -> RopeConfig:
    """The rope all layers share, or the global one of a family with two."""
    metadata = fields(checkpoint)
    dim = metadata.integer("rope.dimension_count", dims.head_dim, high=MAX_HEAD_DIM)
    theta = metadata.number("rope.freq_base", default_theta)
    scaling = Fields(checkpoint.config, f"{architecture(checkpoint)}.rope.scaling.")
    kind = scaling.string("type", "none")
    for key in _UNSUPPORTED_SCALING:
        if key in scaling:
            raise UnsupportedModelError(f"rope.scaling.{key}: expected none, found a value")
    factors = checkpoint.tensors.get(_ROPE_FACTORS)
    if factors is not None and kind == "none":
        if factors.format != "f32":
            raise CheckpointError(f"format of {_ROPE_FACTORS}", "f32", factors.format)
        return rope.divided_rope(dim, theta, style, factors.data.cast("f").tolist())
    if factors is None and kind == "none":
        return rope.default_rope(dim, theta, style)
    if factors is None and kind == "linear":
        return rope.linear_rope(dim, theta, style, scaling.number("factor"))
    if factors is None and kind == "yarn":
        yarn = rope.YarnScaling(
            scaling.number("factor"),
            scaling.integer("original_context_length", dims.context_length),
            scaling.number("yarn_beta_fast", 32.0),
            scaling.number("yarn_beta_slow", 1.0),
        )
        return rope.yarn_rope(dim, theta, style, yarn)
    raise UnsupportedModelError(
        f"rope.scaling.type: expected none, linear or yarn (without {_ROPE_FACTORS}), found {kind}"
    )


def has_bias(checkpoint: Checkpoint, name: str) -> bool:
    """Whether the weight ``name`` of layer 0 has a bias; the format has no key for it."""
    return f"blk.0.{name}.bias" in checkpoint.tensors


def is_tied(checkpoint: Checkpoint) -> bool:
    """The format marks tied embeddings by leaving the output matrix out."""
    return "output.weight" not in checkpoint.tensors


def _vocab_size(checkpoint: Checkpoint) -> int:
    embedding = checkpoint.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        found = "none" if embedding is None else embedding.shape
        raise CheckpointError("token_embd.weight", "a matrix", found)
    return embedding.shape[0]
