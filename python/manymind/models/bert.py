# SPDX-License-Identifier: Apache-2.0
"""BERT (Devlin et al. 2019, arXiv:1810.04805) as Sentence Transformers' folders hold it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.checkpoint.json_file import read_json_list, read_json_object
from manymind.errors import UnsupportedModelError
from manymind.models.text_encoder import TextEncoderConfig, TextEncoderSource
from manymind.models.vision_weights import FloatArray, NamedWeights

_ACTIVATIONS = {"gelu": "gelu_erf", "gelu_new": "gelu_tanh", "relu": "relu", "silu": "silu"}
_LAYER_NAMES = {
    "q_proj": "attention.self.query",
    "k_proj": "attention.self.key",
    "v_proj": "attention.self.value",
    "o_proj": "attention.output.dense",
    "attn_norm": "attention.output.LayerNorm",
    "up_proj": "intermediate.dense",
    "down_proj": "output.dense",
    "ffn_norm": "output.LayerNorm",
}


def from_huggingface(checkpoint: Checkpoint) -> TextEncoderSource:
    """The encoder, pooled as the folder says (by the mean, if it does not)."""
    _check_modules(checkpoint)
    fields = Fields(checkpoint.config)
    activation = fields.string("hidden_act", "gelu")
    if activation not in _ACTIVATIONS:
        expected = f"one of {', '.join(_ACTIVATIONS)}"
        raise UnsupportedModelError(f"hidden_act: expected {expected}, found {activation!r}")
    kind = fields.string("position_embedding_type", "absolute")
    if kind != "absolute":
        raise UnsupportedModelError(f"position_embedding_type: expected absolute, found {kind!r}")
    if fields.boolean("is_decoder", False):
        raise UnsupportedModelError("is_decoder: expected false, found true")
    config = TextEncoderConfig(
        vocab_size=fields.integer("vocab_size"),
        hidden_size=fields.integer("hidden_size"),
        num_layers=fields.integer("num_hidden_layers", high=1024),
        num_heads=fields.integer("num_attention_heads"),
        intermediate_size=fields.integer("intermediate_size"),
        max_positions=fields.integer("max_position_embeddings"),
        norm_eps=fields.positive("layer_norm_eps", 1e-12),
        activation=_ACTIVATIONS[activation],
        pools_first=_pools_first(_settings(checkpoint, "1_Pooling/config.json")),
    )
    limits = Fields(_settings(checkpoint, "sentence_bert_config.json"))
    if limits.boolean("do_lower_case", False):
        raise UnsupportedModelError(
            "do_lower_case: expected false in sentence_bert_config.json, found true"
        )
    longest = limits.integer("max_seq_length", config.max_positions)
    weights = _weights(checkpoint, config, fields.integer("type_vocab_size", 2))
    return TextEncoderSource(config, weights, min(longest, config.max_positions))


def _check_modules(checkpoint: Checkpoint) -> None:
    """Refuses what else Sentence Transformers would do with a text or its vector."""
    path = checkpoint.path / "modules.json"
    for module in read_json_list(path) if path.is_file() else []:
        kind = str(module.get("type", "")) if isinstance(module, dict) else str(module)
        if kind.rpartition(".")[2] not in ("Transformer", "Pooling", "Normalize"):
            raise UnsupportedModelError(
                f"modules.json: expected Transformer, Pooling and Normalize, found {kind!r}"
            )


def _settings(checkpoint: Checkpoint, name: str) -> Mapping[str, Any]:
    path = checkpoint.path / name
    return read_json_object(path) if path.is_file() else {}


def _pools_first(pooling: Mapping[str, Any]) -> bool:
    """True for the class token, False for the mean; other ways are refused."""
    if "pooling_mode" in pooling:
        pooling = {f"pooling_mode_{pooling['pooling_mode']}_tokens": True}
    modes = [name for name, value in pooling.items() if name.startswith("pooling_mode_") and value]
    known = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
    if not modes:
        return False
    if len(modes) > 1 or modes[0] not in known:
        found = " + ".join(modes)
        raise UnsupportedModelError(f"pooling: expected the mean or the class token, found {found}")
    return known[modes[0]]


def _weights(checkpoint: Checkpoint, config: TextEncoderConfig, num_types: int) -> NamedWeights:
    weights = NamedWeights(checkpoint.tensors, ("bert.", ""), "encoder.")
    hidden, inner = config.hidden_size, config.intermediate_size
    embeddings = "embeddings."
    words = f"{embeddings}word_embeddings.weight"
    weights.matrix("embed_tokens", words, (config.vocab_size, hidden))
    # Every token is of the first type, whose row joins the table of positions.
    weights.computed(
        "embed_positions",
        (config.max_positions, hidden),
        {
            f"{embeddings}position_embeddings.weight": (config.max_positions, hidden),
            f"{embeddings}token_type_embeddings.weight": (num_types, hidden),
        },
        _with_first_type,
    )
    weights.norm("embed_norm", f"{embeddings}LayerNorm", hidden)
    shapes = {"up_proj": (inner, hidden), "down_proj": (hidden, inner)}
    for index in range(config.num_layers):
        for canonical, name in _LAYER_NAMES.items():
            source, target = f"encoder.layer.{index}.{name}", f"layers.{index}.{canonical}"
            if canonical.endswith("norm"):
                weights.norm(target, source, hidden)
            else:
                weights.linear(target, source, shapes.get(canonical, (hidden, hidden)))
    return weights


def _with_first_type(positions: FloatArray, types: FloatArray) -> FloatArray:
    table: FloatArray = positions + types[0]
    return table
