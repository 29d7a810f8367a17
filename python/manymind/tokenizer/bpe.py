# SPDX-License-Identifier: Apache-2.0
"""Byte-level BPE from the vocabulary and merges of a GGUF file, run by the ``tokenizers``
library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenizers import AddedToken, Tokenizer, models

from manymind.errors import TokenizerError
from manymind.tokenizer.library import LibraryEncoder, library_errors
from manymind.tokenizer.pre_tokenizers import PreTokenization
from manymind.tokenizer.vocabulary import TokenType


def bpe_encoder(
    pieces: Sequence[str],
    kinds: Mapping[int, int],
    merges: Sequence[str],
    rules: PreTokenization,
) -> LibraryEncoder:
    """Builds the encoder. ``kinds``: TokenType of each id that is not NORMAL.

    Raises TokenizerError if a merge is malformed or makes a piece that is not in the vocabulary.
    """
    vocabulary = dict(zip(pieces, range(len(pieces)), strict=True))
    with library_errors("tokenizer.ggml.merges"):
        # No byte-level character is white space: "left right" splits at the only one.
        pairs = [(left, right) for left, right in map(str.split, merges)]
        model = models.BPE(vocabulary, pairs, ignore_merges=rules.whole_words)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = rules.pre_tokenizer
    if rules.normalizer is not None:
        tokenizer.normalizer = rules.normalizer
    with library_errors("tokenizer.ggml.tokens"):
        tokenizer.add_tokens(
            [
                AddedToken(pieces[token_id], normalized=False, special=kind == TokenType.CONTROL)
                for token_id, kind in kinds.items()
                if kind in (TokenType.CONTROL, TokenType.USER_DEFINED) and pieces[token_id]
            ]
        )
    if tokenizer.get_vocab_size() != len(vocabulary):
        raise TokenizerError(
            f"tokenizer.ggml.tokens: expected {len(vocabulary)} after adding special tokens, "
            f"found {tokenizer.get_vocab_size()}"
        )
    return LibraryEncoder(tokenizer)
