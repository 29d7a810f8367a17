# SPDX-License-Identifier: Apache-2.0
"""Frames of videos scaled as video processors scale them: the filters of pillow, but with weights
of 16 bits, so that a result may be another one of 255.

The reference resizes frames with torch's antialiased kernel for uint8 on CPUs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from manymind.vision import settings
from manymind.vision.rgb import RgbImage, resize

# Of each output: the first input, how many, weights times 2**bits, and those bits.
_Filter = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int16], int]
_MOST_BITS = 22


def _triangle(x: float) -> float:
    return max(0.0, 1.0 - abs(x))


def _cubic(x: float) -> float:
    """Keys' cubic convolution with a = -0.5."""
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0


def _lanczos(x: float) -> float:
    if not -3 <= x < 3:
        return 0.0
    return float(np.sinc(x) * np.sinc(x / 3))


_FILTERS: dict[int, tuple[Callable[[float], float], float]] = {
    settings.BILINEAR: (_triangle, 1.0),
    settings.BICUBIC: (_cubic, 2.0),
    settings.LANCZOS: (_lanczos, 3.0),
}


def resize_frame(frame: RgbImage, height: int, width: int, resample: int) -> RgbImage:
    """``frame`` scaled to [height, width, 3]; filters that have no such kernel are pillow's."""
    if resample not in _FILTERS:
        return resize(frame, height, width, resample)
    from manymind._turbomind import scale_axis

    for axis, size in ((1, width), (0, height)):
        if frame.shape[axis] != size:
            frame = scale_axis(frame, axis, *_filter(frame.shape[axis], size, resample))
    return frame


@lru_cache(maxsize=64)
def _filter(size: int, out_size: int, resample: int) -> _Filter:
    kernel, radius = _FILTERS[resample]
    scale = size / out_size
    stretch = max(scale, 1.0)
    taps = math.ceil(radius * stretch) * 2 + 1
    firsts = np.zeros(out_size, np.int32)
    counts = np.zeros(out_size, np.int32)
    weights = np.zeros((out_size, taps))
    for index in range(out_size):
        center = scale * (index + 0.5)
        first = max(int(center - radius * stretch + 0.5), 0)
        last = min(int(center + radius * stretch + 0.5), size)
        values = [kernel((place - center + 0.5) / stretch) for place in range(first, last)]
        firsts[index], counts[index] = first, len(values)
        weights[index, : len(values)] = np.array(values) / sum(values)
    # As many bits as leave the largest weight within 16.
    largest, bits = weights.max(), 0
    while bits < _MOST_BITS and int(0.5 + largest * 2 ** (bits + 1)) < 1 << 15:
        bits += 1
    scaled = weights * 2**bits
    whole = np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int16)
    return firsts, counts, whole, bits
