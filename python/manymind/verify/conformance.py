# SPDX-License-Identifier: Apache-2.0
"""Runs the conformance suite's own program and reads its lines."""

from __future__ import annotations

import re
import subprocess

from manymind.verify.outcomes import Check, Outcome

_LINE = re.compile(r"(ok|none|FAIL) +([^\s:]+)(?:: (.*))?$")
_SUMMARY = re.compile(r"\d+ passed, (\d+) failed$")
_OUTCOMES: dict[str, Outcome] = {"ok": "passed", "none": "not offered", "FAIL": "failed"}


def run_conformance(
    program: str, plugin: str, prefix: str, limit: float, *options: str
) -> list[Check]:
    """A check per case, and one more that failed if the program did not come to its end."""
    command = [program, "--backend", plugin, "--verbose", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return [Check(f"{prefix}end", "failed", f"no end after {limit:.0f} s")]
    except OSError as error:
        return [Check(f"{prefix}end", "failed", str(error))]
    lines = done.stdout.splitlines()
    matches = [match for line in lines if (match := _LINE.match(line))]
    checks = [Check(prefix + m[2], _OUTCOMES[m[1]], m[3] or "") for m in matches]
    summary = _SUMMARY.match(lines[-1]) if lines else None
    failures = sum(check.outcome == "failed" for check in checks)
    if summary is None or int(summary[1]) != failures:
        last = f"; the last case that ended: {checks[-1].name}" if checks else ""
        tail = " | ".join(done.stderr.strip().splitlines()[-3:])
        wrong = f"the program ended with {done.returncode} and without a result{last}: {tail}"
        checks.append(Check(f"{prefix}end", "failed", wrong))
    return checks
