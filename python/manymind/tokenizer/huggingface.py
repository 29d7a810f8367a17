# SPDX-License-Identifier: Apache-2.0
"""Tokenizers from a Hugging Face folder: tokenizer.json and the flags of tokenizer_config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import tokenizers

from manymind.checkpoint import Checkpoint
from manymind.checkpoint.fields import Fields
from manymind.checkpoint.json_file import read_json_object
from manymind.checkpoint.token_ids import bos_token_id, eos_token_ids
from manymind.errors import CheckpointError, TokenizerError
from manymind.tokenizer.decoding import (
    SPACE,
    PieceBytes,
    PieceTable,
    byte_level_bytes,
    spm_bytes,
    word_piece_bytes,
)
from manymind.tokenizer.library import LibraryEncoder, library_errors
from manymind.tokenizer.tokenizer import Tokenizer

_MAX_TOKENIZER_BYTES = 256 << 20


def load_huggingface_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """Raises TokenizerError on an unusable tokenizer.json, CheckpointError on missing files."""
    library = _read_library_tokenizer(checkpoint.path / "tokenizer.json")
    config_path = checkpoint.path / "tokenizer_config.json"
    config = read_json_object(config_path) if config_path.is_file() else {}
    added = library.get_added_tokens_decoder().items()
    special = {token_id: token.content for token_id, token in added if token.special}
    piece_bytes, strips_space = _decoding_rule(library)
    table = PieceTable(library.id_to_token, special.__contains__, piece_bytes, strips_space)
    bos_token = _special_token(config, "bos_token", library, bos_token_id(checkpoint))
    stated_eos = eos_token_ids(checkpoint)
    eos_token = _special_token(config, "eos_token", library, stated_eos[0] if stated_eos else None)
    eos_id = library.token_to_id(eos_token)
    prefix, suffix = _around(config, library, bos_token, eos_token)
    return Tokenizer(
        encoder=LibraryEncoder(library),
        tokens=table,
        piece_of=library.id_to_token,
        id_of=library.token_to_id,
        vocab_size=library.get_vocab_size(),
        bos_token_id=library.token_to_id(bos_token),
        eos_token_ids=tuple(dict.fromkeys([*stated_eos, *([] if eos_id is None else [eos_id])])),
        bos_token=bos_token,
        eos_token=eos_token,
        control_tokens=tuple(special.values()),
        prefix_ids=prefix,
        suffix_ids=suffix,
    )


def _read_library_tokenizer(path: Path) -> tokenizers.Tokenizer:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise CheckpointError("file", "a readable file", error, path) from error
    if size > _MAX_TOKENIZER_BYTES:
        raise CheckpointError("size", f"at most {_MAX_TOKENIZER_BYTES} bytes", size, path)
    with library_errors("tokenizer.json"):
        library = tokenizers.Tokenizer.from_file(str(path))
        library.no_truncation()
        library.no_padding()
    return library


def _special_token(
    config: Mapping[str, Any], key: str, library: tokenizers.Tokenizer, stated_id: int | None
) -> str:
    """The token's string: as tokenizer_config.json states it, else by its id in config.json."""
    value = config.get(key)
    if isinstance(value, dict):
        value = value.get("content")
    if value is None:
        return (library.id_to_token(stated_id) if stated_id is not None else None) or ""
    if not isinstance(value, str):
        raise CheckpointError(f"tokenizer_config.json: {key}", "a string", value)
    return value


def _around(
    config: Mapping[str, Any], library: tokenizers.Tokenizer, bos_token: str, eos_token: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids before and after a text.

    The flags of tokenizer_config.json decide where they are present; else the post-processor.
    """
    flags = Fields(config)
    if "add_bos_token" in flags or "add_eos_token" in flags:
        ids = []
        for key, token in (("add_bos_token", bos_token), ("add_eos_token", eos_token)):
            token_id = library.token_to_id(token)
            ids.append((token_id,) if flags.boolean(key, False) and token_id is not None else ())
        return ids[0], ids[1]
    probe = "a"
    with library_errors("tokenizer.json: post_processor"):
        bare = library.encode(probe, add_special_tokens=False).ids
        full = library.encode(probe, add_special_tokens=True).ids
    for start in range(len(full) - len(bare) + 1):
        if bare and full[start : start + len(bare)] == bare:
            return tuple(full[:start]), tuple(full[start + len(bare) :])
    raise TokenizerError("tokenizer.json: post_processor: expected one that only surrounds a text")


def _decoding_rule(library: tokenizers.Tokenizer) -> tuple[PieceBytes, bool]:
    """What a token's string means, and whether the first space of a text is stripped."""
    if library.decoder is None:
        raise TokenizerError("tokenizer.json: decoder: expected one, found none")
    decoder = json.loads(library.decoder.__getstate__())
    if decoder["type"] == "ByteLevel":
        return byte_level_bytes, False
    if decoder["type"] == "Metaspace" and decoder["replacement"] == SPACE:
        return spm_bytes, decoder["prepend_scheme"] != "never"
    if decoder["type"] == "WordPiece":
        return partial(word_piece_bytes, decoder["prefix"]), True
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    if steps and steps[0] == {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}:
        rest = [step for step in steps[1:] if step["type"] not in ("ByteFallback", "Fuse")]
        if not rest:
            return spm_bytes, False
        if rest == [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]:
            return spm_bytes, True
    found = " + ".join(step["type"] for step in steps)
    expected = "byte-level, SentencePiece or WordPiece decoding"
    raise TokenizerError(f"tokenizer.json: decoder: expected {expected}, found {found}")
