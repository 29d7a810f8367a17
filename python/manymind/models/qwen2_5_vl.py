# SPDX-License-Identifier: Apache-2.0
"""Qwen2.5-VL: most layers of the ViT attend inside windows, its networks are gated, and a video's
time axis counts seconds.

Source: Qwen2.5-VL (arXiv:2502.13923).
"""

from __future__ import annotations

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.models import qwen2, qwen2_vl
from manymind.models.family import ModelSource
from manymind.models.vision_config import EncoderConfig, ProjectorConfig
from manymind.models.vision_family import (
    VisionSource,
    activation,
    axial_rope,
    layer_list,
    num_layers,
    preprocessor_config,
    text_checkpoint,
    text_names,
    video_config,
)
from manymind.models.vision_weights import VisionWeights
from manymind.vision.qwen_vl import Layout, QwenPreprocessor


def from_huggingface(checkpoint: Checkpoint) -> ModelSource:
    text = qwen2.from_huggingface(text_checkpoint(checkpoint, {}))
    names = text_names(text.names, checkpoint, qwen2_vl.TEXT_PREFIXES)
    vision = Fields(checkpoint.config).nested("vision_config")
    config = _encoder(vision, text.config.hidden_size)
    window = vision.integer("window_size", 112)
    preprocessor = QwenPreprocessor(
        preprocessor_config(checkpoint), Layout(window=window), video=video_config(checkpoint)
    )
    qwen2_vl.require_equal_patches(vision, preprocessor)
    side = preprocessor.patch_size * preprocessor.merge_size
    if window % side:
        raise vision.error("window_size", f"a multiple of {side}", window)
    per_second = vision.number("tokens_per_second", 4.0)
    prompt = qwen2_vl.prompt(preprocessor, per_second)
    source = VisionSource(config, _weights(checkpoint, vision, config), preprocessor, prompt)
    return ModelSource(text.config, names, source)


def _encoder(vision: Fields, out_hidden: int) -> EncoderConfig:
    channels, frames, height, width = qwen2_vl.patch_shape(vision)
    hidden, heads = vision.integer("hidden_size", 1280), vision.integer("num_heads", 16)
    merge = vision.integer("spatial_merge_size", 2, high=16) ** 2
    depth = num_layers(vision, "depth")
    full = layer_list(vision, "fullatt_block_indexes", depth)
    if not full:
        raise vision.error("fullatt_block_indexes", "at least one layer", full)
    return EncoderConfig(
        patch_dim=channels * frames * height * width,
        hidden_size=hidden,
        num_layers=depth,
        num_heads=heads,
        intermediate_size=vision.integer("intermediate_size", 3420),
        out_hidden_size=out_hidden,
        norm_kind="rms_norm",
        activation=activation(vision, "hidden_act", "silu"),
        gated=True,
        rope=axial_rope(hidden // heads),
        full_layers=full,
        projector=ProjectorConfig(
            merge_size=merge, norm=True, norm_kind="rms_norm", hidden_size=hidden * merge
        ),
    )


def _weights(checkpoint: Checkpoint, vision: Fields, config: EncoderConfig) -> VisionWeights:
    weights = VisionWeights(checkpoint.tensors, qwen2_vl.VISION_PREFIXES)
    hidden, inner = config.hidden_size, config.intermediate_size
    shape = (hidden, *qwen2_vl.patch_shape(vision))
    weights.matrix("patch_proj", "patch_embed.proj.weight", shape)
    for index in range(config.num_layers):
        source, target = f"blocks.{index}.", f"layers.{index}."
        weights.norm(f"{target}norm1", f"{source}norm1", hidden, bias=False)
        weights.norm(f"{target}norm2", f"{source}norm2", hidden, bias=False)
        weights.split_qkv(target, f"{source}attn.qkv", hidden)
        weights.linear(f"{target}o_proj", f"{source}attn.proj", (hidden, hidden))
        for name in ("gate_proj", "up_proj"):
            weights.linear(f"{target}{name}", f"{source}mlp.{name}", (inner, hidden))
        weights.linear(f"{target}down_proj", f"{source}mlp.down_proj", (hidden, inner))
    qwen2_vl.add_merger(weights, config, norm_bias=False)
    return weights
