# SPDX-License-Identifier: Apache-2.0
"""InternVL 2.5 and 3: the picture squeezed into a canvas of tiles whose proportions are nearest to
its own, and a thumbnail of the whole.

Source: InternVL 1.5 (arXiv:2404.16821), section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

from manymind.checkpoint.fields import Fields
from manymind.vision import settings
from manymind.vision.rgb import RgbImage, resize, tiles
from manymind.vision.tiles import TileLayout, tile_input, tile_video
from manymind.vision.types import PreparedMedia, Preprocessor
from manymind.vision.video import SLOWEST_FPS, FrameRate, ShownFrames, check_frames, every

_DEFAULTS = settings.Defaults(settings.BICUBIC, settings.CLIP_MEAN, settings.CLIP_STD)
MAX_TILES = 64


class InternVlPreprocessor(Preprocessor):
    """Grid: (rows, columns) of the canvas; the thumbnail, if there is one, is the last input."""

    def __init__(self, config: Fields, layout: TileLayout, video: Fields | None = None) -> None:
        """video: video_preprocessor_config.json; None = the same as ``config``."""
        self._layout = layout
        self._normalize = settings.normalizer(config, _DEFAULTS)
        self._resample = settings.resample(config, _DEFAULTS)
        self._side = layout.side * layout.patch_size
        settings.require_side(config, self._side)
        self._add_video(config if video is None else video)
        cuts = config.boolean("crop_to_patches", True)
        high = config.integer("max_patches", 12, high=MAX_TILES) if cuts else 1
        low = config.integer("min_patches", 1, high=MAX_TILES) if cuts else 1
        # Smaller canvases first; the order decides between equally good ones.
        self._canvases = sorted(
            (
                (rows, columns)
                for columns in range(1, high + 1)
                for rows in range(1, high + 1)
                if low <= rows * columns <= high
            ),
            key=lambda canvas: canvas[0] * canvas[1],
        )
        if not self._canvases:
            raise config.error("max_patches", f"at least min_patches ({low})", high)

    def _add_video(self, config: Fields) -> None:
        settings.require_side(config, self._side)
        self._video_normalize = settings.normalizer(config, _DEFAULTS)
        self._video_resample = settings.resample(config, _DEFAULTS)
        self._rate = FrameRate.of(config)
        # true: half the distance of two frames; a number: where the first is.
        shift = config.raw("initial_shift")
        is_flag = shift is None or isinstance(shift, bool)
        self._shift = (
            None if shift in (None, True) else 0.0 if is_flag else config.number("initial_shift")
        )

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tiles. Of equally good canvases a larger one is taken while the
        picture fills more than half of it."""
        best, best_distance = (1, 1), float("inf")
        for rows, columns in self._canvases:
            distance = abs(width / height - columns / rows)
            fills = height * width > 0.5 * self._side**2 * rows * columns
            if distance < best_distance or (distance == best_distance and fills):
                best, best_distance = (rows, columns), distance
        return best

    def rows(self, height: int, width: int) -> int:
        """Patches of all tiles of a picture of this size."""
        rows, columns = self.canvas(height, width)
        return (rows * columns + (rows * columns > 1)) * self._layout.rows

    def image(self, image: RgbImage) -> PreparedMedia:
        rows, columns = self.canvas(*image.shape[:2])
        side = self._side
        squares = tiles(resize(image, rows * side, columns * side, self._resample), side, side)
        if len(squares) > 1:
            squares.append(resize(image, side, side, self._resample))
        inputs = tuple(tile_input(square, self._layout, self._normalize) for square in squares)
        return PreparedMedia(inputs, (rows, columns))

    def video(self, frames: Sequence[RgbImage], fps: float) -> PreparedMedia:
        """Each frame is one tile; grid: (frames, 1)."""
        check_frames(len(frames), fps)
        shown = ShownFrames(self._indices(len(frames), fps), fps, len(frames))
        return tile_video(
            shown.of(frames), shown, self._layout, self._video_resample, self._video_normalize
        )

    def video_rows(self, count: int, height: int, width: int, fps: float | None) -> int:
        """Patches of ``count`` frames."""
        return len(self._indices(count, fps or SLOWEST_FPS)) * self._layout.rows

    def _indices(self, total: int, fps: float) -> list[int]:
        if not self._rate.samples:
            return list(range(total))
        count = self._rate.wanted(total, fps)
        return every(total, count, total / count / 2 if self._shift is None else self._shift)
