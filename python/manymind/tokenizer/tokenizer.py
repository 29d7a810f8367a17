# SPDX-License-Identifier: Apache-2.0
"""The tokenizer that the rest of the package sees, whatever it was read from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from manymind.errors import InvalidParameterError
from manymind.tokenizer.decoding import IncrementalDecoder, TokenBytes

# Text, and whether control tokens written in it become their ids.
Segment = tuple[str, bool]


class Encoder(Protocol):
    """Text to ids, without tokens around the text. Safe to call from several threads."""

    def encode(self, segments: Iterable[Segment]) -> list[int]: ...


@dataclass(frozen=True)
class Tokenizer:
    """Text to token ids and back. Immutable; safe to share between threads.

    Attributes:
        vocab_size: number of tokens with a string; a model's output matrix may have more rows.
        bos_token, eos_token: their strings, for chat templates; "" if there is none.
        eos_token_ids: all tokens that end an answer.
        control_tokens: strings of the tokens that ``parse_special`` is about.
        prefix_ids, suffix_ids: what ``add_special_tokens`` puts around a text.
    """

    encoder: Encoder
    tokens: TokenBytes
    piece_of: Callable[[int], str | None]
    id_of: Callable[[str], int | None]
    vocab_size: int
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    bos_token: str
    eos_token: str
    control_tokens: tuple[str, ...]
    prefix_ids: tuple[int, ...]
    suffix_ids: tuple[int, ...]

    def encode(
        self, text: str, add_special_tokens: bool = True, parse_special: bool = False
    ) -> list[int]:
        """Token ids of ``text``.

        Args:
            text: any string.
            add_special_tokens: add what the model expects around a text (often a BOS token). Leave
                it off for rendered chat templates, which contain these tokens.
            parse_special: control tokens written in ``text`` become their ids. Only for text that
                the caller trusts: with False "<|im_end|>" is ten harmless characters.

        Raises InvalidParameterError if ``text`` is not valid Unicode.
        """
        ids = self.encode_segments([(text, parse_special)])
        return [*self.prefix_ids, *ids, *self.suffix_ids] if add_special_tokens else ids

    def encode_segments(self, segments: Sequence[Segment]) -> list[int]:
        """Token ids of consecutive pieces of one text, without special tokens around it.

        For rendered chats: ``ChatTemplate.render_segments`` tells what the template wrote from what
        a user did. Raises InvalidParameterError if a text is not valid Unicode.
        """
        try:
            for text, _ in segments:
                text.encode()  # encoders differ in what they raise on half a surrogate pair
        except UnicodeEncodeError as error:
            raise InvalidParameterError(f"text: expected valid Unicode, found {error}") from error
        return self.encoder.encode(segments)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of ``ids``; see IncrementalDecoder. Raises InvalidParameterError on an id below
        0."""
        decoder = self.incremental_decoder(skip_special_tokens)
        return decoder.push(ids) + decoder.flush()

    def incremental_decoder(self, skip_special_tokens: bool = True) -> IncrementalDecoder:
        """A decoder for one answer that arrives token by token."""
        return IncrementalDecoder(self.tokens, skip_special_tokens)

    def id_to_token(self, token_id: int) -> str | None:
        """The token's string as the vocabulary spells it, or None."""
        return self.piece_of(token_id)

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as the vocabulary spells it, or None."""
        return self.id_of(token)
