# SPDX-License-Identifier: Apache-2.0
"""What the parsers of all formats share: reasoning, text, and the life of a call."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from manymind.parsers.events import (
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from manymind.parsers.reader import MalformedError, Reader, Reading

Tool = Mapping[str, Any]
THINK = ("<think>", "</think>")


class OutputParser:
    """One answer's text to events. ``push`` its pieces, then ``finish``.

    The text has to contain special tokens (``skip_special_tokens=False``): most formats use some.
    This class itself knows reasoning and text only; formats with tool calls derive from it.

    Args:
        tools: OpenAI's tool definitions; the types of arguments that a format writes without
            quotes come from there.
        thinking: the marks around reasoning, or None for a model without.
        in_reasoning: the prompt has already opened the reasoning.
    """

    # What begins a call in the text.
    call_markers: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        tools: Sequence[Tool] = (),
        thinking: tuple[str, str] | None = None,
        in_reasoning: bool = False,
    ) -> None:
        self.reader = Reader()
        self.num_calls = 0
        self._types = _argument_types(tools)
        self._thinking = thinking
        self._thoughts: list[tuple[int, int | None]] = []
        self._in_reasoning = in_reasoning
        self._events: list[Event] = []
        self._held_space = ""
        self._reading = self.read_answer()

    def push(self, text: str) -> list[Event]:
        """The events that more text brings about."""
        self.reader.push(text)
        return self._advance()

    def finish(self) -> list[Event]:
        """The rest, when no more text comes."""
        self.reader.close()
        events = self._advance()
        if self.num_calls == 0 and self._held_space:
            events.append(TextDelta(self._held_space))
        return events

    @property
    def reasoning_spans(self) -> list[tuple[int, int]]:
        """Where the reasoning stands in the text: from which character to which, the marks around
        it left out. One that is still open ends with what has been read.
        """
        open_end = self.reader.place
        return [(begin, open_end if end is None else end) for begin, end in self._thoughts]

    def _advance(self) -> list[Event]:
        next(self._reading, None)
        events, self._events = self._events, []
        return events

    def read_answer(self) -> Reading[None]:
        """The whole answer: reasoning, then text and calls."""
        if self._thinking is not None:
            yield from self._read_reasoning(*self._thinking)
        yield from self.read_body()

    def read_body(self) -> Reading[None]:
        """All after the reasoning."""
        while marker := (yield from self.copy_text(self.call_markers)):
            yield from self.read_call(marker)

    def read_call(self, marker: str) -> Reading[None]:
        """A call, or several, whose beginning was just read."""
        raise NotImplementedError

    def read_leading_call(self, opening: str) -> Reading[None]:
        """A call without a marker, if the text begins with the character that opens one."""
        self.reader.mark()
        first = yield from self.reader.skip_space()
        self.reader.rewind()
        if first == opening:
            yield from self.read_call("")

    def copy_text(self, markers: Sequence[str]) -> Reading[str]:
        """Hands text on until a marker, see Reader.copy_until."""
        if not markers:
            while text := (yield from self.reader.rest()):
                self.emit_text(text)
            return ""
        return (yield from self.reader.copy_until(markers, self.emit_text))

    def emit_text(self, text: str) -> None:
        """White space between calls, or before the first one, is nobody's text: it waits for what
        follows.
        """
        text = self._held_space + text
        shown = text.rstrip()
        self._held_space = text[len(shown) :]
        if shown:
            self._events.append(TextDelta(shown))

    def emit_reasoning(self, text: str) -> None:
        """More reasoning."""
        if text:
            self._events.append(ReasoningDelta(text))

    def copy_reasoning(
        self, begin: int, ends: Sequence[str], emit: Callable[[str], None]
    ) -> Reading[str]:
        """Hands on reasoning, which began at character ``begin``, until a mark that ends it, see
        Reader.copy_until.
        """
        self._thoughts.append((begin, None))
        mark = yield from self.reader.copy_until(ends, emit)
        self._thoughts[-1] = (begin, self.reader.place - len(mark))
        return mark

    def start_call(self, name: str) -> int:
        """A call begins; returns its index."""
        self._held_space = ""
        index = self.num_calls
        self.num_calls += 1
        self._events.append(ToolCallStart(index, name))
        return index

    def emit_arguments(self, index: int, text: str) -> None:
        """More of a call's arguments."""
        if text:
            self._events.append(ToolCallDelta(index, text))

    def end_call(self, index: int, complete: bool = True) -> None:
        """A call has ended."""
        self._events.append(ToolCallEnd(index, complete))

    def typed_value(self, tool: str, key: str, text: str, guess: bool) -> Any:
        """The value that a format wrote without quotes: text if the tool says so, else JSON where
        it is. guess: what holds for arguments that the tool does not declare.
        """
        declared = self._types.get(tool, {}).get(key)
        if declared == "string" or (declared is None and not guess):
            return text
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text

    def _read_reasoning(self, begin: str, end: str) -> Reading[None]:
        begin_of_thought = self.reader.place
        self.reader.mark()
        yield from self.reader.skip_space()
        # A model may open the reasoning once more than its prompt did.
        if (yield from self.reader.accept(begin)):
            begin_of_thought = self.reader.place
        elif not self._in_reasoning:
            self.reader.rewind()
            return
        self.reader.release()
        yield from self.reader.skip_space()
        trailing = ""

        def emit(text: str) -> None:
            nonlocal trailing
            text = trailing + text
            shown = text.rstrip()
            trailing = text[len(shown) :]
            self.emit_reasoning(shown)

        if (yield from self.copy_reasoning(begin_of_thought, (end,), emit)):
            yield from self.reader.skip_space()


class CallWriter:
    """Arguments written one by one as a JSON object."""

    def __init__(self, parser: OutputParser, name: str) -> None:
        self._parser = parser
        self._index = parser.start_call(name)
        self._separator = "{"

    def add(self, key: str, value: Any) -> None:
        """One more argument."""
        pair = f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"
        self._parser.emit_arguments(self._index, self._separator + pair)
        self._separator = ", "

    def end(self, complete: bool) -> None:
        """The object is closed in any case: what was read is valid JSON."""
        self._parser.emit_arguments(self._index, "{}" if self._separator == "{" else "}")
        self._parser.end_call(self._index, complete)


def read_arguments(parser: OutputParser, name: str) -> Reading[bool]:
    """A call whose arguments are the JSON value that comes next; False if it was broken."""
    index = parser.start_call(name)
    try:
        yield from parser.reader.json_value(lambda text: parser.emit_arguments(index, text))
    except MalformedError:
        parser.end_call(index, False)
        return False
    parser.end_call(index)
    return True


def _argument_types(tools: Sequence[Tool]) -> dict[str, dict[str, str | None]]:
    """Tool -> argument -> its JSON type, as far as the schemas say one."""
    types: dict[str, dict[str, str | None]] = {}
    for tool in tools:
        function = tool.get("function", tool)
        parameters = function.get("parameters") or function.get("input_schema") or {}
        properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
        if isinstance(properties, Mapping):
            types[str(function.get("name"))] = {
                key: _json_type(schema) for key, schema in properties.items()
            }
    return types


def _json_type(schema: Any) -> str | None:
    """The word "string" for what only a string fits, "other" for anything else; None if unsaid."""
    if not isinstance(schema, Mapping):
        return None
    kind = schema.get("type")
    if isinstance(kind, str):
        return "string" if kind == "string" else "other"
    enum = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(enum, Sequence) and enum:
        return "string" if all(isinstance(item, str) for item in enum) else "other"
    return "other" if kind or {"$ref", "anyOf", "oneOf"} & set(schema) else None
