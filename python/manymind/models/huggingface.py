# SPDX-License-Identifier: Apache-2.0
"""What the families share when read from a Hugging Face folder (config.json keys and tensor
names)."""

from __future__ import annotations

from dataclasses import replace

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.checkpoint.token_ids import bos_token_id, eos_token_ids
from manymind.errors import UnsupportedModelError
from manymind.models import rope
from manymind.models.config import Activation, DecoderConfig, LayerConfig, RopeConfig
from manymind.models.family import MAX_HEAD_DIM, MAX_LAYERS, Dimensions, ModelSource
from manymind.models.weights import SourceNames

# See SourceNames.stems.
STEMS = {
    "embed_tokens": "model.embed_tokens",
    "attn_norm": "model.layers.{i}.input_layernorm",
    "q_proj": "model.layers.{i}.self_attn.q_proj",
    "k_proj": "model.layers.{i}.self_attn.k_proj",
    "v_proj": "model.layers.{i}.self_attn.v_proj",
    "o_proj": "model.layers.{i}.self_attn.o_proj",
    "q_norm": "model.layers.{i}.self_attn.q_norm",
    "k_norm": "model.layers.{i}.self_attn.k_norm",
    "ffn_norm": "model.layers.{i}.post_attention_layernorm",
    "gate_proj": "model.layers.{i}.mlp.gate_proj",
    "up_proj": "model.layers.{i}.mlp.up_proj",
    "down_proj": "model.layers.{i}.mlp.down_proj",
    "final_norm": "model.norm",
    "lm_head": "lm_head",
}

_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}


def uniform_source(
    architecture: str, checkpoint: Checkpoint, dims: Dimensions, layers: tuple[LayerConfig, ...]
) -> ModelSource:
    """A family with the usual tensor names, one rope, and nothing outside its layers to
    configure."""
    config = Fields(checkpoint.config)
    tied = config.boolean("tie_word_embeddings", False)
    parameters, theta = rope_parameters(config), config.number("rope_theta", 10000.0)
    decoder = DecoderConfig(
        architecture=architecture,
        vocab_size=dims.vocab_size,
        hidden_size=dims.hidden_size,
        context_length=context_length(parameters, dims.context_length),
        norm_eps=dims.norm_eps,
        ropes=(rope_config(parameters, dims.head_dim, theta, dims.context_length),),
        layers=layers,
        tie_word_embeddings=tied,
        bos_token_id=bos_token_id(checkpoint),
        eos_token_ids=eos_token_ids(checkpoint),
    )
    return ModelSource(decoder, SourceNames(STEMS, ignored=ignored_tensors(tied)))


def dimensions(config: Fields, head_dim: int | None = None) -> Dimensions:
    """``head_dim``: the family's default where config.json has none; None = hidden_size /
    num_attention_heads."""
    heads = config.integer("num_attention_heads")
    hidden = config.integer("hidden_size")
    if head_dim is None and "head_dim" not in config and hidden % heads:
        raise config.error("hidden_size", f"a multiple of num_attention_heads ({heads})", hidden)
    return Dimensions(
        vocab_size=config.integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=config.integer("intermediate_size"),
        num_layers=config.integer("num_hidden_layers", high=MAX_LAYERS),
        num_heads=heads,
        num_kv_heads=config.integer("num_key_value_heads", heads),
        head_dim=config.integer("head_dim", head_dim or hidden // heads, high=MAX_HEAD_DIM),
        context_length=config.integer("max_position_embeddings"),
        norm_eps=config.number("rms_norm_eps", 1e-6),
    )


def activation(config: Fields, key: str, default: str) -> Activation:
    name = config.string(key, default)
    if name not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"{key}: expected one of {', '.join(_ACTIVATIONS)}, found {name}"
        )
    return _ACTIVATIONS[name]


def rope_parameters(config: Fields) -> Fields:
    """The rope settings: "rope_parameters" (transformers 5) or "rope_scaling" (before)."""
    return config.nested("rope_parameters" if "rope_parameters" in config else "rope_scaling")


