# SPDX-License-Identifier: Apache-2.0
"""Calls written as a list of Python calls: ``[weather(city='Rome', days=2), clock()]``."""

from __future__ import annotations

import ast
import json
import re
import warnings
from typing import Any

from manymind.parsers.base import OutputParser
from manymind.parsers.reader import MalformedError, Reading

_NAME = re.compile(r"\[\s*[A-Za-z_][\w.]*\s*\(")
_BEGUN_NAME = re.compile(r"\[\s*([A-Za-z_][\w.]*\s*)?")
_WORDS = {"true": True, "false": False, "null": None}  # JSON's, which models mix in
_ESCAPE = re.compile(r"\\.", re.DOTALL)


class PythonicParser(OutputParser):
    """Llama 3.2 and 4: the answer is a list of calls, or has one behind ``<|python_start|>``.

    A call is handed on when the list is complete: only then is it certain that it is one.
    """

    call_markers = ("<|python_start|>",)

    def read_body(self) -> Reading[None]:
        yield from self.read_leading_call("[")
        yield from super().read_body()

    def read_call(self, marker: str) -> Reading[None]:
        self.reader.mark()
        try:
            yield from self.reader.skip_space()
            calls = _calls_of((yield from self._read_list()))
        except MalformedError:
            self.reader.rewind()
            self.emit_text(marker)
            return
        self.reader.release()
        for name, arguments in calls:
            index = self.start_call(name)
            self.emit_arguments(index, arguments)
            self.end_call(index)
        yield from self.reader.accept("<|python_end|>")

    def _read_list(self) -> Reading[str]:
        """From "[" to its "]". Raises MalformedError as soon as what comes is no list of calls."""
        text, depth, quote = "", 0, ""
        named = escaped = False
        while depth > 0 or not text:
            char = yield from self.reader.take()
            text += char
            if not named:
                named = _NAME.fullmatch(text) is not None
                if not named and not _BEGUN_NAME.fullmatch(text):
                    raise MalformedError("a call")
            if quote:
                quote = "" if char == quote and not escaped else quote
                escaped = char == "\\" and not escaped
            elif char in "'\"":
                quote = char
            else:
                depth += (char in "[({") - (char in "])}")
        return text


def _calls_of(text: str) -> list[tuple[str, str]]:
    """Name and arguments of each call, those in JSON. Raises MalformedError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of the model's own escapes
            parsed = ast.parse(_ESCAPE.sub(_python_escape, text), mode="eval").body
        if not isinstance(parsed, ast.List):
            raise MalformedError("a list")
        return [_call_of(node) for node in parsed.elts]
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise MalformedError("a list of calls") from error


def _python_escape(match: re.Match[str]) -> str:
    """JSON's escapes are Python's, but for this one."""
    return "/" if match[0] == "\\/" else match[0]


def _call_of(node: ast.expr) -> tuple[str, str]:
    if not isinstance(node, ast.Call) or node.args:
        raise MalformedError("a call with named arguments")
    arguments = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise MalformedError("a named argument")
        arguments[keyword.arg] = _value_of(keyword.value)
    return ast.unparse(node.func), json.dumps(arguments, ensure_ascii=False, allow_nan=False)


def _value_of(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in _WORDS:
        return _WORDS[node.id]
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value_of(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        keys = [_value_of(key) if key is not None else None for key in node.keys]
        if not all(isinstance(key, str) for key in keys):
            raise MalformedError("a str as key")
        return {key: _value_of(value) for key, value in zip(keys, node.values, strict=True)}
    value = ast.literal_eval(node)
    if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
        # JSON writes a character beyond 16 bits as two escapes.
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value
