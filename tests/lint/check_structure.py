# SPDX-License-Identifier: Apache-2.0
"""Checks the rules of docs/architecture.md and CONTRIBUTING.md that no other tool checks.

Run from anywhere inside the repository; prints one line per offence and exits 1 if there is any.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SOURCE_SUFFIXES = {".h", ".hpp", ".c", ".cc", ".py", ".pyi", ".cmake"}
CPP_SUFFIXES = {".h", ".hpp", ".c", ".cc"}
LICENCE = "SPDX-License-Identifier: Apache-2.0"
MAX_FILE_LINES = 600
MAX_KERNEL_FILE_LINES = 800
MAX_FUNCTION_LINES = 60
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
TYPE_OR_SCOPE = re.compile(
    r"\s*(namespace|class|struct|enum|union|extern|else|do|try|switch|if|for|while)\b"
)
VENDOR_WORDS = re.compile(r"\b(cuda|cudnn|nccl|acl|aclnn|npu|hccl|ascend)\w*", re.IGNORECASE)

# Lowest first; a layer may include itself and those before it.
CPP_LAYERS = ("abi", "core", "text", "runtime", "ops", "layers", "models", "engine", "guided")

# Lowest first; a module may import its own group and those before it.
PYTHON_LAYERS = (
    {"errors"},
    {"validation", "environment", "catalog", "lmdeploy_fields"},
    {"download", "media_fetch", "guided", "parsers"},
    {"config", "fetch", "checkpoint", "prompts", "output_text", "media"},
    {"vision"},
    {
        "models",
        "tokenizer",
        "chat_template",
        "template_sandbox",
        "template_limits",
        "lmdeploy_config",
    },
    {"media_input", "media_video"},
    {"media_side"},
    {"sampling", "native", "dispatcher", "description", "answers", "session"},
    {"runtime", "call", "async_call", "embedding_runtime", "pooling"},
    {"api"},
    {"embedding"},
    {"server"},
    {"load", "verify"},
    {"cli"},
)
PYTHON_RANK = {name: rank for rank, group in enumerate(PYTHON_LAYERS) for name in group}
# Modules without a place in the order: the native module is below all, the package's face above.
UNRANKED = {"_turbomind", "__init__", "__main__"}


def main() -> int:
    """Checks every tracked source file."""
    offences = [offence for path in tracked_files() for offence in check_file(path)]
    print("\n".join(offences) or "structure: nothing to object to")
    return 1 if offences else 0


def tracked_files() -> list[Path]:
    """Source files under version control."""
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = [ROOT / name for name in listing.stdout.split("\0") if name]
    return [path for path in paths if is_source(path) and path.is_file()]


def is_source(path: Path) -> bool:
    """True for a file that the rules are about."""
    return path.suffix in SOURCE_SUFFIXES or path.name in ("CMakeLists.txt", "Makefile")


def check_file(path: Path) -> Iterator[str]:
    """All offences of one file, each as "path:line: what"."""
    name = path.relative_to(ROOT)
    lines = path.read_text(encoding="utf-8").splitlines()
    for line, text in check_text(name, lines):
        yield f"{name}:{line}: {text}"
    if path.suffix in CPP_SUFFIXES:
        for line, text in (*check_includes(name, lines), *check_cpp_functions(lines)):
            yield f"{name}:{line}: {text}"
    if path.suffix == ".py":
        tree = ast.parse("\n".join(lines))
        for line, text in (*check_imports(name, tree), *check_python_functions(tree)):
            yield f"{name}:{line}: {text}"


Offences = Iterator[tuple[int, str]]


def check_text(name: Path, lines: list[str]) -> Offences:
    """Licence line, length, unfinished work, vendors' words in the core."""
    head = [line for line in lines[:2] if not line.startswith("#!")]
    if not head or LICENCE not in head[0]:
        yield 1, f"expected the first line to hold {LICENCE!r}"
    limit = MAX_KERNEL_FILE_LINES if "kernels" in name.parts else MAX_FILE_LINES
    if len(lines) > limit:
        yield len(lines), f"expected at most {limit} lines, found {len(lines)}"
    in_core = name.parts[:2] == ("src", "turbomind")
    for number, line in enumerate(lines, 1):
        if UNFINISHED.search(line) and name != Path(__file__).relative_to(ROOT):
            yield number, "unfinished work marked in the code"
        # The contract's own comments say why a rule exists, and name the devices that need it.
        if in_core and name.parts[2] != "abi" and (word := VENDOR_WORDS.search(line)):
            yield number, f"the core knows no vendor, found {word.group()!r}"