def rope_config(parameters: Fields, dim: int, theta: float, context_length: int) -> RopeConfig:
    """``theta`` and ``context_length`` apply where ``parameters`` has no values of its own."""
    plain = _one_axis_rope(parameters, dim, theta, context_length)
    if "mrope_section" not in parameters:
        return plain
    section = parameters.sequence("mrope_section")
    if len(section) != 3 or not all(type(count) is int for count in section):
        raise parameters.error("mrope_section", "three integers", section)
    interleaved = parameters.boolean("mrope_interleaved", False)
    axes = (section[0], section[1], section[2])
    return replace(plain, mrope_section=axes, mrope_interleaved=interleaved)


def _one_axis_rope(parameters: Fields, dim: int, theta: float, context_length: int) -> RopeConfig:
    kind = parameters.string("rope_type", parameters.string("type", "default"))
    theta = parameters.number("rope_theta", theta)
    require_whole_rotation(parameters)
    if kind == "default" or (kind == "mrope" and "mrope_section" in parameters):
        return rope.default_rope(dim, theta, "neox")
    if kind == "linear":
        return rope.linear_rope(dim, theta, "neox", parameters.number("factor"))
    original = parameters.integer("original_max_position_embeddings", context_length)
    if kind == "llama3":
        llama3 = rope.Llama3Scaling(
            parameters.number("factor"),
            original,
            parameters.number("low_freq_factor"),
            parameters.number("high_freq_factor"),
        )
        return rope.llama3_rope(dim, theta, "neox", llama3)
    if kind == "yarn" and "mscale" not in parameters:
        yarn = rope.YarnScaling(
            parameters.number("factor", context_length / original),
            original,
            parameters.number("beta_fast", 32.0),
            parameters.number("beta_slow", 1.0),
            parameters.number("attention_factor", 0.0),
            parameters.boolean("truncate", True),
        )
        return rope.yarn_rope(dim, theta, "neox", yarn)
    raise UnsupportedModelError(
        f"rope_type: expected default, linear, llama3 or yarn without mscale, found {kind}"
    )


def require_whole_rotation(values: Fields) -> None:
    """Older files state the factor beside the rope settings, newer ones among them."""
    factor = values.number("partial_rotary_factor", 1.0)
    if factor != 1.0:
        raise UnsupportedModelError(f"partial_rotary_factor: expected 1, found {factor:g}")


def context_length(parameters: Fields, trained: int) -> int:
    """Positions the model takes: with YaRN, config.json states those before the extension."""
    if parameters.string("rope_type", parameters.string("type", "default")) != "yarn":
        return trained
    original = parameters.integer("original_max_position_embeddings", trained)
    return max(trained, int(original * parameters.number("factor", 1.0)))


def layer_types(config: Fields, num_layers: int, default: list[str]) -> list[str]:
    """ "full_attention" or "sliding_attention" for each layer; ``default`` where config.json has no
    list."""
    types = config.sequence("layer_types") if "layer_types" in config else default
    known = {"full_attention", "sliding_attention"}
    if len(types) != num_layers or not all(isinstance(t, str) and t in known for t in types):
        raise config.error("layer_types", f"{num_layers} of {sorted(known)}", types)
    return types


def optional_windows(config: Fields, num_layers: int) -> list[int]:
    """Attention window of each layer where config.json makes it optional (the Qwen families); 0 =
    full."""
    if not config.boolean("use_sliding_window", False):
        return [0] * num_layers
    window = config.integer("sliding_window", 4096)
    first = config.integer("max_window_layers", 28, low=0)
    default = ["sliding_attention" if i >= first else "full_attention" for i in range(num_layers)]
    types = layer_types(config, num_layers, default)
    return [window if kind == "sliding_attention" else 0 for kind in types]


def ignored_tensors(tied: bool) -> tuple[str, ...]:
    """Old exports hold the rotary table; exports of tied models may repeat the embedding as
    head."""
    rotary = r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
    return (rotary, r"lm_head\.weight") if tied else (rotary,)
