# SPDX-License-Identifier: Apache-2.0
"""Installations of CANN that lack functions or libraries: another way is taken, or what is missing
is named before anything is loaded.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cann import LIBRARIES
from test_engine import CHILD, TINY, cpu_tokens

import manymind

ROOT = Path(__file__).resolve().parents[3]
RUNNER = LIBRARIES.parents[1] / "conformance/conformance"
PLUGIN = Path(manymind.__file__).with_name("libturbomind-ascend.so")
SYMBOLS = ROOT / "backends/ascend/acl"


def optional(header: str) -> list[str]:
    """The functions that the plug-in can do without."""
    text = (SYMBOLS / header).read_text(encoding="utf-8")
    functions = re.findall(r"^ASCEND_SYMBOL\(OPTIONAL, [^,]+, (\w+),", text, re.MULTILINE)
    operators = re.findall(r"^ASCEND_OP\(OPTIONAL, (\w+),", text, re.MULTILINE)
    return functions + [f"aclnn{name}" for name in operators]


def lacking(folder: Path, *functions: str) -> Path:
    """A copy of the emulator without these functions: their names in it are others."""
    for source in LIBRARIES.glob("*.so"):
        shutil.copy(source, folder)
    left = {name.encode() for name in functions}
    for library in folder.glob("*.so"):
        content = library.read_bytes()
        for name in functions:
            old = b"\0" + name.encode() + b"\0"
            if old in content:
                left.discard(name.encode())
                content = content.replace(old, b"\0?" + old[2:])
        library.write_bytes(content)
    assert not left, left
    return folder


def run(libraries: Path, *command: object, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    environment.update({f"FAKECANN_{name}": value for name, value in settings.items()})
    arguments = list(map(str, command))
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=60)


def conformance(libraries: Path, op: str, *more: str, **settings: str) -> tuple[list[str], str]:
    """Lines of the cases, and what the emulator logged. Fails if one failed."""
    command = (RUNNER, "--backend", PLUGIN, "--verbose", "--op", op, *more)
    done = run(libraries, *command, **settings)
    lines = done.stdout.splitlines()
    assert lines[-1].endswith(" passed, 0 failed"), done.stdout[-2000:]
    return lines, done.stderr


def check_env(libraries: Path) -> str:
    """What it says of the plug-in."""
    text = run(libraries, sys.executable, "-m", "manymind", "check_env").stdout
    return next(line for line in text.splitlines() if line.strip().startswith("ascend "))


INT8 = ("--case", "bf16_x_int8_channel")


def test_an_older_product_of_int8_codes(tmp_path: Path) -> None:
    lines, log = conformance(lacking(tmp_path, "aclnnQuantMatmulV5"), "linear", *INT8, LOG="1")
    assert sum(line.startswith("ok ") for line in lines) >= 16
    assert "aclnnQuantMatmulV4GetWorkspaceSize" in log
    assert "aclnnQuantMatmulV5" not in log


@pytest.mark.parametrize(
    ("functions", "op", "case", "reason"),
    [
        (
            ("aclnnQuantMatmulV5", "aclnnQuantMatmulV4"),
            "linear",
            "bf16_x_int8_channel",
            "neither aclnnQuantMatmulV5 nor aclnnQuantMatmulV4",
        ),
        (("aclnnDynamicQuant",), "linear", "bf16_x_int8_channel", "no aclnnDynamicQuant"),
        (
            ("aclnnWeightQuantBatchMatmulV2",),
            "linear",
            "bf16_x_int4_group",
            "no aclnnWeightQuantBatchMatmulV2",
        ),
        (("aclnnGroupedMatmulV4",), "grouped_linear", "f16_x_f16", "no aclnnGroupedMatmulV4"),
    ],
)
def test_weights_without_their_operator_are_refused_by_name(
    functions: tuple[str, ...], op: str, case: str, reason: str, tmp_path: Path
) -> None:
    """When their size is asked for, so that a loader widens them or says why not."""
    lines, _ = conformance(lacking(tmp_path, *functions), op, "--case", case)
    assert any(line.startswith(f"none {op}/{case}") and reason in line for line in lines)
    assert not any(line.startswith("ok ") for line in lines)


EXPERT_OPERATORS = {
    "moe_permute": "aclnnMoeInitRoutingV2",
    "moe_combine": "aclnnMoeFinalizeRoutingV2",
}


@pytest.mark.parametrize("op", EXPERT_OPERATORS)
@pytest.mark.parametrize("profile", ["a2", "950"])
def test_experts_with_and_without_the_operators_for_them(
    op: str, profile: str, tmp_path: Path
) -> None:
    """The same cases pass either way; float16 rows are summed by the operator on the 950 only."""
    name = EXPERT_OPERATORS[op]
    for folder, present in ((LIBRARIES, True), (lacking(tmp_path, name), False)):
        for dtype in ("f32", "bf16", "f16"):
            settings = {"PROFILE": profile, "LOG": "1"}
            lines, log = conformance(folder, op, "--case", f"/{dtype}/", **settings)
            assert sum(line.startswith("ok ") for line in lines) >= 3
            rounds = op == "moe_combine" and dtype == "f16" and profile == "a2"
            assert (f"{name}GetWorkspaceSize" in log) == (present and not rounds), dtype


def test_the_least_that_is_taken(tmp_path: Path) -> None:
    """Without any optional function steps run eagerly, of small operators, to the same tokens."""
    names = optional("op_symbols.h") + optional("runtime_symbols.h")
    names = [name for name in names if name != "aclsysGetVersionStr"]
    assert len(names) > 15
    libraries = lacking(tmp_path, *names)
    done = run(libraries, sys.executable, CHILD, TINY / "llama", "ascend", "bfloat16", 1, 10, 3)
    assert done.returncode == 0, done.stderr
    tokens = json.loads(done.stdout.splitlines()[-1])["tokens"]
    assert [row[:8] for row in tokens] == [row[:8] for row in cpu_tokens("llama")]


def test_required_functions_are_named(tmp_path: Path) -> None:
    """vllm#8054, pytorch-npu#99: operators and this package of different times."""
    line = check_env(lacking(tmp_path, "aclnnRmsNormGetWorkspaceSize", "aclrtMemcpyAsync"))
    assert "not usable: this CANN lacks functions that the ascend backend needs" in line
    assert "aclnnRmsNorm" in line
    assert "aclrtMemcpyAsync" in line


def test_missing_libraries_are_named(tmp_path: Path) -> None:
    """vllm-ascend#152, #262: an environment that was not sourced, packages that are not there."""
    assert "its set_env.sh was not sourced: libacl_rt.so" in check_env(tmp_path)
    lacking(tmp_path)
    for operators in tmp_path.glob("libopapi*.so"):
        operators.unlink()
    assert "operators (ops package) are not installed" in check_env(tmp_path)


def test_several_devices_without_hccl(tmp_path: Path) -> None:
    (lacking(tmp_path) / "libhccl.so").unlink()
    done = run(tmp_path, sys.executable, CHILD, TINY / "llama", "ascend", "float32", 2, 4, 1)
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["error"] == "BackendError"
    assert "several devices need HCCL: libhccl.so" in result["text"]
