# SPDX-License-Identifier: Apache-2.0
"""From token ids to the text a user sees: incremental decoding and stop strings."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from typing import Protocol


class PieceDecoder(Protocol):
    """What turns ids into text piece by piece; never half a character."""

    def push(self, ids: Sequence[int]) -> str: ...


class StopMatcher:
    """Finds the stop string that is completed first; holds back what may yet become one.

    feed() returns the text that is safe to show. After ``matched`` is set nothing more comes. The
    cost of a feed is proportional to the text fed plus the longest stop string. Text that is fed as
    ``exempt`` completes no stop string, though one that is completed later may begin in it.
    """

    def __init__(self, stop_words: Sequence[str], include: bool) -> None:
        self._stop_words = tuple(stop_words)
        self._include = include
        self._held = ""
        self._exempt = 0  # leading characters of _held
        self.matched: str | None = None

    def feed(self, text: str, exempt: bool = False) -> str:
        """Adds text; returns what can be shown now."""
        if self.matched is not None:
            return ""
        if not self._stop_words:
            return text
        self._held += text
        if exempt:
            self._exempt = len(self._held)
        at, word = self._first_match()
        if word is not None:
            self.matched = word
            shown = self._held[: at + len(word)] if self._include else self._held[:at]
            self._held = ""
            return shown
        keep = self._longest_open_suffix()
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        self._exempt = max(0, self._exempt - len(shown))
        return shown

    def finish(self) -> str:
        """The text still held back: the generation is over, so it can no longer become a stop
        string.
        """
        rest, self._held = self._held, ""
        return rest

    def _first_match(self) -> tuple[int, str | None]:
        # Where a word may begin, so that it ends behind the exempt text.
        first = self._exempt + 1
        found = [
            (self._held.find(word, max(0, first - len(word))), word) for word in self._stop_words
        ]
        # The one completed first, whatever the pieces the text came in.
        hits = [(at + len(word), at, word) for at, word in found if at >= 0]
        if not hits:
            return -1, None
        _, at, word = min(hits)
        return at, word

    def _longest_open_suffix(self) -> int:
        longest = max(len(word) for word in self._stop_words) - 1
        for size in range(min(longest, len(self._held)), 0, -1):
            if any(word.startswith(self._held[-size:]) for word in self._stop_words):
                return size
        return 0


class TokenPlaces:
    """Where in an answer's text each of its tokens begins."""

    def __init__(self, decoder: PieceDecoder) -> None:
        """decoder: as the one that made the text."""
        self._decoder = decoder
        self._unread: deque[int] = deque()
        self._begins: list[int] = []
        self._length = 0

    def push(self, ids: Sequence[int]) -> None:
        """Adds tokens. They are decoded when somebody asks for them."""
        self._unread.extend(ids)

    def count(self, begin: int, end: int) -> int:
        """Tokens that begin in the characters [begin, end)."""
        while self._length < end and self._unread:
            self._begins.append(self._length)
            self._length += len(self._decoder.push([self._unread.popleft()]))
        return bisect_left(self._begins, end) - bisect_left(self._begins, begin)


class TextAssembler:
    """Decoder and stop matcher of one answer, whose first ``min_tokens`` tokens complete no stop
    string.
    """

    def __init__(
        self,
        decoder: PieceDecoder,
        stop_words: Sequence[str],
        include_stop: bool,
        min_tokens: int = 0,
    ) -> None:
        self._decoder = decoder
        self._exempt_tokens = min_tokens if stop_words else 0
        self._stops = StopMatcher(stop_words, include_stop)

    @property
    def stopped(self) -> bool:
        """True once a stop string was found: the rest of the generation is of no interest."""
        return self._stops.matched is not None

    @property
    def stop_word(self) -> str | None:
        """The stop string that was found."""
        return self._stops.matched

    def push(self, ids: Sequence[int], last: bool) -> str:
        """The text that new ids make visible; ``last`` releases what might have become a stop word.

        Bytes of a character that the last id leaves incomplete (an answer cut by length) are not
        shown: half a character is not text. The ids keep them.
        """
        text = ""
        if self._exempt_tokens:
            exempt, ids = ids[: self._exempt_tokens], ids[self._exempt_tokens :]
            self._exempt_tokens -= len(exempt)
            text = self._stops.feed(self._decoder.push(exempt), exempt=True)
        text += self._stops.feed(self._decoder.push(ids))
        if last:
            text += self._stops.finish()
        return text
