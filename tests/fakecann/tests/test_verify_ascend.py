# SPDX-License-Identifier: Apache-2.0
"""The dry run of ``manymind verify_ascend``: everything it does on a device, on the emulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cann import LIBRARIES

from manymind.errors import InvalidParameterError
from manymind.verify.families import FILES, run_families
from manymind.verify.models import ModelChecks
from manymind.verify.outcomes import Check, Section, apply_divergences, read_divergences
from manymind.verify.reference import Reference

ROOT = Path(__file__).resolve().parents[3]
RUNNER = LIBRARIES.parents[1] / "conformance/conformance"
MODEL = ROOT / "tests/golden/tiny/llama"
DIVERGENCES = ROOT / "backends/ascend/divergences.json"
EMULATOR = "contract-tested on an emulator; not yet run on hardware"
SECTIONS = [
    "environment",
    "conformance",
    "model",
    "large_model",
    "families",
    "graph",
    "hccl",
    "soak",
]
# Stand for a checkout's: three files, of which one test fails.
FAMILY_TEST = "def test_logits(): assert {passes}, 'far off'\n"
CONFTEST = "def pytest_addoption(parser): parser.addoption('--backend')\n"


def run(folder: Path, *flags: object, **settings: str) -> tuple[int, dict[str, Any], str]:
    """Exit status, report and summary; settings are the emulator's, without their prefix."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(LIBRARIES)}
    environment.update({f"FAKECANN_{name}": value for name, value in settings.items()})
    file = folder / "report.json"
    command = [sys.executable, "-m", "manymind", "verify_ascend", "--report", file, *flags]
    arguments = list(map(str, command))
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(file.read_text()), done.stdout


