# SPDX-License-Identifier: Apache-2.0
"""Every text and vision family on the emulator, under every schedule: the tests that compare the
CPU back end with transformers, run again on this one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cann import LIBRARIES

TESTS = Path(__file__).resolve().parents[2]
MODEL_TESTS = ("python/test_golden_logits.py", "vision/test_vlm_logits.py", "vision/test_gemma3.py")


@pytest.mark.parametrize("schedule", ["immediate", "lazy", "random:5"])
def test_every_family(schedule: str) -> None:
    """Texts, pictures and videos; float32, so that rounding hides nothing."""
    settings = {"LD_LIBRARY_PATH": str(LIBRARIES), "FAKECANN_SCHEDULE": schedule}
    files = [TESTS / name for name in MODEL_TESTS]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--backend", "ascend", *files],
        env={**os.environ, **settings},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-4000:]
