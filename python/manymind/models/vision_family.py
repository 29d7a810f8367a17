# SPDX-License-Identifier: Apache-2.0
"""What the vision-language families share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.errors import CheckpointError, UnsupportedModelError
from manymind.models.config import RopeConfig
from manymind.models.media_prompt import MediaPrompt
from manymind.models.rope import default_inv_freq
from manymind.models.vision_config import EncoderActivation, EncoderConfig
from manymind.models.vision_weights import VisionWeights
from manymind.models.weights import SourceNames
from manymind.vision.types import Preprocessor

MAX_ENCODER_LAYERS = 256

_ACTIVATIONS: dict[str, EncoderActivation] = {
    "silu": "silu",
    "gelu": "gelu_erf",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
}


@dataclass(frozen=True)
class VisionSource:
    """What a family makes of the vision half of a checkpoint."""

    config: EncoderConfig
    weights: VisionWeights
    preprocessor: Preprocessor
    prompt: MediaPrompt


def text_checkpoint(checkpoint: Checkpoint, defaults: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint as that of its text half: config.json is "text_config" over ``defaults``.

    Older exports keep the text half's settings at the top.
    """
    text = checkpoint.config.get("text_config")
    if text is None:
        text = checkpoint.config
    if not isinstance(text, Mapping):
        raise CheckpointError("text_config", "an object", text)
    shared = {
        key: checkpoint.config[key]
        for key in ("tie_word_embeddings", "eos_token_id", "bos_token_id")
        if checkpoint.config.get(key) is not None and text.get(key) is None
    }
    given = {key: value for key, value in text.items() if value is not None}
    return replace(checkpoint, config={**defaults, **shared, **given})


def text_names(
    names: SourceNames, checkpoint: Checkpoint, prefixes: Sequence[tuple[str, str]]
) -> SourceNames:
    """``names`` where the text half lies deeper.

    prefixes: what may stand in place of "model." and of "lm_head"; the first that occurs is taken.
    """
    tensors = checkpoint.tensors
    for body, head in prefixes:
        if f"{body}embed_tokens.weight" in tensors:
            stems = {
                canonical: head if stem == "lm_head" else body + stem.removeprefix("model.")
                for canonical, stem in names.stems.items()
            }
            rotary = rf"{body}layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
            return replace(names, stems=stems, ignored=(rotary, rf"{head}\.weight"))
    raise CheckpointError(f"{prefixes[0][0]}embed_tokens.weight", "a tensor", "none")


def activation(config: Fields, key: str, default: str) -> EncoderActivation:
    """An activation by transformers' name."""
    name = config.string(key, default)
    if name not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"{key}: expected one of {', '.join(_ACTIVATIONS)}, found {name}"
        )
    return _ACTIVATIONS[name]


def num_layers(config: Fields, key: str) -> int:
    return config.integer(key, high=MAX_ENCODER_LAYERS)


def layer_list(config: Fields, key: str, count: int) -> tuple[int, ...]:
    """Ascending layer numbers below ``count``."""
    values = config.sequence(key)
    valid = all(type(value) is int and 0 <= value < count for value in values)
    if not valid or sorted(set(values)) != values:
        raise config.error(key, f"ascending numbers below {count}", values)
    return tuple(values)


def axial_rope(head_dim: int, theta: float = 10000.0) -> RopeConfig:
    """Half of a head's pairs turn by the patch's row, half by its column, with equal
    frequencies."""
    if head_dim % 4:
        raise CheckpointError("head size of the encoder", "a multiple of 4", head_dim)
    frequencies = default_inv_freq(head_dim // 2, theta)
    return RopeConfig(
        head_dim,
        "neox",
        (*frequencies, *frequencies),
        mrope_section=(0, head_dim // 4, head_dim // 4),
    )


def preprocessor_config(checkpoint: Checkpoint) -> Fields:
    """preprocessor_config.json, or the part of processor_config.json that took its place."""
    return Fields(checkpoint.preprocessor_config)


def video_config(checkpoint: Checkpoint) -> Fields:
    """The same of the video processor."""
    return Fields(checkpoint.video_preprocessor_config)
