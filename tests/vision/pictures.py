# SPDX-License-Identifier: Apache-2.0
"""Pictures of every kind that users send, made from a seed."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

# Odd, tiny, wide, tall, square and large; height x width.
SIZES = ((37, 53), (224, 224), (1, 1), (120, 31), (33, 301), (500, 333), (90, 91))


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray[Any, Any]:
    """uint8 [height, width, channels]: gradients with noise, so that resampling matters."""
    generator = np.random.default_rng(seed + height * 1000 + width)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(y / 7 + c) + np.cos(x / (5 + c)) for c in range(channels)], -1)
    values = 127 + 50 * waves + generator.normal(0, 20, (height, width, channels))
    return np.clip(values, 0, 255).astype(np.uint8)


def rgb(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(noise(height, width, 3, seed))


def of_every_mode(height: int = 45, width: int = 61) -> dict[str, Image.Image]:
    """Name -> picture: all modes that decoders produce."""
    base = rgb(height, width)
    grey16 = (np.arange(height * width, dtype=np.uint32) * 65535 // (height * width)).astype("<u2")
    palette = base.quantize(17)
    see_through = base.quantize(17)
    see_through.info["transparency"] = 3
    return {
        "rgb": base,
        "grey": base.convert("L"),
        "grey_alpha": Image.fromarray(noise(height, width, 2), "LA"),
        "rgba": Image.fromarray(noise(height, width, 4), "RGBA"),
        "palette": palette,
        "palette_transparent": see_through,
        "bitmap": base.convert("1"),
        "cmyk": base.convert("CMYK"),
        "ycbcr": base.convert("YCbCr"),
        "grey16": Image.frombytes("I;16", (width, height), grey16.tobytes()),
        "int32": Image.fromarray(noise(height, width, 1)[..., 0].astype(np.int32)),
        "float32": Image.fromarray(noise(height, width, 1)[..., 0].astype(np.float32)),
    }


def encoded(image: Image.Image, format_name: str, **options: Any) -> bytes:
    """``image`` as a file's bytes."""
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def golden_pictures() -> dict[str, Image.Image]:
    """Pictures whose preprocessed values are kept in tests/golden/vision."""
    sizes = {f"{height}x{width}": rgb(height, width) for height, width in SIZES}
    return {**sizes, **of_every_mode()}


def sample(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Some hundred values of [rows, patch_dim], spread so that every row and channel is hit."""
    flat = pixels.reshape(-1)
    return flat[:: max(1, flat.size // 300) | 1].astype(np.float32)
