# SPDX-License-Identifier: Apache-2.0
"""Qwen3-VL (dense): a ViT with learned positions beside rotary ones whose middle layers also feed
the decoder's first layers (DeepStack), in front of Qwen3 whose rotary axes take turns.

Source: Qwen3-VL (arXiv:2511.21631); DeepStack (arXiv:2406.04334).
"""

from __future__ import annotations

import math
from dataclasses import replace

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.models import qwen2_vl, qwen3
from manymind.models.family import ModelSource
from manymind.models.media_prompt import AxisRule, MediaPrompt
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
from manymind.vision.types import PreparedMedia

_START, _END = "<|vision_start|>", "<|vision_end|>"
_PATCH_SIZE = 16
# What the model's own template writes around a video; each slice gets it anew.
_VIDEO = f"{_START}{qwen2_vl.VIDEO_TOKEN}{_END}"


def from_huggingface(checkpoint: Checkpoint) -> ModelSource:
    text = qwen3.from_huggingface(text_checkpoint(checkpoint, {}))
    names = text_names(text.names, checkpoint, qwen2_vl.TEXT_PREFIXES)
    vision = Fields(checkpoint.config).nested("vision_config")
    config = _encoder(vision, text.config.hidden_size)
    side = math.isqrt(config.table_rows)
    if side**2 != config.table_rows:
        raise vision.error("num_position_embeddings", "a square number", config.table_rows)
    layout = Layout(table_side=side, one_input_per_slice=True)
    preprocessor = QwenPreprocessor(
        preprocessor_config(checkpoint), layout, _PATCH_SIZE, video_config(checkpoint)
    )
    qwen2_vl.require_equal_patches(vision, preprocessor)
    weights = _weights(checkpoint, vision, config)
    source = VisionSource(config, weights, preprocessor, _prompt(preprocessor))
    decoder = replace(text.config, num_deepstack=len(config.deepstack_layers))
    return ModelSource(decoder, names, source)


def _prompt(preprocessor: QwenPreprocessor) -> MediaPrompt:
    image, video = qwen2_vl.IMAGE_TOKEN, qwen2_vl.VIDEO_TOKEN

    def expand_video(media: PreparedMedia) -> str:
        """Each slice behind the time of its middle."""
        return "".join(
            f"<{middle:.1f} seconds>{_START}{video * item.num_tokens}{_END}"
            for middle, item in zip(media.seconds, media.inputs, strict=True)
        )

    return MediaPrompt(
        image_token=image,
        fill_tokens=(image, video),
        expand_image=lambda media: image * media.num_tokens,
        video_token=_VIDEO,
        expand_video=expand_video,
        axes=AxisRule(preprocessor.merge_size),
    )


def _patch_shape(vision: Fields) -> tuple[int, int, int, int]:
    patch = vision.integer("patch_size", _PATCH_SIZE, high=1024)
    frames = vision.integer("temporal_patch_size", 2, high=64)
    return qwen2_vl.CHANNELS, frames, patch, patch


def _encoder(vision: Fields, out_hidden: int) -> EncoderConfig:
    hidden, heads = vision.integer("hidden_size"), vision.integer("num_heads")
    merge = vision.integer("spatial_merge_size", 2, high=16) ** 2
    depth = num_layers(vision, "depth")
    projector = ProjectorConfig(merge_size=merge, norm=True, hidden_size=hidden * merge)
    return EncoderConfig(
        patch_dim=math.prod(_patch_shape(vision)),
        hidden_size=hidden,
        num_layers=depth,
        num_heads=heads,
        intermediate_size=vision.integer("intermediate_size"),
        out_hidden_size=out_hidden,
        activation=activation(vision, "hidden_act", "gelu_pytorch_tanh"),
        patch_bias=True,
        table_rows=vision.integer("num_position_embeddings", 2304),
        rope=axial_rope(hidden // heads),
        projector=projector,
        deepstack_layers=layer_list(vision, "deepstack_visual_indexes", depth),
        deepstack=replace(projector, norm_after_merge=True),
    )


def _weights(checkpoint: Checkpoint, vision: Fields, config: EncoderConfig) -> VisionWeights:
    weights = VisionWeights(checkpoint.tensors, qwen2_vl.VISION_PREFIXES)
    hidden, inner = config.hidden_size, config.intermediate_size
    weights.linear("patch_proj", "patch_embed.proj", (hidden, *_patch_shape(vision)))
    weights.matrix("table", "pos_embed.weight", (config.table_rows, hidden))
    for index in range(config.num_layers):
        source, target = f"blocks.{index}.", f"layers.{index}."
        weights.norm(f"{target}norm1", f"{source}norm1", hidden)
        weights.norm(f"{target}norm2", f"{source}norm2", hidden)
        weights.split_qkv(target, f"{source}attn.qkv", hidden)
        weights.linear(f"{target}o_proj", f"{source}attn.proj", (hidden, hidden))
        weights.linear(f"{target}up_proj", f"{source}mlp.linear_fc1", (inner, hidden))
        weights.linear(f"{target}down_proj", f"{source}mlp.linear_fc2", (hidden, inner))
    _add_merger(weights, config, "projector", "merger", hidden)
    for index in range(len(config.deepstack_layers)):
        merged = config.projector.hidden_size
        source = f"deepstack_merger_list.{index}"
        _add_merger(weights, config, f"deepstack.{index}", source, merged)
    return weights


def _add_merger(
    weights: VisionWeights, config: EncoderConfig, target: str, source: str, norm_size: int
) -> None:
    merged = config.projector.hidden_size
    weights.norm(f"{target}.norm", f"{source}.norm", norm_size)
    weights.linear(f"{target}.linear_1", f"{source}.linear_fc1", (merged, merged))
    weights.linear(f"{target}.linear_2", f"{source}.linear_fc2", (config.out_hidden_size, merged))
