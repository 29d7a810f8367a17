# SPDX-License-Identifier: Apache-2.0
"""The SentencePiece BPE model with byte fallback (the "llama" tokenizer of GGUF files).

It merges by score, straight from the vocabulary. The usual way, converting scores to the merge list
that the ``tokenizers`` library wants, costs about a second for Gemma's 262k pieces (515k merges)
before the first token; this costs a tenth of that, and words are cached, so long prompts stay
linear.
Source: Kudo and Richardson 2018 (arXiv:1808.06226) and SentencePiece's ``bpe_model.cc``.
"""

from __future__ import annotations

import heapq
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence

from manymind.errors import TokenizerError
from manymind.tokenizer.decoding import SPACE, byte_value
from manymind.tokenizer.literals import LiteralSplitter
from manymind.tokenizer.vocabulary import TokenType

_MAX_CACHED_WORD = 64  # characters
_MAX_CACHE_ENTRIES = 1 << 16
_SPACE_INSIDE = re.compile(f"{SPACE}(?<=([^{SPACE}\\n]){SPACE})")  # captures what stands before it


class SpmEncoder:
    """Text to ids.

    Args:
        pieces, scores: indexed by id.
        kinds: TokenType of each id that is not NORMAL.
        add_space_prefix: a run of text is encoded as if a space stood before it, at the start and
            after each control token.
        unknown_id: stands for a character without piece where there are no byte tokens.
    """

    def __init__(
        self,
        pieces: Sequence[str],
        scores: Sequence[float],
        kinds: Mapping[int, int],
        add_space_prefix: bool,
        unknown_id: int | None,
    ) -> None:
        self._scores = array("f", scores)  # a list would take eight times the memory
        self._prefix = SPACE if add_space_prefix else ""
        self._unknown = () if unknown_id is None else (unknown_id,)
        self._ids = dict(zip(pieces, range(len(pieces)), strict=True))
        self._bytes: dict[int, int] = {}
        control: dict[str, int] = {}
        user_defined: dict[str, int] = {}
        for token_id, kind in kinds.items():
            piece = pieces[token_id]
            self._ids.pop(piece, None)
            if kind == TokenType.CONTROL:
                control[piece] = token_id
            elif kind == TokenType.USER_DEFINED:
                user_defined[piece.replace(" ", SPACE)] = token_id
            elif kind == TokenType.BYTE:
                self._add_byte(piece, token_id)
        if self._bytes and len(self._bytes) != 256:
            raise TokenizerError(f"byte tokens: expected none or 256, found {len(self._bytes)}")
        self._user_defined = LiteralSplitter(user_defined)
        self._user_defined_or_control = LiteralSplitter(user_defined | control)
        self._control_ids = frozenset(control.values())
        self._word_starts = _word_starts(self._ids)
        self._cache: dict[str, tuple[int, ...]] = {}

    def encode(self, segments: Iterable[tuple[str, bool]]) -> list[int]:
        """Ids of consecutive (text, parse control tokens) pieces."""
        ids: list[int] = []
        prefix = self._prefix
        for text, parse_special in segments:
            # User-defined tokens are sought twice: as they are written, and with spaces as SPACE.
            literals = self._user_defined_or_control if parse_special else self._user_defined
            for part in literals.split(text):
                if isinstance(part, int):
                    ids.append(part)
                    prefix = self._prefix if part in self._control_ids else ""
                else:
                    self._encode_text(prefix + part.replace(" ", SPACE), ids)
                    prefix = ""
        return ids

    def _add_byte(self, piece: str, token_id: int) -> None:
        value = byte_value(piece)
        if value is None:
            raise TokenizerError(f"byte token: expected <0xNN>, found {piece!r}")
        self._bytes[value] = token_id

    def _encode_text(self, text: str, ids: list[int]) -> None:
        for part in self._user_defined.split(text):
            if isinstance(part, int):
                ids.append(part)
            else:
                for word in self._word_starts.split(part):
                    ids.extend(self._word_ids(word))

    def _word_ids(self, word: str) -> tuple[int, ...]:
        found = self._cache.get(word)
        if found is None:
            found = self._encode_word(word)
            if len(word) <= _MAX_CACHED_WORD:
                if len(self._cache) >= _MAX_CACHE_ENTRIES:
                    self._cache.clear()
                self._cache[word] = found
        return found

    def _encode_word(self, word: str) -> tuple[int, ...]:
        ids: list[int] = []
        for piece in self._merge(word):
            token_id = self._ids.get(piece)
            if token_id is not None:
                ids.append(token_id)
            elif self._bytes:
                ids.extend(self._bytes[byte] for byte in piece.encode())
            else:
                ids.extend(self._unknown)
        return tuple(ids)

    def _merge(self, word: str) -> list[str]:
        """Characters of ``word`` merged greedily: best score first, leftmost among equals."""
        symbols = list(word)
        count = len(symbols)
        previous = list(range(-1, count - 1))
        following = list(range(1, count + 1))
        ids, scores = self._ids, self._scores
        agenda: list[tuple[float, int, int]] = []  # (-score, left symbol, characters of the merge)

        def propose(left: int, right: int) -> None:
            merged = symbols[left] + symbols[right]
            token_id = ids.get(merged)
            if token_id is not None:
                heapq.heappush(agenda, (-scores[token_id], left, len(merged)))

        for left in range(count - 1):
            propose(left, left + 1)
        while agenda:
            _, left, size = heapq.heappop(agenda)
            right = following[left]
            # A proposal is stale when one of its symbols has since been merged into another.
            if right == count or len(symbols[left]) + len(symbols[right]) != size:
                continue
            if not symbols[left]:
                continue
            symbols[left] += symbols[right]
            symbols[right] = ""
            after = following[left] = following[right]
            if after < count:
                previous[after] = left
                propose(left, after)
            if previous[left] >= 0:
                propose(previous[left], left)
        return [symbol for symbol in symbols if symbol]


def _word_starts(pieces: Iterable[str]) -> re.Pattern[str]:
    """Matches the positions where a text can be cut without changing its ids.

    These are before each space that begins a run of spaces, unless some piece holds a space after
    the character in front of the cut: only such a piece could reach across.
    """
    inside = set(_SPACE_INSIDE.findall("\n".join(pieces)))
    # A newline separates the pieces above, so that it is treated as if some piece held "\n" +
    # SPACE.
    blockers = "".join(map(re.escape, sorted(inside)))
    return re.compile(f"(?<=[^{SPACE}\\n{blockers}])(?={SPACE})")
