# SPDX-License-Identifier: Apache-2.0
"""A short text for a regular expression, to help the search for a way to the end of a grammar.

What comes out is a hint: the grammar checks it. Python's own parser reads the expression, so one in
another dialect that it does not know has no example.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_MODERN = sys.version_info >= (3, 11)
_parser: Any = importlib.import_module("re._parser" if _MODERN else "sre_parse")
_codes: Any = importlib.import_module("re._constants" if _MODERN else "sre_constants")

MAX_EXAMPLES = 64
MAX_EXAMPLE_CHARS = 48
_CATEGORY = {
    _codes.CATEGORY_DIGIT: "0",
    _codes.CATEGORY_WORD: "a",
    _codes.CATEGORY_SPACE: " ",
    _codes.CATEGORY_NOT_DIGIT: "a",
    _codes.CATEGORY_NOT_WORD: "-",
    _codes.CATEGORY_NOT_SPACE: "a",
}
_TRIED = "a0-A._/ "  # for sets that exclude


def pattern_examples(schema: Any) -> tuple[str, ...]:
    """Examples of all ``pattern`` and ``patternProperties`` of a JSON Schema, as JSON writes
    them.
    """
    examples: dict[str, None] = {}
    for pattern in _patterns(schema):
        if len(examples) == MAX_EXAMPLES:
            break
        examples[json.dumps(example_of(pattern), ensure_ascii=False)[1:-1]] = None
    return tuple(text for text in examples if text)


def example_of(pattern: str) -> str:
    """A text that the expression matches, or "" if none was found."""
    try:
        text = "".join(_walk(_parser.parse(pattern)))
    except (re.error, RecursionError, OverflowError, NotImplementedError):
        return ""
    return text if len(text) <= MAX_EXAMPLE_CHARS else ""


def _patterns(schema: Any) -> Iterator[str]:
    waiting = [schema]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            if isinstance(item.get("pattern"), str):
                yield item["pattern"]
            named = item.get("patternProperties")
            if isinstance(named, Mapping):
                yield from named
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _walk(nodes: Iterable[tuple[Any, Any]]) -> Iterator[str]:
    for kind, value in nodes:
        if kind is _codes.LITERAL:
            yield chr(value)
        elif kind is _codes.NOT_LITERAL:
            yield _outside([(_codes.LITERAL, value)])
        elif kind is _codes.ANY:
            yield "a"
        elif kind is _codes.IN:
            yield _member(value)
        elif kind is _codes.BRANCH:
            yield min(("".join(_walk(branch)) for branch in value[1]), key=len)
        elif kind is _codes.SUBPATTERN:
            yield from _walk(value[-1])
        elif kind in (_codes.MAX_REPEAT, _codes.MIN_REPEAT):
            yield "".join(_walk(value[2])) * min(value[0], MAX_EXAMPLE_CHARS + 1)
        elif kind is not _codes.AT:
            raise NotImplementedError(str(kind))


def _member(items: list[tuple[Any, Any]]) -> str:
    kind, value = items[0]
    if kind is _codes.NEGATE:
        return _outside(items[1:])
    if kind is _codes.RANGE:
        return chr(value[0])
    return chr(value) if kind is _codes.LITERAL else _CATEGORY[value]


def _outside(items: list[tuple[Any, Any]]) -> str:
    excluded = {_member([item]) for item in items}
    ranges = [value for kind, value in items if kind is _codes.RANGE]
    for character in _TRIED:
        in_range = any(low <= ord(character) <= high for low, high in ranges)
        if character not in excluded and not in_range:
            return character
    return "~"
