# SPDX-License-Identifier: Apache-2.0
"""The keys of preprocessor_config.json that several families share."""

from __future__ import annotations

from dataclasses import dataclass

from manymind.checkpoint.fields import Fields
from manymind.errors import UnsupportedModelError
from manymind.vision.patches import Normalizer

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
NEAREST, LANCZOS, BILINEAR, BICUBIC = 0, 1, 2, 3
MAX_SIDE = 1 << 16


@dataclass(frozen=True)
class Defaults:
    """What a family assumes where its file is silent. ``resample``: pillow's filter number."""

    resample: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def normalizer(config: Fields, defaults: Defaults) -> Normalizer:
    """Raises UnsupportedModelError where a step that always happens is switched off."""
    for step in ("do_resize", "do_rescale", "do_normalize", "do_convert_rgb"):
        if not config.boolean(step, True):
            raise UnsupportedModelError(f"{step}: expected true, found false")
    mean = _triple(config, "image_mean", defaults.mean)
    std = _triple(config, "image_std", defaults.std)
    if min(std) <= 0:
        raise config.error("image_std", "positive numbers", std)
    return Normalizer(config.number("rescale_factor", 1 / 255), mean, std)


def resample(config: Fields, defaults: Defaults) -> int:
    """Pillow's filter number."""
    return config.integer("resample", defaults.resample, low=0, high=5)


def size(config: Fields, key: str, default: int) -> tuple[int, int]:
    """Height and width under ``key``: {"height", "width"} or one number for both."""
    value = config.raw(key)
    if value is None or isinstance(value, int):
        side = config.integer(key, default, high=MAX_SIDE)
        return side, side
    nested = config.nested(key)
    return nested.integer("height", high=MAX_SIDE), nested.integer("width", high=MAX_SIDE)


def require_side(config: Fields, side: int) -> None:
    """Raises CheckpointError unless "size" is the square that the encoder reads."""
    found = size(config, "size", side)
    if found != (side, side):
        raise config.error("size", f"the encoder's {side}", found)


def require_edge(config: Fields, key: str, side: int) -> None:
    """The same of a longest edge under ``key``."""
    found = edge(config, key, "longest_edge", 364)
    if found != side:
        raise config.error(key, f"the encoder's {side}", found)


def edge(config: Fields, key: str, name: str, default: int, high: int = MAX_SIDE) -> int:
    """``config[key][name]``, or ``config[key]`` itself where it is a number."""
    value = config.raw(key)
    if isinstance(value, int):
        return config.integer(key, high=high)
    return config.nested(key).integer(name, default, high=high)


def _triple(
    config: Fields, key: str, default: tuple[float, float, float]
) -> tuple[float, float, float]:
    if key not in config:
        return default
    values = config.sequence(key)
    if len(values) != 3 or not all(type(value) in (int, float) for value in values):
        raise config.error(key, "three numbers", values)
    return float(values[0]), float(values[1]), float(values[2])
