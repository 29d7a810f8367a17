# SPDX-License-Identifier: Apache-2.0
"""SmolVLM and Idefics3: the longer edge scaled to a fixed length, both edges stretched to multiples
of a tile, and a thumbnail of the whole.

Source: Idefics3 (arXiv:2408.12637), SmolVLM (arXiv:2504.05299).
"""

from __future__ import annotations

import math

from manymind.checkpoint.fields import Fields
from manymind.vision import settings
from manymind.vision.rgb import RgbImage, resize, tiles
from manymind.vision.tiles import TileLayout, tile_input
from manymind.vision.types import PreparedMedia

MAX_EDGE = 4096
_DEFAULTS = settings.Defaults(settings.LANCZOS, settings.HALF, settings.HALF)


class Idefics3Preprocessor:
    """Grid: (rows, columns) of tiles, (0, 0) if there is only the thumbnail, the last input."""

    def __init__(self, config: Fields, layout: TileLayout) -> None:
        self._layout = layout
        self._normalize = settings.normalizer(config, _DEFAULTS)
        self._resample = settings.resample(config, _DEFAULTS)
        self._tile = settings.edge(config, "max_image_size", "longest_edge", 364)
        if self._tile != layout.side * layout.patch_size:
            expected = f"the encoder's {layout.side * layout.patch_size}"
            raise config.error("max_image_size", expected, self._tile)
        self._edge = settings.edge(config, "size", "longest_edge", 4 * 364)
        self._splits = config.boolean("do_image_splitting", True)

    def scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width with the longer edge as configured, the shorter one rounded up to an
        even number, and none beyond 4096."""
        ratio = width / height
        if width >= height:
            width = self._edge
            height = int(width / ratio)
            height += height % 2
        else:
            height = self._edge
            width = int(height * ratio)
            width += width % 2
        height, width = max(height, 1), max(width, 1)
        ratio = width / height
        if width >= height and width > MAX_EDGE:
            width, height = MAX_EDGE, int(MAX_EDGE / ratio)
        elif height > width and height > MAX_EDGE:
            height, width = MAX_EDGE, int(MAX_EDGE * ratio)
        return max(height, 1), max(width, 1)

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tiles of a scaled picture."""
        ratio, tile = width / height, self._tile
        if width >= height:
            columns = math.ceil(width / tile)
            return math.ceil(int(columns * tile / ratio) / tile), columns
        rows = math.ceil(height / tile)
        return rows, math.ceil(int(rows * tile * ratio) / tile)

    def rows(self, height: int, width: int) -> int:
        """Patches of all tiles of a picture of this size."""
        if not self._splits:
            return self._layout.rows
        rows, columns = self.canvas(*self.scaled_size(height, width))
        return (rows * columns + (rows * columns > 1)) * self._layout.rows

    def image(self, image: RgbImage) -> PreparedMedia:
        scaled = resize(image, *self.scaled_size(*image.shape[:2]), self._resample)
        squares: list[RgbImage] = []
        rows, columns = 0, 0
        if self._splits:
            rows, columns = self.canvas(*scaled.shape[:2])
            scaled = resize(scaled, rows * self._tile, columns * self._tile, self._resample)
            if rows * columns > 1:
                squares = tiles(scaled, self._tile, self._tile)
            else:
                rows, columns = 0, 0
        # A picture of one tile has been scaled to it already.
        if scaled.shape[:2] != (self._tile, self._tile):
            scaled = resize(scaled, self._tile, self._tile, self._resample)
        squares.append(scaled)
        inputs = tuple(tile_input(square, self._layout, self._normalize) for square in squares)
        return PreparedMedia(inputs, (rows, columns))
