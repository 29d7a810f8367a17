# SPDX-License-Identifier: Apache-2.0
"""The vocabulary columns of a GGUF file."""

from __future__ import annotations

from array import array
from enum import IntEnum

from manymind.checkpoint.fields import Fields
from manymind.checkpoint.gguf_cursor import StringArray


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
        tokens = metadata.raw("tokens")
        if not isinstance(tokens, StringArray) or not tokens:
            found = "nothing" if tokens is None else "another value"
            raise metadata.error("tokens", "a list of strings", found)
        self.pieces = tokens.table()
        types = self._column(metadata, "token_type", int)
        normal = int(TokenType.NORMAL)
        # TokenType of each id that is not NORMAL: few, of a quarter million.
        self.kinds = {token_id: kind for token_id, kind in enumerate(types) if kind != normal}

    def scores(self, metadata: Fields) -> memoryview | array[float]:
        """By id, float32."""
        values = self._column(metadata, "scores", float)
        return values if values.format == "f" else array("f", values)

    def piece_of(self, token_id: int) -> str | None:
        return self.pieces[token_id] if 0 <= token_id < len(self.pieces) else None

    def id_of(self, piece: str) -> int | None:
        return self.pieces.find(piece)

    def is_control(self, token_id: int) -> bool:
        return self.kinds.get(token_id) == TokenType.CONTROL

    def _column(self, metadata: Fields, name: str, kind: type) -> memoryview:
        """One number for each token, as the file holds them: a list would be ten times the size."""
        expected = f"{len(self.pieces)} of {kind.__name__}"
        values = metadata.raw(name)
        if not isinstance(values, memoryview):
            raise metadata.error(name, expected, "nothing" if values is None else "another value")
        found = type(values[0]) if len(values) else None
        if len(values) != len(self.pieces) or found is not kind:
            kinds = f" of {found.__name__}" if found else ""
            raise metadata.error(name, expected, f"{len(values)}{kinds}")
        return values
