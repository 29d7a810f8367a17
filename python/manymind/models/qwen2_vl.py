# SPDX-License-Identifier: Apache-2.0
"""Qwen2-VL: a ViT with rotary positions on pictures of any size, in front of Qwen2 with positions
in time, height and width.

Source: Qwen2-VL (arXiv:2409.12191).
"""

from __future__ import annotations

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.models import qwen2
from manymind.models.family import ModelSource
from manymind.models.media_prompt import AxisRule, MediaPrompt
from manymind.models.vision_config import EncoderConfig, ProjectorConfig
from manymind.models.vision_family import (
    VisionSource,
    activation,
    axial_rope,
    num_layers,
    preprocessor_config,
    text_checkpoint,
    text_names,
    video_config,
)
from manymind.models.vision_weights import VisionWeights
from manymind.vision.qwen_vl import Layout, QwenPreprocessor

IMAGE_TOKEN, VIDEO_TOKEN = "<|image_pad|>", "<|video_pad|>"
TEXT_PREFIXES = (("model.", "lm_head"), ("model.language_model.", "lm_head"))
VISION_PREFIXES = ("visual.", "model.visual.")
CHANNELS = 3


def from_huggingface(checkpoint: Checkpoint) -> ModelSource:
    text = qwen2.from_huggingface(text_checkpoint(checkpoint, {}))
    names = text_names(text.names, checkpoint, TEXT_PREFIXES)
    vision = Fields(checkpoint.config).nested("vision_config")
    config = _encoder(vision, text.config.hidden_size)
    preprocessor = QwenPreprocessor(
        preprocessor_config(checkpoint), Layout(), video=video_config(checkpoint)
    )
    require_equal_patches(vision, preprocessor)
    source = VisionSource(
        config, _weights(checkpoint, vision, config), preprocessor, prompt(preprocessor)
    )
    return ModelSource(text.config, names, source)


def prompt(preprocessor: QwenPreprocessor, positions_per_second: float = 0.0) -> MediaPrompt:
    """A picture is as many placeholders as it has tokens."""
    return MediaPrompt(
        image_token=IMAGE_TOKEN,
        fill_tokens=(IMAGE_TOKEN, VIDEO_TOKEN),
        expand_image=lambda media: IMAGE_TOKEN * media.num_tokens,
        video_token=VIDEO_TOKEN,
        expand_video=lambda media: VIDEO_TOKEN * media.num_tokens,
        axes=AxisRule(preprocessor.merge_size, positions_per_second),
    )


def require_equal_patches(vision: Fields, preprocessor: QwenPreprocessor) -> None:
    """The encoder and the preprocessor state the same sizes."""
    for key, found in (
        ("patch_size", preprocessor.patch_size),
        ("temporal_patch_size", preprocessor.temporal_patch_size),
        ("spatial_merge_size", preprocessor.merge_size),
    ):
        expected = vision.integer(key, found)
        if expected != found:
            raise vision.error(key, f"the preprocessor's {found}", expected)


def patch_shape(vision: Fields) -> tuple[int, int, int, int]:
    """Channels, frames, height and width of a patch."""
    patch = vision.integer("patch_size", 14, high=1024)
    return CHANNELS, vision.integer("temporal_patch_size", 2, high=64), patch, patch


def _encoder(vision: Fields, out_hidden: int) -> EncoderConfig:
    channels, frames, height, width = patch_shape(vision)
    hidden, heads = vision.integer("embed_dim", 1280), vision.integer("num_heads", 16)
    merge = vision.integer("spatial_merge_size", 2, high=16) ** 2
    return EncoderConfig(
        patch_dim=channels * frames * height * width,
        hidden_size=hidden,
        num_layers=num_layers(vision, "depth"),
        num_heads=heads,
        intermediate_size=int(hidden * vision.number("mlp_ratio", 4.0)),
        out_hidden_size=out_hidden,
        activation=activation(vision, "hidden_act", "quick_gelu"),
        rope=axial_rope(hidden // heads),
        projector=ProjectorConfig(merge_size=merge, norm=True, hidden_size=hidden * merge),
    )


def _weights(checkpoint: Checkpoint, vision: Fields, config: EncoderConfig) -> VisionWeights:
    weights = VisionWeights(checkpoint.tensors, VISION_PREFIXES)
    hidden, inner = config.hidden_size, config.intermediate_size
    weights.matrix("patch_proj", "patch_embed.proj.weight", (hidden, *patch_shape(vision)))
    for index in range(config.num_layers):
        source, target = f"blocks.{index}.", f"layers.{index}."
        weights.norm(f"{target}norm1", f"{source}norm1", hidden)
        weights.norm(f"{target}norm2", f"{source}norm2", hidden)
        weights.split_qkv(target, f"{source}attn.qkv", hidden)
        weights.linear(f"{target}o_proj", f"{source}attn.proj", (hidden, hidden))
        weights.linear(f"{target}up_proj", f"{source}mlp.fc1", (inner, hidden))
        weights.linear(f"{target}down_proj", f"{source}mlp.fc2", (hidden, inner))
    add_merger(weights, config, norm_bias=True)
    return weights


def add_merger(weights: VisionWeights, config: EncoderConfig, norm_bias: bool) -> None:
    """The projector of Qwen2-VL and Qwen2.5-VL."""
    merged = config.projector.hidden_size
    weights.norm("projector.norm", "merger.ln_q", config.hidden_size, norm_bias)
    weights.linear("projector.linear_1", "merger.mlp.0", (merged, merged))
    weights.linear("projector.linear_2", "merger.mlp.2", (config.out_hidden_size, merged))
