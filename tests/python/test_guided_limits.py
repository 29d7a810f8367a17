# SPDX-License-Identifier: Apache-2.0
"""What is asked of an answer's form is bounded in size before anything is compiled; what the bounds
let in is cheap enough: tests/server/test_hostile_requests.py.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from manymind.errors import InvalidParameterError
from manymind.guided.formats import grammar_of

STRUCTURE = {"begin": "<a>", "schema": {}, "end": "</a>"}


def padded(text: str, size: int) -> str:
    return text + "/" * (size - len(text))


def as_schema(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"schema": schema}}


def nested(depth: int) -> Any:
    schema: Any = True
    for _ in range(depth):
        schema = {"items": schema}
    return schema


def constant(size: int) -> dict[str, str]:
    """A schema of so many characters, with what is added to each."""
    return {"const": "a" * (size - len(grammar_of(as_schema({"const": ""})).text))}


def tag(structures: int, triggers: int) -> dict[str, Any]:
    return {
        "type": "structural_tag",
        "structures": [STRUCTURE] * structures,
        "triggers": ["<a>"] * triggers,
    }


# Most of what, a form with so many of it, and what the refusal says.
LIMITS: list[tuple[str, int, Any, str]] = [
    ("regex", 8192, lambda n: {"type": "regex", "regex": "a" * n}, "1 to 8192"),
    (
        "grammar",
        1 << 18,
        lambda n: {"type": "grammar", "grammar": padded('start: "ab"\n//', n)},
        "1 to 262144",
    ),
    (
        "gbnf",
        1 << 16,
        lambda n: {"type": "grammar", "grammar": padded('root ::= "a"\n#', n)},
        "1 to 65536",
    ),
    ("choice", 4096, lambda n: {"type": "choice", "choice": ["a"] * n}, "1 to 4096"),
    ("structures", 512, lambda n: tag(n, 1), "1 to 512"),
    ("triggers", 512, lambda n: tag(1, n), "non-empty strings"),
    ("schema", 1 << 19, lambda n: as_schema(constant(n)), "at most 524288"),
    (
        "pattern",
        8192,
        lambda n: as_schema({"type": "string", "pattern": "a" * n}),
        "at most 8192",
    ),
    ("depth", 128, lambda n: as_schema(nested(n)), "at most 128"),
]


@pytest.mark.parametrize(("name", "most", "form", "message"), LIMITS, ids=[i[0] for i in LIMITS])
def test_sizes_are_bounded(name: str, most: int, form: Any, message: str) -> None:
    grammar_of(form(most))
    with pytest.raises(InvalidParameterError, match=f"response_format.*{message}"):
        grammar_of(form(most + 1))


def test_a_schema_that_is_too_long_is_refused_by_where_it_is() -> None:
    long = {"enum": ["a" * 1000] * 400}
    schema = {"$defs": {"a": {"anyOf": [long, long]}, "b": long}, "properties": {"c": long}}
    for part, where in (
        ({}, r"schema\.\$defs\.a\.anyOf: "),
        ({"$defs": {"a": long, "b": long}}, r"schema\.\$defs: "),
        ({"$defs": long, "not": {"enum": [0]}}, r"schema\.properties: "),
    ):
        with pytest.raises(InvalidParameterError, match=where):
            grammar_of(as_schema({**schema, **part}))


def test_what_says_nothing_about_values_does_not_count() -> None:
    notes = {"title": "t", "description": "d" * 300_000, "default": "e" * 300_000}
    kept = {"type": "object", "properties": {"title": {"type": "string"}}}
    noted = {**notes, **kept, "properties": {"title": {"type": "string", **notes}}}
    assert grammar_of(as_schema(noted)) == grammar_of(as_schema(kept))


def test_empty_lines_cost_little() -> None:
    """Whether a text is Lark is asked before its length as GBNF: not by looking from every line to
    the end, which took seconds for this one and minutes for the longest, all threads waiting.
    """
    begin = time.process_time()
    with pytest.raises(InvalidParameterError, match="neither"):
        grammar_of({"type": "grammar", "grammar": "\n" * 30_000})
    assert grammar_of({"type": "grammar", "grammar": "\n" * 30_000 + " start : A"}).kind == "lark"
    assert time.process_time() - begin < 2.0
