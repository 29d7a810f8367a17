# SPDX-License-Identifier: Apache-2.0
"""Encoders that read squares of one size: each square becomes one input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from manymind.vision.frame_resize import resize_frame
from manymind.vision.patches import Normalizer, cut_merged_patches
from manymind.vision.rgb import RgbImage
from manymind.vision.types import (
    EncoderInput,
    IndexArray,
    PreparedMedia,
    WeightedRows,
    content_digest,
)
from manymind.vision.video import ShownFrames


@dataclass(frozen=True)
class TileLayout:
    """A ViT with a learned position per patch.

    Attributes:
        patch_size: pixels of a patch's side.
        side: patches of a tile's side.
        merge: patches of the side of what becomes one token.
        class_row: row 0 of the position table belongs to a class token, which is a patch of zeros
            that the projector does not see.
        keep_class: the class token is the first output.
        image_size: pixels of a tile's side, where some at its end fill no patch; 0 = none do.
    """

    patch_size: int
    side: int
    merge: int = 1
    class_row: bool = False
    keep_class: bool = False
    image_size: int = 0

    @property
    def size(self) -> int:
        """Pixels of a tile's side."""
        return self.image_size or self.side * self.patch_size

    @property
    def rows(self) -> int:
        """Encoder rows of a tile."""
        return self.side**2 + self.class_row

    @property
    def num_tokens(self) -> int:
        """Embeddings of a tile."""
        return (self.side // self.merge) ** 2 + self.keep_class


def tile_input(tile: RgbImage, layout: TileLayout, normalize: Normalizer) -> EncoderInput:
    """A tile, uint8 [side * patch_size, side * patch_size, 3]; patches that become one token
    follow one another."""
    samples = cut_merged_patches(tile, layout.patch_size, layout.merge)
    pixels = normalize(samples, 1).reshape(len(samples), -1)
    if layout.class_row:
        pixels = np.concatenate([np.zeros((1, pixels.shape[1]), np.float32), pixels])
    drops_class = layout.class_row and not layout.keep_class
    return EncoderInput(
        pixels=pixels,
        num_tokens=layout.num_tokens,
        segments=np.array([len(pixels)], np.int32),
        digest=content_digest("tile", samples, normalize.key),
        table=WeightedRows(table_rows(layout)[:, None]),
        merge=np.arange(1, len(pixels), dtype=np.int32) if drops_class else None,
    )


def tile_video(
    frames: Sequence[RgbImage],
    shown: ShownFrames,
    layout: TileLayout,
    resample: int,
    normalize: Normalizer,
) -> PreparedMedia:
    """Each of ``frames``, those that are shown, squeezed into a tile unless it is one; grid:
    (frames, 1)."""
    squares = [resize_frame(frame, layout.size, layout.size, resample) for frame in frames]
    inputs = tuple(tile_input(square, layout, normalize) for square in squares)
    grid = (len(squares), 1)
    return PreparedMedia(inputs, grid, shown.seconds, 1 / shown.shown_fps, shown.duration)


def table_rows(layout: TileLayout) -> IndexArray:
    """Row of the position table of each encoder row: int32 [rows]."""
    blocks, merge = layout.side // layout.merge, layout.merge
    grid = np.arange(layout.side**2, dtype=np.int32).reshape(blocks, merge, blocks, merge)
    rows = np.ascontiguousarray(grid.swapaxes(1, 2)).reshape(-1)
    if not layout.class_row:
        return rows
    return np.concatenate([np.zeros(1, np.int32), rows + np.int32(1)])
