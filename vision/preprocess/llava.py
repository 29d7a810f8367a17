# SPDX-License-Identifier: Apache-2.0
"""LLaVA-1.5 (CLIP rules: the shorter edge scaled, the middle cut out) and Gemma 3 (SigLIP rules:
the whole picture squeezed into a square).

Source: LLaVA-1.5 (arXiv:2310.03744), Gemma 3 (arXiv:2503.19786).
"""

from __future__ import annotations

from manymind.checkpoint.fields import Fields
from manymind.errors import UnsupportedModelError
from manymind.vision import settings
from manymind.vision.rgb import RgbImage, center_crop, resize, shortest_edge_size
from manymind.vision.tiles import TileLayout, tile_input
from manymind.vision.types import PreparedMedia

_CLIP = settings.Defaults(settings.BICUBIC, settings.CLIP_MEAN, settings.CLIP_STD)
_SIGLIP = settings.Defaults(settings.BILINEAR, settings.HALF, settings.HALF)


class ClipPreprocessor:
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


class SquarePreprocessor:
    """One square per picture; grid: (1, 1)."""

    def __init__(self, config: Fields, layout: TileLayout) -> None:
        if config.boolean("do_pan_and_scan", False):
            raise UnsupportedModelError("do_pan_and_scan: expected false, found true")
        self._layout = layout
        self._normalize = settings.normalizer(config, _SIGLIP)
        self._resample = settings.resample(config, _SIGLIP)
        side = layout.side * layout.patch_size
        self._size = settings.size(config, "size", side)
        if self._size != (side, side):
            raise config.error("size", f"the encoder's {side}", self._size)

    def rows(self, height: int, width: int) -> int:
        """Patches of any picture."""
        return self._layout.rows

    def image(self, image: RgbImage) -> PreparedMedia:
        square = resize(image, *self._size, self._resample)
        return PreparedMedia((tile_input(square, self._layout, self._normalize),), (1, 1))
