# SPDX-License-Identifier: Apache-2.0
"""Formats in which a call is a JSON object with a name and arguments."""

from __future__ import annotations

from typing import Any, ClassVar

from manymind.parsers.base import OutputParser, read_arguments
from manymind.parsers.reader import MalformedError, Reading

_ARGUMENTS = ("arguments", "parameters")


class JsonCallParser(OutputParser):
    """Reads ``{"name": ..., "arguments": {...}}``; ``parameters`` means the same."""

    # Whether an object without arguments is a call, too: not where any JSON might be an answer.
    needs_arguments: ClassVar[bool] = False

    def read_object(self, marker: str) -> Reading[bool]:
        """One call. False if what comes is no call: then ``marker`` and it are text."""
        self.reader.mark()
        call = _Call(self)
        try:
            yield from self.reader.skip_space()
            yield from call.read()
            if call.index is None and (call.name is None or self.needs_arguments):
                raise MalformedError("name")
        except MalformedError:
            if call.index is not None:
                self.reader.release()
                self.end_call(call.index, False)
                return False
            self.reader.rewind()
            self.emit_text(marker)
            return False
        self.reader.release()
        call.end()
        return True


class _Call:
    """An object being read. Arguments are handed on as they come once the name is known."""

    def __init__(self, parser: JsonCallParser) -> None:
        self._parser = parser
        self._reader = parser.reader
        self._held: str | None = None  # arguments that came before the name
        self.name: str | None = None
        self.index: int | None = None

    def read(self) -> Reading[None]:
        yield from self._reader.expect("{")
        next_one = yield from self._reader.skip_space()
        while next_one != "}":
            yield from self._read_member()
            next_one = yield from self._reader.skip_space()
            if next_one == ",":
                yield from self._reader.expect(",")
                next_one = yield from self._reader.skip_space()
            elif next_one != "}":
                raise MalformedError("}")
        yield from self._reader.expect("}")
        if self._held is not None and self.index is None:
            self._start(self._held)

    def end(self) -> None:
        if self.index is None:
            self._start("{}")
        assert self.index is not None
        self._parser.end_call(self.index)

    def _start(self, arguments: str) -> None:
        if self.name is None:
            raise MalformedError("name")
        self.index = self._parser.start_call(self.name)
        self._parser.emit_arguments(self.index, arguments)

    def _read_member(self) -> Reading[None]:
        if (yield from self._reader.peek()) != '"':
            raise MalformedError("a key")
        key = yield from self._reader.json_data()
        yield from self._reader.skip_space()
        yield from self._reader.expect(":")
        first = yield from self._reader.skip_space()
        if key == "name" and self.name is None:
            self._set_name((yield from self._reader.json_data()))
        elif key in _ARGUMENTS and self.index is None and self._held is None:
            yield from self._read_arguments(first)
        elif self.name is None and key not in ("id", "type", "function"):
            raise MalformedError("name")
        else:
            yield from self._reader.json_value(_ignore)

    def _set_name(self, name: Any) -> None:
        if not isinstance(name, str) or not name:
            raise MalformedError("name")
        self.name = name

    def _read_arguments(self, first: str) -> Reading[None]:
        if first == '"':  # JSON within JSON
            self._held = yield from self._reader.json_data()
        elif first != "{":
            if (yield from self._reader.json_data()) is not None:
                raise MalformedError("an object")
            self._held = "{}"
        elif self.name is None:
            parts: list[str] = []
            yield from self._reader.json_value(parts.append)
            self._held = "".join(parts)
        else:
            self.index = index = self._parser.start_call(self.name)
            yield from self._reader.json_value(
                lambda text: self._parser.emit_arguments(index, text)
            )


def _ignore(_: str) -> None:
    """For values that mean nothing here."""


class HermesParser(JsonCallParser):
    """Hermes 2 Pro, Qwen 2.5 and Qwen 3: ``<tool_call>{...}</tool_call>``."""

    call_markers = ("<tool_call>",)

    def read_call(self, marker: str) -> Reading[None]:
        if (yield from self.read_object(marker)):
            yield from self.reader.skip_space()
            yield from self.reader.accept("</tool_call>")


class InternLmParser(JsonCallParser):
    """InternLM 2 and later: ``<|action_start|><|plugin|>{...}<|action_end|>``."""

    call_markers = ("<|action_start|>",)

    def read_call(self, marker: str) -> Reading[None]:
        yield from self.reader.skip_space()
        yield from self.reader.accept("<|plugin|>")
        if (yield from self.read_object(marker)):
            yield from self.reader.skip_space()
            yield from self.reader.accept("<|action_end|>")


class Llama3Parser(JsonCallParser):
    """Llama 3.1 and later: the answer is ``{"name": ..., "parameters": {...}}``, or several of them
    with ``;`` between, perhaps behind ``<|python_tag|>``.
    """

    call_markers = ("<|python_tag|>",)
    needs_arguments = True

    def read_body(self) -> Reading[None]:
        yield from self.read_leading_call("{")
        yield from super().read_body()

    def read_call(self, marker: str) -> Reading[None]:
        while (yield from self.read_object(marker)):
            marker = ""
            next_one = yield from self.reader.skip_space()
            if next_one == ";":
                yield from self.reader.expect(";")
                next_one = yield from self.reader.skip_space()
            if next_one != "{":
                return


class MistralParser(JsonCallParser):
    """Mistral: ``[TOOL_CALLS][{...}, ...]``, and since 2025 ``[TOOL_CALLS]name[ARGS]{...}``."""

    call_markers = ("[TOOL_CALLS]",)

    def read_call(self, marker: str) -> Reading[None]:
        next_one = yield from self.reader.skip_space()
        if next_one == "[":
            yield from self._read_list(marker)
        elif next_one == "{":
            yield from self.read_object(marker)
        else:
            yield from self._read_named(marker)

    def _read_list(self, marker: str) -> Reading[None]:
        yield from self.reader.expect("[")
        marker += "["
        next_one = yield from self.reader.skip_space()
        while next_one and next_one != "]":
            if not (yield from self.read_object(marker)):
                return
            marker = ""
            next_one = yield from self.reader.skip_space()
            if next_one == ",":
                yield from self.reader.expect(",")
                next_one = yield from self.reader.skip_space()
        yield from self.reader.accept("]")

    def _read_named(self, marker: str) -> Reading[None]:
        self.reader.mark()
        try:
            head = yield from self.reader.read_until("[ARGS]")
        except MalformedError:
            self.reader.rewind()
            self.emit_text(marker)
            return
        self.reader.release()
        name = head.partition("[CALL_ID]")[0].strip()
        yield from self.reader.skip_space()
        yield from read_arguments(self, name)
