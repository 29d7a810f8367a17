# SPDX-License-Identifier: Apache-2.0
"""Rules of videos under test: a video_preprocessor_config.json each, small enough for quick
tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pictures import rgb
from PIL import Image

from manymind.checkpoint.fields import Fields
from manymind.vision.idefics3 import SmolVlmPreprocessor
from manymind.vision.internvl import InternVlPreprocessor
from manymind.vision.llava_onevision import LlavaOnevisionPreprocessor
from manymind.vision.qwen_vl import Layout, QwenPreprocessor
from manymind.vision.tiles import TileLayout
from manymind.vision.types import Preprocessor


@dataclass(frozen=True)
class VideoCase:
    """``reference``: transformers' processor of the same rules. ``merge``: order of patches, where
    the reference gives whole frames."""

    reference: str
    config: dict[str, Any]
    make: Callable[[Fields], Preprocessor]
    merge: int = 1


def _qwen2(video: Fields) -> Preprocessor:
    return QwenPreprocessor(Fields({"patch_size": 4}), Layout(), video=video)


def _qwen3(video: Fields) -> Preprocessor:
    layout = Layout(one_input_per_slice=True)
    return QwenPreprocessor(Fields({"patch_size": 4}), layout, video=video)


def _internvl(video: Fields) -> Preprocessor:
    return InternVlPreprocessor(Fields({"size": 16}), TileLayout(4, 4, 2), video)


def _onevision(video: Fields) -> Preprocessor:
    layout = TileLayout(4, 4, image_size=18)
    return LlavaOnevisionPreprocessor(Fields({"size": 18}), layout, [[18, 18]], 9, video)


def _smolvlm(video: Fields) -> Preprocessor:
    pictures = Fields({"max_image_size": {"longest_edge": 16}})
    return SmolVlmPreprocessor(pictures, TileLayout(4, 4, 2), video)


_FRAMES = {"min_pixels": 300, "max_pixels": 2000, "patch_size": 4}
_TOTAL = {"size": {"shortest_edge": 2000, "longest_edge": 9000}, "patch_size": 4}
_SAMPLED = {"do_sample_frames": True}
_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_SMOL = {"size": {"longest_edge": 40}, "max_image_size": {"longest_edge": 16}}
_SMOL_SAMPLING = {"fps": 1, "max_frames": 5, "video_size": {"longest_edge": 48}}

VIDEO_CASES: dict[str, VideoCase] = {
    "qwen2_vl": VideoCase("Qwen2VLVideoProcessor", _FRAMES, _qwen2),
    "qwen2_vl_fps": VideoCase(
        "Qwen2VLVideoProcessor", {**_FRAMES, **_SAMPLED, "fps": 1.5, "max_frames": 6}, _qwen2
    ),
    "qwen2_vl_count": VideoCase(
        "Qwen2VLVideoProcessor", {**_FRAMES, **_SAMPLED, "num_frames": 2}, _qwen2
    ),
    "qwen2_vl_capped": VideoCase(
        "Qwen2VLVideoProcessor",
        {**_FRAMES, "cap_pixels_per_frame": True, "max_video_tokens": 60},
        _qwen2,
    ),
    "qwen3_vl": VideoCase("Qwen3VLVideoProcessor", {**_TOTAL, **_HALF}, _qwen3),
    "qwen3_vl_all": VideoCase(
        "Qwen3VLVideoProcessor", {**_TOTAL, "do_sample_frames": False}, _qwen3
    ),
    "qwen3_vl_capped": VideoCase(
        "Qwen3VLVideoProcessor",
        {**_TOTAL, "cap_pixels_per_frame": True, "max_video_tokens": 20, "fps": 1},
        _qwen3,
    ),
    "internvl": VideoCase(
        "InternVLVideoProcessor", {"size": {"height": 16, "width": 16}}, _internvl, 2
    ),
    "internvl_sampled": VideoCase(
        "InternVLVideoProcessor",
        {"size": {"height": 16, "width": 16}, **_SAMPLED, "num_frames": 2, **_HALF},
        _internvl,
        2,
    ),
    "internvl_unshifted": VideoCase(
        "InternVLVideoProcessor",
        {
            "size": {"height": 16, "width": 16},
            **_SAMPLED,
            "num_frames": 2,
            "initial_shift": False,
        },
        _internvl,
        2,
    ),
    "llava_onevision": VideoCase(
        "LlavaOnevisionVideoProcessor", {"size": {"height": 18, "width": 18}}, _onevision
    ),
    "llava_onevision_sampled": VideoCase(
        "LlavaOnevisionVideoProcessor",
        {"size": {"height": 18, "width": 18}, **_SAMPLED, "num_frames": 2, **_HALF},
        _onevision,
    ),
    "llava_onevision_fps": VideoCase(
        "LlavaOnevisionVideoProcessor",
        {"size": {"height": 18, "width": 18}, **_SAMPLED, "fps": 1.0},
        _onevision,
    ),
    "smolvlm": VideoCase("SmolVLMVideoProcessor", {**_SMOL, **_HALF}, _smolvlm, 2),
    "smolvlm_sampled": VideoCase(
        "SmolVLMVideoProcessor",
        {**_SMOL, **_SAMPLED, "video_sampling": _SMOL_SAMPLING},
        _smolvlm,
        2,
    ),
    "smolvlm_sized_by_sampling": VideoCase(
        "SmolVLMVideoProcessor",
        {
            "max_image_size": {"longest_edge": 16},
            **_SAMPLED,
            "video_sampling": _SMOL_SAMPLING,
        },
        _smolvlm,
        2,
    ),
}

# Frames, height, width, frames per second.
CLIPS = [(2, 22, 33, 2.0), (5, 22, 33, 2.0), (8, 61, 40, 4.0), (13, 7, 5, 2.0), (24, 30, 90, 3.0)]


def clip_frames(count: int, height: int, width: int) -> list[Image.Image]:
    return [rgb(height, width, seed) for seed in range(count)]


def make_video_rules(name: str) -> Preprocessor:
    case = VIDEO_CASES[name]
    return case.make(Fields(case.config))
