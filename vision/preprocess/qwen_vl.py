# SPDX-License-Identifier: Apache-2.0
"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pictures of any size, scaled so that height and width are
multiples of what becomes one token.

Source: Qwen2-VL (arXiv:2409.12191), Qwen2.5-VL (arXiv:2502.13923), Qwen3-VL (arXiv:2511.21631).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from manymind.checkpoint.fields import Fields
from manymind.errors import MediaError
from manymind.vision import settings
from manymind.vision.frame_resize import resize_frame
from manymind.vision.patches import Normalizer, cut_merged_patches
from manymind.vision.positions import bilinear_table
from manymind.vision.qwen_video import FrameBudget, PixelLimits, VideoBudget, fitted_size
from manymind.vision.rgb import RgbImage, resize
from manymind.vision.types import (
    EncoderInput,
    IndexArray,
    PreparedMedia,
    Preprocessor,
    content_digest,
)
from manymind.vision.video import ShownFrames, check_frames

_DEFAULTS = FrameBudget.defaults


@dataclass(frozen=True)
class Layout:
    """What the encoder, not the picture, decides.

    Attributes:
        window: pixels of a side of the attention windows; 0 = none.
        table_side: rows and columns of the learned position grid; 0 = none.
        one_input_per_slice: a video's slices stand apart in the prompt, and its limits of pixels
            hold for all of it (Qwen3-VL).
    """

    window: int = 0
    table_side: int = 0
    one_input_per_slice: bool = False


class QwenPreprocessor(Preprocessor):
    """Rules of preprocessor_config.json.

    Raises CheckpointError or UnsupportedModelError on settings that have no meaning here.
    """

    def __init__(
        self, config: Fields, layout: Layout, patch_size: int = 14, video: Fields | None = None
    ) -> None:
        """video: video_preprocessor_config.json; None = the same as ``config``."""
        self._layout = layout
        self._resample = settings.resample(config, _DEFAULTS)
        self._normalize = settings.normalizer(config, _DEFAULTS)
        self.patch_size = config.integer("patch_size", patch_size, high=1024)
        self.temporal_patch_size = config.integer("temporal_patch_size", 2, high=64)
        self.merge_size = config.integer("merge_size", 2, high=16)
        self._factor = self.patch_size * self.merge_size
        self._limits = _limits(config, PixelLimits(56 * 56, 28 * 28 * 1280))
        self._add_video(config if video is None else video)

    def _add_video(self, config: Fields) -> None:
        for key in ("patch_size", "temporal_patch_size", "merge_size"):
            expected = getattr(self, key)
            if config.integer(key, expected) != expected:
                raise config.error(key, f"that of pictures, {expected}", config.raw(key))
        rules = VideoBudget if self._layout.one_input_per_slice else FrameBudget
        limits = _limits(config, rules.default_limits)
        self._frames = rules(config, limits, self._factor, self.temporal_patch_size)
        self._video_resample = settings.resample(config, rules.defaults)
        self._video_normalize = settings.normalizer(config, rules.defaults)

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after scaling. Raises MediaError beyond an aspect ratio of 200."""
        return fitted_size(height, width, self._factor, self._limits)

    def rows(self, height: int, width: int) -> int:
        """Patches of a picture of this size."""
        height, width = self.size(height, width)
        return height * width // self.patch_size**2

    def image(self, image: RgbImage) -> PreparedMedia:
        """A picture is a video of one frame, repeated to fill a slice; grid: (1, y, x)."""
        frames = [image] * self.temporal_patch_size
        scale = partial(resize, resample=self._resample)
        return self._prepare(frames, self.size(*image.shape[:2]), scale, self._normalize)

    def video_rows(self, count: int, height: int, width: int, fps: float | None) -> int:
        """Patches of ``count`` frames of this size."""
        if fps is not None:
            return self._rows_of_shown(len(self._frames.indices(count, fps)), height, width)
        # More frames may be fewer patches: they share limits, to which they are rounded down.
        return max(self._rows_of_shown(shown, height, width) for shown in range(1, count + 1))

    def _rows_of_shown(self, count: int, height: int, width: int) -> int:
        slices = math.ceil(count / self.temporal_patch_size)
        return slices * math.prod(self._frames.size(count, height, width)) // self.patch_size**2

    def video(self, frames: Sequence[RgbImage], fps: float) -> PreparedMedia:
        """Frames of equal size; the last shown is repeated to fill a slice; grid: (slices, y,
        x)."""
        check_frames(len(frames), fps)
        if any(frame.shape != frames[0].shape for frame in frames):
            raise MediaError("video: expected frames of equal size, found others")
        shown = ShownFrames(self._frames.indices(len(frames), fps), fps, len(frames))
        step = self.temporal_patch_size
        missing = -len(shown.indices) % step
        images, times = shown.of(frames), list(shown.seconds)
        size = self._frames.size(len(images), *images[0].shape[:2])
        images += images[-1:] * missing
        times += times[-1:] * missing
        middles = tuple((times[i] + times[i + step - 1]) / 2 for i in range(0, len(times), step))
        scale = partial(resize_frame, resample=self._video_resample)
        return replace(
            self._prepare(images, size, scale, self._video_normalize),
            seconds=middles,
            seconds_per_slice=step / shown.shown_fps,
        )

    def _prepare(
        self,
        frames: Sequence[RgbImage],
        size: tuple[int, int],
        scale: Callable[[RgbImage, int, int], RgbImage],
        norm: Normalizer,
    ) -> PreparedMedia:
        """Frames, of which any number may be one object."""
        height, width = size
        cut: dict[int, npt.NDArray[np.uint8]] = {}
        for frame in frames:  # each object is cut once
            if id(frame) not in cut:
                scaled = scale(frame, height, width)
                cut[id(frame)] = cut_merged_patches(scaled, self.patch_size, self.merge_size)
        slices = [
            np.stack(
                [cut[id(frame)] for frame in frames[start : start + self.temporal_patch_size]], 2
            )
            for start in range(0, len(frames), self.temporal_patch_size)
        ]
        y, x = height // self.patch_size, width // self.patch_size
        if self._layout.one_input_per_slice:
            inputs = tuple(self._input([patches], y, x, norm) for patches in slices)
        else:
            inputs = (self._input(slices, y, x, norm),)
        return PreparedMedia(inputs, (len(slices), y, x))

    def _input(
        self, slices: list[npt.NDArray[np.uint8]], y: int, x: int, norm: Normalizer
    ) -> EncoderInput:
        """slices: uint8 [y * x, 3, frames, patch, patch] each."""
        samples = np.concatenate(slices) if len(slices) > 1 else slices[0]
        # Equal samples differ where pictures and videos are normalised otherwise.
        digest = content_digest("qwen_vl", samples, len(slices), y, x, norm.key)
        order, windows, merge = None, None, None
        if self._layout.window:
            order, windows = self._windows(len(slices), y, x)
            merge = np.argsort(order).astype(np.int32)
            samples = samples[order]
        pixels = norm(samples, 1).reshape(len(samples), -1)
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


def _limits(config: Fields, default: PixelLimits) -> PixelLimits:
    return PixelLimits(
        _pixels(config, "min_pixels", "shortest_edge", default.low),
        _pixels(config, "max_pixels", "longest_edge", default.high),
    )


def _pixels(config: Fields, key: str, name: str, default: int) -> int:
    """A limit under its own key, else inside "size"."""
    if key in config:
        return config.integer(key)
    return settings.edge(config, "size", name, default, high=2**31 - 1)
