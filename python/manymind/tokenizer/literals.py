# SPDX-License-Identifier: Apache-2.0
"""Finds literal tokens in a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping


class LiteralSplitter:
    """Cuts a text at occurrences of literal tokens, leftmost first and longest first.

    The cost is linear in the text: candidates are found by their first two characters, and each is
    compared by hash with as many substrings as there are token lengths for those characters.
    """

    def __init__(self, tokens: Mapping[str, int]) -> None:
        self._tokens = {token: token_id for token, token_id in tokens.items() if token}
        lengths: dict[str, set[int]] = {}
        for token in self._tokens:
            lengths.setdefault(token[:2], set()).add(len(token))
        self._lengths = {head: sorted(found, reverse=True) for head, found in lengths.items()}
        heads = sorted(self._lengths, key=len, reverse=True)
        self._candidates = re.compile("|".join(map(re.escape, heads)) or "(?!)")

    def split(self, text: str) -> Iterator[str | int]:
        """The parts of ``text`` in order: ids of tokens, and the non-empty text between them."""
        start = position = 0
        while (candidate := self._candidates.search(text, position)) is not None:
            position = candidate.start()
            token = self._longest_at(text, position)
            if token is None:
                position += 1
                continue
            if start < position:
                yield text[start:position]
            yield self._tokens[token]
            start = position = position + len(token)
        if start < len(text):
            yield text[start:]

    def _longest_at(self, text: str, position: int) -> str | None:
        # A head of one character is a token itself and may also begin the head of longer ones.
        for head in (text[position : position + 2], text[position]):
            for length in self._lengths.get(head, ()):
                piece = text[position : position + length]
                if piece in self._tokens:
                    return piece
        return None
