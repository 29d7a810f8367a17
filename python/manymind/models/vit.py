# SPDX-License-Identifier: Apache-2.0
"""CLIP and SigLIP towers, which share transformers' names."""

from __future__ import annotations

from manymind.checkpoint.fields import Fields
from manymind.errors import UnsupportedModelError
from manymind.models.vision_weights import FloatArray, VisionWeights

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
