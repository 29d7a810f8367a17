# SPDX-License-Identifier: Apache-2.0
"""Tokenizers from GGUF metadata: byte-level BPE ("gpt2") and SentencePiece BPE ("llama")."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.checkpoint.token_ids import bos_token_id, eos_token_ids
from manymind.errors import TokenizerError
from manymind.tokenizer.decoding import PieceTable, byte_level_bytes, spm_bytes
from manymind.tokenizer.spm import SpmEncoder, TokenType
from manymind.tokenizer.tokenizer import Encoder, Tokenizer

_PREFIX = "tokenizer.ggml."

# Control tokens that end an answer in the chat formats in use. Files name at most three such ids,
# and many name none for the end of a turn.
_ANSWER_ENDS = {
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>"),
}


class _Vocabulary:
    """Strings and kinds of all tokens."""

    def __init__(self, metadata: Fields) -> None:
        self.pieces: list[str] = metadata.sequence("tokens")
        if not self.pieces or type(self.pieces[0]) is not str:
            raise metadata.error("tokens", "a list of strings", "another list")
        types: list[int] = self._column(metadata, "token_type", int)
        # TokenType of each id that is not NORMAL: few, of a quarter million.
        self.kinds = {token_id: kind for token_id, kind in enumerate(types) if kind != 1}

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


def load_gguf_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """Raises TokenizerError on an unknown kind, CheckpointError on malformed fields."""
    metadata = Fields(checkpoint.config, _PREFIX)
    kind = metadata.string("model")
    if kind not in ("gpt2", "llama"):
        raise TokenizerError(f"{_PREFIX}model: expected gpt2 or llama, found {kind!r}")
    vocabulary = _Vocabulary(metadata)
    if kind == "llama":
        strips_space = metadata.boolean("add_space_prefix", True)
        encoder: Encoder = _spm_encoder(metadata, vocabulary, strips_space)
        piece_bytes, adds_bos = spm_bytes, True
    else:
        from manymind.tokenizer.bpe import bpe_encoder
        from manymind.tokenizer.pre_tokenizers import pre_tokenization

        rules = pre_tokenization(metadata.string("pre", "default"))
        merges = metadata.sequence("merges")
        encoder = bpe_encoder(vocabulary.pieces, vocabulary.kinds, merges, rules)
        piece_bytes, adds_bos, strips_space = byte_level_bytes, rules.adds_bos, False
    table = PieceTable(vocabulary.piece_of, vocabulary.is_control, piece_bytes, strips_space)
    return _assemble(checkpoint, metadata, vocabulary, encoder, table, adds_bos)


def _spm_encoder(metadata: Fields, vocabulary: _Vocabulary, add_space_prefix: bool) -> SpmEncoder:
    unknown = metadata.token_ids("unknown_token_id")
    return SpmEncoder(
        vocabulary.pieces,
        vocabulary.scores(metadata),
        vocabulary.kinds,
        add_space_prefix,
        unknown[0] if unknown else None,
    )


def _assemble(
    checkpoint: Checkpoint,
    metadata: Fields,
    vocabulary: _Vocabulary,
    encoder: Encoder,
    table: PieceTable,
    adds_bos: bool,
) -> Tokenizer:
    bos, stated_eos = bos_token_id(checkpoint), eos_token_ids(checkpoint)
    prefix = _around(metadata, "add_bos_token", adds_bos, bos)
    suffix = _around(metadata, "add_eos_token", False, stated_eos[0] if stated_eos else None)
    answer_ends = (i for i in vocabulary.kinds if vocabulary.pieces[i] in _ANSWER_ENDS)
    return Tokenizer(
        encoder=encoder,
        tokens=table,
        piece_of=vocabulary.piece_of,
        id_of=vocabulary.id_of,
        vocab_size=len(vocabulary.pieces),
        bos_token_id=bos,
        eos_token_ids=tuple(dict.fromkeys([*stated_eos, *answer_ends])),
        bos_token=_piece(vocabulary, bos),
        eos_token=_piece(vocabulary, stated_eos[0] if stated_eos else None),
        prefix_ids=prefix,
        suffix_ids=suffix,
    )


def _around(metadata: Fields, key: str, default: bool, token_id: int | None) -> tuple[int, ...]:
    if not metadata.boolean(key, default) or (token_id is None and key not in metadata):
        return ()
    if token_id is None:
        raise metadata.error(key, "an id of the token to add", "none")
    return (token_id,)


def _piece(vocabulary: _Vocabulary, token_id: int | None) -> str:
    if token_id is None:
        return ""
    piece = vocabulary.piece_of(token_id)
    if piece is None:
        raise TokenizerError(
            f"special token: expected an id below {len(vocabulary.pieces)}, found {token_id}"
        )
    return piece
