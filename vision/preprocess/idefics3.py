# SPDX-License-Identifier: Apache-2.0
"""SmolVLM and Idefics3: the longer edge scaled to a fixed length, both edges stretched to multiples
of a tile, and a thumbnail of the whole.

Source: Idefics3 (arXiv:2408.12637), SmolVLM (arXiv:2504.05299).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from manymind.checkpoint.fields import Fields
from manymind.vision import settings
from manymind.vision.frame_resize import resize_frame
from manymind.vision.rgb import RgbImage, resize, tiles
from manymind.vision.tiles import TileLayout, tile_input, tile_video
from manymind.vision.types import PreparedMedia, Preprocessor
from manymind.vision.video import SLOWEST_FPS, FrameRate, ShownFrames, check_frames

MAX_EDGE = 4096
_DEFAULTS = settings.Defaults(settings.LANCZOS, settings.HALF, settings.HALF)


_MAX_SAMPLED = 64  # frames of a video, where no setting says otherwise
_SKIPPED = 1  # seconds at either end of a long video


class Idefics3Preprocessor(Preprocessor):
    """Grid: (rows, columns) of tiles, (0, 0) if there is only the thumbnail, the last input."""

    def __init__(self, config: Fields, layout: TileLayout) -> None:
        self._layout = layout
        self._normalize = settings.normalizer(config, _DEFAULTS)
        self._resample = settings.resample(config, _DEFAULTS)
        self._tile = layout.side * layout.patch_size
        settings.require_edge(config, "max_image_size", self._tile)
        self._edge = settings.edge(config, "size", "longest_edge", 4 * 364)
        self._splits = config.boolean("do_image_splitting", True)

    def scaled_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width with the longer edge as configured, the shorter one rounded up to an
        even number, and none beyond 4096."""
        height, width = longest_edge_size(height, width, self._edge)
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


class SmolVlmPreprocessor(Idefics3Preprocessor):
    """Idefics3's rules for pictures; each frame of a video is one tile."""

    def __init__(self, config: Fields, layout: TileLayout, video: Fields) -> None:
        """video: video_preprocessor_config.json."""
        super().__init__(config, layout)
        settings.require_edge(video, "max_image_size", self._tile)
        sampling = video.nested("video_sampling")
        size = video.nested("size") if "size" in video else sampling.nested("video_size")
        self._frame_edge = min(
            size.integer("longest_edge", 4 * 364, high=settings.MAX_SIDE), MAX_EDGE
        )
        self._video_normalize = settings.normalizer(video, _DEFAULTS)
        self._video_resample = settings.resample(video, _DEFAULTS)
        self._rate = FrameRate(
            video.boolean("do_sample_frames", False),
            sampling.integer("max_frames", video.integer("num_frames", _MAX_SAMPLED)),
            sampling.positive("fps", video.number("fps", 1.0)),
        )

    def video_rows(self, count: int, height: int, width: int, fps: float | None) -> int:
        """Patches of ``count`` frames."""
        return len(self._indices(count, fps or SLOWEST_FPS)) * self._layout.rows

    def video(self, frames: Sequence[RgbImage], fps: float) -> PreparedMedia:
        """Grid: (frames, 1)."""
        check_frames(len(frames), fps)
        shown = ShownFrames(self._indices(len(frames), fps), fps, len(frames))
        squares = [self._square(frame) for frame in shown.of(frames)]
        return tile_video(squares, shown, self._layout, self._video_resample, self._video_normalize)

    def _square(self, frame: RgbImage) -> RgbImage:
        """Scaled twice, which would double what another kernel rounds otherwise."""
        size = longest_edge_size(frame.shape[0], frame.shape[1], self._frame_edge)
        scaled = resize_frame(frame, *size, self._video_resample)
        return resize_frame(scaled, self._tile, self._tile, self._video_resample)

    def _indices(self, total: int, fps: float) -> list[int]:
        """Evenly from the first to the last frame, or from a second behind the first to a second
        before the last of a video that is long."""
        if not self._rate.samples:
            return list(range(total))
        duration, most = total / fps, self._rate.count
        wanted = max(1, min(round(self._rate.fps * duration), most))
        first, last = 0, total - 1
        if duration - 2 * _SKIPPED > most * self._rate.fps:
            first, last = int(_SKIPPED * fps), min(int(total - _SKIPPED * fps), total - 1)
            if first >= last:
                first, last = 0, total - 1
        places = np.linspace(first, last, wanted, dtype=int)
        return [int(place) for place in np.unique(places)]


def longest_edge_size(height: int, width: int, edge: int) -> tuple[int, int]:
    """Height and width with the longer one ``edge`` and the same proportions, the shorter one
    rounded up to an even number."""
    ratio = width / height
    if width >= height:
        width = edge
        height = int(width / ratio)
        height += height % 2
    else:
        height = edge
        width = int(height * ratio)
        width += width % 2
    return max(height, 1), max(width, 1)
