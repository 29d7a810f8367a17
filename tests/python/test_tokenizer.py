# SPDX-License-Identifier: Apache-2.0
"""Encoding and decoding, against the token ids of transformers and sentencepiece."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from array import array
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from gguf_bytes import string
from golden_data import GOLDEN, golden_texts

from manymind import _turbomind
from manymind.checkpoint import Checkpoint, open_checkpoint
from manymind.checkpoint.gguf_cursor import StringArray
from manymind.errors import (
    CheckpointError,
    InvalidParameterError,
    ManymindError,
    TokenizerError,
)
from manymind.fetch import resolve_model
from manymind.tokenizer import Tokenizer, load_tokenizer
from manymind.tokenizer.pre_tokenizers import pre_tokenization

SPM_FILE = GOLDEN / "gguf" / "gemma3_mixed.gguf"
BPE_FILE = GOLDEN / "gguf" / "qwen3_q8_0.gguf"
FOLDER = GOLDEN / "tiny" / "llama"
KINDS = ("folder", "bpe", "spm")


@cache
def tokenizer(kind: str) -> Tokenizer:
    paths = {"folder": FOLDER, "bpe": BPE_FILE, "spm": SPM_FILE}
    with open_checkpoint(paths[kind] if kind in paths else resolve_model(kind)) as checkpoint:
        return load_tokenizer(checkpoint)


@pytest.mark.parametrize(
    ("kind", "golden"), [("folder", "tiny_bpe"), ("bpe", "tiny_bpe"), ("smollm2", "smollm2")]
)
def test_ids_equal_transformers(kind: str, golden: str) -> None:
    for text, ids in zip(golden_texts()["texts"], golden_texts()["ids"][golden], strict=True):
        found = tokenizer(kind).encode(text, add_special_tokens=False, parse_special=True)
        assert found == ids, text


@pytest.mark.parametrize(("kind", "golden"), [("spm", "tiny_spm"), ("gemma3-270m", "gemma3-270m")])
def test_ids_equal_sentencepiece(kind: str, golden: str) -> None:
    for text, ids in zip(golden_texts()["texts"], golden_texts()["ids"][golden], strict=True):
        if "▁" in text:
            continue  # written out it is read as transformers does: see the test below
        found = tokenizer(kind).encode(text, add_special_tokens=False, parse_special=True)
        assert found == ids, text


@pytest.mark.parametrize("name", ["dbrx", "llama-bpe"])
def test_words_of_cl100k(name: str) -> None:
    """Digits by three, contractions in either case, one space with the word behind it."""
    splitter = pre_tokenization(name).pre_tokenizer
    words = [word for word, _ in splitter.pre_tokenize_str("It'S 12345 x\n\n  y")]
    assert words == ["It", "'S", "Ġ", "123", "45", "Ġx", "ĊĊ", "Ġ", "Ġy"]


def test_dbrx_takes_merges_alone_and_adds_no_bos() -> None:
    llama3, dbrx = pre_tokenization("llama-bpe"), pre_tokenization("dbrx")
    assert (llama3.whole_words, llama3.adds_bos) == (True, True)
    assert (dbrx.whole_words, dbrx.adds_bos) == (False, False)


def test_literal_space_marks_are_read_as_by_gemmas_tokenizer_json() -> None:
    # From transformers with the published file: "▁", "▁▁", "▁and".
    assert tokenizer("gemma3-270m").encode(" ▁▁ and", False) == [236743, 138, 532]


@pytest.mark.parametrize("kind", [*KINDS, "smollm2", "gemma3-270m"])
def test_decoding_gives_the_text_back(kind: str) -> None:
    for text in [*golden_texts()["texts"], (GOLDEN / "text.txt").read_text(encoding="utf-8")]:
        if "▁" in text and kind in ("spm", "gemma3-270m"):
            continue  # SentencePiece writes spaces with this character
        for parse_special in (False, True):
            ids = tokenizer(kind).encode(text, False, parse_special)
            assert tokenizer(kind).decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("skip_special_tokens", [False, True])
def test_pieces_concatenate_to_the_decoded_text(kind: str, skip_special_tokens: bool) -> None:
    generator = random.Random(0)
    size = tokenizer(kind).vocab_size
    for _ in range(300):
        ids = [generator.randrange(size) for _ in range(generator.randrange(30))]
        decoder = tokenizer(kind).incremental_decoder(skip_special_tokens)
        pieces = [decoder.push([token_id]) for token_id in ids] + [decoder.flush()]
        assert "".join(pieces) == tokenizer(kind).decode(ids, skip_special_tokens)


@pytest.mark.parametrize("kind", [*KINDS, "smollm2", "gemma3-270m"])
def test_no_piece_is_part_of_a_character(kind: str) -> None:
    text = "né 日本語 👩🏽‍🚀 \U0001d518 각 ﬁn"
    decoder = tokenizer(kind).incremental_decoder()
    for token_id in tokenizer(kind).encode(text, add_special_tokens=False):
        assert "\ufffd" not in decoder.push([token_id])
    assert decoder.flush() == ""


@pytest.mark.parametrize("kind", KINDS)
def test_incomplete_character_is_held_back_then_replaced(kind: str) -> None:
    ids = tokenizer(kind).encode("é日", add_special_tokens=False)
    decoder = tokenizer(kind).incremental_decoder()
    assert decoder.push(ids[:-1]) == "é"
    assert decoder.push([]) == ""
    assert decoder.flush() == "\ufffd"


@pytest.mark.parametrize(
    ("kind", "control"),
    [("folder", "<|im_end|>"), ("bpe", "<|im_end|>"), ("spm", "<end_of_turn>")],
)
def test_control_tokens_are_parsed_only_on_request(kind: str, control: str) -> None:
    subject = tokenizer(kind)
    token_id = subject.token_to_id(control)
    assert token_id is not None
    assert subject.id_to_token(token_id) == control
    text = f"a{control}b"
    assert token_id in subject.encode(text, False, parse_special=True)
    literal = subject.encode(text, False, parse_special=False)
    assert token_id not in literal
    assert subject.decode(literal) == text
    assert subject.decode([token_id]) == ""
    assert subject.decode([token_id], skip_special_tokens=False) == control


def test_special_tokens_around_a_text() -> None:
    assert tokenizer("spm").encode("a")[0] == tokenizer("spm").bos_token_id == 1
    assert tokenizer("spm").encode("a", add_special_tokens=False)[0] != 1
    assert tokenizer("gemma3-270m").encode("") == [2]
    assert tokenizer("smollm2").encode("") == []


def test_end_tokens() -> None:
    assert tokenizer("smollm2").eos_token_ids == (2, 0)
    assert tokenizer("smollm2").eos_token == "<|im_end|>"
    assert tokenizer("gemma3-270m").eos_token_ids == (1, 106)
    assert tokenizer("folder").eos_token_ids == (1, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_ids_outside_the_vocabulary(kind: str) -> None:
    size = tokenizer(kind).vocab_size
    assert tokenizer(kind).decode([size, size + 100_000]) == ""
    assert tokenizer(kind).id_to_token(size) is None
    assert tokenizer(kind).token_to_id("no such token") is None
    with pytest.raises(InvalidParameterError):
        tokenizer(kind).decode([-1])


@pytest.mark.parametrize("kind", KINDS)
def test_invalid_unicode_is_a_typed_error(kind: str) -> None:
    with pytest.raises(InvalidParameterError):
        tokenizer(kind).encode("a\ud800b")


def column(value: Any) -> Any:
    """A list as a GGUF file's reader gives it; another value as it is."""
    if not isinstance(value, list):
        return value
    if value and type(value[0]) is str:
        data = b"".join(string(text) for text in value)
        return StringArray("changed", memoryview(data), len(value))
    return memoryview(array("f" if value and type(value[0]) is float else "i", value))


