# SPDX-License-Identifier: Apache-2.0
"""Tokenizers against transformers and sentencepiece on random texts."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest
from golden_data import GOLDEN, TINY_FOLDERS
from reference_text import folder_reference, sentencepiece_reference, smollm2_reference

from manymind.checkpoint import open_checkpoint
from manymind.fetch import resolve_model
from manymind.tokenizer import Tokenizer, load_tokenizer

_ALPHABET = [
    *"abcXYZ 012  \n\n\t.,!?-_'\"<>|/é你日한🙂👍🏽\u200d\u0301ßΩж½²٣",
    *("<|im_end|>", "<end_of_turn>", "<eos>", "'s", "'LL", " the", "ing", "https://", "<table>"),
    *("  ", "   ", "\r\n", "\u3000", "\xa0"),
]


@cache
def random_texts() -> list[str]:
    generator = random.Random(0)
    texts = [
        "".join(generator.choice(_ALPHABET) for _ in range(generator.randrange(1, 60)))
        for _ in range(1500)
    ]
    return [*texts, *(" " * n + "x" + "\n" * n for n in range(70))]


def load(path: Path) -> Tokenizer:
    with open_checkpoint(path) as checkpoint:
        return load_tokenizer(checkpoint)


def test_smollm2() -> None:
    path = resolve_model("smollm2")
    tokenizer, reference = load(path), smollm2_reference(path)
    for text in random_texts():
        ids = tokenizer.encode(text, add_special_tokens=False, parse_special=True)
        assert ids == reference.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids, skip_special_tokens=False) == reference.decode(ids)


def test_byte_level_decoding_of_random_ids() -> None:
    path = resolve_model("smollm2")
    tokenizer, reference = load(path), smollm2_reference(path)
    generator = random.Random(1)
    for _ in range(500):
        ids = [generator.randrange(tokenizer.vocab_size) for _ in range(generator.randrange(1, 20))]
        for skip in (False, True):
            assert tokenizer.decode(ids, skip) == reference.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("folder", TINY_FOLDERS, ids=lambda path: path.name)
def test_folders(folder: Path) -> None:
    tokenizer, reference = load(folder), folder_reference(folder)
    for text in random_texts():
        assert tokenizer.encode(text, parse_special=True) == reference.encode(text)
        literal = reference.encode(text, split_special_tokens=True)
        assert tokenizer.encode(text, parse_special=False) == literal


@pytest.mark.parametrize("model", ["gemma3-270m", "tiny"])
def test_sentencepiece(model: str) -> None:
    is_tiny = model == "tiny"
    path = GOLDEN / "gguf" / "gemma3_mixed.gguf" if is_tiny else resolve_model(model)
    tokenizer, reference = load(path), sentencepiece_reference(path)
    for text in random_texts():
        ids = tokenizer.encode(text, add_special_tokens=False, parse_special=True)
        assert ids == reference(text), text
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
