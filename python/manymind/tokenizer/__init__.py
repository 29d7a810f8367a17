# SPDX-License-Identifier: Apache-2.0
"""Tokenizers: from a Hugging Face folder's tokenizer.json or from GGUF metadata."""

from __future__ import annotations

from manymind.checkpoint import Checkpoint
from manymind.errors import CheckpointError, TokenizerError
from manymind.tokenizer.decoding import IncrementalDecoder
from manymind.tokenizer.tokenizer import Segment, Tokenizer

__all__ = ["IncrementalDecoder", "Segment", "Tokenizer", "load_tokenizer"]


def load_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer of an opened checkpoint; it stays usable after the checkpoint is closed.

    Raises TokenizerError on a definition that is corrupt or of a kind that is not implemented,
    CheckpointError on malformed files and fields.
    """
    try:
        if checkpoint.kind == "gguf":
            from manymind.tokenizer.gguf import load_gguf_tokenizer

            return load_gguf_tokenizer(checkpoint)
        from manymind.tokenizer.huggingface import load_huggingface_tokenizer

        return load_huggingface_tokenizer(checkpoint)
    except CheckpointError as error:
        raise error.located(checkpoint.path) from error
    except TokenizerError as error:
        raise TokenizerError(f"{checkpoint.path}: {error}") from error
