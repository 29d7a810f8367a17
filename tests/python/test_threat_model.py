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


def test_every_named_test_exists() -> None:
    rows = re.findall(r"^\|.*\|$", (ROOT / "docs" / "threat-model.md").read_text(), re.MULTILINE)
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
