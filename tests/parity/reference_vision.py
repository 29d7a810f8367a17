# SPDX-License-Identifier: Apache-2.0
"""What transformers' image processors (pillow variants) make of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import transformers
from PIL import Image


@dataclass(frozen=True)
class ReferenceImage:
    """Attributes:
    pixels: float32 [rows, patch_dim], patches in the order the engine's encoder reads them.
    grid: (1, y, x) of patches or (rows, columns) of tiles, where the processor tells.
    """

    pixels: np.ndarray[Any, Any]
    grid: tuple[int, ...] | None


def process(
    processor_name: str, config: dict[str, Any], image: Image.Image, patch_size: int, merge: int
) -> ReferenceImage:
    processor = getattr(transformers, processor_name)(**config)
    if "Idefics3" in processor_name or "SmolVLM" in processor_name:
        found = processor(image, return_row_col_info=True)
        grid = (int(found["rows"][0][0]), int(found["cols"][0][0]))
        return ReferenceImage(unfold(np.asarray(found["pixel_values"][0]), patch_size, merge), grid)
    found = processor(image)
    pixels = np.asarray(found["pixel_values"])
    if "image_grid_thw" in found:
        return ReferenceImage(pixels, tuple(int(n) for n in found["image_grid_thw"][0]))
    tiles = pixels.reshape(-1, *pixels.shape[-3:])
    return ReferenceImage(unfold(tiles, patch_size, merge), None)


def unfold(
    tiles: np.ndarray[Any, Any], patch_size: int, merge: int
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """[n, 3, height, width] -> [rows, 3 * patch * patch], blocks of merge x merge patches together,
    by plain loops."""
    rows = []
    for tile in tiles:
        side = patch_size * merge
        for top in range(0, tile.shape[1] - side + 1, side):
            for left in range(0, tile.shape[2] - side + 1, side):
                for y in range(top, top + side, patch_size):
                    for x in range(left, left + side, patch_size):
                        rows.append(tile[:, y : y + patch_size, x : x + patch_size].reshape(-1))
    return np.stack(rows).astype(np.float32)
