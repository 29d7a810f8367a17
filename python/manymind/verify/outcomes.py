# SPDX-License-Identifier: Apache-2.0
"""What a check and a section of checks came to, and the differences known beforehand."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from manymind.errors import InvalidParameterError

Outcome = Literal["passed", "failed", "known", "not offered", "not run"]
FORMAT = 1
_FIELDS = ("test", "soc", "cann", "device", "document")


@dataclass
class Check:
    """One test; ``message`` says why it did not simply pass."""

    name: str
    outcome: Outcome
    message: str = ""


@dataclass
class Section:
    """Checks of one kind; without any, ``reason`` says why it did not run."""

    name: str
    checks: list[Check] = field(default_factory=list)
    reason: str = ""

    @property
    def outcome(self) -> Outcome:
        outcomes = {check.outcome for check in self.checks}
        if "failed" in outcomes:
            return "failed"
        # Known differences and what is not offered do not fail a section in which something passed.
        if outcomes & {"passed", "known"}:
            return "passed"
        return "not run" if outcomes <= {"not run"} else "failed"

    def add(self, name: str, wrong: str) -> None:
        """A check that passed if nothing is wrong."""
        self.checks.append(Check(name, "failed" if wrong else "passed", wrong))

    def as_json(self) -> dict[str, Any]:
        checks = [asdict(check) for check in self.checks]
        head = {"name": self.name, "outcome": self.outcome, "reason": self.reason}
        return {**head, "checks": checks}


@dataclass(frozen=True)
class Divergence:
    """A difference between documents and devices that somebody has reported.

    Attributes:
        test: ``section/check``, or a part of it that ends with ``*``.
        soc: as the device names it, such as ``Ascend910B3``.
        cann: its version, such as ``9.0.0``.
        device: what the device did.
        document: the public document that says otherwise.
    """

    test: str
    soc: str
    cann: str
    device: str
    document: str

    def names(self, test: str) -> bool:
        if self.test.endswith("*"):
            return test.startswith(self.test[:-1])
        return test == self.test


def read_divergences(path: str | None) -> list[Divergence]:
    """The entries of a file; none without one. Raises InvalidParameterError for a malformed one."""
    if path is None:
        return []
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidParameterError(f"divergences: {path}: expected JSON, found {error}") from error
    entries = content.get("divergences") if isinstance(content, dict) else None
    if not isinstance(entries, list) or content.get("format") != FORMAT:
        wanted = f'{{"format": {FORMAT}, "divergences": [...]}}'
        raise InvalidParameterError(f"divergences: {path}: expected {wanted}")
    return [_divergence(path, index, entry) for index, entry in enumerate(entries)]


def _divergence(path: str, index: int, entry: Any) -> Divergence:
    valid = isinstance(entry, dict) and set(entry) == set(_FIELDS)
    if not valid or not all(isinstance(text, str) and text for text in entry.values()):
        raise InvalidParameterError(
            f"divergences: {path}: entry {index}: expected texts for {', '.join(_FIELDS)}, "
            f"found {json.dumps(entry)[:200]}"
        )
    return Divergence(**entry)


def apply_divergences(
    sections: list[Section], known: list[Divergence], soc: str, cann: str
) -> None:
    """Marks failures that are listed for this device as known, and fails listed checks that pass:
    a list that is no longer true would hide the next failure.
    """
    here = [entry for entry in known if (entry.soc, entry.cann) == (soc, cann)]
    for section in sections:
        for check in section.checks:
            entry = next((e for e in here if e.names(f"{section.name}/{check.name}")), None)
            if entry is None:
                continue
            if check.outcome == "failed":
                check.outcome = "known"
                check.message += f" (known: {entry.device}; against {entry.document})"
            elif check.outcome == "passed":
                check.outcome = "failed"
                check.message = f"passed, but is listed as a divergence: {entry.device}"
