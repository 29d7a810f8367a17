# SPDX-License-Identifier: Apache-2.0
"""The tests that compare every family with transformers, run on another back end."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as Xml
from pathlib import Path

from manymind.verify.outcomes import Check

# Texts, pictures and videos; in a checkout's tests folder.
FILES = ("python/test_golden_logits.py", "vision/test_vlm_logits.py", "vision/test_gemma3.py")


def run_families(tests: str, backend: str, limit: float) -> list[Check]:
    """A check per test, and one more that failed if they did not come to their end."""
    folder = Path(tests).resolve()
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "--backend", backend]
        command += [f"--junitxml={report}", *(str(folder / name) for name in FILES)]
        try:
            done = subprocess.run(
                command,
                cwd=folder.parent,
                capture_output=True,
                text=True,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return [Check("end", "failed", f"no end after {limit:.0f} s")]
        checks = [_check(case) for case in _cases(report)]
    if done.returncode not in (0, 1) or not checks:
        tail = " | ".join((done.stdout + done.stderr).strip().splitlines()[-3:])
        checks.append(Check("end", "failed", f"pytest ended with {done.returncode}: {tail}"))
    return checks


def _cases(report: Path) -> list[Xml.Element]:
    return list(Xml.parse(report).iter("testcase")) if report.is_file() else []


def _check(case: Xml.Element) -> Check:
    module = case.get("classname", "").rpartition(".")[2]
    name = f"{module}::{case.get('name', '')}"
    wrong = [part for part in case if part.tag in ("failure", "error", "skipped")]
    if not wrong:
        return Check(name, "passed")
    lines = (wrong[0].get("message") or wrong[0].text or wrong[0].tag).strip().splitlines()
    return Check(name, "failed", " | ".join(lines[:3]))
