# SPDX-License-Identifier: Apache-2.0
"""Whether what a string holds can decide what has to come after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Keywords under which one value may decide about another. Most are refused as unsupported, but that
# is not for this module to know.
_DECIDING = frozenset(
    (
        "contains",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "else",
        "if",
        "not",
        "propertyDependencies",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
        "uniqueItems",
    )
)


def has_free_strings(schema: Any) -> bool:
    """True if, in every value of the JSON Schema, what may follow a string that is a value is the
    same whatever that string is. Names of properties do not count: they decide about their values.

    So it is but where a string may tell apart two objects or two arrays that could stand in one
    place, such as ``{"kind": "a", ...}`` and ``{"kind": "b", ...}``. False where that is not clear.
    """
    for part in _mappings(schema):
        if not _DECIDING.isdisjoint(part):
            return False
        for keyword in ("anyOf", "oneOf", "enum"):
            options = part.get(keyword, ())
            if not isinstance(options, Sequence) or isinstance(options, str):
                continue  # a property of that name
            if keyword == "enum":
                options = [{"const": value} for value in options]
            for container in ("object", "array"):
                if sum(_may_be(option, container) for option in options) > 1:
                    return False
    return True


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, Sequence) and not isinstance(part, str):
            waiting.extend(part)


def _may_be(schema: Any, container: str) -> bool:
    """Whether a value of the schema may be an object or an array; True where it does not say."""
    if not isinstance(schema, Mapping):
        return schema is not False
    values = schema.get("enum")
    if isinstance(values, Sequence):
        return any(_may_be({"const": value}, container) for value in values)
    if "const" in schema:
        value = schema["const"]
        is_array = isinstance(value, Sequence) and not isinstance(value, str)
        return isinstance(value, Mapping) if container == "object" else is_array
    kinds = schema.get("type", container)
    return kinds == container or (not isinstance(kinds, str) and container in kinds)
