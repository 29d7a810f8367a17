# SPDX-License-Identifier: Apache-2.0
"""Preprocessed pictures against transformers' image processors, live."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import SIZES, of_every_mode, rgb
from PIL import Image
from preprocess_cases import CASES, make
from reference_vision import process

from manymind.vision.rgb import to_rgb

TOLERANCE = 1e-6  # normalised units; a rounding of float32


def check(name: str, image: Image.Image) -> None:
    case = CASES[name]
    expected = process(case.reference, case.config, image, case.patch_size, case.merge)
    found = make(name).image(to_rgb(image))
    pixels = np.concatenate([item.pixels for item in found.inputs])
    assert pixels.shape == expected.pixels.shape
    np.testing.assert_allclose(pixels, expected.pixels, rtol=0, atol=TOLERANCE)
    if expected.grid is not None:
        assert found.grid == expected.grid
    assert make(name).rows(image.height, image.width) == len(pixels)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_sizes(name: str, size: tuple[int, int]) -> None:
    check(name, rgb(*size))


@pytest.mark.parametrize("name", CASES)
def test_many_random_sizes(name: str) -> None:
    generator = np.random.default_rng(7)
    for height, width in generator.integers(2, 420, (25, 2)).tolist():
        check(name, rgb(height, width))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mode", of_every_mode())
def test_modes(name: str, mode: str) -> None:
    check(name, of_every_mode()[mode])


@pytest.mark.parametrize("name", CASES)
def test_a_huge_picture(name: str) -> None:
    check(name, rgb(3001, 4003))
