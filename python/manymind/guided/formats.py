# SPDX-License-Identifier: Apache-2.0
"""What callers write as ``response_format``, and the grammar each form means.

The forms, by ``type``; those of one name are LMDeploy's, OpenAI's and vLLM's own:

- ``text``: no restriction.
- ``json_object``: any JSON object.
- ``json_schema``: ``{"json_schema": {"name": ..., "schema": {...}}}``.
- ``regex``: ``{"regex": "..."}``; ``regex_schema``: ``{"regex_schema": "..."}``. Rust's syntax, of
  which ``\\d``, ``\\w`` and ``\\s`` are ASCII here.
- ``choice``: ``{"choice": ["yes", "no"]}``.
- ``grammar``: ``{"grammar": "..."}`` in llama.cpp's GBNF or in llguidance's variant of Lark.
- ``structural_tag``: ``{"structures": [{"begin", "schema", "end"}, ...], "triggers": [...]}``; with
  ``parameter_begin`` and ``parameter_end`` a structure is a form of tags, with ``parameter_begin``
  and ``parameter_separator`` a list of arguments. With ``at_least_one`` the text begins with a
  structure, with ``stop_after_first`` it ends with the first. ``text_tokens`` are control tokens
  that the free text may hold, such as the marks of reasoning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from manymind.errors import InvalidParameterError
from manymind.guided.examples import example_of, pattern_examples
from manymind.guided.free_strings import has_free_strings
from manymind.guided.json_schema import schema_text
from manymind.guided.structural_tags import structural_tag_grammar
from manymind.validation import require

# Compiling takes a stack in proportion to the chains of rules in it (256 KiB of the shortest rules
# fit), and for expressions time with the square of their length (8 KiB: some seconds).
MAX_GRAMMAR_CHARS = 1 << 18
# Its conversion takes time with the square of the number of rules where each names the next.
MAX_GBNF_CHARS = 1 << 16
MAX_REGEX_CHARS = 1 << 13
MAX_CHOICES = 4096
# What makes a grammar Lark: the signs that llguidance goes by. Its own expression for them takes
# time with the square of the number of empty lines, minutes for those that fit.
_LARK_SIGN = re.compile(r"(?m)^[^\S\n]*(%llguidance\b|start\s*:)")


class Grammar(NamedTuple):
    """A grammar in one of llguidance's notations: "json_schema" or "lark".

    ``hints`` are examples of the regular expressions in it, ``exits`` what ends its free texts,
    ``free_strings`` is ``has_free_strings`` of a schema.
    """

    kind: str
    text: str
    hints: tuple[str, ...] = ()
    exits: tuple[str, ...] = ()
    free_strings: bool = False


def is_constrained(response_format: Mapping[str, Any] | None) -> bool:
    """False where nothing is asked of the text."""
    return response_format is not None and response_format.get("type") != "text"


def check_response_format(response_format: object) -> None:
    """Raises InvalidParameterError unless it has a known ``type`` and that type's fields only."""
    if response_format is None:
        return
    valid = isinstance(response_format, Mapping)
    require(valid, "response_format", "a mapping with a 'type'", response_format)
    assert isinstance(response_format, Mapping)
    kind = response_format.get("type")
    known = ", ".join(RESPONSE_FORMATS)
    require(
        isinstance(kind, str) and kind in RESPONSE_FORMATS,
        "response_format.type",
        f"one of {known}",
        kind,
    )
    fields = RESPONSE_FORMATS[str(kind)]
    for name in response_format:
        if name != "type" and name not in fields:
            raise InvalidParameterError(
                f"response_format.{name}: this field is not supported with type {kind!r}"
            )
    for name, optional in fields.items():
        if not optional and name not in response_format:
            raise InvalidParameterError(f"response_format.{name}: expected with type {kind!r}")


def grammar_of(
    response_format: Mapping[str, Any], control_ids: Mapping[str, int] = MappingProxyType({})
) -> Grammar:
    """The grammar of a constrained response format. control_ids: the model's control tokens.

    Raises InvalidParameterError naming the field, or the keyword of the schema, that is wrong,
    unsupported or too large.
    """
    check_response_format(response_format)
    if response_format["type"] == "structural_tag":
        name = "response_format"
        text, exits = structural_tag_grammar(response_format, name, control_ids)
        return _lark(text, name)._replace(exits=exits)
    return _GRAMMARS[response_format["type"]](response_format)


