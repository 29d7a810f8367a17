# SPDX-License-Identifier: Apache-2.0
"""The vocabulary columns of a GGUF file."""

from __future__ import annotations

from enum import IntEnum
from functools import cached_property
from typing import Any

from manymind.checkpoint.fields import Fields


class TokenType(IntEnum):
    """``tokenizer.ggml.token_type``; the numbers are SentencePiece's."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Vocabulary:
    """Strings and kinds of all tokens. Raises CheckpointError on missing or malformed columns.

    Attributes:
        pieces: the token's string, by id.
        kinds: TokenType of each id that is not NORMAL.
    """

    def __init__(self, metadata: Fields) -> None:
        self.pieces: list[str] = metadata.sequence("tokens")
        if not self.pieces or type(self.pieces[0]) is not str:
            raise metadata.error("tokens", "a list of strings", "another list")
        types: list[int] = self._column(metadata, "token_type", int)
        normal = int(TokenType.NORMAL)
        # TokenType of each id that is not NORMAL: few, of a quarter million.
        self.kinds = {token_id: kind for token_id, kind in enumerate(types) if kind != normal}

    def scores(self, metadata: Fields) -> list[float]:
        return self._column(metadata, "scores", float)

    @cached_property
    def ids(self) -> dict[str, int]:
        return dict(zip(self.pieces, range(len(self.pieces)), strict=True))

    def piece_of(self, token_id: int) -> str | None:
        return self.pieces[token_id] if 0 <= token_id < len(self.pieces) else None

    def id_of(self, piece: str) -> int | None:
        return self.ids.get(piece)

    def is_control(self, token_id: int) -> bool:
        return self.kinds.get(token_id) == TokenType.CONTROL

    def _column(self, metadata: Fields, name: str, kind: type) -> list[Any]:
        values = metadata.sequence(name)
        if len(values) != len(self.pieces) or type(values[0]) is not kind:
            expected = f"{len(self.pieces)} of {kind.__name__}"
            raise metadata.error(name, expected, f"{len(values)} of {type(values[:1])}")
        return values