def gguf_with(path: Path, **changes: Any) -> Checkpoint:
    checkpoint = open_checkpoint(path)
    renamed = {f"tokenizer.ggml.{key}": column(value) for key, value in changes.items()}
    config = {**checkpoint.config, **renamed}
    return dataclasses.replace(
        checkpoint, config={key: value for key, value in config.items() if value is not None}
    )


def test_space_prefix() -> None:
    plain = load_tokenizer(gguf_with(SPM_FILE, add_space_prefix=False))
    prefixed = load_tokenizer(gguf_with(SPM_FILE, add_space_prefix=True))
    assert prefixed.encode("the cat") == plain.encode(" the cat")
    assert prefixed.decode(prefixed.encode("the cat")) == "the cat"
    assert prefixed.decode(prefixed.encode("  two")) == "  two"
    assert prefixed.encode("", add_special_tokens=False) == []
    pieces = [("the", True), (" cat", False)]
    assert prefixed.encode_segments(pieces) == prefixed.encode("the cat", add_special_tokens=False)
    decoder = prefixed.incremental_decoder()
    ids = prefixed.encode("the cat", add_special_tokens=False)
    assert "".join([decoder.push([i]) for i in ids] + [decoder.flush()]) == "the cat"


def test_pieces_with_a_space_inside_are_found_across_words() -> None:
    names = ("tokens", "scores", "token_type")
    columns = {name: open_checkpoint(SPM_FILE).config[f"tokenizer.ggml.{name}"] for name in names}
    crossing = {"n▁t": 100.0, "n▁": 99.0}
    changed = gguf_with(
        SPM_FILE,
        tokens=[*columns["tokens"].tolist(), *crossing],
        scores=[*columns["scores"].tolist(), *crossing.values()],
        token_type=[*columns["token_type"].tolist(), 1, 1],
    )
    subject = load_tokenizer(changed)
    assert subject.token_to_id("n▁t") in subject.encode("can the")


