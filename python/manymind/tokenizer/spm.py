# SPDX-License-Identifier: Apache-2.0
"""The SentencePiece BPE model with byte fallback (the "llama" tokenizer of GGUF files).

The native model merges; here, tokens that are written out in a text are cut from it. It merges by
score, straight from the vocabulary: the ``tokenizers`` library would want a list of merges, which
takes about a second to make for Gemma's 262k pieces, before the first token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from manymind import _turbomind
from manymind.errors import InvalidParameterError, TokenizerError
from manymind.tokenizer.decoding import SPACE, byte_value
from manymind.tokenizer.literals import LiteralSplitter
from manymind.tokenizer.vocabulary import TokenType


class SpmEncoder:
    """Text to ids.

    Args:
        pieces, scores: indexed by id; the scores are a buffer of float32.
        kinds: TokenType of each id that is not NORMAL.
        add_space_prefix: a run of text is encoded as if a space stood before it, at the start and
            after each control token.
        unknown_id: stands for a character without piece where there are no byte tokens.

    Raises TokenizerError if only some bytes have a token or a score is no number.
    """

    def __init__(
        self,
        pieces: _turbomind.StringTable,
        scores: Any,
        kinds: Mapping[int, int],
        add_space_prefix: bool,
        unknown_id: int | None,
    ) -> None:
        self._prefix = SPACE if add_space_prefix else ""
        byte_ids: dict[int, int] = {}
        control: dict[str, int] = {}
        user_defined: dict[str, int] = {}
        for token_id, kind in kinds.items():
            piece = pieces[token_id]
            if kind == TokenType.CONTROL:
                control[piece] = token_id
            elif kind == TokenType.USER_DEFINED:
                user_defined[piece.replace(" ", SPACE)] = token_id
            elif kind == TokenType.BYTE:
                byte_ids[_byte_of(piece)] = token_id
        if byte_ids and len(byte_ids) != 256:
            raise TokenizerError(f"byte tokens: expected none or 256, found {len(byte_ids)}")
        self._user_defined = LiteralSplitter(user_defined)
        self._user_defined_or_control = LiteralSplitter(user_defined | control)
        self._control_ids = frozenset(control.values())
        in_order = [byte_ids[byte] for byte in sorted(byte_ids)]
        try:
            self._model = _turbomind.SpmModel(pieces, scores, list(kinds), in_order, unknown_id)
        except InvalidParameterError as error:
            raise TokenizerError(f"vocabulary: {error}") from error

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

    def _encode_text(self, text: str, ids: list[int]) -> None:
        for part in self._user_defined.split(text):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids += self._model.encode(part)


def _byte_of(piece: str) -> int:
    value = byte_value(piece)
    if value is None:
        raise TokenizerError(f"byte token: expected <0xNN>, found {piece!r}")
    return value