def _json_object(_: Mapping[str, Any]) -> Grammar:
    schema = {"type": "object"}
    text = schema_text(schema, "response_format")
    return Grammar("json_schema", text, free_strings=has_free_strings(schema))


def _json_schema(response_format: Mapping[str, Any]) -> Grammar:
    wrapper = response_format["json_schema"]
    name = "response_format.json_schema"
    valid = isinstance(wrapper, Mapping) and "schema" in wrapper
    require(valid, name, "a mapping with a 'schema'", wrapper)
    for field in wrapper:
        if field not in ("name", "description", "schema", "strict"):
            raise InvalidParameterError(f"{name}.{field}: this field is not supported")
    schema = wrapper["schema"]
    text = schema_text(schema, f"{name}.schema")
    hints = pattern_examples(schema)
    return Grammar("json_schema", text, hints, free_strings=has_free_strings(schema))


def _regex(response_format: Mapping[str, Any]) -> Grammar:
    field = response_format["type"]
    pattern = response_format[field]
    _require_text(f"response_format.{field}", pattern, MAX_REGEX_CHARS)
    from llguidance import regex_to_lark

    # ASCII classes: a model that may write any script's digits does.
    lark = _lark(f"start: /{regex_to_lark(pattern, 'dws')}/\n", f"response_format.{field}")
    return lark._replace(hints=(example_of(pattern),))


def _choice(response_format: Mapping[str, Any]) -> Grammar:
    choices = response_format["choice"]
    valid = (
        isinstance(choices, Sequence)
        and not isinstance(choices, str)
        and 0 < len(choices) <= MAX_CHOICES
        and all(isinstance(choice, str) and choice for choice in choices)
    )
    expected = f"1 to {MAX_CHOICES} non-empty strings"
    require(valid, "response_format.choice", expected, choices)
    words = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
    return _lark(f"start: {words}\n", "response_format.choice")


def _grammar(response_format: Mapping[str, Any]) -> Grammar:
    text = response_format["grammar"]
    _require_text("response_format.grammar", text, MAX_GRAMMAR_CHARS)
    if _LARK_SIGN.search(text):
        return _lark(text, "response_format.grammar")
    _require_text("response_format.grammar", text, MAX_GBNF_CHARS)
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        lark = gbnf_to_lark(text)
    except Exception as error:  # it raises bare ones, and IndexError where a text ends too early
        raise InvalidParameterError(
            f"response_format.grammar: expected GBNF or Lark, found a text that is neither: {error}"
        ) from error
    return _lark(lark, "response_format.grammar")


def _lark(text: str, name: str) -> Grammar:
    _require_text(name, text, MAX_GRAMMAR_CHARS)
    return Grammar("lark", text)


def _require_text(name: str, text: object, most: int) -> None:
    valid = isinstance(text, str) and 0 < len(text) <= most and "\0" not in text
    found = f"{len(text)} characters" if isinstance(text, str) else text
    require(valid, name, f"a str of 1 to {most} characters without NUL", found)


_GRAMMARS: Mapping[str, Callable[[Mapping[str, Any]], Grammar]] = MappingProxyType(
    {
        "json_object": _json_object,
        "json_schema": _json_schema,
        "regex": _regex,
        "regex_schema": _regex,
        "choice": _choice,
        "grammar": _grammar,
    }
)
# Fields of each type, and whether they may be left out.
RESPONSE_FORMATS: Mapping[str, Mapping[str, bool]] = MappingProxyType(
    {
        "text": {},
        "json_object": {},
        "json_schema": {"json_schema": False},
        "regex": {"regex": False},
        "regex_schema": {"regex_schema": False},
        "choice": {"choice": False},
        "grammar": {"grammar": False},
        "structural_tag": {
            "structures": False,
            "triggers": False,
            "at_least_one": True,
            "stop_after_first": True,
            "text_tokens": True,
        },
    }
)
