# SPDX-License-Identifier: Apache-2.0
"""docs/threat-model.md is kept: the tests it names exist, and what it forbids is nowhere called."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from manymind import EngineConfig, GenerationConfig, pipeline
from manymind.errors import ManymindError

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "golden" / "tiny" / "llama"
FOLDERS = ("python", "vision", "backends", "benchmarks", "tools", "examples")

# Modules that make objects, or code, of what they read.
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}
MODULES |= {"yaml", "code", "codeop", "multiprocessing", "xmlrpc"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {"torch.load", "os.system", "os.popen"}


def offences(tree: ast.AST) -> Iterator[str]:
    """What of the forbidden a module uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names if item.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            yield from _call_offences(node)


def _call_offences(node: ast.Call) -> Iterator[str]:
    function = node.func
    if isinstance(function, ast.Name) and function.id in CALLS:
        yield function.id
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        name = f"{function.value.id}.{function.attr}"
        if name in METHODS:
            yield name
    for keyword in node.keywords:
        on = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
        if keyword.arg in ("allow_pickle", "shell", "trust_remote_code") and on:
            yield f"{keyword.arg}=True"


def test_nothing_can_be_deserialised_into_code() -> None:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    for path in files:
        found = list(offences(ast.parse(path.read_text(encoding="utf-8"))))
        assert not found, (path, found)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, pickle as p",
        "from dill import loads",
        "def f():\n    from yaml import load",
        "eval('1')",
        "import torch\ntorch.load('x')",
        "np.load('x', allow_pickle=True)",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_what_is_forbidden_is_found(source: str) -> None:
    assert list(offences(ast.parse(source)))


# Known classes of advisories on engines of this kind, each by two of them where there are as many.
ADVISORIES = {
    "objects deserialised": ("CVE-2025-32444", "CVE-2026-26220"),
    "tensors deserialised": ("CVE-2025-62164",),
    "model files that run code": ("CVE-2026-22807", "CVE-2026-5760"),
    "parsers of model files": ("CVE-2026-7482", "CVE-2026-27940"),
    "media decoders": ("CVE-2026-22778", "CVE-2026-5497"),
    "addresses by URL": ("CVE-2025-6242", "CVE-2026-24779"),
    "schemas and expressions": ("CVE-2025-48942", "CVE-2025-48887"),
    "grammars kept on disk": ("CVE-2025-29770",),
    "parameters": ("CVE-2026-34756", "CVE-2025-62426"),
    "heads": ("CVE-2025-48956",),
    "numbers": ("CVE-2026-21869",),
    "ways around the key": ("CVE-2026-48746",),
    "open sockets": ("CVE-2025-30202",),
    "time of comparing keys": ("CVE-2025-59425",),
    "no key, rebinding": ("CVE-2025-63389", "CVE-2024-28224"),
    "keys sent elsewhere": ("CVE-2025-51471",),
    "side channels of caches": ("CVE-2025-46570", "CVE-2025-25183"),
    "paths": ("CVE-2024-37032", "CVE-2026-7020"),
    "updaters": ("CVE-2026-42248",),
}


@pytest.mark.parametrize("kind", ADVISORIES)
def test_every_class_of_advisories_has_a_row_with_tests(kind: str) -> None:
    rows = [row for row in table() if all(name in row for name in ADVISORIES[kind])]
    assert len(rows) == 1
    _, _, rule, tests, _ = rows[0].split("|")
    assert rule.strip()
    assert re.search(r"`\w+`", tests)


def table() -> list[str]:
    """The rows of the document's tables."""
    text = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    return re.findall(r"^\|.*\|$", text, re.MULTILINE)


def test_every_named_test_exists() -> None:
    rows = table()
    known = set()
    for path in (ROOT / "tests").rglob("test_*"):
        if path.suffix in (".py", ".cc"):
            text = path.read_text(encoding="utf-8")
            known |= set(re.findall(r"^def (test_\w+)|^TEST\((\w+)\)", text, re.MULTILINE))
    names = {name for pair in known for name in pair if name}
    classes = [row.split("|") for row in rows if row.count("|") == 4 and "test" in row]
    assert len(classes) >= 15
    for _, kind, _, tests, _ in classes[1:]:
        wanted = set(re.findall(r"`(\w+)`", tests))
        assert wanted, kind
        assert wanted <= names, (kind, wanted - names)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a valid checkpoint."""
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def test_a_model_folder_runs_no_code(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    (folder / "modeling_evil.py").write_text(f"open({str(mark)!r}, 'w')\n")
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((folder / name).read_text())
        content["auto_map"] = {
            "AutoConfig": "modeling_evil.Config",
            "AutoModelForCausalLM": "modeling_evil.Model",
            "AutoTokenizer": ["modeling_evil.Tokenizer", None],
        }
        (folder / name).write_text(json.dumps(content))
    with pipeline(folder, EngineConfig(session_len=64)) as pipe:
        assert pipe("hi", GenerationConfig(max_new_tokens=1)).token_ids
    assert not mark.exists()


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "..", "a/../../b"])
def test_weights_outside_the_folder_are_not_read(folder: Path, name: str) -> None:
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shard = sorted(set(index["weight_map"].values()))[0]
    (folder / shard).rename(folder.parent / "outside.safetensors")
    moved = {key: name if file == shard else file for key, file in index["weight_map"].items()}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": moved}))
    with pytest.raises(ManymindError, match="weight_map"), pipeline(folder):
        pass
