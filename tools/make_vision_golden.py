# SPDX-License-Identifier: Apache-2.0
"""What transformers' image processors make of the test pictures, as small numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

_ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_ROOT / "tests" / name) for name in ("parity", "vision")]

from pictures import golden_pictures, sample  # noqa: E402
from preprocess_cases import CASES  # noqa: E402
from reference_vision import process  # noqa: E402


def make_preprocessed(folder: Path) -> None:
    """vision/preprocess.npz: "<case>/<picture>/shape" int64 [2], "/samples" float32, and "/grid"
    where the processor tells it."""
    values = {}
    for name, case in CASES.items():
        for label, picture in golden_pictures().items():
            found = process(case.reference, case.config, picture, case.patch_size, case.merge)
            values[f"{name}/{label}/shape"] = np.array(found.pixels.shape)
            values[f"{name}/{label}/samples"] = sample(found.pixels)
            if found.grid is not None:
                values[f"{name}/{label}/grid"] = np.array(found.grid)
    target = folder / "vision" / "preprocess.npz"
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(target, **values)