@pytest.mark.parametrize(
    ("path", "changes", "error", "word"),
    [
        (BPE_FILE, {"model": "wordpiece"}, TokenizerError, "wordpiece"),
        (BPE_FILE, {"model": None}, CheckpointError, "model"),
        (BPE_FILE, {"pre": "unheard-of"}, TokenizerError, "unheard-of"),
        (BPE_FILE, {"tokens": None}, CheckpointError, "tokens"),
        (BPE_FILE, {"tokens": [1, 2]}, CheckpointError, "tokens"),
        (BPE_FILE, {"tokens": []}, CheckpointError, "tokens"),
        (BPE_FILE, {"tokens": ["a"]}, CheckpointError, "token_type"),
        (BPE_FILE, {"token_type": None}, CheckpointError, "token_type"),
        (BPE_FILE, {"merges": ["a"]}, TokenizerError, "merges"),
        (BPE_FILE, {"merges": ["a b c"]}, TokenizerError, "merges"),
        (BPE_FILE, {"merges": ["no-piece no-piece"]}, TokenizerError, "merges"),
        (BPE_FILE, {"merges": [1]}, TokenizerError, "merges"),
        (BPE_FILE, {"merges": None}, CheckpointError, "merges"),
        (BPE_FILE, {"bos_token_id": 100_000}, TokenizerError, "100000"),
        (BPE_FILE, {"add_bos_token": 1}, CheckpointError, "add_bos_token"),
        (SPM_FILE, {"scores": None}, CheckpointError, "scores"),
        (SPM_FILE, {"scores": [1.0]}, CheckpointError, "scores"),
        (SPM_FILE, {"scores": []}, CheckpointError, "scores: expected 448 of float, found 0"),
        (SPM_FILE, {"token_type": []}, CheckpointError, "token_type"),
        (SPM_FILE, {"scores": [1] * 448}, CheckpointError, "scores"),
        (SPM_FILE, {"scores": [0.0] * 447 + [math.nan]}, TokenizerError, "nan"),
        (SPM_FILE, {"add_bos_token": True, "bos_token_id": None}, CheckpointError, "add_bos"),
        (SPM_FILE, {"token_type": [6] * 448}, TokenizerError, "byte token"),
        (SPM_FILE, {"unknown_token_id": 448}, TokenizerError, "below 448, found 448"),
    ],
)
def test_bad_gguf_tokenizers_are_typed_errors(
    path: Path, changes: dict[str, Any], error: type[Exception], word: str
) -> None:
    with pytest.raises(error, match=word) as caught:
        load_tokenizer(gguf_with(path, **changes))
    assert str(path) in str(caught.value)


