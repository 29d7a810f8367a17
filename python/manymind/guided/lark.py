# SPDX-License-Identifier: Apache-2.0
"""Texts in llguidance's variant of Lark."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping


def quoted(text: str) -> str:
    """A text as a terminal; nothing for none."""
    return json.dumps(text, ensure_ascii=False) if text else ""


def as_regex(text: str) -> str:
    """An expression, without its slashes, that matches the text alone."""
    return re.escape(text).replace("/", r"\/").replace("\\\n", r"\n")


class Spelling:
    """Texts with control tokens in them, which are written by their ids.

    control_ids: the model's control tokens. No text of a terminal can contain one.
    """

    def __init__(self, control_ids: Mapping[str, int]) -> None:
        self._ids = control_ids
        longest_first = sorted(filter(None, control_ids), key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def has_control(self, text: str) -> bool:
        """Whether there is a control token in the text."""
        return self._control.search(text) is not None

    def is_control(self, text: str) -> bool:
        """Whether the text is a control token."""
        return text in self._ids

    def literal(self, text: str) -> str:
        """The text as a sequence of terminals."""
        words = []
        at = 0
        for match in self._control.finditer(text):
            words += [quoted(text[at : match.start()]), f"<[{self._ids[match[0]]}]>"]
            at = match.end()
        return " ".join(filter(None, [*words, quoted(text[at:])]))

    def text_without(self, words: Iterable[str], beginning: str = "") -> str:
        """A terminal of free text with none of the words in it. beginning: an expression."""
        # Together: an exclusion of each word's own multiplies the states of the lexer.
        none = "|".join(as_regex(word) for word in words if not self.has_control(word))
        return f"/{beginning}(?s:.*)/" + (f" & ~/(?s:.*)({none})(?s:.*)/" if none else "")
