# SPDX-License-Identifier: Apache-2.0
"""InternVL 2.5 and 3 (transformers' format): tiles through an InternViT with layer scales,
neighbouring patches joined and projected by two linears, in front of Qwen2 or Llama.

Source: InternVL 2.5 (arXiv:2412.05271), InternVL3 (arXiv:2504.10479).
"""

from __future__ import annotations

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.errors import UnsupportedModelError
from manymind.models import llama, llava, qwen2, qwen3, vit
from manymind.models.family import ModelSource
from manymind.models.media_prompt import MediaPrompt
from manymind.models.vision_config import EncoderConfig, ProjectorConfig
from manymind.models.vision_family import (
    VisionSource,
    activation,
    num_layers,
    preprocessor_config,
    text_checkpoint,
    text_names,
    video_config,
)
from manymind.models.vision_weights import FloatArray, VisionWeights
from manymind.vision.internvl import InternVlPreprocessor
from manymind.vision.settings import MAX_SIDE
from manymind.vision.tiles import TileLayout
from manymind.vision.types import PreparedMedia

_START, _IMAGE_TOKEN, _END, _VIDEO = "<img>", "<IMG_CONTEXT>", "</img>", "<video>"
_TEXT_FAMILIES = {"llama": llama, "qwen2": qwen2, "qwen3": qwen3}


def from_huggingface(checkpoint: Checkpoint) -> ModelSource:
    config = Fields(checkpoint.config)
    kind = config.nested("text_config").string("model_type", "qwen2")
    if kind not in _TEXT_FAMILIES:
        known = ", ".join(_TEXT_FAMILIES)
        raise UnsupportedModelError(f"text_config.model_type: expected {known}, found {kind}")
    text = _TEXT_FAMILIES[kind].from_huggingface(text_checkpoint(checkpoint, {}))
    names = text_names(text.names, checkpoint, llava.TEXT_PREFIXES)
    vision = config.nested("vision_config")
    layout = _layout(config, vision)
    encoder = _encoder(config, vision, layout, text.config.hidden_size)
    source = VisionSource(
        encoder,
        _weights(checkpoint, encoder, layout.patch_size),
        InternVlPreprocessor(preprocessor_config(checkpoint), layout, video_config(checkpoint)),
        MediaPrompt(_IMAGE_TOKEN, (_IMAGE_TOKEN,), _expand, _VIDEO, _expand_video),
    )
    return ModelSource(text.config, names, source)


def _expand(media: PreparedMedia) -> str:
    return f"{_START}{_IMAGE_TOKEN * media.num_tokens}{_END}"


def _expand_video(media: PreparedMedia) -> str:
    """A line per frame."""
    return "\n".join(
        f"Frame{index + 1}: {_START}{_IMAGE_TOKEN * item.num_tokens}{_END}"
        for index, item in enumerate(media.inputs)
    )


def _layout(config: Fields, vision: Fields) -> TileLayout:
    if config.string("vision_feature_select_strategy", "default") != "default":
        raise UnsupportedModelError("vision_feature_select_strategy: expected default")
    patch, size = (_square(vision, key) for key in ("patch_size", "image_size"))
    ratio = config.number("downsample_ratio", 0.5)
    merge = round(1 / ratio) if ratio > 0 else 0
    side = size // patch
    if merge < 1 or side % merge:
        raise config.error("downsample_ratio", f"one part of {side} patches", ratio)
    return TileLayout(patch, side, merge, class_row=True)


def _square(vision: Fields, key: str) -> int:
    """A side, given as a number or as two equal ones."""
    raw = vision.raw(key)
    if not isinstance(raw, list):
        return vision.integer(key, high=MAX_SIDE)
    sides = vision.sequence(key)
    if len(sides) != 2 or sides[0] != sides[1] or type(sides[0]) is not int or sides[0] < 1:
        raise vision.error(key, "two equal positive integers", sides)
    return int(sides[0])


