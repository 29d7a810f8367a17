# SPDX-License-Identifier: Apache-2.0
"""LLaVA-1.5 (CLIP rules: the shorter edge scaled, the middle cut out) and Gemma 3 (SigLIP rules:
the whole picture squeezed into a square).

Source: LLaVA-1.5 (arXiv:2310.03744), Gemma 3 (arXiv:2503.19786; pan and scan: section 2.1).
"""

from __future__ import annotations

import copy
import math

from manymind.checkpoint.fields import Fields
from manymind.errors import UnsupportedModelError
from manymind.vision import settings
from manymind.vision.rgb import RgbImage, center_crop, resize, shortest_edge_size, tiles
from manymind.vision.tiles import TileLayout, tile_input
from manymind.vision.types import PreparedMedia, Preprocessor

_CLIP = settings.Defaults(settings.BICUBIC, settings.CLIP_MEAN, settings.CLIP_STD)
_SIGLIP = settings.Defaults(settings.BILINEAR, settings.HALF, settings.HALF)
_MAX_CROPS = 16


class ClipPreprocessor(Preprocessor):
    """One square per picture; grid: (1, 1)."""

    def __init__(self, config: Fields, layout: TileLayout) -> None:
        if not config.boolean("do_center_crop", True) or config.boolean("do_pad", False):
            raise UnsupportedModelError("do_center_crop, do_pad: expected true and false")
        self._layout = layout
        self._normalize = settings.normalizer(config, _CLIP)
        self._resample = settings.resample(config, _CLIP)
        self._edge = settings.edge(config, "size", "shortest_edge", 224)
        self._crop = settings.size(config, "crop_size", 224)
        expected = layout.side * layout.patch_size
        if self._crop != (expected, expected):
            raise config.error("crop_size", f"the encoder's {expected}", self._crop)

    def rows(self, height: int, width: int) -> int:
        """Patches of any picture."""
        return self._layout.rows

    def image(self, image: RgbImage) -> PreparedMedia:
        height, width = shortest_edge_size(image.shape[0], image.shape[1], self._edge)
        scaled = resize(image, height, width, self._resample)
        square = center_crop(scaled, *self._crop)
        return PreparedMedia((tile_input(square, self._layout, self._normalize),), (1, 1))


class SquarePreprocessor(Preprocessor):
    """The picture as a square and, with pan and scan, squares cut along the longer side of one that
    is long; grid: (1, 1)."""

    def __init__(self, config: Fields, layout: TileLayout) -> None:
        self._layout = layout
        self._normalize = settings.normalizer(config, _SIGLIP)
        self._resample = settings.resample(config, _SIGLIP)
        side = layout.side * layout.patch_size
        self._size = settings.size(config, "size", side)
        if self._size != (side, side):
            raise config.error("size", f"the encoder's {side}", self._size)
        self._pans = config.boolean("do_pan_and_scan", False)
        # As many crops of so few pixels at least are never empty.
        self._max_crops = config.integer("pan_and_scan_max_num_crops", 4, high=_MAX_CROPS)
        self._min_crop = config.integer(
            "pan_and_scan_min_crop_size", 256, low=_MAX_CROPS, high=settings.MAX_SIDE
        )
        self._min_ratio = config.positive("pan_and_scan_min_ratio_to_activate", 1.2)

    def with_pan_and_scan(self, enabled: bool) -> SquarePreprocessor:
        changed = copy.copy(self)
        changed._pans = enabled
        return changed

    def rows(self, height: int, width: int) -> int:
        """Patches of the square and of the crops."""
        return (1 + self._num_crops(height, width)) * self._layout.rows

    def image(self, image: RgbImage) -> PreparedMedia:
        """The whole comes first."""
        views = [image, *self._crops(image)]
        squares = [resize(view, *self._size, self._resample) for view in views]
        inputs = tuple(tile_input(square, self._layout, self._normalize) for square in squares)
        return PreparedMedia(inputs, (1, 1))

    def _num_crops(self, height: int, width: int) -> int:
        longer, shorter = max(height, width), min(height, width)
        if not self._pans or longer / shorter < self._min_ratio:
            return 0
        wanted = min(longer // self._min_crop, math.floor(longer / shorter + 0.5))
        count = min(self._max_crops, max(2, wanted))
        too_small = min(math.ceil(longer / count), shorter) < self._min_crop
        return 0 if too_small else count

    def _crops(self, image: RgbImage) -> list[RgbImage]:
        height, width = image.shape[:2]
        count = self._num_crops(height, width)
        if count == 0:
            return []
        if width >= height:
            return tiles(image, height, math.ceil(width / count))
        return tiles(image, math.ceil(height / count), width)
