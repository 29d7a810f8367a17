# SPDX-License-Identifier: Apache-2.0
"""The check of the structure finds what it is there to find."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

LINT = Path(__file__).resolve().parents[1] / "lint"
sys.path.insert(0, str(LINT))

import check_structure as lint  # noqa: E402

LICENCE = f"# {lint.LICENCE}"


def texts(offences: lint.Offences) -> str:
    return "\n".join(text for _, text in offences)


@pytest.mark.parametrize(
    ("path", "line", "offence"),
    [
        ("src/turbomind/ops/a.cc", '#include "turbomind/engine/engine.h"', "must not include"),
        ("src/turbomind/core/a.h", '#include "turbomind/runtime/device.h"', "must not include"),
        ("backends/cpu/a.cc", '#include "turbomind/core/error.h"', "contract only"),
        ("src/turbomind/engine/a.cc", '#include "turbomind/core/error.h"', ""),
        ("backends/cpu/a.cc", '#include "turbomind/abi/tm_backend.h"', ""),
    ],
)
def test_includes(path: str, line: str, offence: str) -> None:
    found = texts(lint.check_includes(Path(path), [line]))
    assert (offence in found) if offence else not found


@pytest.mark.parametrize(
    ("module", "code", "offence"),
    [
        ("config", "from manymind.api import pipeline", "must not import api"),
        ("fetch", "def f():\n    import manymind.runtime", "must not import runtime"),
        ("fetch", "import os\nos.environ['A']", "read in environment.py"),
        ("surprise", "", "no place"),
        ("api", "from manymind.config import Response", ""),
        ("environment", "import os\nos.environ['A']", ""),
    ],
)
def test_imports(module: str, code: str, offence: str) -> None:
    path = Path(f"python/manymind/{module}.py")
    found = texts(lint.check_imports(path, ast.parse(code)))
    assert (offence in found) if offence else not found


def test_texts() -> None:
    core = Path("src/turbomind/engine/a.cc")
    assert "SPDX" in texts(lint.check_text(core, ["int a;"]))
    assert "unfinished" in texts(lint.check_text(core, [LICENCE, "// TO" + "DO: more"]))
    assert "vendor" in texts(lint.check_text(core, [LICENCE, "cudaStream_t stream;"]))
    assert "600 lines" in texts(lint.check_text(core, [LICENCE] * 601))
    assert not texts(lint.check_text(Path("backends/cuda/a.cc"), [LICENCE, "cudaStream_t s;"]))
    assert not texts(lint.check_text(Path("backends/cpu/kernels/a.cc"), [LICENCE] * 800))


@pytest.mark.parametrize("length", [60, 61])
def test_function_lengths(length: int) -> None:
    body = ["  step();"] * (length - 2)
    free = ["void work(int a) {", *body, "}"]
    wrapped = ["void Engine::work(int a,", "                  int b) {", *body[1:], "}"]
    member = ["class A {", *(f"  {line}" for line in free), "};"]
    too_long = length > lint.MAX_FUNCTION_LINES
    for lines in (free, wrapped, member):
        assert bool(texts(lint.check_cpp_functions(lines))) is too_long
    assert not texts(lint.check_cpp_functions(["namespace a {", *["int x;"] * 100, "}"]))
    python = ast.parse("def work():\n" + "    step()\n" * (length - 1))
    assert bool(texts(lint.check_python_functions(python))) is too_long
