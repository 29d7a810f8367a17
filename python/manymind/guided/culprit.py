# SPDX-License-Identifier: Apache-2.0
"""Which keyword of a JSON Schema is why it cannot be kept, where the grammar's library names none.

Found by trial: the schema is compiled again without one keyword after another.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# In the order in which they are tried: what asks for much first, what most schemas have last.
KEYWORDS = (
    "minItems",
    "minLength",
    "maxLength",
    "maxItems",
    "multipleOf",
    "pattern",
    "patternProperties",
    "minProperties",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "exclusiveMaximum",
    "not",
    "$ref",
    "oneOf",
    "allOf",
    "anyOf",
    "enum",
    "const",
    "format",
    "required",
    "prefixItems",
    "items",
    "additionalProperties",
    "properties",
    "type",
)
SECONDS = 1.0  # after which no further keyword is tried


def names_keyword(message: str) -> bool:
    """Whether a message says a keyword already."""
    return any(re.search(rf"(?<![\w$]){re.escape(word)}(?!\w)", message) for word in KEYWORDS)


def culprit(schema_text: str, compiles: Callable[[str], bool]) -> str:
    """The keyword without which the schema compiles; where none alone is enough, or finding it
    takes too long, all that it has.
    """
    schema = json.loads(schema_text)
    present = set(_keywords(schema))
    candidates = [word for word in KEYWORDS if word in present]
    deadline = time.monotonic() + SECONDS
    for word in candidates:
        if time.monotonic() > deadline:
            break
        if compiles(json.dumps(_without(schema, word), ensure_ascii=False)):
            return word
    return ", ".join(candidates)


def _keywords(schema: Any) -> Iterator[str]:
    waiting = [schema]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            yield from item
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _without(schema: Any, word: str) -> Any:
    if isinstance(schema, Mapping):
        return {key: _without(value, word) for key, value in schema.items() if key != word}
    return [_without(item, word) for item in schema] if isinstance(schema, list) else schema
