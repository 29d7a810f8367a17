# SPDX-License-Identifier: Apache-2.0
"""Encoding by the ``tokenizers`` library."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import tokenizers

from manymind.errors import TokenizerError


class LibraryEncoder:
    """Wraps a ``tokenizers.Tokenizer`` whose added tokens include the control tokens."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._parsing = tokenizer
        self._literal: tokenizers.Tokenizer | None = None
        self._lock = threading.Lock()  # guards the creation of _literal

    def encode(self, segments: Iterable[tuple[str, bool]]) -> list[int]:
        """Ids of consecutive (text, parse control tokens) pieces."""
        ids: list[int] = []
        for text, parse_special in segments:
            tokenizer = self._parsing if parse_special else self._literal_tokenizer()
            # Of the library's calls, only those for batches let other threads run meanwhile.
            ids += tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return ids

    def _literal_tokenizer(self) -> tokenizers.Tokenizer:
        """A twin that treats control tokens as text.

        Switching one object to and fro is not an option: other threads may be encoding with it.
        """
        with self._lock:
            if self._literal is None:
                self._literal = _twin(self._parsing)
                self._literal.encode_special_tokens = True
            return self._literal


def _twin(source: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """A second tokenizer on the same model (shared, not copied)."""
    twin = tokenizers.Tokenizer(source.model)
    if source.normalizer is not None:
        twin.normalizer = source.normalizer
    if source.pre_tokenizer is not None:
        twin.pre_tokenizer = source.pre_tokenizer
    added = source.get_added_tokens_decoder()
    twin.add_tokens([added[token_id] for token_id in sorted(added)])
    return twin


@contextmanager
def library_errors(subject: str) -> Iterator[None]:
    """Turns whatever the library raises on bad input into TokenizerError."""
    try:
        yield
    except TokenizerError:
        raise
    except Exception as error:
        raise TokenizerError(f"{subject}: {error}") from error
    except BaseException as error:
        # A Rust panic derives from BaseException and has no importable class.
        if type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(f"{subject}: {error}") from error
