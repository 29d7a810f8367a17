# SPDX-License-Identifier: Apache-2.0
"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pictures of any size, scaled so that height and width are
multiples of what becomes one token.

Source: Qwen2-VL (arXiv:2409.12191), Qwen2.5-VL (arXiv:2502.13923), Qwen3-VL (arXiv:2511.21631).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from manymind.checkpoint.fields import Fields
from manymind.errors import MediaError
from manymind.vision import settings
from manymind.vision.patches import cut_merged_patches
from manymind.vision.positions import bilinear_table
from manymind.vision.rgb import RgbImage, resize
from manymind.vision.types import (
    EncoderInput,
    IndexArray,
    PreparedMedia,
    content_digest,
)

MAX_ASPECT_RATIO = 200
_DEFAULTS = settings.Defaults(settings.BICUBIC, settings.CLIP_MEAN, settings.CLIP_STD)


@dataclass(frozen=True)
class Layout:
    """What the encoder, not the picture, decides.

    Attributes:
        window: pixels of a side of the attention windows; 0 = none.
        table_side: rows and columns of the learned position grid; 0 = none.
        one_input_per_slice: a video's slices stand apart in the prompt.
    """

    window: int = 0
    table_side: int = 0
    one_input_per_slice: bool = False


class QwenPreprocessor:
    """Rules of preprocessor_config.json.

    Raises CheckpointError or UnsupportedModelError on settings that have no meaning here.
    """

    def __init__(self, config: Fields, layout: Layout, patch_size: int = 14) -> None:
        self._layout = layout
        self._normalize = settings.normalizer(config, _DEFAULTS)
        self._resample = settings.resample(config, _DEFAULTS)
        self.patch_size = config.integer("patch_size", patch_size, high=1024)
        self.temporal_patch_size = config.integer("temporal_patch_size", 2, high=64)
        self.merge_size = config.integer("merge_size", 2, high=16)
        self._min_pixels = _pixels(config, "min_pixels", "shortest_edge", 56 * 56)
        self._max_pixels = _pixels(config, "max_pixels", "longest_edge", 28 * 28 * 1280)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after scaling. Raises MediaError beyond an aspect ratio of 200."""
        if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
            raise MediaError(
                f"image: expected an aspect ratio of at most {MAX_ASPECT_RATIO}, "
                f"found {width} x {height}"
            )
        factor = self.patch_size * self.merge_size
        rounded = round(height / factor) * factor, round(width / factor) * factor
        if rounded[0] * rounded[1] > self._max_pixels:
            shrink = math.sqrt(height * width / self._max_pixels)
            return (
                max(factor, math.floor(height / shrink / factor) * factor),
                max(factor, math.floor(width / shrink / factor) * factor),
            )
        if rounded[0] * rounded[1] < self._min_pixels:
            grow = math.sqrt(self._min_pixels / (height * width))
            return (
                math.ceil(height * grow / factor) * factor,
                math.ceil(width * grow / factor) * factor,
            )
        return rounded

    def rows(self, height: int, width: int) -> int:
        """Patches of a picture of this size."""
        height, width = self.size(height, width)
        return height * width // self.patch_size**2

    def image(self, image: RgbImage) -> PreparedMedia:
        """A picture is a video of one frame, repeated to fill a slice; grid: (1, y, x)."""
        return self._prepare([image] * self.temporal_patch_size)

    def video(self, frames: Sequence[RgbImage], fps: float) -> PreparedMedia:
        """Frames of equal size; the last is repeated to fill a slice; grid: (slices, y, x)."""
        if not frames or any(frame.shape != frames[0].shape for frame in frames):
            raise MediaError("video: expected one or more frames of equal size, found others")
        if not (math.isfinite(fps) and fps > 0):
            raise MediaError(f"fps: expected a positive number, found {fps!r}")
        step = self.temporal_patch_size
        filled = [*frames, *[frames[-1]] * (-len(frames) % step)]
        times = [min(index, len(frames) - 1) / fps for index in range(len(filled))]
        middles = tuple((times[i] + times[i + step - 1]) / 2 for i in range(0, len(times), step))
        return replace(self._prepare(filled), seconds=middles, seconds_per_slice=step / fps)

    def _prepare(self, frames: Sequence[RgbImage]) -> PreparedMedia:
        height, width = self.size(*frames[0].shape[:2])
        cut: dict[int, npt.NDArray[np.uint8]] = {}
        for frame in frames:  # a picture's frames are one object, cut once
            if id(frame) not in cut:
                scaled = resize(frame, height, width, self._resample)
                cut[id(frame)] = cut_merged_patches(scaled, self.patch_size, self.merge_size)
        slices = [
            np.stack(
                [cut[id(frame)] for frame in frames[start : start + self.temporal_patch_size]], 2
            )
            for start in range(0, len(frames), self.temporal_patch_size)
        ]
        y, x = height // self.patch_size, width // self.patch_size
        if self._layout.one_input_per_slice:
            inputs = tuple(self._input([patches], y, x) for patches in slices)
        else:
            inputs = (self._input(slices, y, x),)
        return PreparedMedia(inputs, (len(slices), y, x))

    def _input(self, slices: list[npt.NDArray[np.uint8]], y: int, x: int) -> EncoderInput:
        """slices: uint8 [y * x, 3, frames, patch, patch] each."""
        samples = np.concatenate(slices) if len(slices) > 1 else slices[0]
        digest = content_digest("qwen_vl", samples, len(slices), y, x)
        order, windows, merge = None, None, None
        if self._layout.window:
            order, windows = self._windows(len(slices), y, x)
            merge = np.argsort(order).astype(np.int32)
            samples = samples[order]
        pixels = self._normalize(samples, 1).reshape(len(samples), -1)
        positions = np.tile(self._positions(y, x), len(slices))
        side = self._layout.table_side
        table = bilinear_table(positions, (y, x), side) if side else None
        if order is not None:
            positions = np.ascontiguousarray(positions[:, order])
        return EncoderInput(
            pixels=pixels,
            num_tokens=len(samples) // self.merge_size**2,
            segments=np.full(len(slices), y * x, np.int32),
            digest=digest,
            windows=windows,
            positions=positions,
            table=table,
            merge=merge,
        )

    def _positions(self, y: int, x: int) -> IndexArray:
        """int32 [2, y * x]: row and column of the patches in merged order."""
        merge = self.merge_size
        grid = np.indices((y, x), np.int32).reshape(2, y // merge, merge, x // merge, merge)
        return np.ascontiguousarray(grid.swapaxes(2, 3)).reshape(2, -1)

    def _windows(self, slices: int, y: int, x: int) -> tuple[IndexArray, IndexArray]:
        """Patches sorted by attention window (their order, int32 [rows]), and rows per window."""
        side = self._layout.window // self.merge_size // self.patch_size
        merge = self.merge_size
        tokens = np.arange(slices * y * x // merge**2, dtype=np.int32)
        grid = tokens.reshape(slices, y // merge, x // merge)
        blocks = [
            grid[t, top : top + side, left : left + side].reshape(-1)
            for t in range(slices)
            for top in range(0, y // merge, side)
            for left in range(0, x // merge, side)
        ]
        rows = np.concatenate(blocks)[:, None] * merge**2 + np.arange(merge**2, dtype=np.int32)
        lengths = np.array([len(block) * merge**2 for block in blocks], np.int32)
        return rows.reshape(-1).astype(np.int32), lengths


def _pixels(config: Fields, key: str, name: str, default: int) -> int:
    """A limit under its own key, else inside "size"."""
    if key in config:
        return config.integer(key)
    return settings.edge(config, "size", name, default, high=2**31 - 1)
