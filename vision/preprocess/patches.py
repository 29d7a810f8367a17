# SPDX-License-Identifier: Apache-2.0
"""From pixels to normalised patches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from manymind.vision.rgb import RgbImage
from manymind.vision.types import FloatArray


class Normalizer:
    """(value * scale - mean) / std per channel, as float32, from a table of the 256 values.

    The table holds what float32 arithmetic gives for each value, so that a picture costs one
    look-up per sample.

    Attributes:
        key: the settings, for digests: what is normalised otherwise is encoded otherwise.
    """

    def __init__(self, scale: float, mean: Sequence[float], std: Sequence[float]) -> None:
        values = (np.arange(256, dtype=np.float64) * scale).astype(np.float32)
        channels = zip(np.array(mean, np.float32), np.array(std, np.float32), strict=True)
        self._table = np.stack([(values - channel) / spread for channel, spread in channels])
        self.zero_pixel = self._table[:, 0]
        self.key = (scale, *mean, *std)

    def __call__(self, samples: npt.NDArray[np.uint8], channel_axis: int) -> FloatArray:
        """``samples``, uint8 with three channels on ``channel_axis``, normalised."""
        out = np.empty(samples.shape, np.float32)
        source, target = np.moveaxis(samples, channel_axis, 0), np.moveaxis(out, channel_axis, 0)
        for channel in range(3):
            target[channel] = self._table[channel].take(source[channel])
        return out


def cut_patches(image: RgbImage, size: int) -> npt.NDArray[np.uint8]:
    """Patches of [size, size] row by row: uint8 [rows, 3, size, size]; what does not fill a patch
    at the right and lower edge is dropped, as a convolution does."""
    height, width = image.shape[0] // size, image.shape[1] // size
    grid = image[: height * size, : width * size].reshape(height, size, width, size, 3)
    return np.ascontiguousarray(grid.transpose(0, 2, 4, 1, 3)).reshape(-1, 3, size, size)


def cut_merged_patches(image: RgbImage, size: int, merge: int) -> npt.NDArray[np.uint8]:
    """As ``cut_patches``, but the ``merge`` x ``merge`` patches that become one token follow one
    another, each such block row by row. Height and width are multiples of size * merge."""
    side = size * merge
    height, width = image.shape[0] // side, image.shape[1] // side
    grid = image.reshape(height, merge, size, width, merge, size, 3)
    ordered = np.ascontiguousarray(grid.transpose(0, 3, 1, 4, 6, 2, 5))
    return ordered.reshape(-1, 3, size, size)
