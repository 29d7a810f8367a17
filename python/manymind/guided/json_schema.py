# SPDX-License-Identifier: Apache-2.0
"""A caller's JSON Schema, made ready for llguidance.

What llguidance enforces exactly stays as it is; what it would enforce wrongly is refused here, and
what it does not know it refuses itself, by name. ``format`` is an annotation to JSON Schema
(2020-12 validation, section 7.2): formats llguidance knows are enforced, others are dropped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Set
from typing import Any

from manymind.errors import InvalidParameterError
from manymind.validation import require

MAX_SCHEMA_CHARS = 1 << 19
MAX_PATTERN_CHARS = 1 << 13  # of one regular expression
MAX_DEPTH = 128  # of schemas within schemas
_MAX_NAMED_DEPTH = 4  # of what is said to be too long; each level takes time with the text

# Models like to indent; the bound keeps one that has nothing more to say from doing so for ever.
WHITESPACE = r" |\n {0,32}|\n\t{0,16}"

ENFORCED_FORMATS = frozenset(
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"]
)

# Without scheme and "#", which authors write either way, to what llguidance expects.
_DRAFTS = {
    **{
        f"json-schema.org/draft-0{n}/schema": f"http://json-schema.org/draft-0{n}/schema"
        for n in (4, 6, 7)
    },
    **{
        f"json-schema.org/draft/{year}/schema": f"https://json-schema.org/draft/{year}/schema"
        for year in ("2019-09", "2020-12")
    },
}

# Say nothing about values (2020-12 validation, section 9), and are much of what people write.
_ANNOTATIONS = frozenset(
    (
        "$comment",
        "default",
        "deprecated",
        "description",
        "examples",
        "readOnly",
        "title",
        "writeOnly",
    )
)

_SCHEMA = frozenset(
    (
        "additionalItems",
        "additionalProperties",
        "contains",
        "else",
        "if",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    )
)
_SCHEMA_LISTS = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))
_SCHEMA_MAPS = frozenset(
    ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")
)

# Keywords whose values ``_prepare`` has seen to, and those that hold values rather than schemas.
_PREPARED = _SCHEMA | _SCHEMA_LISTS | _SCHEMA_MAPS | {"items", "const", "enum"}


def schema_text(schema: object, name: str) -> str:
    """The schema as llguidance takes it.

    Raises InvalidParameterError naming ``name`` and the keyword that is the matter.
    """
    valid = isinstance(schema, (Mapping, bool))
    require(valid, name, "a JSON Schema: an object or a bool", schema)
    prepared = _prepare(schema, name, 0, _ANNOTATIONS - _referred(schema))
    if not isinstance(prepared, dict):
        prepared = {} if prepared else {"not": {}}
    prepared["x-guidance"] = {"whitespace_pattern": WHITESPACE}
    try:
        text = json.dumps(prepared, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(f"{name}: expected JSON values only: {error}") from error
    if len(text) > MAX_SCHEMA_CHARS:
        where, size = _largest(prepared, name)
        raise InvalidParameterError(
            f"{where}: expected a schema of at most {MAX_SCHEMA_CHARS} characters without its "
            f"annotations, found {len(text)}, of which {size} are of this keyword"
        )
    return text


def _largest(schema: Mapping[str, Any], name: str) -> tuple[str, int]:
    """Where most of a schema is, as narrow as it alone is too long, and its characters."""
    value: Any = schema
    size = 0
    for _ in range(_MAX_NAMED_DEPTH):
        keyed = isinstance(value, Mapping)
        items = value.items() if keyed else enumerate(value) if isinstance(value, list) else ()
        sizes = [(len(json.dumps(item, ensure_ascii=False)), key) for key, item in items]
        most, key = max(sizes, key=lambda pair: pair[0], default=(0, None))
        if size and most <= MAX_SCHEMA_CHARS:
            break
        value, size = value[key], most
        name += f".{key}" if keyed else f"[{key}]"
    return name, size


def _referred(schema: object) -> set[str]:
    """Words on the way of references within the schema: some authors keep schemas in examples."""
    words: set[str] = set()
    waiting: list[Any] = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            reference = value.get("$ref")
            if isinstance(reference, str) and reference.startswith("#/"):
                words.update(reference.split("/"))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return words


def _prepare(schema: Any, name: str, depth: int, dropped: Set[str]) -> Any:
    """A copy of a schema without the annotations that are dropped, or of a value where a schema is
    expected but something else stands.
    """
    if not isinstance(schema, Mapping):
        return schema
    _require_depth(depth, name)
    if "x-guidance" in schema:
        raise InvalidParameterError(f"{name}.x-guidance: this keyword is not supported")
    _refuse_uncountable(schema, name)
    _refuse_long_patterns(schema, name)
    return {
        key: _prepare_value(key, value, name, depth, dropped)
        for key, value in _kept(schema, dropped)
    }


def _require_depth(depth: int, name: str) -> None:
    require(depth < MAX_DEPTH, name, f"at most {MAX_DEPTH} schemas within each other", "more")


def _kept(schema: Mapping[str, Any], dropped: Set[str]) -> Iterator[tuple[str, Any]]:
    for key, value in schema.items():
        if key in dropped:
            continue
        if key == "format" and value not in ENFORCED_FORMATS:
            continue
        # Implied by what is required, or by there being no bound at all.
        if key == "minProperties" and _is_implied_minimum(schema, value):
            continue
        yield key, value


def _prepare_value(key: str, value: Any, name: str, depth: int, dropped: Set[str]) -> Any:
    where = f"{name}.{key}"
    if key == "$schema":
        return _draft(value, name)
    if key in _SCHEMA or (key == "items" and isinstance(value, Mapping)):
        return _prepare(value, where, depth + 1, dropped)
    if (key in _SCHEMA_LISTS or key == "items") and isinstance(value, list):
        return [_prepare(item, f"{where}[{i}]", depth + 1, dropped) for i, item in enumerate(value)]
    if key in _SCHEMA_MAPS and isinstance(value, Mapping):
        return {k: _prepare(item, f"{where}.{k}", depth + 1, dropped) for k, item in value.items()}
    if key in _ANNOTATIONS:
        return _prepare_inside(value, where, depth + 1, dropped)
    return value


def _prepare_inside(value: Any, name: str, depth: int, dropped: Set[str]) -> Any:
    """An annotation that a reference leads into, where anything may be a schema."""
    if isinstance(value, list):
        _require_depth(depth, name)
        return [
            _prepare_inside(item, f"{name}[{i}]", depth + 1, dropped)
            for i, item in enumerate(value)
        ]
    if not isinstance(value, Mapping):
        return value
    return {
        key: item
        if key in _PREPARED
        else _prepare_inside(item, f"{name}.{key}", depth + 1, dropped)
        for key, item in _prepare(value, name, depth, dropped).items()
    }


def _is_implied_minimum(schema: Mapping[str, Any], minimum: Any) -> bool:
    required = schema.get("required")
    distinct = len(set(required)) if isinstance(required, list) and _is_strings(required) else 0
    return isinstance(minimum, int) and not isinstance(minimum, bool) and minimum <= distinct


def _draft(value: Any, name: str) -> str:
    known = None
    if isinstance(value, str):
        known = _DRAFTS.get(value.partition("://")[2].removesuffix("#"))
    require(known is not None, f"{name}.$schema", f"one of {', '.join(_DRAFTS.values())}", value)
    return str(known)


def _refuse_uncountable(schema: Mapping[str, Any], name: str) -> None:
    """Keys that no property names may repeat, and a reader of JSON counts repeated keys once."""
    minimum = schema.get("minProperties", 0)
    if isinstance(minimum, int) and minimum > 1 and not _is_implied_minimum(schema, minimum):
        raise InvalidParameterError(
            f"{name}.minProperties: expected at most 1 or the number of required properties, "
            f"found {minimum}: more is not supported"
        )


def _refuse_long_patterns(schema: Mapping[str, Any], name: str) -> None:
    named = schema.get("patternProperties")
    patterns = [("patternProperties", key) for key in named] if isinstance(named, Mapping) else []
    for keyword, pattern in [*patterns, ("pattern", schema.get("pattern"))]:
        fits = not isinstance(pattern, str) or len(pattern) <= MAX_PATTERN_CHARS
        require(fits, f"{name}.{keyword}", f"at most {MAX_PATTERN_CHARS} characters", "more")


def _is_strings(values: list[Any]) -> bool:
    return all(isinstance(item, str) for item in values)
