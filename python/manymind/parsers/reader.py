# SPDX-License-Identifier: Apache-2.0
"""A text that arrives in pieces, read by generators.

A generator yields where it cannot go on without more text, and decides nothing that later text
could change; so what it reads does not depend on the pieces. The cost is linear in the text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
Reading: TypeAlias = Generator[None, None, T]

_SPACE = " \t\r\n"
_BRACKET_OR_QUOTE = re.compile(r'["{}\[\]]')
_QUOTE_OR_ESCAPE = re.compile(r'["\\]')
_SCALAR_END = re.compile(r"[\s,}\]]")


class MalformedError(Exception):
    """The text is not what its format promises here."""


class Reader:
    """The text not read yet. ``mark`` and ``rewind`` take back what was read in between."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._forgotten = 0
        self._mark: int | None = None
        self._closed = False

    @property
    def place(self) -> int:
        """Characters of the whole text that have been read."""
        return self._forgotten + self._at

    def push(self, text: str) -> None:
        """Adds text at the end."""
        keep = self._at if self._mark is None else self._mark
        self._text = self._text[keep:] + text
        self._at -= keep
        self._forgotten += keep
        if self._mark is not None:
            self._mark = 0

    def close(self) -> None:
        """No more text comes."""
        self._closed = True

    def mark(self) -> None:
        """Where ``rewind`` goes back to."""
        self._mark = self._at

    def release(self) -> None:
        """Gives the mark up."""
        self._mark = None

    def rewind(self) -> None:
        """Back to the mark, which is given up."""
        assert self._mark is not None
        self._at = self._mark
        self._mark = None

    def rest(self) -> Reading[str]:
        """All that is here, once there is something; "" at the end of the text."""
        while self._at == len(self._text):
            if self._closed:
                return ""
            yield
        rest = self._text[self._at :]
        self._at = len(self._text)
        return rest

    def peek(self) -> Reading[str]:
        """The next character, not read; "" at the end of the text."""
        while self._at == len(self._text):
            if self._closed:
                return ""
            yield
        return self._text[self._at]

    def take(self) -> Reading[str]:
        """Reads the next character. Raises MalformedError at the end of the text."""
        char = yield from self.peek()
        if not char:
            raise MalformedError("more text")
        self._at += 1
        return char

    def skip_space(self) -> Reading[str]:
        """Reads white space; returns the character behind it, not read, or ""."""
        while True:
            next_one = yield from self.peek()
            if not next_one or next_one not in _SPACE:
                return next_one
            self._at += 1

    def accept(self, word: str) -> Reading[bool]:
        """Reads ``word`` if it comes next."""
        while len(self._text) - self._at < len(word):
            if self._closed or not word.startswith(self._text[self._at :]):
                return False
            yield
        if not self._text.startswith(word, self._at):
            return False
        self._at += len(word)
        return True

    def expect(self, word: str) -> Reading[None]:
        """Reads ``word``. Raises MalformedError if something else comes next."""
        if not (yield from self.accept(word)):
            raise MalformedError(word)

    def copy_until(self, markers: Sequence[str], emit: Callable[[str], None]) -> Reading[str]:
        """Hands on the text before the first marker, as early as it is certain, and reads the
        marker; returns it, or "" if the text ends before one. No marker may be part of another.
        """
        while True:
            found = [(self._text.find(marker, self._at), marker) for marker in markers]
            at, marker = min((hit for hit in found if hit[0] >= 0), default=(-1, ""))
            if at >= 0:
                self._hand_on(at, emit)
                self._at += len(marker)
                return marker
            end = len(self._text)
            self._hand_on(end if self._closed else end - self._open_suffix(markers), emit)
            if self._closed:
                return ""
            yield

    def read_until(self, *markers: str) -> Reading[str]:
        """The text before the first marker, which is read, too. Raises MalformedError if the text
        ends before one.
        """
        parts: list[str] = []
        if not (yield from self.copy_until(markers, parts.append)):
            raise MalformedError(markers[0])
        return "".join(parts)

    def json_value(self, emit: Callable[[str], None]) -> Reading[None]:
        """Reads one JSON value and hands on its text as it comes. Only brackets and strings are
        checked. Raises MalformedError if the text ends within it.
        """
        first = yield from self.peek()
        if first == '"':
            return (yield from self._string(emit))
        if first not in ("{", "["):
            return (yield from self._scalar(emit))
        depth = 0
        while True:
            match = _BRACKET_OR_QUOTE.search(self._text, self._at)
            if match is None:
                self._hand_on(len(self._text), emit)
                yield from self._more()
                continue
            if match[0] == '"':
                self._hand_on(match.start(), emit)
                yield from self._string(emit)
                continue
            self._hand_on(match.end(), emit)
            depth += 1 if match[0] in "{[" else -1
            if depth == 0:
                return None

    def json_data(self) -> Reading[Any]:
        """One JSON value, parsed. Raises MalformedError on anything else."""
        parts: list[str] = []
        yield from self.json_value(parts.append)
        try:
            return json.loads("".join(parts))
        except (ValueError, RecursionError) as error:
            raise MalformedError("JSON") from error

    def _string(self, emit: Callable[[str], None]) -> Reading[None]:
        self._hand_on(self._at + 1, emit)
        while True:
            match = _QUOTE_OR_ESCAPE.search(self._text, self._at)
            if match is None:
                self._hand_on(len(self._text), emit)
            elif match[0] == '"':
                return self._hand_on(match.end(), emit)
            elif match.end() < len(self._text):
                self._hand_on(match.end() + 1, emit)
                continue
            yield from self._more()

    def _scalar(self, emit: Callable[[str], None]) -> Reading[None]:
        while (match := _SCALAR_END.search(self._text, self._at)) is None:
            yield from self._more()
        if match.start() == self._at:
            raise MalformedError("a JSON value")
        self._hand_on(match.start(), emit)

    def _more(self) -> Reading[None]:
        if self._closed:
            raise MalformedError("the end of the value")
        yield

    def _hand_on(self, end: int, emit: Callable[[str], None]) -> None:
        if end > self._at:
            emit(self._text[self._at : end])
            self._at = end

    def _open_suffix(self, markers: Sequence[str]) -> int:
        longest = min(max(map(len, markers)) - 1, len(self._text) - self._at)
        for size in range(longest, 0, -1):
            suffix = self._text[len(self._text) - size :]
            if any(marker.startswith(suffix) for marker in markers):
                return size
        return 0
