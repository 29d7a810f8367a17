# SPDX-License-Identifier: Apache-2.0
"""From ids to text: every token stands for bytes, and text is those bytes read as UTF-8."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterable
from typing import Protocol

from manymind.errors import InvalidParameterError

SPACE = "▁"  # SentencePiece's mark for a space, U+2581
PieceBytes = Callable[[str], bytes]


class TokenBytes(Protocol):
    """Looks up what a token stands for."""

    strips_space: bool  # one space at the very start of a text belongs to the encoding, not to it

    def token_bytes(self, token_id: int, skip_special: bool) -> bytes: ...


class IncrementalDecoder:
    """Text of a growing sequence of ids. Never emits part of a character; cost is linear.

    The concatenation of all returned pieces equals ``Tokenizer.decode`` of all ids. Bytes that are
    not UTF-8 become U+FFFD, one for each maximal invalid subsequence (Unicode 15, section 3.9).
    An answer that ends in the middle of a character is shown without it: leave out ``flush``.
    """

    def __init__(self, tokens: TokenBytes, skip_special_tokens: bool) -> None:
        self._tokens = tokens
        self._skip_special = skip_special_tokens
        self._strip = tokens.strips_space
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, ids: Iterable[int]) -> str:
        """The characters that ``ids`` complete."""
        data = b"".join([self._tokens.token_bytes(i, self._skip_special) for i in ids])
        if self._strip and data:
            self._strip = False
            data = data.removeprefix(b" ")
        return self._utf8.decode(data)

    def flush(self) -> str:
        """The rest, when no more ids will come: U+FFFD if a character was left incomplete."""
        return self._utf8.decode(b"", True)


class PieceTable:
    """Bytes of each token, worked out on first use.

    Args:
        piece_of: the token's string, or None if the id has none.
        is_special: whether ``skip_special`` leaves the token out.
        piece_bytes: the rule of the tokenizer's kind.
        strips_space: see TokenBytes.
    """

    def __init__(
        self,
        piece_of: Callable[[int], str | None],
        is_special: Callable[[int], bool],
        piece_bytes: PieceBytes,
        strips_space: bool,
    ) -> None:
        self.strips_space = strips_space
        self._piece_of = piece_of
        self._is_special = is_special
        self._piece_bytes = piece_bytes
        self._known: dict[int, tuple[bytes, bool]] = {}

    def token_bytes(self, token_id: int, skip_special: bool) -> bytes:
        """Nothing for ids past the vocabulary: models pad their output matrix."""
        known = self._known.get(token_id)
        if known is None:
            known = self._known[token_id] = self._look_up(token_id)
        data, special = known
        return b"" if special and skip_special else data

    def _look_up(self, token_id: int) -> tuple[bytes, bool]:
        if token_id < 0:
            raise InvalidParameterError(f"token id: expected 0 or more, found {token_id}")
        piece = self._piece_of(token_id)
        if piece is None:
            return b"", False
        return self._piece_bytes(piece), self._is_special(token_id)


def byte_level_bytes(piece: str) -> bytes:
    """Byte-level BPE writes each byte as one printable character (Radford et al. 2019, GPT-2).

    A token with another character is an added one and stands for its own text.
    """
    try:
        return bytes([_BYTE_OF_CHARACTER[character] for character in piece])
    except KeyError:
        return piece.encode()


def spm_bytes(piece: str) -> bytes:
    """SentencePiece writes a space as U+2581, and a byte that is in no piece as <0xNN>."""
    value = byte_value(piece)
    return piece.replace(SPACE, " ").encode() if value is None else bytes([value])


def word_piece_bytes(prefix: str, piece: str) -> bytes:
    """WordPiece marks a piece that goes on with a word; any other begins one. The spaces that a
    text had before its punctuation are not known any more.
    """
    return (piece[len(prefix) :] if piece.startswith(prefix) else f" {piece}").encode()


def byte_value(piece: str) -> int | None:
    """The byte that SentencePiece's token <0xNN> stands for; None for other tokens."""
    match = _BYTE_TOKEN.fullmatch(piece)
    return None if match is None else int(match[1], 16)


def _byte_characters() -> dict[str, int]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in set(printable))
    table.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return table


_BYTE_OF_CHARACTER = _byte_characters()
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
