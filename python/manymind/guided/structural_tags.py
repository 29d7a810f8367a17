# SPDX-License-Identifier: Apache-2.0
"""Free text in which a trigger begins a tag whose body follows a schema: tool calls and the like.

The form is xgrammar's: ``structures`` of ``begin``, ``schema`` and ``end``, and ``triggers``, each
the beginning of some ``begin``. With ``parameter_begin`` and ``parameter_end`` the body is not JSON
but a form of tags, with ``parameter_begin`` and ``parameter_separator`` a list of arguments, see
``argument_forms``. Once a trigger is in the text, one of the structures that begin with it has to
follow to its end; then the text is free again.

Where ``begin`` and ``end`` name control tokens of the model, such as Mistral's ``[TOOL_CALLS]``,
the tokens themselves are meant: text cannot contain them, but for those of ``text_tokens``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from manymind.errors import InvalidParameterError
from manymind.guided.argument_forms import listed_arguments, text_rules, xml_body
from manymind.guided.json_schema import schema_text
from manymind.guided.lark import Spelling, quoted
from manymind.validation import require, require_bool

MAX_STRUCTURES = 512
_FIELDS = frozenset(("begin", "schema", "end"))
_FORMS = (
    _FIELDS,
    _FIELDS | {"parameter_begin", "parameter_end"},
    _FIELDS | {"parameter_begin", "parameter_separator"},
)


class Structure(NamedTuple):
    """One of the tags."""

    begin: str
    body: str  # in Lark
    end: str
    parameter_end: str = ""
    rules: Sequence[str] = ()  # that the body uses


def structural_tag_grammar(
    tag: Mapping[str, Any], name: str, control_ids: Mapping[str, int]
) -> tuple[str, tuple[str, ...]]:
    """The Lark grammar of a structural tag, and the words that end the free texts in it.

    With ``at_least_one`` the text begins with a structure, with ``stop_after_first`` it ends with
    the first. control_ids: the model's control tokens. Raises InvalidParameterError.
    """
    structures = _read_structures(tag["structures"], f"{name}.structures")
    triggers = _read_triggers(tag["triggers"], f"{name}.triggers")
    at_least_one = tag.get("at_least_one", False)
    stop_after_first = tag.get("stop_after_first", False)
    require_bool(f"{name}.at_least_one", at_least_one)
    require_bool(f"{name}.stop_after_first", stop_after_first)
    for index, structure in enumerate(structures):
        if not any(structure.begin.startswith(trigger) for trigger in triggers):
            raise InvalidParameterError(
                f"{name}.structures[{index}].begin: expected to begin with one of the triggers, "
                f"found {structure.begin!r}"
            )
    ends = {item.parameter_end.rstrip() for item in structures if item.parameter_end}
    spelling = Spelling(control_ids)
    asides = _read_text_tokens(tag.get("text_tokens", []), f"{name}.text_tokens", spelling)
    start = _start_rule(spelling, triggers, at_least_one, stop_after_first, bool(asides))
    return _write_grammar(spelling, structures, triggers, start, asides), tuple(sorted(ends))


def _start_rule(
    spelling: Spelling,
    triggers: list[str],
    at_least_one: bool,
    stop_after_first: bool,
    asides: bool,
) -> str:
    first = " | ".join(f"{spelling.literal(word)} body_{i}" for i, word in enumerate(triggers))
    more = "(tagged | aside)*" if asides else "tagged*"
    if at_least_one:
        return f"({first})" if stop_after_first else f"({first}) {more} TEXT"
    if stop_after_first:
        return "aside* (tagged | TEXT)" if asides else "tagged | TEXT"
    return f"{more} TEXT"


def _write_grammar(
    spelling: Spelling,
    structures: list[Structure],
    triggers: list[str],
    start: str,
    asides: list[str],
) -> str:
    # Text stops at the first trigger: the lexer leaves a lazy terminal as soon as it matches, and
    # the plain text at the end holds none. A control token is in no text anyway.
    lines = [f"start: {start}", f"TEXT: {spelling.text_without(triggers)}"]
    if asides:
        lines.append(f"aside: TEXT ({' | '.join(map(spelling.literal, asides))})")
    lines.append("tagged: " + " | ".join(f"tagged_{i}" for i in range(len(triggers))))
    for i, trigger in enumerate(triggers):
        if spelling.has_control(trigger):
            lines.append(f"trigger_{i}: TEXT {spelling.literal(trigger)}")
        else:
            lines.append(f"trigger_{i}[lazy]: /(?s:.*)/ {quoted(trigger)}")
        bodies = [
            f"{spelling.literal(structure.begin[len(trigger) :])} {structure.body} "
            f"{spelling.literal(structure.end)}"
            for structure in structures
            if structure.begin.startswith(trigger)
        ]
        lines += [f"tagged_{i}: trigger_{i} body_{i}", f"body_{i}: " + "\n  | ".join(bodies)]
    lines += [rule for structure in structures for rule in structure.rules]
    lines += text_rules({item.parameter_end for item in structures if item.parameter_end})
    return "%llguidance {}\n" + "\n".join(lines) + "\n"


def _read_structures(value: object, name: str) -> list[Structure]:
    valid = _is_list(value) and 0 < len(value) <= MAX_STRUCTURES  # type: ignore[arg-type]
    require(valid, name, f"a list of 1 to {MAX_STRUCTURES} structures", value)
    return [read_structure(item, i, f"{name}[{i}]") for i, item in enumerate(value)]  # type: ignore[arg-type, var-annotated]


def read_structure(value: object, index: int, name: str) -> Structure:
    """A tag as callers write it. index: a number of its own, for its rules.

    Raises InvalidParameterError.
    """
    valid = isinstance(value, Mapping) and set(value) in _FORMS
    expected = "'begin', 'schema' and 'end', and besides them nothing, or 'parameter_begin' and "
    expected += "either 'parameter_end' or 'parameter_separator'"
    require(valid, name, f"a mapping of {expected}", value)
    assert isinstance(value, Mapping)
    for field in set(value) - {"schema"}:
        require(isinstance(value[field], str), f"{name}.{field}", "a str", value[field])
    begin, schema, end = value["begin"], value["schema"], value["end"]
    if "parameter_separator" in value:
        separator = value["parameter_separator"]
        listed = listed_arguments(
            schema, value["parameter_begin"], separator, name, f"argument_{index}"
        )
        return Structure(begin, listed[0], end, rules=listed[1])
    if "parameter_end" not in value:
        return Structure(begin, f"%json {schema_text(schema, f'{name}.schema')}", end)
    parameter_end = value["parameter_end"]
    body = xml_body(schema, value["parameter_begin"], parameter_end, name)
    return Structure(begin, body, end, parameter_end)


def _read_triggers(value: object, name: str) -> list[str]:
    valid = _is_list(value) and 0 < len(value) <= MAX_STRUCTURES  # type: ignore[arg-type]
    valid = valid and all(isinstance(item, str) and item for item in value)  # type: ignore[attr-defined]
    require(valid, name, "a list of non-empty strings", value)
    triggers = list(dict.fromkeys(value))  # type: ignore[call-overload]
    for one in triggers:
        for other in triggers:
            overlap = one is not other and one in other
            require(not overlap, name, "triggers that are not part of each other", value)
    return triggers


def _read_text_tokens(value: object, name: str, spelling: Spelling) -> list[str]:
    valid = _is_list(value) and all(isinstance(item, str) and item for item in value)  # type: ignore[attr-defined]
    require(valid, name, "a list of non-empty strings", value)
    # What is no control token is text.
    return [item for item in dict.fromkeys(value) if spelling.is_control(item)]  # type: ignore[call-overload]


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))
