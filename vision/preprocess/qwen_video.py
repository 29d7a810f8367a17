# SPDX-License-Identifier: Apache-2.0
"""Frames and sizes of videos for Qwen2-VL, Qwen2.5-VL and Qwen3-VL.

Source: their reports (arXiv:2409.12191, 2502.13923, 2511.21631), qwen-vl-utils' rules as published
with the models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from manymind.checkpoint.fields import Fields
from manymind.errors import MediaError
from manymind.vision import settings
from manymind.vision.video import MAX_FRAMES, FrameRate, every

MAX_ASPECT_RATIO = 200
_TOKENS_OF_A_VIDEO = 128000  # Qwen2-VL's context, 90 % of which frames may fill
_TOKENS_OF_A_FRAME = 768  # Qwen3-VL


@dataclass(frozen=True)
class PixelLimits:
    """Least and most pixels after scaling."""

    low: int
    high: int


def check_proportions(height: int, width: int) -> None:
    """Raises MediaError beyond an aspect ratio of 200."""
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise MediaError(
            f"image: expected an aspect ratio of at most {MAX_ASPECT_RATIO}, "
            f"found {width} x {height}"
        )


def fitted_size(
    height: int, width: int, factor: int, limits: PixelLimits, frames: int = 1, step: int = 1
) -> tuple[int, int]:
    """Multiples of ``factor`` nearest to height and width whose pixels, of all frames, are within
    the limits. step: frames of a slice, to multiples of which their number is rounded."""
    check_proportions(height, width)
    rounded = round(height / factor) * factor, round(width / factor) * factor
    pixels = round(frames / step) * step * rounded[0] * rounded[1]
    if pixels > limits.high:
        shrink = math.sqrt(frames * height * width / limits.high)
        return (
            max(factor, math.floor(height / shrink / factor) * factor),
            max(factor, math.floor(width / shrink / factor) * factor),
        )
    if pixels < limits.low:
        grow = math.sqrt(limits.low / (frames * height * width))
        return (
            math.ceil(height * grow / factor) * factor,
            math.ceil(width * grow / factor) * factor,
        )
    return rounded


class FrameBudget:
    """Qwen2-VL and Qwen2.5-VL: limits hold for each frame."""

    samples, fps = False, 0.0
    defaults = settings.Defaults(settings.BICUBIC, settings.CLIP_MEAN, settings.CLIP_STD)
    default_limits = PixelLimits(128 * 28 * 28, 768 * 28 * 28)

    def __init__(self, config: Fields, limits: PixelLimits, factor: int, step: int) -> None:
        """factor: pixels of a token's side; step: frames of a slice."""
        self._limits, self._factor, self._step = limits, factor, step
        self._rate = FrameRate.of(config, self.samples, self.fps)
        if self._rate.samples and not self._rate.count and not self._rate.fps:
            raise config.error("do_sample_frames", "fps or num_frames beside it", True)
        self._low = config.integer("min_frames", 4, high=MAX_FRAMES)
        self._high = config.integer("max_frames", 768, high=MAX_FRAMES)
        self._caps = config.boolean("cap_pixels_per_frame", False)
        self._tokens = config.integer("max_video_tokens", self._default_tokens())

    def indices(self, total: int, fps: float) -> list[int]:
        """Of the frames shown of ``total`` that were taken ``fps`` per second."""
        if not self._rate.samples:
            return list(range(total))
        step = self._step
        if self._rate.count:
            count = round(self._rate.count / step) * step
        else:
            most = min(self._high, total) // step * step
            count = int(min(max(total / fps * self._rate.fps, self._low), most, total))
            count = count // step * step
        return every(total, min(max(count, 1), total))

    def size(self, count: int, height: int, width: int) -> tuple[int, int]:
        """Height and width of ``count`` frames after scaling."""
        limits = self._limits
        if self._caps:
            share = int(self._tokens * self._factor**2 * 0.9) * self._step // count
            limits = PixelLimits(limits.low, max(min(limits.high, share), int(limits.low * 1.05)))
        return fitted_size(height, width, self._factor, limits)

    def _default_tokens(self) -> int:
        return _TOKENS_OF_A_VIDEO


class VideoBudget(FrameBudget):
    """Qwen3-VL: limits hold for all frames together."""

    samples, fps = True, 2.0
    defaults = settings.Defaults(settings.BICUBIC, settings.HALF, settings.HALF)
    default_limits = PixelLimits(128 * 32 * 32, 768 * 32 * 32)

    def indices(self, total: int, fps: float) -> list[int]:
        if not self._rate.samples:
            return list(range(total))
        count = self._rate.count
        if not count:
            wanted = int(total / fps * self._rate.fps)
            count = min(max(wanted, self._low), self._high)
        places = np.linspace(0, total - 1, min(count, total))
        return [int(place) for place in places.round()]

    def size(self, count: int, height: int, width: int) -> tuple[int, int]:
        limits, factor = self._limits, self._factor
        if self._caps:
            share = min(self._tokens * factor**2, limits.high // count)
            limits = PixelLimits(limits.low, max(share, int(limits.low * 1.05)) * count)
        if height < factor or width < factor:
            scale = max(factor / height, factor / width)
            height, width = int(height * scale), int(width * scale)
        # A single frame is shown twice, as a slice.
        return fitted_size(height, width, factor, limits, max(count, self._step), self._step)

    def _default_tokens(self) -> int:
        return _TOKENS_OF_A_FRAME
