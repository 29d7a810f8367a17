# SPDX-License-Identifier: Apache-2.0
"""Tokenizers from GGUF metadata: byte-level BPE ("gpt2") and SentencePiece BPE ("llama")."""

from __future__ import annotations

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.checkpoint.token_ids import bos_token_id, eos_token_ids
from manymind.errors import TokenizerError
from manymind.tokenizer.decoding import PieceTable, byte_level_bytes, spm_bytes
from manymind.tokenizer.spm import SpmEncoder
from manymind.tokenizer.tokenizer import Encoder, Tokenizer
from manymind.tokenizer.vocabulary import Vocabulary

_PREFIX = "tokenizer.ggml."

# Control tokens that end an answer in the chat formats in use. Files name at most three such ids,
# and many name none for the end of a turn.
_ANSWER_ENDS = {
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>"),
}


def load_gguf_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """Raises TokenizerError on an unknown kind, CheckpointError on malformed fields."""
    metadata = Fields(checkpoint.config, _PREFIX)
    kind = metadata.string("model")
    if kind not in ("gpt2", "llama"):
        raise TokenizerError(f"{_PREFIX}model: expected gpt2 or llama, found {kind!r}")
    vocabulary = Vocabulary(metadata)
    if kind == "llama":
        strips_space = metadata.boolean("add_space_prefix", True)
        encoder: Encoder = _spm_encoder(metadata, vocabulary, strips_space)
        piece_bytes, adds_bos = spm_bytes, True
    else:
        from manymind.tokenizer.bpe import bpe_encoder
        from manymind.tokenizer.pre_tokenizers import pre_tokenization

        rules = pre_tokenization(metadata.string("pre", "default"))
        merges = metadata.sequence("merges")
        encoder = bpe_encoder(vocabulary.pieces.tolist(), vocabulary.kinds, merges, rules)
        piece_bytes, adds_bos, strips_space = byte_level_bytes, rules.adds_bos, False
    table = PieceTable(vocabulary.piece_of, vocabulary.is_control, piece_bytes, strips_space)
    return _assemble(checkpoint, metadata, vocabulary, encoder, table, adds_bos)


def _spm_encoder(metadata: Fields, vocabulary: Vocabulary, add_space_prefix: bool) -> SpmEncoder:
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
    vocabulary: Vocabulary,
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
        control_tokens=tuple(
            vocabulary.pieces[i] for i in vocabulary.kinds if vocabulary.is_control(i)
        ),
        prefix_ids=prefix,
        suffix_ids=suffix,
    )


def _around(metadata: Fields, key: str, default: bool, token_id: int | None) -> tuple[int, ...]:
    if not metadata.boolean(key, default) or (token_id is None and key not in metadata):
        return ()
    if token_id is None:
        raise metadata.error(key, "an id of the token to add", "none")
    return (token_id,)


def _piece(vocabulary: Vocabulary, token_id: int | None) -> str:
    if token_id is None:
        return ""
    piece = vocabulary.piece_of(token_id)
    if piece is None:
        raise TokenizerError(
            f"special token: expected an id below {len(vocabulary.pieces)}, found {token_id}"
        )
    return piece