def _encoder(config: Fields, vision: Fields, layout: TileLayout, out_hidden: int) -> EncoderConfig:
    for key in ("use_absolute_position_embeddings", "use_mean_pooling"):
        if not vision.boolean(key, True):
            raise UnsupportedModelError(f"vision_config.{key}: expected true, found false")
    depth = num_layers(vision, "num_hidden_layers")
    norm = vision.string("norm_type", "layer_norm")
    if norm not in ("layer_norm", "rms_norm"):
        raise vision.error("norm_type", "layer_norm or rms_norm", norm)
    return EncoderConfig(
        patch_dim=3 * layout.patch_size**2,
        hidden_size=vision.integer("hidden_size"),
        num_layers=vit.selected_layers(config, depth, -1),
        num_heads=vision.integer("num_attention_heads"),
        intermediate_size=vision.integer("intermediate_size"),
        out_hidden_size=out_hidden,
        norm_kind="rms_norm" if norm == "rms_norm" else "layer_norm",
        norm_eps=vision.number("layer_norm_eps", 1e-6),
        activation=activation(vision, "hidden_act", "gelu"),
        patch_bias=True,
        qkv_bias=vision.boolean("attention_bias", False),
        qk_norm=vision.boolean("use_qk_norm", False),
        table_rows=layout.rows,
        projector=ProjectorConfig(
            merge_size=layout.merge**2,
            norm=True,
            norm_after_merge=True,
            norm_eps=1e-5,
            hidden_size=out_hidden,
            activation=activation(config, "projector_hidden_act", "gelu"),
        ),
    )


def _weights(checkpoint: Checkpoint, config: EncoderConfig, patch_size: int) -> VisionWeights:
    weights = VisionWeights(checkpoint.tensors, ("model.vision_tower.", "vision_tower."))
    weights.prefix = weights.prefix.removesuffix("vision_tower.")
    hidden, stem = config.hidden_size, "vision_tower.embeddings."
    patches = (hidden, 3, patch_size, patch_size)
    weights.linear("patch_proj", f"{stem}patch_embeddings.projection", patches)
    weights.computed(
        "table",
        (config.table_rows, hidden),
        {
            f"{stem}position_embeddings": (1, config.table_rows, hidden),
            f"{stem}cls_token": (1, 1, hidden),
            f"{stem}patch_embeddings.projection.bias": (hidden,),
        },
        vit.table_with_class_and_bias,
    )
    for index in range(config.num_layers):
        _add_layer(weights, config, index)
    weights.ignore(r"vision_tower\.encoder\.layer\.\d+\..*")
    weights.ignore(r"vision_tower\.embeddings\.mask_token")
    joined, out = hidden * config.projector.merge_size, config.out_hidden_size
    weights.norm("projector.norm", "multi_modal_projector.layer_norm", joined)
    weights.linear("projector.linear_1", "multi_modal_projector.linear_1", (out, joined))
    weights.linear("projector.linear_2", "multi_modal_projector.linear_2", (out, out))
    return weights


def _add_layer(weights: VisionWeights, config: EncoderConfig, index: int) -> None:
    source, target = f"vision_tower.encoder.layer.{index}.", f"layers.{index}."
    hidden, inner = config.hidden_size, config.intermediate_size
    norm_bias = config.norm_kind == "layer_norm"
    weights.norm(f"{target}norm1", f"{source}layernorm_before", hidden, norm_bias)
    weights.norm(f"{target}norm2", f"{source}layernorm_after", hidden, norm_bias)
    for part in "qkv":
        name = f"{source}attention.{part}_proj"
        weights.linear(f"{target}{part}_proj", name, (hidden, hidden), config.qkv_bias)
    if config.qk_norm:
        weights.norm(f"{target}q_norm", f"{source}attention.q_norm", hidden, bias=False)
        weights.norm(f"{target}k_norm", f"{source}attention.k_norm", hidden, bias=False)
    weights.linear(f"{target}up_proj", f"{source}mlp.fc1", (inner, hidden))
    # A layer scale multiplies what a linear gives: it is multiplied into its rows.
    for scale, canonical, name, cols in (
        ("lambda_1", "o_proj", "attention.projection_layer", hidden),
        ("lambda_2", "down_proj", "mlp.fc2", inner),
    ):
        matrix = {f"{source}{name}.weight": (hidden, cols), f"{source}{scale}": (hidden,)}
        weights.computed(f"{target}{canonical}", (hidden, cols), matrix, _scaled_rows)
        bias = {f"{source}{name}.bias": (hidden,), f"{source}{scale}": (hidden,)}
        weights.computed(f"{target}{canonical}.bias", (hidden,), bias, _scaled)


def _scaled_rows(matrix: FloatArray, scale: FloatArray) -> FloatArray:
    return matrix * scale[:, None]


def _scaled(bias: FloatArray, scale: FloatArray) -> FloatArray:
    return bias * scale