def check_includes(name: Path, lines: list[str]) -> Offences:
    """Core layers include downwards only; back ends include the contract only."""
    in_backend = name.parts[0] == "backends"
    layer = name.parts[2] if name.parts[:2] == ("src", "turbomind") else None
    if name.parts[:2] == ("vision", "encoder"):
        layer = "layers"  # what it stands on
    for number, line in enumerate(lines, 1):
        match = re.match(r'\s*#\s*include\s*"turbomind/(\w+)/', line)
        if match is None:
            continue
        if in_backend and match[1] != "abi":
            yield number, f"a back end may include the contract only, found {match[1]}"
        if layer is not None and CPP_LAYERS.index(match[1]) > CPP_LAYERS.index(layer):
            yield number, f"layer {layer} must not include {match[1]}, which lies above it"


def check_imports(name: Path, tree: ast.Module) -> Offences:
    """Modules of the package import downwards only; only ``environment`` reads the environment."""
    if name.parts[:2] == ("vision", "preprocess"):
        module = "vision"  # where it is installed
    elif name.parts[:2] == ("python", "manymind"):
        module = Path(name.parts[2]).stem
    else:
        return
    if module in UNRANKED:
        return
    if module not in PYTHON_RANK:
        yield 1, f"module {module} has no place in PYTHON_LAYERS"
        return
    for line, imported in imported_modules(tree):
        if imported not in UNRANKED and PYTHON_RANK.get(imported, 99) > PYTHON_RANK[module]:
            yield line, f"module {module} must not import {imported}, which lies above it"
    for node in ast.walk(tree):
        reads = isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
        if reads and module != "environment":
            yield node.lineno, "the environment is read in environment.py only"


def imported_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and first component below ``manymind`` of each import of the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "manymind":
            for alias in node.names:
                yield node.lineno, alias.name if alias.name in PYTHON_RANK else "__init__"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("manymind."):
            yield node.lineno, str(node.module).split(".")[1]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "manymind" and len(parts) > 1:
                    yield node.lineno, parts[1]


def check_python_functions(tree: ast.Module) -> Offences:
    """Length of every function."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield node.lineno, too_long(node.name, length)


def check_cpp_functions(lines: list[str]) -> Offences:
    """Length of every function, by the layout clang-format gives it: the first line after the
    signature that is indented no deeper than it closes the body, by a brace and nothing else.
    """
    for start, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if indent > 2 or not re.match(r"\s*[\w~\[:<]", line) or TYPE_OR_SCOPE.match(line):
            continue
        opening = opening_line(lines, start, indent)
        if opening is None:
            continue
        inside = re.compile(rf"\s{{{indent + 1}}}|#|$")
        end = next((i for i in range(opening + 1, len(lines)) if not inside.match(lines[i])), start)
        if lines[end].strip() == "}" and end - start + 1 > MAX_FUNCTION_LINES:
            yield start + 1, too_long(line.strip(), end - start + 1)


def opening_line(lines: list[str], start: int, indent: int) -> int | None:
    """Index of the line that ends in "{" for a signature that starts at ``start``, if it is one."""
    for index in range(start, min(start + 12, len(lines))):
        text = lines[index].rstrip()
        if index > start and len(text) - len(text.lstrip()) <= indent:
            return None
        if text.endswith("{"):
            return index if "(" in lines[start] else None
        if text.endswith((";", "}")):
            return None
    return None


def too_long(name: str, length: int) -> str:
    """The offence of a long function."""
    return f"expected at most {MAX_FUNCTION_LINES} lines per function, found {length}: {name}"


if __name__ == "__main__":
    sys.exit(main())
