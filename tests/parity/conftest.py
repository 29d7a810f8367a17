# SPDX-License-Identifier: Apache-2.0
"""Makes the tools, the golden data's helpers and transformers importable."""

from __future__ import annotations

import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(_ROOT / "tools"),
    *(str(_ROOT / "tests" / name) for name in ("python", "vision")),
]

import torchvision_operators  # noqa: E402, F401  before any test imports transformers
