# SPDX-License-Identifier: Apache-2.0
"""JSON read from untrusted files: bounded size, unique keys, typed errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from manymind.errors import CheckpointError

MAX_CONFIG_BYTES = 64 << 20
_T = TypeVar("_T")


def parse_json_object(text: bytes, field: str) -> dict[str, Any]:
    """The object encoded in ``text``. Raises CheckpointError on anything else, duplicate keys
    included."""
    value = _parse(text, field)
    if not isinstance(value, dict):
        raise CheckpointError(field, "a JSON object", type(value).__name__)
    return value


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in the file ``path``. Raises CheckpointError if it is unreadable, too large or not
    an object."""
    return _read(path, lambda text: parse_json_object(text, "content"))


def read_json_list(path: Path) -> list[Any]:
    """The list in the file ``path``. Raises CheckpointError if it is unreadable, too large or not a
    list."""

    def parse(text: bytes) -> list[Any]:
        value = _parse(text, "content")
        if not isinstance(value, list):
            raise CheckpointError("content", "a JSON list", type(value).__name__)
        return value

    return _read(path, parse)


def _parse(text: bytes, field: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, field))
        if b"\\u" in text:  # the one way to write half a surrogate pair, which no encoder takes
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise CheckpointError(field, "valid JSON", error) from error
    return value


def _read(path: Path, parse: Callable[[bytes], _T]) -> _T:
    try:
        size = path.stat().st_size
        if size > MAX_CONFIG_BYTES:
            raise CheckpointError("size", f"at most {MAX_CONFIG_BYTES} bytes", size, path)
        return parse(path.read_bytes())
    except OSError as error:
        raise CheckpointError("file", "a readable file", error, path) from error
    except CheckpointError as error:
        raise error.located(path) from error


def _unique(pairs: list[tuple[str, Any]], field: str) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        duplicate = next(key for key in keys if keys.count(key) > 1)
        raise CheckpointError(field, "each key once", f"{duplicate!r} twice")
    return result
