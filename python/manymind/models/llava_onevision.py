# SPDX-License-Identifier: Apache-2.0
"""LLaVA-OneVision: tiles of a canvas through a SigLIP tower, their features laid out as the picture
with a newline embedding after each row, in front of Qwen2.

Source: LLaVA-OneVision (arXiv:2408.03326).
"""

from __future__ import annotations

import re

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.errors import UnsupportedModelError
from manymind.models import llava, qwen2, vit
from manymind.models.family import ModelSource
from manymind.models.media_prompt import MediaPrompt
from manymind.models.vision_config import EncoderConfig
from manymind.models.vision_family import (
    VisionSource,
    num_layers,
    preprocessor_config,
    text_checkpoint,
    text_names,
    video_config,
)
from manymind.models.vision_weights import VisionWeights
from manymind.vision.llava_onevision import LlavaOnevisionPreprocessor
from manymind.vision.tiles import TileLayout

_IMAGE_TOKEN, _VIDEO_TOKEN = "<image>", "<video>"


def from_huggingface(checkpoint: Checkpoint) -> ModelSource:
    config = Fields(checkpoint.config)
    if config.string("vision_feature_select_strategy", "full") != "full":
        raise UnsupportedModelError("vision_feature_select_strategy: expected full")
    text = qwen2.from_huggingface(text_checkpoint(checkpoint, {}))
    names = text_names(text.names, checkpoint, llava.TEXT_PREFIXES)
    vision = config.nested("vision_config")
    patch_size = vision.integer("patch_size", 14, high=1024)
    image_size = vision.integer("image_size", 384)
    layout = TileLayout(patch_size, image_size // patch_size, image_size=image_size)
    out_hidden = text.config.hidden_size
    encoder = vit.siglip_config(
        vision,
        layout,
        out_hidden,
        num_layers=vit.selected_layers(config, num_layers(vision, "num_hidden_layers"), -1),
        projector=vit.llava_projector(config, out_hidden),
        newline=True,
    )
    preprocessor = LlavaOnevisionPreprocessor(
        preprocessor_config(checkpoint),
        layout,
        config.sequence("image_grid_pinpoints"),
        _max_tiles(config),
        video_config(checkpoint),
    )
    prompt = MediaPrompt(
        image_token=_IMAGE_TOKEN,
        fill_tokens=(_IMAGE_TOKEN, _VIDEO_TOKEN),
        expand_image=lambda media: _IMAGE_TOKEN * media.num_tokens,
        video_token=_VIDEO_TOKEN,
        expand_video=lambda media: _VIDEO_TOKEN * media.num_tokens,
        alone_differs=True,
    )
    source = VisionSource(encoder, _weights(checkpoint, encoder, patch_size), preprocessor, prompt)
    return ModelSource(text.config, names, source)


def _max_tiles(config: Fields) -> int:
    rule = config.string("vision_aspect_ratio", "anyres_max_9")
    match = re.fullmatch(r"anyres_max_(\d{1,3})", rule)
    if match is None or int(match[1]) == 0:
        raise config.error("vision_aspect_ratio", "anyres_max_<number>", rule)
    return int(match[1])


def _weights(checkpoint: Checkpoint, config: EncoderConfig, patch_size: int) -> VisionWeights:
    weights, stem = vit.tower_weights(checkpoint)
    vit.add_siglip(weights, stem, config, patch_size)
    vit.add_llava_projector(weights, config)
    out = config.out_hidden_size
    weights.computed("newline", (1, out), {"image_newline": (out,)}, lambda row: row[None])
    return weights