def sections(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    assert [section["name"] for section in report["sections"]] == SECTIONS
    return {section["name"]: section for section in report["sections"]}


def outcomes(section: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["outcome"] for check in section["checks"]}


def test_dry_run(tmp_path: Path) -> None:
    flags = ("--conformance", RUNNER, "--op", "rms_norm", "--model", MODEL)
    more = ("--divergences", DIVERGENCES, "--soak_seconds", "0.5")
    status, report, text = run(tmp_path, *flags, *more, DEVICES="8", SCHEDULE="lazy")
    assert status == 0, text
    assert report["passed"]
    assert report["ran_on"] == "emulator"
    assert report["statement"] == EMULATOR
    assert text.splitlines()[0] == EMULATOR
    assert (report["soc"], report["cann"]) == ("Ascend910B3", "9.0.0")
    assert report["divergences"] == {"file": str(DIVERGENCES), "entries": 0}
    found = sections(report)
    assert found.pop("families")["reason"] == "no tests were given"
    assert found.pop("large_model")["reason"] == "no large_model was given"
    assert {section["outcome"] for section in found.values()} == {"passed"}, text
    cases = outcomes(found["conformance"])
    assert all(name.removeprefix("deterministic=1/").startswith("rms_norm") for name in cases)
    assert len(cases) == 2 * sum(not name.startswith("deterministic=1/") for name in cases) > 8
    assert outcomes(found["model"])["bfloat16/logits"] == "passed"
    assert outcomes(found["graph"]) == {"tokens": "passed", "replays": "passed"}
    ranks = outcomes(found["hccl"])
    for size in (2, 4, 8):
        assert ranks[f"model_ranks{size}"] == "passed"
        assert sum(name.endswith(f"_ranks{size}") for name in ranks) >= 7
    assert outcomes(found["soak"])["float32/nothing_left_behind"] == "passed"
    assert "second" not in json.dumps(report["sections"])  # no figure of speed


def test_wrong_flags_are_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    wrong = ("model", "nowhere"), ("tests", "nowhere"), ("op", "linear"), ("soak_seconds", "-1")
    for flags in [(f"--{name}", value) for name, value in wrong]:
        command = [sys.executable, "-m", "manymind", "verify_ascend", "--report", str(file), *flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert flags[0].lstrip("-") + ":" in done.stderr
    assert not file.exists()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    status, report, text = run(tmp_path, DEVICES="1")
    assert status == 0, text
    found = sections(report)
    assert found["conformance"]["reason"] == "no conformance runner was given"
    assert found["model"]["reason"] == "no model was given"
    assert found["hccl"]["reason"] == "1 device"
    assert [section["outcome"] for section in found.values()] == ["passed", *["not run"] * 7]


def test_a_soak_of_no_time_is_not_run() -> None:
    with closing(ModelChecks(str(MODEL), "ascend", 60)) as checks:
        assert checks.soak(0).reason == "soak_seconds is 0"


def test_a_refused_product_fails(tmp_path: Path) -> None:
    status, report, text = run(tmp_path, PROFILE="310p")
    assert status == 1
    assert not report["passed"]
    assert "310P" in text


def test_each_test_of_the_families_is_a_check(tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    for name in FILES:
        (tests / name).parent.mkdir(parents=True, exist_ok=True)
        passes = "gemma3" not in name
        (tests / name).write_text(FAMILY_TEST.format(passes=passes), encoding="utf-8")
    (tests / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    checks = run_families(str(tests), "ascend", 60)
    names = [Path(name).stem for name in FILES]
    assert [check.name for check in checks] == [f"{name}::test_logits" for name in names]
    assert [check.outcome for check in checks] == ["passed", "passed", "failed"]
    assert "far off" in checks[2].message
    (tests / "conftest.py").write_text("raise ValueError('no engine')\n", encoding="utf-8")
    (check,) = run_families(str(tests), "ascend", 60)
    assert check.outcome == "failed"
    assert "pytest ended with" in check.message


def test_a_device_fault_is_a_failed_check(tmp_path: Path) -> None:
    flags = ("--large_model", MODEL, "--soak_seconds", "0")
    status, report, _ = run(tmp_path, *flags, FAULTS="memory=9000000", DEVICES="1")
    assert status == 1
    found = sections(report)
    assert "OutOfMemoryError" in found["large_model"]["checks"][1]["message"]
    assert found["model"]["reason"] == "no model was given"


def test_a_listed_failure_is_known_and_a_listed_pass_fails(tmp_path: Path) -> None:
    entry = {"soc": "Ascend910B3", "cann": "9.0.0", "device": "asks for zeros", "document": "d"}
    entries = [{"test": "conformance/a.*", **entry}, {"test": "conformance/b", **entry}]
    other = {**entry, "test": "conformance/c", "cann": "9.1.0"}
    file = tmp_path / "divergences.json"
    file.write_text(json.dumps({"format": 1, "divergences": [*entries, other]}))
    checks = [Check("a.f16", "failed", "wrong"), Check("b", "passed"), Check("c", "failed", "x")]
    section = Section("conformance", checks)
    apply_divergences([section], read_divergences(str(file)), "Ascend910B3", "9.0.0")
    assert [check.outcome for check in checks] == ["known", "failed", "failed"]
    assert checks[0].message == "wrong (known: asks for zeros; against d)"
    assert "listed as a divergence" in checks[1].message
    assert checks[2].message == "x"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        '{"divergences": []}',
        '{"format": 1, "divergences": [{"test": "a"}]}',
        '{"format": 1, "divergences": [{"test": "a", "soc": 1, "cann": "c", "device": "d", '
        '"document": "e"}]}',
    ],
)
def test_malformed_divergences_are_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "divergences.json"
    file.write_text(content)
    with pytest.raises(InvalidParameterError, match="divergences"):
        read_divergences(str(file))


def test_wrong_tokens_and_logits_are_found() -> None:
    """Two prompts of one token; answers of two, each the likelier one by 2."""
    first = np.array([[0, 0, 2], [0, 2, 0]], np.float32)
    answers = [[[2, 1]], [[2, 1]]]
    reference = Reference(answers, [first.copy(), first], 2)
    for dtype in ("float32", "bfloat16"):
        assert reference.wrong_tokens(answers, dtype) == ""
        assert reference.wrong_logits(answers, [first, first], dtype) == ""
        assert "prompt 1, token 1" in reference.wrong_tokens([[[2, 1]], [[2, 1], [2, 0]]], dtype)
        assert "expected 2 tokens" in reference.wrong_tokens([[[2]], [[2, 1]]], dtype)
        for wrong in (0.3, np.nan):
            assert "prompt 1" in reference.wrong_logits(answers, [first, first + wrong], dtype)
    # One row of a hundred may differ by more in 16 bits, and no row by much more.
    long = np.full((200, 3), [0, 2, 0], np.float32)
    other = Reference([[[1, 1]]], [long], 2)
    for row, error, allowed in ((1, 0.3, True), (1, 0.6, False), ([1, 2, 3], 0.3, False)):
        off = long.copy()
        off[row] += error
        assert (other.wrong_logits([[[1, 1]]], [off], "bfloat16") == "") == allowed, (row, error)
        assert other.wrong_logits([[[1, 1]]], [off], "float32") != ""
    # After a token that could as well have been another, the context differs.
    reference.logits[0][0] = [0, 2 - 1e-4, 2]
    assert reference.wrong_tokens([[[1, 0]], [[2, 1]]], "float32") == ""
    changed = reference.logits[0] + np.array([[0], [5]], np.float32)
    assert reference.wrong_logits([[[1, 0]], [[2, 1]]], [changed, first], "float32") == ""
    assert "prompt 0" in reference.wrong_logits(answers, [changed, first], "float32")
