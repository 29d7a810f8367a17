# SPDX-License-Identifier: Apache-2.0
"""Every text and vision family on the emulator, under every schedule: the tests that compare the
CPU back end with transformers, run again on this one as `manymind verify_ascend` does.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from cann import LIBRARIES

from manymind.verify.families import run_families

TESTS = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("schedule", ["immediate", "lazy", "random:5"])
def test_every_family(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts, pictures and videos; float32, so that rounding hides nothing."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(LIBRARIES))
    monkeypatch.setenv("FAKECANN_SCHEDULE", schedule)
    checks = run_families(str(TESTS), "ascend", 280)
    assert len(checks) > 40
    assert not [check for check in checks if check.outcome != "passed"]
