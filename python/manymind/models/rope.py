# SPDX-License-Identifier: Apache-2.0
"""Inverse frequencies of rotary embeddings in float64, with the context scalings of the supported
families."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from manymind.errors import CheckpointError
from manymind.models.config import RopeConfig, RopeStyle


@dataclass(frozen=True)
class YarnScaling:
    """Parameters of YaRN (Peng et al. 2023, arXiv:2309.00071). ``attention_factor`` 0 = the
    paper's."""

    factor: float
    original_context_length: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float = 0.0
    truncate: bool = True


@dataclass(frozen=True)
class Llama3Scaling:
    """Parameters of the Llama 3.1 context extension (its reference implementation,
    ``apply_scaling``)."""

    factor: float
    original_context_length: int
    low_freq_factor: float
    high_freq_factor: float


def default_inv_freq(dim: int, theta: float) -> list[float]:
    """theta^(-2i/dim) for i in [0, dim/2) (Su et al. 2021)."""
    if theta <= 0:
        raise CheckpointError("rope_theta", "a positive number", theta)
    return [theta ** (-index / dim) for index in range(0, dim, 2)]


def default_rope(dim: int, theta: float, style: RopeStyle) -> RopeConfig:
    return RopeConfig(dim, style, tuple(default_inv_freq(dim, theta)))


def linear_rope(dim: int, theta: float, style: RopeStyle, factor: float) -> RopeConfig:
    """Position interpolation (Chen et al. 2023, arXiv:2306.15595): positions divided by
    ``factor``."""
    return divided_rope(dim, theta, style, [factor] * (dim // 2))


def divided_rope(dim: int, theta: float, style: RopeStyle, divisors: Sequence[float]) -> RopeConfig:
    """One divisor per frequency; GGUF files store Llama 3's scaling this way."""
    frequencies = default_inv_freq(dim, theta)
    if len(divisors) != len(frequencies):
        raise CheckpointError("rope factors", f"{len(frequencies)} values", len(divisors))
    if not all(math.isfinite(divisor) and divisor > 0 for divisor in divisors):
        raise CheckpointError("rope factors", "positive numbers", list(divisors))
    scaled = (value / divisor for value, divisor in zip(frequencies, divisors, strict=True))
    return RopeConfig(dim, style, tuple(scaled))


def llama3_rope(dim: int, theta: float, style: RopeStyle, scaling: Llama3Scaling) -> RopeConfig:
    """Long wavelengths are divided by ``factor``, short ones kept, those between blended
    linearly."""
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    if not (scaling.factor > 0 and 0 < low < high):
        raise CheckpointError(
            "rope scaling", "factor > 0 and 0 < low_freq_factor < high_freq_factor", scaling
        )

    def divisor(frequency: float) -> float:
        turns = scaling.original_context_length * frequency / (2 * math.pi)
        keep = min(max((turns - low) / (high - low), 0.0), 1.0)
        return 1 / ((1 - keep) / scaling.factor + keep)

    return divided_rope(dim, theta, style, [divisor(f) for f in default_inv_freq(dim, theta)])


def yarn_rope(dim: int, theta: float, style: RopeStyle, scaling: YarnScaling) -> RopeConfig:
    """Frequencies between ``beta_slow`` and ``beta_fast`` turns per original context are
    blended."""
    if not (scaling.factor > 0 and 0 < scaling.beta_slow < scaling.beta_fast and theta > 1):
        raise CheckpointError(
            "rope scaling", "factor > 0, 0 < beta_slow < beta_fast, theta > 1", scaling
        )

    def dimension_of(turns: float) -> float:
        wavelength_ratio = scaling.original_context_length / (turns * 2 * math.pi)
        return dim * math.log(wavelength_ratio) / (2 * math.log(theta))

    low, high = dimension_of(scaling.beta_fast), dimension_of(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    width = high - low if high != low else 0.001  # as the reference: no division by zero

    def divisor(index: int) -> float:
        interpolate = min(max((index - low) / width, 0.0), 1.0)
        return 1 / (interpolate / scaling.factor + 1 - interpolate)

    rope = divided_rope(dim, theta, style, [divisor(index) for index in range(dim // 2)])
    paper = 0.1 * math.log(scaling.factor) + 1 if scaling.factor > 1 else 1.0
    return RopeConfig(dim, style, rope.inv_freq, scaling.attention_factor or paper)
