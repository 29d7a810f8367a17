# SPDX-License-Identifier: Apache-2.0
"""Arguments one by one rather than as an object: between tags of their own, as Qwen3-Coder and GLM
write them (a string stands there as it is, anything else as JSON), or listed as Python calls do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manymind.errors import InvalidParameterError
from manymind.guided.json_schema import schema_text
from manymind.guided.lark import as_regex, quoted
from manymind.validation import require

# What says nothing about a value, and what is known of the object and of its strings besides.
_NOTES = frozenset(("description", "title", "default", "examples", "$schema", "$comment"))
_OBJECT = _NOTES | {"type", "properties", "required", "additionalProperties", "$defs"}
_STRING = _NOTES | {"type", "enum", "const"}


def xml_body(schema: object, begin: str, end: str, name: str) -> str:
    """Lark for the arguments of an object schema, in the order of its properties.

    begin, end: what stands around a value; "{name}" in begin is the argument's name, "{is_string}"
    true or false. Raises InvalidParameterError naming a keyword that such a form cannot keep.
    """
    require("{name}" in begin, f"{name}.parameter_begin", "a str with '{name}' in it", begin)
    require(bool(end.strip()), f"{name}.parameter_end", "a str with more than space in it", end)
    name = f"{name}.schema"
    properties, required, shared = properties_of(schema, name)
    end_tag, space = end.rstrip(), quoted(end[len(end.rstrip()) :])
    if _takes_any(schema):
        # Of which nothing is known, not even whether they are text.
        opening = as_regex(begin).replace(as_regex("{name}"), r'[^<>"\s]{1,64}')
        opening = opening.replace(as_regex("{is_string}"), "(true|false)")
        return f"(/{opening}/ {_rule_name(end_tag)} {space})*"
    # Where a value begins on a line of its own, it may end one, too.
    closing = f"/\\n?/ {quoted(end_tag)}" if begin.endswith("\n") else quoted(end_tag)
    parts = []
    for key, value in properties.items():
        where = f"{name}.properties.{key}"
        body = _value(value, shared, where)
        # A lazy terminal ends with the first end tag, which no parser could tell from text.
        closed = f"{body} {closing}" if body else _rule_name(end_tag)
        kind = "false" if body.startswith("%json") else "true"
        opening = begin.replace("{is_string}", kind).replace("{name}", key)
        part = f"{quoted(opening)} {closed} {space}"
        parts.append(part if key in required else f"({part})?")
    return " ".join(parts)


def listed_arguments(
    schema: object, begin: str, separator: str, name: str, rule: str
) -> tuple[str, list[str]]:
    """Lark for arguments as a call lists them, ``city="Rome", days=2``, and the rules it uses,
    whose names begin with ``rule``. Values are JSON, in the order of the schema's properties.

    begin: what stands before a value, with "{name}" in it; separator: what stands between two.
    Raises InvalidParameterError naming a keyword that such a list cannot keep.
    """
    require("{name}" in begin, f"{name}.parameter_begin", "a str with '{name}' in it", begin)
    require(bool(separator), f"{name}.parameter_separator", "a str that is not empty", separator)
    properties, required, shared = properties_of(schema, f"{name}.schema")
    if _takes_any(schema):
        pair = as_regex(begin).replace(as_regex("{name}"), "[A-Za-z_][A-Za-z0-9_]{0,63}")
        return f"({rule} ({quoted(separator)} {rule})*)?", [f"{rule}: /{pair}/ %json {{}}"]
    rules: list[str] = []
    firsts: list[str] = []
    rest = ""
    for index, (key, value) in reversed(list(enumerate(properties.items()))):
        text = json_value(value, shared, f"{name}.schema.properties.{key}")
        rules.append(f"{rule}_{index}: {quoted(begin.replace('{name}', key))} {text}")
        following = f"{quoted(separator)} {rule}_{index}"
        # What comes first has nothing before it that a separator could separate it from.
        firsts = [] if key in required else firsts
        firsts.insert(0, f"{rule}_{index} {rest}")
        rest = f"{following} {rest}" if key in required else f"({following})? {rest}"
    if not required:
        firsts.append('""')
    return f"({' | '.join(firsts)})", rules


def properties_of(
    schema: object, name: str
) -> tuple[Mapping[str, Any], set[str], Mapping[str, Any]]:
    """Of an object schema of known keywords only: its properties, the names of those that must be
    there, and the definitions that they share. Raises InvalidParameterError.
    """
    require(isinstance(schema, Mapping), name, "a JSON Schema of an object", schema)
    assert isinstance(schema, Mapping)
    _refuse_others(schema, _OBJECT, name)
    require(schema.get("type", "object") == "object", f"{name}.type", "object", schema.get("type"))
    properties = schema.get("properties", {})
    require(isinstance(properties, Mapping), f"{name}.properties", "an object", properties)
    listed = schema.get("required", [])
    require(_are_strings(listed), f"{name}.required", "a list of str", listed)
    missing = sorted(set(listed) - set(properties))
    require(not missing, f"{name}.required", "names of properties", missing)
    shared = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    return properties, set(listed), shared


def json_value(schema: Any, shared: Mapping[str, Any], name: str) -> str:
    """Lark for a value in JSON."""
    require(isinstance(schema, (Mapping, bool)), name, "a JSON Schema", schema)
    value = {**schema, **shared} if isinstance(schema, Mapping) else schema
    return f"%json {schema_text(value, name)}"


def _value(schema: Any, shared: Mapping[str, Any], name: str) -> str:
    """Lark for a value; "" for free text."""
    require(isinstance(schema, (Mapping, bool)), name, "a JSON Schema", schema)
    if isinstance(schema, Mapping) and "enum" in schema:
        values = schema["enum"]
        valid = isinstance(values, (list, tuple)) and bool(values)
        require(valid, f"{name}.enum", "a list of one or more values", values)
    if not isinstance(schema, Mapping) or not _is_text(schema):
        return json_value(schema, shared, name)
    _refuse_others(schema, _STRING, name)
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    return "" if choices is None else f"({' | '.join(map(quoted, choices))})"


def text_rules(ends: set[str]) -> list[str]:
    """The rules that the bodies of forms with these ``parameter_end`` use."""
    tags = sorted({end.rstrip() for end in ends})
    return [f"{_rule_name(tag)}[lazy]: /(?s:.*)/ {quoted(tag)}" for tag in tags]


def _is_text(schema: Mapping[str, Any]) -> bool:
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if values is not None:
        return all(isinstance(value, str) for value in values)
    return schema.get("type", "string") == "string" and not {"$ref", "anyOf", "oneOf"} & set(schema)


def _takes_any(schema: Any) -> bool:
    """Whether arguments may have any name and value: where a schema declares none and forbids
    none.
    """
    return "properties" not in schema and schema.get("additionalProperties", True) in (True, {})


def _are_strings(values: object) -> bool:
    return isinstance(values, (list, tuple)) and all(isinstance(item, str) for item in values)


def _refuse_others(schema: Mapping[str, Any], known: frozenset[str], name: str) -> None:
    for keyword in schema:
        if keyword not in known:
            raise InvalidParameterError(
                f"{name}.{keyword}: not supported where arguments are written one by one"
            )


def _rule_name(tag: str) -> str:
    return f"text_to_{tag.encode().hex()}"
