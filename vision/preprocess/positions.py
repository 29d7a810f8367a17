# SPDX-License-Identifier: Apache-2.0
"""Rows of learned position tables for grids of patches."""

from __future__ import annotations

import numpy as np

from manymind.vision.types import FloatArray, IndexArray, WeightedRows


def bilinear_table(positions: IndexArray, shape: tuple[int, int], side: int) -> WeightedRows:
    """The four rows of a [side, side] table around each patch of a [y, x] grid whose corners are
    the table's corners, with the weights of bilinear interpolation.

    positions: int32 [2, rows].
    """
    taps = [
        _taps(positions[axis].astype(np.float32) * (side - 1) / max(shape[axis] - 1, 1), side)
        for axis in (0, 1)
    ]
    return _outer(taps[0], taps[1], side)


def bilinear_resize(shape: tuple[int, int], new_shape: tuple[int, int]) -> WeightedRows:
    """Rows of a [y, x] grid that bilinear interpolation to ``new_shape`` reads for each of its
    cells, pixel centres at half-integers."""
    taps = []
    for size, new_size in zip(shape, new_shape, strict=True):
        centre = (np.arange(new_size, dtype=np.float32) + 0.5) * np.float32(size / new_size) - 0.5
        taps.append(_taps(np.maximum(centre, 0).astype(np.float32), size))
    y, x = np.indices(new_shape).reshape(2, -1)
    rows = (taps[0][0][y], taps[0][1][y])
    return _outer(rows, (taps[1][0][x], taps[1][1][x]), shape[1])


def _taps(source: FloatArray, size: int) -> tuple[IndexArray, FloatArray]:
    """The two cells beside each coordinate, int32 [n, 2], and their weights, float32 [n, 2]."""
    floor = np.floor(source)
    cells = floor.astype(np.int32)[:, None] + np.arange(2, dtype=np.int32)
    upper = source - floor
    weights = np.stack([1 - upper, upper], 1).astype(np.float32)
    return np.clip(cells, 0, size - 1).astype(np.int32), weights


def _outer(
    y: tuple[IndexArray, FloatArray], x: tuple[IndexArray, FloatArray], columns: int
) -> WeightedRows:
    rows = y[0][:, :, None] * columns + x[0][:, None, :]
    weights = y[1][:, :, None] * x[1][:, None, :]
    return WeightedRows(
        rows.reshape(len(rows), -1).astype(np.int32),
        weights.reshape(len(weights), -1).astype(np.float32),
    )
