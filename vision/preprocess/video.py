# SPDX-License-Identifier: Apache-2.0
"""Which frames of a video a model is shown, by the settings of its video processor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from manymind.checkpoint.fields import Fields
from manymind.errors import MediaError

_Frame = TypeVar("_Frame")
MAX_FRAMES = 1 << 16
SLOWEST_FPS = 1e-3  # of an animation: the slower, the more frames are shown


@dataclass(frozen=True)
class FrameRate:
    """Settings "do_sample_frames", "num_frames" and "fps".

    Attributes:
        samples: frames are chosen; else all are shown.
        count: of the frames to show; 0 = not given.
        fps: frames to show per second, where ``count`` is not given; 0 = not given either.
    """

    samples: bool
    count: int = 0
    fps: float = 0.0

    @staticmethod
    def of(config: Fields, samples: bool = False, fps: float = 0.0) -> FrameRate:
        """The arguments are the family's defaults."""
        count = config.integer("num_frames", 0, low=0, high=MAX_FRAMES)
        rate = config.number("fps", fps)
        if rate < 0:
            raise config.error("fps", "a number of frames per second", rate)
        return FrameRate(config.boolean("do_sample_frames", samples), count, rate)

    def wanted(self, total: int, fps: float) -> int:
        """Frames to show of ``total`` that were taken ``fps`` per second: one at least, at most
        all."""
        if not self.samples:
            return total
        wanted = self.count or (int(total / fps * self.fps) if self.fps else total)
        return min(max(wanted, 1), total)

    def evenly(self, total: int, fps: float) -> list[int]:
        """Indices from the first frame on."""
        count = self.wanted(total, fps)
        return [index * total // count for index in range(count)]


@dataclass(frozen=True)
class ShownFrames:
    """Indices of frames, and when they were: seconds from the video's begin."""

    indices: Sequence[int]
    fps: float  # of all frames, not of those shown
    total: int

    seconds: tuple[float, ...] = field(init=False)

    def __post_init__(self) -> None:
        seconds = tuple(index / self.fps for index in self.indices)
        object.__setattr__(self, "seconds", seconds)

    @property
    def shown_fps(self) -> float:
        """Mean frames per second of those shown."""
        return len(self.indices) / self.total * self.fps

    @property
    def duration(self) -> float:
        """Of the video: seconds."""
        return self.total / self.fps

    def of(self, frames: Sequence[_Frame]) -> list[_Frame]:
        return [frames[index] for index in self.indices]


def every(total: int, count: int, shift: float = 0.0) -> list[int]:
    """``count`` indices below ``total`` at equal distances, cut off in float32 as the reference
    does."""
    steps = shift + np.arange(math.ceil((total - shift) * count / total)) * (total / count)
    return [min(int(step), total - 1) for step in steps.astype(np.float32)]


def check_frames(count: int, fps: float) -> None:
    """Raises MediaError unless there are frames and a rate."""
    if count == 0:
        raise MediaError("video: expected one or more frames, found none")
    if not (math.isfinite(fps) and fps > 0):
        raise MediaError(f"fps: expected a positive number, found {fps!r}")
