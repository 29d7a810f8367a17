# SPDX-License-Identifier: Apache-2.0
"""``manymind verify_ascend``: writes the report and sums it up."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from manymind.verify.suite import VerifyOptions, verify


def run(
    report: str,
    conformance: str | None,
    model: str | None,
    large_model: str | None,
    tests: str | None,
    divergences: str | None,
    op: str | None,
    soak_seconds: float,
) -> None:
    """Exits with 1 if something failed."""
    options = VerifyOptions(conformance, model, large_model, tests, divergences, op, soak_seconds)
    options.validate()
    file = Path(report)
    file.touch()  # a place that cannot be written is an error now, not after hours
    result = verify(options)
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("\n".join(_summary(result)))
    if not result["passed"]:
        sys.exit(1)


def _summary(result: dict[str, Any]) -> list[str]:
    lines = [result["statement"]]
    for section in result["sections"]:
        outcomes = [check["outcome"] for check in section["checks"]]
        counts = [f"{outcomes.count(kind)} {kind}" for kind in dict.fromkeys(outcomes)]
        facts = "; ".join([*counts, *([section["reason"]] if section["reason"] else [])])
        lines.append(f"{section['name']}: {section['outcome']} ({facts})")
        lines += [
            f"  {check['outcome']} {check['name']}: {check['message']}"
            for check in section["checks"]
            if check["outcome"] in ("failed", "known")
        ]
    return lines
