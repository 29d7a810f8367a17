# SPDX-License-Identifier: Apache-2.0
"""SmolVLM and Idefics3: tiles through a SigLIP tower, neighbouring patches joined and projected by
one linear, in front of Llama.

Source: Idefics3 (arXiv:2408.12637), SmolVLM (arXiv:2504.05299).
"""

from __future__ import annotations

from datetime import timedelta

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.models import llama, vit
from manymind.models.family import ModelSource
from manymind.models.media_prompt import MediaPrompt
from manymind.models.number_words import in_words
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
from manymind.models.vision_weights import VisionWeights
from manymind.vision.idefics3 import Idefics3Preprocessor, SmolVlmPreprocessor
from manymind.vision.tiles import TileLayout
from manymind.vision.types import PreparedMedia, Preprocessor

_IMAGE_TOKEN, _AROUND, _WHOLE = "<image>", "<fake_token_around_image>", "<global-img>"
_VIDEO_TOKEN = "<video>"
# Templates of published SmolVLM checkpoints leave videos out; conversations with one have this
# form.
_VIDEO_TEMPLATE = """\
{{- '<|im_start|>' -}}
{%- for message in messages -%}
  {{- message['role'] | capitalize ~ ':' -}}
  {%- if message['content'] is string -%}
    {{- ' ' ~ message['content'] -}}
  {%- else -%}
    {%- if message['content'][0]['type'] != 'image' %}{{ ' ' }}{% endif -%}
    {%- for item in message['content'] -%}
      {{- {'image': '<image>', 'video': '<video>'}.get(item['type']) or item['text'] -}}
    {%- endfor -%}
  {%- endif -%}
  {{- '<end_of_utterance>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}
"""
_TEXT_DEFAULTS = {"max_position_embeddings": 2048, "vocab_size": 32000}
_PREFIXES = (("model.text_model.", "lm_head"),)


def from_huggingface(checkpoint: Checkpoint) -> ModelSource:
    config = Fields(checkpoint.config)
    text = llama.from_huggingface(text_checkpoint(checkpoint, _TEXT_DEFAULTS))
    names = text_names(text.names, checkpoint, _PREFIXES)
    vision = config.nested("vision_config")
    patch_size = vision.integer("patch_size", 32, high=1024)
    scale = config.integer("scale_factor", 2, high=16)
    side = vision.integer("image_size", 224) // patch_size
    if side % scale:
        raise config.error("scale_factor", f"a divisor of {side}", scale)
    layout = TileLayout(patch_size, side, merge=scale)
    encoder = _encoder(vision, layout, text.config.hidden_size)
    source = VisionSource(
        encoder,
        _weights(checkpoint, encoder, patch_size),
        *_rules(checkpoint, layout),
    )
    return ModelSource(text.config, names, source)


def _rules(checkpoint: Checkpoint, layout: TileLayout) -> tuple[Preprocessor, MediaPrompt]:
    """SmolVLM takes videos, too."""
    pictures = preprocessor_config(checkpoint)
    if Fields(checkpoint.config).string("model_type", "idefics3") != "smolvlm":
        prompt = MediaPrompt(_IMAGE_TOKEN, (_IMAGE_TOKEN,), _expand)
        return Idefics3Preprocessor(pictures, layout), prompt
    prompt = MediaPrompt(
        _IMAGE_TOKEN,
        (_IMAGE_TOKEN,),
        _expand,
        _VIDEO_TOKEN,
        _expand_video,
        video_template=_VIDEO_TEMPLATE,
    )
    return SmolVlmPreprocessor(pictures, layout, video_config(checkpoint)), prompt


def _expand_video(media: PreparedMedia) -> str:
    """The number of frames and the video's length, then each frame behind its time."""
    count, length = in_words(len(media.inputs)), timedelta(seconds=int(media.duration))
    frames = (
        f"\nFrame from {int(seconds // 60):02d}:{int(seconds % 60):02d}:"
        f"{_AROUND}{_WHOLE}{_IMAGE_TOKEN * item.num_tokens}{_AROUND}"
        for seconds, item in zip(media.seconds, media.inputs, strict=True)
    )
    intro = (
        f"You are provided the following series of {count} frames from a {length} [H:MM:SS] video."
    )
    return f"{intro}\n{''.join(frames)}\n\n"


def _expand(media: PreparedMedia) -> str:
    """Tiles named by row and column, a line per row, then the whole picture."""
    rows, columns = media.grid
    tiles = [_IMAGE_TOKEN * item.num_tokens for item in media.inputs]
    lines = "".join(
        "".join(
            f"{_AROUND}<row_{row + 1}_col_{column + 1}>{tiles[row * columns + column]}"
            for column in range(columns)
        )
        + "\n"
        for row in range(rows)
    )
    return f"{lines}{chr(10) if rows else ''}{_AROUND}{_WHOLE}{tiles[-1]}{_AROUND}"


def _encoder(vision: Fields, layout: TileLayout, out_hidden: int) -> EncoderConfig:
    return EncoderConfig(
        patch_dim=3 * layout.patch_size**2,
        hidden_size=vision.integer("hidden_size", 1152),
        num_layers=num_layers(vision, "num_hidden_layers") if "num_hidden_layers" in vision else 12,
        num_heads=vision.integer("num_attention_heads", 16),
        intermediate_size=vision.integer("intermediate_size", 3072),
        out_hidden_size=out_hidden,
        norm_eps=vision.number("layer_norm_eps", 1e-6),
        activation=activation(vision, "hidden_act", "gelu_pytorch_tanh"),
        patch_bias=True,
        post_norm=True,
        table_rows=layout.rows,
        projector=ProjectorConfig(merge_size=layout.merge**2, bias=False),
    )


def _weights(checkpoint: Checkpoint, config: EncoderConfig, patch_size: int) -> VisionWeights:
    weights = VisionWeights(checkpoint.tensors, ("model.",))
    vit.add_siglip(weights, "vision_model.", config, patch_size)
    joined = config.hidden_size * config.projector.merge_size
    projection = "connector.modality_projection.proj.weight"
    weights.matrix("projector.linear_1", projection, (config.out_hidden_size, joined))
    return weights
