# SPDX-License-Identifier: Apache-2.0
"""LLaVA-1.5: patches of a CLIP tower, projected by two linears, in front of Llama.

Source: LLaVA-1.5 (arXiv:2310.03744).
"""

from __future__ import annotations

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.errors import UnsupportedModelError
from manymind.models import llama, vit
from manymind.models.family import ModelSource
from manymind.models.media_prompt import MediaPrompt
from manymind.models.vision_config import EncoderConfig
from manymind.models.vision_family import (
    VisionSource,
    activation,
    preprocessor_config,
    text_checkpoint,
    text_names,
)
from manymind.models.vision_weights import VisionWeights
from manymind.vision.llava import ClipPreprocessor
from manymind.vision.tiles import TileLayout

# What published configs leave to transformers' defaults.
_TEXT_DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
}
_IMAGE_TOKEN = "<image>"
TEXT_PREFIXES = (
    ("language_model.model.", "language_model.lm_head"),
    ("model.language_model.", "lm_head"),
)


def from_huggingface(checkpoint: Checkpoint) -> ModelSource:
    config = Fields(checkpoint.config)
    _require_types(config, text="llama", vision="clip_vision_model")
    text = llama.from_huggingface(text_checkpoint(checkpoint, _TEXT_DEFAULTS))
    names = text_names(text.names, checkpoint, TEXT_PREFIXES)
    vision = config.nested("vision_config")
    strategy = config.string("vision_feature_select_strategy", "default")
    if strategy not in ("default", "full"):
        raise config.error("vision_feature_select_strategy", "default or full", strategy)
    patch_size = vision.integer("patch_size", high=1024)
    layout = TileLayout(
        patch_size,
        vision.integer("image_size") // patch_size,
        class_row=True,
        keep_class=strategy == "full",
    )
    encoder = _encoder(config, vision, layout, text.config.hidden_size)
    preprocessor = ClipPreprocessor(preprocessor_config(checkpoint), layout)
    prompt = MediaPrompt(
        image_token=_IMAGE_TOKEN,
        fill_tokens=(_IMAGE_TOKEN,),
        expand_image=lambda media: _IMAGE_TOKEN * media.num_tokens,
    )
    weights = _weights(checkpoint, encoder, patch_size)
    source = VisionSource(encoder, weights, preprocessor, prompt)
    return ModelSource(text.config, names, source)


def _require_types(config: Fields, text: str, vision: str) -> None:
    for key, expected in (("text_config", text), ("vision_config", vision)):
        found = config.nested(key).string("model_type", expected)
        if found != expected:
            raise UnsupportedModelError(f"{key}.model_type: expected {expected}, found {found}")


def _encoder(config: Fields, vision: Fields, layout: TileLayout, out_hidden: int) -> EncoderConfig:
    depth = vision.integer("num_hidden_layers", high=256)
    return EncoderConfig(
        patch_dim=3 * layout.patch_size**2,
        hidden_size=vision.integer("hidden_size"),
        num_layers=vit.selected_layers(config, depth, -2),
        num_heads=vision.integer("num_attention_heads"),
        intermediate_size=vision.integer("intermediate_size"),
        out_hidden_size=out_hidden,
        norm_eps=vision.number("layer_norm_eps", 1e-5),
        activation=activation(vision, "hidden_act", "quick_gelu"),
        pre_norm=True,
        table_rows=layout.rows,
        projector=vit.llava_projector(config, out_hidden),
    )


def _weights(checkpoint: Checkpoint, config: EncoderConfig, patch_size: int) -> VisionWeights:
    weights, stem = vit.tower_weights(checkpoint)
    hidden = config.hidden_size
    patches = (hidden, 3, patch_size, patch_size)
    weights.matrix("patch_proj", f"{stem}embeddings.patch_embedding.weight", patches)
    weights.computed(
        "table",
        (config.table_rows, hidden),
        {
            f"{stem}embeddings.position_embedding.weight": (config.table_rows, hidden),
            f"{stem}embeddings.class_embedding": (hidden,),
        },
        vit.table_with_class,
    )
    weights.ignore(rf"{stem}embeddings\.position_ids")
    weights.ignore(rf"{stem}post_layernorm\..*")
    weights.norm("pre_norm", f"{stem}pre_layrnorm", hidden)
    vit.add_layers(weights, stem, config.num_layers, hidden, config.intermediate_size)
    vit.add_llava_projector(weights, config)
    return weights
