# SPDX-License-Identifier: Apache-2.0
"""LLaVA-OneVision: a single picture is fitted into the best of a list of canvases and cut into
tiles behind a thumbnail; several pictures are padded to squares.

Source: LLaVA-OneVision (arXiv:2408.03326), section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from manymind.checkpoint.fields import Fields
from manymind.vision import settings
from manymind.vision.frame_resize import resize_frame
from manymind.vision.patches import Normalizer, cut_patches
from manymind.vision.positions import bilinear_resize
from manymind.vision.rgb import RgbImage, resize, tiles
from manymind.vision.tiles import TileLayout, table_rows
from manymind.vision.types import (
    EncoderInput,
    FloatArray,
    IndexArray,
    PreparedMedia,
    Preprocessor,
    WeightedRows,
    content_digest,
)
from manymind.vision.video import SLOWEST_FPS, FrameRate, ShownFrames, check_frames

_DEFAULTS = settings.Defaults(settings.BICUBIC, settings.CLIP_MEAN, settings.CLIP_STD)
_MAX_CANVASES = 1024
# Larger grids of features are scaled down; the rule tolerates a tenth more.
_TOLERATED_RATIO = 1.1


class LlavaOnevisionPreprocessor(Preprocessor):
    """Grid: (rows, columns) of the canvas's tiles, (0, 0) for one of several pictures.

    Args:
        pinpoints: heights and widths of the canvases, in pixels.
        max_tiles: features of so many tiles are kept; more are scaled down.
        video: video_preprocessor_config.json; None = the same as ``config``.
    """

    def __init__(
        self,
        config: Fields,
        layout: TileLayout,
        pinpoints: Sequence[object],
        max_tiles: int,
        video: Fields | None = None,
    ) -> None:
        self._layout = layout
        self._normalize = settings.normalizer(config, _DEFAULTS)
        self._resample = settings.resample(config, _DEFAULTS)
        self._mean = _mean_colour(config)
        self._side = layout.size
        settings.require_side(config, self._side)
        self._canvases = [_canvas(config, pinpoint, self._side) for pinpoint in pinpoints]
        if not 0 < len(self._canvases) <= _MAX_CANVASES:
            expected = f"1 to {_MAX_CANVASES} pairs"
            raise config.error("image_grid_pinpoints", expected, len(self._canvases))
        self._max_tiles = max_tiles
        video = config if video is None else video
        settings.require_side(video, self._side)
        self._video_normalize = settings.normalizer(video, _DEFAULTS)
        self._video_resample = settings.resample(video, _DEFAULTS)
        self._rate = FrameRate.of(video)

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the canvas that shows most of a picture and wastes least."""
        best, best_score = self._canvases[0], (-1, 0)
        for canvas in self._canvases:
            scale = min(canvas[1] / width, canvas[0] / height)
            shown = min(int(width * scale) * int(height * scale), width * height)
            score = (shown, shown - canvas[0] * canvas[1])
            if shown > 0 and score > best_score:
                best, best_score = canvas, score
        return best

    def rows(self, height: int, width: int) -> int:
        """Patches of the thumbnail and all tiles of a picture of this size."""
        canvas = self.canvas(height, width)
        return (1 + canvas[0] * canvas[1] // self._side**2) * self._layout.rows

    def image(self, image: RgbImage) -> PreparedMedia:
        """A picture that is alone in its conversation."""
        height, width = image.shape[:2]
        canvas = self.canvas(height, width)
        squares = [
            resize(image, self._side, self._side, self._resample),
            *tiles(self._fit(image, canvas), self._side, self._side),
        ]
        grid = canvas[0] // self._side, canvas[1] // self._side
        output = self._output(grid, height, width)
        return PreparedMedia((self._input(squares, output, self._normalize),), grid)

    def one_of_several(self, image: RgbImage) -> PreparedMedia:
        """A picture beside others: its square, and a newline."""
        square = resize(self._pad(image), self._side, self._side, self._resample)
        output = np.arange(self._layout.side**2 + 1, dtype=np.int32)[:, None]
        found = self._input([square], WeightedRows(output), self._normalize)
        return PreparedMedia((found,), (0, 0))

    def video(self, frames: Sequence[RgbImage], fps: float) -> PreparedMedia:
        """Frames as squares whose features are halved in height and width, and a newline."""
        check_frames(len(frames), fps)
        shown = ShownFrames(self._rate.evenly(len(frames), fps), fps, len(frames))
        size, count = (self._side, self._side), len(shown.indices)
        squares = [resize_frame(frame, *size, self._video_resample) for frame in shown.of(frames)]
        side = self._layout.side
        half = bilinear_resize((side, side), (math.ceil(side / 2), math.ceil(side / 2)))
        blocks = [half.rows + np.int32(index * side**2) for index in range(count)]
        output = _with_newline(blocks, [_weights(half)] * count, count * side**2)
        found = self._input(squares, output, self._video_normalize)
        interval = 1 / shown.shown_fps
        return PreparedMedia((found,), (count, 1), shown.seconds, interval, shown.duration)

    def video_rows(self, count: int, height: int, width: int, fps: float | None) -> int:
        """Patches of ``count`` frames."""
        return len(self._rate.evenly(count, fps or SLOWEST_FPS)) * self._layout.rows

    def _fit(self, image: RgbImage, canvas: tuple[int, int]) -> RgbImage:
        """The picture as large as it fits, in the middle of a black canvas."""
        height, width = image.shape[:2]
        scale_y, scale_x = canvas[0] / height, canvas[1] / width
        if scale_x < scale_y:
            size = min(math.ceil(height * scale_x), canvas[0]), canvas[1]
        else:
            size = canvas[0], min(math.ceil(width * scale_y), canvas[1])
        out = np.zeros((*canvas, 3), np.uint8)
        top, left = (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2
        scaled = resize(image, *size, self._resample)
        out[top : top + size[0], left : left + size[1]] = scaled
        return out

    def _pad(self, image: RgbImage) -> RgbImage:
        """The picture in the middle of a square of the mean colour."""
        height, width = image.shape[:2]
        side = max(height, width)
        out = np.empty((side, side, 3), np.uint8)
        out[:] = self._mean
        top, left = (side - height) // 2, (side - width) // 2
        out[top : top + height, left : left + width] = image
        return out

    def _input(
        self, squares: list[RgbImage], output: WeightedRows, norm: Normalizer
    ) -> EncoderInput:
        samples = np.concatenate(
            [cut_patches(square, self._layout.patch_size) for square in squares]
        )
        rows = self._layout.rows
        return EncoderInput(
            pixels=norm(samples, 1).reshape(len(samples), -1),
            num_tokens=len(output.rows),
            segments=np.full(len(squares), rows, np.int32),
            digest=content_digest("llava_onevision", samples, output.rows, norm.key),
            table=WeightedRows(np.tile(table_rows(self._layout), len(squares))[:, None]),
            output=output,
        )

    def _output(self, grid: tuple[int, int], height: int, width: int) -> WeightedRows:
        """The thumbnail's features, then those of the canvas without its black borders, scaled down
        if there are many, with a newline after each row."""
        side = self._layout.side
        base = side**2
        features = np.arange(grid[0] * grid[1] * base, dtype=np.int32)
        features = features.reshape(grid[0], grid[1], side, side).swapaxes(1, 2)
        shown = _without_borders(features.reshape(grid[0] * side, grid[1] * side), height, width)
        newline = base * (1 + grid[0] * grid[1])
        shape = shown.shape
        ratio = math.sqrt(shape[0] * shape[1] / (self._max_tiles * base))
        if ratio > _TOLERATED_RATIO:
            new_shape = int(shape[0] // ratio), int(shape[1] // ratio)
            scaled = bilinear_resize((shape[0], shape[1]), new_shape)
            rows = shown.reshape(-1)[scaled.rows] + np.int32(base)
            weights, shape = _weights(scaled), new_shape
        else:
            rows = shown.reshape(-1, 1) + np.int32(base)
            weights = np.ones(rows.shape, np.float32)
        taps = rows.shape[1]
        lines = np.concatenate(
            [rows.reshape(*shape, taps), np.full((shape[0], 1, taps), newline, np.int32)], 1
        )
        first_only = np.eye(1, taps, dtype=np.float32)
        line_weights = np.concatenate(
            [weights.reshape(*shape, taps), np.broadcast_to(first_only, (shape[0], 1, taps))], 1
        )
        thumbnail = np.repeat(np.arange(base, dtype=np.int32)[:, None], taps, 1)
        return WeightedRows(
            np.concatenate([thumbnail, lines.reshape(-1, taps)]).astype(np.int32),
            None
            if taps == 1
            else np.concatenate(
                [np.broadcast_to(first_only, (base, taps)), line_weights.reshape(-1, taps)]
            ).astype(np.float32),
        )


def _without_borders(features: IndexArray, height: int, width: int) -> IndexArray:
    """The part of a grid of features that a picture of this size covers, as it was fitted in."""
    rows, columns = features.shape
    if width / height > columns / rows:
        covered = int(round(height * (columns / width), 7))
        border = (rows - covered) // 2
        return features[border : rows - border]
    covered = int(round(width * (rows / height), 7))
    border = (columns - covered) // 2
    return features[:, border : columns - border]


def _weights(rows: WeightedRows) -> FloatArray:
    return np.ones(rows.rows.shape, np.float32) if rows.weights is None else rows.weights


def _with_newline(rows: list[IndexArray], weights: list[FloatArray], newline: int) -> WeightedRows:
    taps = rows[0].shape[1]
    rows = [*rows, np.full((1, taps), newline, np.int32)]
    weights = [*weights, np.eye(1, taps, dtype=np.float32)]
    return WeightedRows(
        np.concatenate(rows).astype(np.int32), np.concatenate(weights).astype(np.float32)
    )


def _canvas(config: Fields, pinpoint: object, side: int) -> tuple[int, int]:
    valid = isinstance(pinpoint, (list, tuple)) and len(pinpoint) == 2
    if not valid or not all(type(n) is int and n > 0 and n % side == 0 for n in pinpoint):  # type: ignore[attr-defined]
        raise config.error("image_grid_pinpoints", f"pairs of multiples of {side}", pinpoint)
    return pinpoint[0], pinpoint[1]  # type: ignore[index]


def _mean_colour(config: Fields) -> tuple[int, ...]:
    mean = config.sequence("image_mean") if "image_mean" in config else settings.CLIP_MEAN
    return tuple(int(value * 255) for value in mean)
