# SPDX-License-Identifier: Apache-2.0
"""Ids of the tokens that begin and end a text, as a checkpoint states them."""

from __future__ import annotations

from manymind.checkpoint.fields import Fields
from manymind.checkpoint.types import Checkpoint

_GGUF_PREFIX = "tokenizer.ggml."


def bos_token_id(checkpoint: Checkpoint) -> int | None:
    """The token that begins a text. Raises CheckpointError if the field is not a token id."""
    prefix = _GGUF_PREFIX if checkpoint.kind == "gguf" else ""
    ids = Fields(checkpoint.config, prefix).token_ids("bos_token_id")
    return ids[0] if ids else None


def eos_token_ids(checkpoint: Checkpoint) -> tuple[int, ...]:
    """The tokens any of which ends a text, each once. Raises CheckpointError on other values.

    GGUF has separate keys for the ends of sequence, turn and message; in a folder
    generation_config.json wins over config.json.
    """
    if checkpoint.kind == "gguf":
        metadata = Fields(checkpoint.config, _GGUF_PREFIX)
        keys = ("eos_token_id", "eot_token_id", "eom_token_id")
        ids = tuple(token for key in keys for token in metadata.token_ids(key))
    else:
        generation = Fields(checkpoint.generation_config).token_ids("eos_token_id")
        ids = generation or Fields(checkpoint.config).token_ids("eos_token_id")
    return tuple(dict.fromkeys(ids))
