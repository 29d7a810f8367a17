# SPDX-License-Identifier: Apache-2.0
"""Preprocessing rules under test: a preprocessor_config.json each, small enough for quick tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from manymind.checkpoint.fields import Fields
from manymind.vision.idefics3 import Idefics3Preprocessor
from manymind.vision.internvl import InternVlPreprocessor
from manymind.vision.llava import ClipPreprocessor, SquarePreprocessor
from manymind.vision.llava_onevision import LlavaOnevisionPreprocessor
from manymind.vision.qwen_vl import Layout, QwenPreprocessor
from manymind.vision.tiles import TileLayout
from manymind.vision.types import Preprocessor

IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
PINPOINTS = [[a * 28, b * 28] for a in (1, 2, 3) for b in (1, 2, 3, 4)]


@dataclass(frozen=True)
class Case:
    """``reference``: transformers' processor of the same rules. ``merge``: order of patches."""

    reference: str
    config: dict[str, Any]
    make: Callable[[Fields], Preprocessor]
    patch_size: int = 14
    merge: int = 1


def _tile(side: int, merge: int = 1, **options: Any) -> TileLayout:
    return TileLayout(14, side, merge, **options)


CASES: dict[str, Case] = {
    "qwen2_vl": Case(
        "Qwen2VLImageProcessorPil",
        {"min_pixels": 3136, "max_pixels": 30000},
        lambda config: QwenPreprocessor(config, Layout()),
    ),
    "qwen2_vl_defaults": Case(
        "Qwen2VLImageProcessorPil", {}, lambda config: QwenPreprocessor(config, Layout())
    ),
    "qwen3_vl": Case(
        "Qwen2VLImageProcessorPil",
        {
            "size": {"shortest_edge": 4096, "longest_edge": 40000},
            "patch_size": 16,
            "temporal_patch_size": 2,
            "merge_size": 2,
            **HALF,
        },
        lambda config: QwenPreprocessor(config, Layout(table_side=8)),
    ),
    "llava": Case(
        "CLIPImageProcessorPil",
        {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}},
        lambda config: ClipPreprocessor(config, _tile(4)),
    ),
    "gemma3": Case(
        "Gemma3ImageProcessorPil",
        {"size": {"height": 56, "width": 56}, "do_pan_and_scan": None, **HALF},
        lambda config: SquarePreprocessor(config, _tile(4, 2)),
        merge=2,
    ),
    "gemma3_pan_and_scan": Case(
        "Gemma3ImageProcessorPil",
        {
            "size": {"height": 56, "width": 56},
            "do_pan_and_scan": True,
            "pan_and_scan_min_crop_size": 30,
            "pan_and_scan_max_num_crops": 5,
            "pan_and_scan_min_ratio_to_activate": 1.3,
            **HALF,
        },
        lambda config: SquarePreprocessor(config, _tile(4, 2)),
        merge=2,
    ),
    "internvl": Case(
        "GotOcr2ImageProcessorPil",
        {
            "size": {"height": 28, "width": 28},
            "crop_to_patches": True,
            "min_patches": 1,
            "max_patches": 7,
            **IMAGENET,
        },
        lambda config: InternVlPreprocessor(config, _tile(2, 2)),
        merge=2,
    ),
    "smolvlm": Case(
        "SmolVLMImageProcessorPil",
        {"size": {"longest_edge": 200}, "max_image_size": {"longest_edge": 56}},
        lambda config: Idefics3Preprocessor(config, _tile(4, 2)),
        merge=2,
    ),
    "idefics3_whole": Case(
        "Idefics3ImageProcessorPil",
        {
            "size": {"longest_edge": 200},
            "max_image_size": {"longest_edge": 56},
            "do_image_splitting": False,
        },
        lambda config: Idefics3Preprocessor(config, _tile(4, 2)),
        merge=2,
    ),
    "llava_onevision": Case(
        "LlavaOnevisionImageProcessorPil",
        {"size": {"height": 28, "width": 28}, "image_grid_pinpoints": PINPOINTS, **HALF},
        lambda config: LlavaOnevisionPreprocessor(config, _tile(2), PINPOINTS, 9),
    ),
}


def make(name: str) -> Preprocessor:
    case = CASES[name]
    return case.make(Fields(case.config))
