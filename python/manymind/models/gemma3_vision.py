# SPDX-License-Identifier: Apache-2.0
"""Gemma 3 with eyes: a square through a SigLIP tower, patches averaged to a fixed number of tokens,
normed and projected, in front of Gemma 3, where the tokens of a picture see each other.

With pan and scan, squares cut out of a long picture follow the whole.

Source: Gemma 3 Technical Report (arXiv:2503.19786), section 2.1.
"""

from __future__ import annotations

import math
from dataclasses import replace

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.models import gemma3, llava, vit
from manymind.models.family import ModelSource
from manymind.models.media_prompt import MediaPrompt
from manymind.models.vision_config import EncoderConfig, ProjectorConfig
from manymind.models.vision_family import (
    VisionSource,
    preprocessor_config,
    text_checkpoint,
    text_names,
)
from manymind.models.vision_weights import VisionWeights
from manymind.vision.llava import SquarePreprocessor
from manymind.vision.tiles import TileLayout
from manymind.vision.types import PreparedMedia

# What published configs leave to transformers' defaults.
_TEXT_DEFAULTS = {
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131072,
}
_BEGIN, _END, _FILL = "<start_of_image>", "<end_of_image>", "<image_soft_token>"


def from_huggingface(checkpoint: Checkpoint) -> ModelSource:
    config = Fields(checkpoint.config)
    text = gemma3.from_huggingface(text_checkpoint(checkpoint, _TEXT_DEFAULTS))
    names = text_names(text.names, checkpoint, llava.TEXT_PREFIXES)
    decoder = replace(text.config, bidirectional_media=True)
    vision = config.nested("vision_config")
    layout = _layout(config, vision)
    encoder = vit.siglip_config(
        vision,
        layout,
        decoder.hidden_size,
        post_norm=True,
        projector=ProjectorConfig(
            merge_size=layout.merge**2,
            average=True,
            norm=True,
            norm_after_merge=True,
            norm_kind="rms_norm",
            norm_eps=vision.number("layer_norm_eps", 1e-6),
            bias=False,
        ),
    )
    source = VisionSource(
        encoder,
        _weights(checkpoint, encoder, layout.patch_size),
        SquarePreprocessor(preprocessor_config(checkpoint), layout),
        MediaPrompt(
            image_token=_BEGIN,
            fill_tokens=(_FILL,),
            expand_image=_expand,
        ),
    )
    return ModelSource(decoder, names, source)


def _expand(media: PreparedMedia) -> str:
    """The whole picture, and the crops of one that was panned and scanned."""
    whole, *crops = (f"\n\n{_BEGIN}{_FILL * item.num_tokens}{_END}\n\n" for item in media.inputs)
    if not crops:
        return whole
    introduced = f"Here is the original image {whole} and here are some crops"
    return f"{introduced} to help you see better {' '.join(crops)}"


def _layout(config: Fields, vision: Fields) -> TileLayout:
    patch_size = vision.integer("patch_size", 14, high=1024)
    side = vision.integer("image_size", 896) // patch_size
    tokens = config.integer("mm_tokens_per_image", 256)
    tokens_side = math.isqrt(tokens)
    if tokens_side**2 != tokens or side % tokens_side:
        expected = f"the square of a divisor of {side}"
        raise config.error("mm_tokens_per_image", expected, tokens)
    return TileLayout(patch_size, side, merge=side // tokens_side)


def _weights(checkpoint: Checkpoint, config: EncoderConfig, patch_size: int) -> VisionWeights:
    weights, stem = vit.tower_weights(checkpoint)
    vit.add_siglip(weights, stem, config, patch_size)
    hidden, out = config.hidden_size, config.out_hidden_size
    # Norm gains are stored as differences from 1.
    norm = "multi_modal_projector.mm_soft_emb_norm.weight"
    weights.vector("projector.norm", norm, hidden, offset=1.0)
    weights.computed(
        "projector.linear_1",
        (out, hidden),
        {"multi_modal_projector.mm_input_projection_weight": (hidden, out)},
        lambda matrix: matrix.T,
    )
    return weights