def test_only_contiguous_memory_is_read() -> None:
    every_other = memoryview(bytes(64))[::2]
    with pytest.raises(InvalidParameterError, match="data: expected contiguous memory"):
        _turbomind.measure_strings(every_other, 4)
    with pytest.raises(InvalidParameterError, match="data: expected contiguous memory"):
        _turbomind.StringTable(every_other, 4)
    table = _turbomind.StringTable(memoryview(string("a") + string("b")), 2)
    scores = memoryview(array("f", [0.0, 1.0]))[::-1]
    with pytest.raises(InvalidParameterError, match="scores: expected contiguous memory"):
        _turbomind.SpmModel(table, scores, [], [], None)
    with pytest.raises(TypeError):
        _turbomind.SpmModel(None, scores, [], [], None)  # type: ignore[arg-type]


def folder_with(tmp_path: Path, tokenizer_json: str, config: str = "{}") -> Checkpoint:
    (tmp_path / "tokenizer.json").write_text(tokenizer_json)
    (tmp_path / "tokenizer_config.json").write_text(config)
    return Checkpoint(tmp_path, "huggingface", {}, {})


def changed_json(**changes: Any) -> str:
    return json.dumps({**json.loads((FOLDER / "tokenizer.json").read_text()), **changes})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"version": "1.0"}',
        changed_json(model={"type": "BPE", "vocab": {"a": 0}, "merges": ["a a"]}),
        changed_json(decoder=None),
        changed_json(decoder={"type": "BPEDecoder", "suffix": "</w>"}),
        changed_json(decoder={"type": "Nonsense"}),
        changed_json(pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}}),
    ],
)
def test_bad_tokenizer_json_is_a_typed_error(tmp_path: Path, content: str) -> None:
    with pytest.raises(TokenizerError):
        load_tokenizer(folder_with(tmp_path, content))


def test_missing_tokenizer_json_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        load_tokenizer(Checkpoint(tmp_path, "huggingface", {}, {}))


def test_mutated_tokenizer_json_raises_only_typed_errors(tmp_path: Path) -> None:
    original = (FOLDER / "tokenizer.json").read_bytes()
    generator = random.Random(0)
    refused = 0
    for _ in range(60):
        content = bytearray(original)
        for _ in range(generator.randrange(1, 4)):
            content[generator.randrange(len(content))] = generator.randrange(256)
        (tmp_path / "tokenizer.json").write_bytes(content)
        try:
            load_tokenizer(Checkpoint(tmp_path, "huggingface", {}, {})).encode("text")
        except ManymindError:
            refused += 1
    assert refused > 0


def test_flags_of_tokenizer_config(tmp_path: Path) -> None:
    content = (FOLDER / "tokenizer.json").read_text()
    config = {"bos_token": {"content": "<|endoftext|>"}, "eos_token": "<|im_end|>"}
    for add_bos, add_eos in ((True, False), (False, True), (True, True)):
        flags = {**config, "add_bos_token": add_bos, "add_eos_token": add_eos}
        subject = load_tokenizer(folder_with(tmp_path, content, json.dumps(flags)))
        ids = subject.encode("a")
        assert (ids[0] == 0, ids[-1] == 1) == (add_bos, add_eos)
        assert (subject.bos_token, subject.eos_token) == ("<|endoftext|>", "<|im_end|>")


def test_post_processor_surrounds_a_text(tmp_path: Path) -> None:
    special = {"id": "<|im_start|>", "ids": [2], "tokens": ["<|im_start|>"]}
    before = [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}]
    processor = {
        "type": "TemplateProcessing",
        "single": [*before, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": special},
    }
    content = changed_json(post_processor=processor)
    subject = load_tokenizer(folder_with(tmp_path, content))
    assert subject.encode("a")[0] == 2
    assert subject.encode("a", add_special_tokens=False)[0] != 2
