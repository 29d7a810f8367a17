# SPDX-License-Identifier: Apache-2.0
"""Pictures of any mode as RGB, and the geometry that all families use."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

RgbImage: TypeAlias = npt.NDArray[np.uint8]  # [height, width, 3]


def to_rgb(image: PilImage) -> RgbImage:
    """``image`` as uint8 [height, width, 3]: what is transparent shows white behind it.

    The first frame of an animation; palettes, grey, CMYK and 16-bit samples as pillow converts
    them.
    """
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        from PIL import Image

        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def resize(image: RgbImage, height: int, width: int, resample: int) -> RgbImage:
    """``image`` scaled to [height, width, 3] by pillow's filter number ``resample``."""
    from PIL import Image

    scaled = Image.fromarray(image).resize((width, height), Image.Resampling(resample))
    return np.asarray(scaled)


def center_crop(image: RgbImage, height: int, width: int) -> RgbImage:
    """The middle [height, width, 3] of ``image``, with black around it where it is smaller."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    if top >= 0 and left >= 0:
        return image[top : top + height, left : left + width]
    # An odd margin goes to the top and left of a picture that is too small.
    canvas_height, canvas_width = max(height, image.shape[0]), max(width, image.shape[1])
    canvas = np.zeros((canvas_height, canvas_width, 3), np.uint8)
    y, x = -((image.shape[0] - canvas_height) // 2), -((image.shape[1] - canvas_width) // 2)
    canvas[y : y + image.shape[0], x : x + image.shape[1]] = image
    top, left = max(0, top + y), max(0, left + x)
    return canvas[top : top + height, left : left + width]


def shortest_edge_size(height: int, width: int, edge: int) -> tuple[int, int]:
    """Height and width with the shorter one ``edge`` and the same proportions, rounded down."""
    if width <= height:
        return int(edge * height / width), edge
    return edge, int(edge * width / height)


def tiles(image: RgbImage, height: int, width: int) -> list[RgbImage]:
    """``image`` cut into [height, width, 3], row by row; the last ones may be smaller."""
    return [
        image[y : y + height, x : x + width]
        for y in range(0, image.shape[0], height)
        for x in range(0, image.shape[1], width)
    ]
