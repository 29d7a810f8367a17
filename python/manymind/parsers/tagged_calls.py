# SPDX-License-Identifier: Apache-2.0
"""Formats in which tags of their own name a call and its arguments."""

from __future__ import annotations

import re
from typing import Any

from manymind.parsers.base import CallWriter, OutputParser, read_arguments
from manymind.parsers.reader import MalformedError, Reading


class TaggedCallParser(OutputParser):
    """A call that breaks its format before its name is known is text; later, it is incomplete."""

    def read_call(self, marker: str) -> Reading[None]:
        self.reader.mark()
        try:
            name = yield from self.read_name()
        except MalformedError:
            self.reader.rewind()
            self.emit_text(marker)
            return
        self.reader.release()
        call = CallWriter(self, name)
        try:
            yield from self.read_arguments_of(name, call)
        except MalformedError:
            call.end(False)
            return
        call.end(True)

    def read_name(self) -> Reading[str]:
        """From behind the marker to the first argument."""
        raise NotImplementedError

    def read_arguments_of(self, name: str, call: CallWriter) -> Reading[None]:
        """The arguments and what ends the call."""
        raise NotImplementedError


class Qwen3CoderParser(TaggedCallParser):
    """Qwen3-Coder, Qwen3.5: ``<tool_call><function=name><parameter=key>value</parameter>
    </function></tool_call>``; the outer tag may be missing.
    """

    call_markers = ("<tool_call>", "<function=")

    def read_call(self, marker: str) -> Reading[None]:
        if marker == "<tool_call>":
            self.reader.mark()
            yield from self.reader.skip_space()
            if not (yield from self.reader.accept("<function=")):
                self.reader.rewind()
                self.emit_text(marker)
                return
            self.reader.release()
        yield from super().read_call("<function=")
        self.reader.mark()
        yield from self.reader.skip_space()
        if (yield from self.reader.accept("</tool_call>")):
            self.reader.release()
        else:
            self.reader.rewind()

    def read_name(self) -> Reading[str]:
        return (yield from self.reader.read_until(">")).strip()

    def read_arguments_of(self, name: str, call: CallWriter) -> Reading[None]:
        while True:
            yield from self.reader.skip_space()
            if (yield from self.reader.accept("</function>")):
                return
            yield from self.reader.expect("<parameter=")
            key = (yield from self.reader.read_until(">")).strip()
            value = yield from self.reader.read_until("</parameter>")
            # The template puts the value on lines of its own.
            value = value.removeprefix("\n").removesuffix("\n")
            call.add(key, self.typed_value(name, key, value, guess=False))


class GlmParser(TaggedCallParser):
    """GLM 4.5 and later: ``<tool_call>name<arg_key>key</arg_key><arg_value>value</arg_value>
    </tool_call>``.
    """

    call_markers = ("<tool_call>",)

    def read_name(self) -> Reading[str]:
        parts: list[str] = []
        # The end tag stays unread for read_arguments_of, so both have to begin alike.
        if not (yield from self.reader.copy_until(("<",), parts.append)):
            raise MalformedError("a name")
        name = "".join(parts).strip()
        if not name:
            raise MalformedError("a name")
        return name

    def read_arguments_of(self, name: str, call: CallWriter) -> Reading[None]:
        while (yield from self.reader.accept("arg_key>")):
            key = (yield from self.reader.read_until("</arg_key>")).strip()
            yield from self.reader.skip_space()
            yield from self.reader.expect("<arg_value>")
            value = yield from self.reader.read_until("</arg_value>")
            call.add(key, self.typed_value(name, key, value, guess=True))
            yield from self.reader.skip_space()
            yield from self.reader.expect("<")
        yield from self.reader.expect("/tool_call>")


_DSML = "｜DSML｜"
_ATTRIBUTES = re.compile(r'(\w+)="([^"]*)"')


class DeepSeekDsmlParser(TaggedCallParser):
    """DeepSeek V3.2: ``<｜DSML｜invoke name="...">`` with ``<｜DSML｜parameter name="..."
    string="true|false">``, within ``<｜DSML｜function_calls>``.
    """

    call_markers = (f"<{_DSML}function_calls>", f"<{_DSML}invoke", f"</{_DSML}function_calls>")

    def read_call(self, marker: str) -> Reading[None]:
        # The tags around the calls say nothing that the calls do not.
        if marker == f"<{_DSML}invoke":
            yield from super().read_call(marker)

    def read_name(self) -> Reading[str]:
        attributes = yield from self._read_attributes()
        if not attributes.get("name"):
            raise MalformedError("name")
        return attributes["name"]

    def read_arguments_of(self, name: str, call: CallWriter) -> Reading[None]:
        while True:
            yield from self.reader.skip_space()
            if (yield from self.reader.accept(f"</{_DSML}invoke>")):
                return
            yield from self.reader.expect(f"<{_DSML}parameter")
            attributes = yield from self._read_attributes()
            text = yield from self.reader.read_until(f"</{_DSML}parameter>")
            key = attributes.get("name", "")
            value: Any = text
            if attributes.get("string") != "true":
                value = self.typed_value(name, key, text, guess=True)
            call.add(key, value)

    def _read_attributes(self) -> Reading[dict[str, str]]:
        return dict(_ATTRIBUTES.findall((yield from self.reader.read_until(">"))))


_CALLS_BEGIN = "<｜tool▁calls▁begin｜>"
_CALLS_END = "<｜tool▁calls▁end｜>"
_CALL_BEGIN = "<｜tool▁call▁begin｜>"
_CALL_END = "<｜tool▁call▁end｜>"
_SEPARATOR = "<｜tool▁sep｜>"


class DeepSeekParser(OutputParser):
    """DeepSeek V3, R1 and V3.1. The first two write ``function<｜tool▁sep｜>name`` and the
    arguments in a fenced block, the last ``name<｜tool▁sep｜>`` and the bare arguments.
    """

    call_markers = (_CALLS_BEGIN, _CALL_BEGIN, _CALL_END, _CALLS_END)

    def read_call(self, marker: str) -> Reading[None]:
        if marker != _CALL_BEGIN:
            return
        self.reader.mark()
        try:
            name = yield from self._read_name()
        except MalformedError:
            self.reader.rewind()
            self.emit_text(marker)
            return
        self.reader.release()
        if (yield from read_arguments(self, name)):
            yield from self._skip_to_end()

    def _read_name(self) -> Reading[str]:
        name = (yield from self.reader.read_until(_SEPARATOR)).strip()
        if (yield from self.reader.skip_space()) != "{":
            name = (yield from self.reader.read_until("```json")).strip()
            yield from self.reader.skip_space()
        if not name:
            raise MalformedError("a name")
        return name

    def _skip_to_end(self) -> Reading[None]:
        yield from self.reader.skip_space()
        if (yield from self.reader.accept("```")):
            yield from self.reader.skip_space()
        yield from self.reader.accept(_CALL_END)
