# SPDX-License-Identifier: Apache-2.0
"""CLIP and SigLIP towers, which share transformers' names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.errors import UnsupportedModelError
from manymind.models.vision_config import EncoderConfig, ProjectorConfig
from manymind.models.vision_family import activation, num_layers
from manymind.models.vision_weights import FloatArray, VisionWeights
from manymind.vision.tiles import TileLayout

LAYER_NAMES = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "o_proj": "self_attn.out_proj",
    "up_proj": "mlp.fc1",
    "down_proj": "mlp.fc2",
}


def tower_stem(weights: VisionWeights, tower: str) -> str:
    """Newer exports leave out the name of the tower's only module."""
    deep = f"{tower}vision_model."
    return deep if weights.has(f"{deep}embeddings.patch_embedding.weight") else tower


def add_siglip(weights: VisionWeights, stem: str, config: EncoderConfig, patch_size: int) -> None:
    """A SigLIP tower below ``stem``, up to its last norm."""
    hidden = config.hidden_size
    patches = (hidden, 3, patch_size, patch_size)
    weights.linear("patch_proj", f"{stem}embeddings.patch_embedding", patches)
    table = (config.table_rows, hidden)
    weights.matrix("table", f"{stem}embeddings.position_embedding.weight", table)
    add_layers(weights, stem, config.num_layers, hidden, config.intermediate_size)
    if config.post_norm:
        weights.norm("post_norm", f"{stem}post_layernorm", hidden)
    weights.ignore(rf"{stem}(post_layernorm|head)\..*")


def add_llava_projector(weights: VisionWeights, config: EncoderConfig) -> None:
    """Two linears in front of the decoder."""
    hidden, out, bias = config.hidden_size, config.out_hidden_size, config.projector.bias
    weights.linear("projector.linear_1", "multi_modal_projector.linear_1", (out, hidden), bias)
    weights.linear("projector.linear_2", "multi_modal_projector.linear_2", (out, out), bias)


def llava_projector(config: Fields, out_hidden: int) -> ProjectorConfig:
    """What ``add_llava_projector`` fills."""
    return ProjectorConfig(
        hidden_size=out_hidden,
        activation=activation(config, "projector_hidden_act", "gelu"),
        bias=config.boolean("multimodal_projector_bias", True),
    )


def tower_weights(checkpoint: Checkpoint) -> tuple[VisionWeights, str]:
    """The weights beside the text half of a checkpoint that has "vision_tower", and the stem of the
    tower's names."""
    weights = VisionWeights(checkpoint.tensors, ("model.vision_tower.", "vision_tower."))
    weights.prefix = weights.prefix.removesuffix("vision_tower.")
    return weights, tower_stem(weights, "vision_tower.")


def siglip_config(
    vision: Fields, layout: TileLayout, out_hidden: int, **fields: Any
) -> EncoderConfig:
    """A SigLIP tower. ``fields``: of EncoderConfig, over what "vision_config" says."""
    found = EncoderConfig(
        patch_dim=3 * layout.patch_size**2,
        hidden_size=vision.integer("hidden_size"),
        num_layers=num_layers(vision, "num_hidden_layers"),
        num_heads=vision.integer("num_attention_heads"),
        intermediate_size=vision.integer("intermediate_size"),
        out_hidden_size=out_hidden,
        norm_eps=vision.number("layer_norm_eps", 1e-6),
        activation=activation(vision, "hidden_act", "gelu_pytorch_tanh"),
        patch_bias=True,
        table_rows=layout.rows,
    )
    return replace(found, **fields)


def add_layers(weights: VisionWeights, stem: str, count: int, hidden: int, inner: int) -> None:
    """The layers below ``stem``; surplus ones are ignored."""
    shapes = {"up_proj": (inner, hidden), "down_proj": (hidden, inner)}
    for index in range(count):
        for canonical, name in LAYER_NAMES.items():
            source, target = f"{stem}encoder.layers.{index}.{name}", f"layers.{index}.{canonical}"
            if canonical.startswith("norm"):
                weights.norm(target, source, hidden)
            else:
                weights.linear(target, source, shapes.get(canonical, (hidden, hidden)))
    weights.ignore(rf"{stem}encoder\.layers\.\d+\..*")


def selected_layers(config: Fields, depth: int, default: int) -> int:
    """Layers to run for ``vision_feature_layer``, which counts outputs, the embeddings' first."""
    raw = config.raw("vision_feature_layer")
    if isinstance(raw, list):
        raise UnsupportedModelError("vision_feature_layer: expected one layer, found a list")
    value = config.integer("vision_feature_layer", default, low=-depth - 1, high=depth)
    count = value if value >= 0 else depth + 1 + value
    if count < 1:
        raise config.error("vision_feature_layer", "a layer's output", value)
    return count


def table_with_class(positions: FloatArray, class_row: FloatArray) -> FloatArray:
    """The class token is a patch of zeros: its embedding goes into the table's first row."""
    table: FloatArray = positions.copy()
    table[0] += class_row.reshape(-1)
    return table


def table_with_class_and_bias(
    positions: FloatArray, class_row: FloatArray, bias: FloatArray
) -> FloatArray:
    """As ``table_with_class`` where a patch of zeros becomes the patch projection's bias."""
    table: FloatArray = positions.reshape(positions.shape[-2:]).copy()
    table[0] += class_row.reshape(-1) - bias
    return table
