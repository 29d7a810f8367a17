# SPDX-License-Identifier: Apache-2.0
"""Importing the package is cheap, and a chat needs neither torch nor transformers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import manymind

HEAVY = ("torch", "transformers", "numpy", "llguidance", "tokenizers", "jinja2", "fire", "asyncio")


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_pulls_in_nothing_heavy() -> None:
    loaded = run_python("import sys, manymind; print(*sys.modules)").split()
    assert [name for name in HEAVY if name in loaded] == []


def test_import_takes_less_than_200_ms() -> None:
    """Of the processor: reading from disk and what else the machine does are not ours."""
    code = "import time; a = time.process_time(); import manymind; print(time.process_time() - a)"
    assert min(float(run_python(code)) for _ in range(3)) < 0.2


def test_a_chat_needs_neither_torch_nor_transformers(smollm2_path: Path) -> None:
    code = f"""
import sys
class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "transformers", "safetensors", "gguf"):
            raise AssertionError(name)
sys.meta_path.insert(0, Forbidden())
from manymind import EngineConfig, GenerationConfig, pipeline
with pipeline({str(smollm2_path)!r}, EngineConfig(session_len=256)) as pipe:
    print(pipe("What is the capital of Japan?", GenerationConfig(max_new_tokens=16)).text)
print("numpy" in sys.modules)
"""
    answer, numpy_loaded = run_python(code).splitlines()
    assert "Tokyo" in answer
    assert numpy_loaded == "False"


def test_public_names() -> None:
    for name in manymind.__all__:
        assert getattr(manymind, name).__name__ == name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = manymind.no_such_name
    assert manymind.__version__.count(".") == 2


def test_package_carries_types_and_contract_headers() -> None:
    from manymind import _turbomind

    folder = Path(_turbomind.__file__).parent
    headers = {path.name for path in (folder / "include").iterdir()}
    assert headers == {
        "tm_backend.h",
        "tm_backend.hpp",
        "tm_backend_host.hpp",
        "tm_backend_tools.hpp",
        "tm_backend_ops.h",
    }
    assert (Path(manymind.__file__).parent / "py.typed").is_file()
    assert (folder / "libturbomind-cpu.so").is_file()


def test_the_package_page_stands_alone() -> None:
    """An index shows it without the repository: no relative link or picture would be found."""
    root = Path(__file__).resolve().parents[2]
    found = re.search(r'^readme = "([^"]+)"', (root / "pyproject.toml").read_text(), re.MULTILINE)
    assert found is not None
    page = (root / found[1]).read_text(encoding="utf-8")
    assert page.startswith("# manymind\n")
    targets = re.findall(r"\]\(([^)]*)\)|(?:src|href)=[\"']([^\"']*)", page)
    assert [target for target in targets if not "".join(target).startswith("https://")] == []
