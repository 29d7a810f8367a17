# SPDX-License-Identifier: Apache-2.0
"""The GGUF reader, against the gguf package on valid files and against typed errors on others."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from decoder_reference import dequantize
from gguf_bytes import ARRAY, BOOL, F32, I32, STRING, U32, U64, GgufFile, GgufTensor, string
from golden_data import GOLDEN, TINY_GGUFS

from manymind.checkpoint import open_checkpoint
from manymind.checkpoint.formats import FORMATS
from manymind.errors import CheckpointError, ManymindError, UnsupportedFormatError

FORMATS_FILE = GOLDEN / "gguf" / "formats.gguf"


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    return path


def open_bytes(tmp_path: Path, content: bytes) -> None:
    open_checkpoint(write(tmp_path, content)).close()


@pytest.mark.parametrize("path", [*TINY_GGUFS, FORMATS_FILE], ids=lambda path: path.name)
def test_reads_what_the_gguf_package_reads(path: Path) -> None:
    reference = gguf.GGUFReader(path)
    with open_checkpoint(path) as checkpoint:
        for key, field in reference.fields.items():
            if not key.startswith("GGUF."):
                found = checkpoint.config[key]
                found = found.tolist() if hasattr(found, "tolist") else found
                assert found == field.contents(), key
        assert set(checkpoint.tensors) == {tensor.name for tensor in reference.tensors}
        for tensor in reference.tensors:
            source = checkpoint.tensors[tensor.name]
            assert source.shape == tuple(int(n) for n in reversed(tensor.shape))
            assert bytes(source.data) == tensor.data.tobytes()
            assert len(source.data) == source.row_bytes * int(np.prod(source.shape[:-1]))


def test_every_format_is_identified() -> None:
    golden = np.load(FORMATS_FILE.with_suffix(".npz"))
    with open_checkpoint(FORMATS_FILE) as checkpoint:
        assert {source.format for source in checkpoint.tensors.values()} == set(FORMATS)
        for name, source in checkpoint.tensors.items():
            values = dequantize(source.format, source.shape, source.data)
            np.testing.assert_array_equal(values.astype(np.float32), golden[name])


def test_views_are_read_only_and_outlive_the_checkpoint(tmp_path: Path) -> None:
    tensor = GgufTensor("t", (8,), data=struct.pack("<8f", *range(8)))
    checkpoint = open_checkpoint(write(tmp_path, GgufFile(tensors=[tensor]).encode()))
    data = checkpoint.tensors["t"].data
    assert data.readonly
    checkpoint.close()
    checkpoint.close()
    assert data.cast("f").tolist() == list(range(8))


def test_metadata_of_every_type(tmp_path: Path) -> None:
    metadata: list[tuple[str, int, Any]] = [
        ("u", U32, 7),
        ("u64", U64, 1 << 60),
        ("f", F32, 0.5),
        ("b", BOOL, True),
        ("s", STRING, "ünïcode 日本"),
        ("strings", ARRAY, (STRING, ["", "a", "日本", "x" * 300])),
        ("numbers", ARRAY, (I32, [-1, 2, 3])),
        ("none", ARRAY, (STRING, [])),
    ]
    with open_checkpoint(write(tmp_path, GgufFile(metadata).encode())) as checkpoint:
        config = checkpoint.config
        assert (config["u"], config["u64"], config["f"], config["b"]) == (7, 1 << 60, 0.5, True)
        assert config["s"] == "ünïcode 日本"
        strings = config["strings"]
        assert strings.tolist() == ["", "a", "日本", "x" * 300]
        assert (len(strings), strings.table()[3]) == (4, "x" * 300)
        assert config["numbers"].tolist() == [-1, 2, 3]
        assert config["none"].tolist() == []


def test_chat_templates_by_name(tmp_path: Path) -> None:
    metadata: list[tuple[str, int, Any]] = [
        ("tokenizer.chat_template", STRING, "a"),
        ("tokenizer.chat_template.tool_use", STRING, "b"),
    ]
    with open_checkpoint(write(tmp_path, GgufFile(metadata).encode())) as checkpoint:
        assert checkpoint.chat_template == "a"
        assert checkpoint.chat_templates == {"default": "a", "tool_use": "b"}


F32_8 = struct.pack("<8f", *range(8))
HOSTILE: dict[str, GgufFile] = {
    "wrong magic": GgufFile(magic=b"GGML"),
    "more tensors than bytes": GgufFile(tensor_count=1 << 62),
    "more metadata than bytes": GgufFile(metadata_count=1 << 62),
    "one tensor too many": GgufFile(tensor_count=1),
    "duplicate key": GgufFile([("k", U32, 1), ("k", U32, 2)]),
    "empty key": GgufFile([("", U32, 1)]),
    "unknown value type": GgufFile([("k", 13, 1)]),
    "array of arrays": GgufFile([("k", ARRAY, (ARRAY, []))]),
    "array of unknown type": GgufFile([("k", ARRAY, (77, []))]),
    "zero alignment": GgufFile([("general.alignment", U32, 0)]),
    "odd alignment": GgufFile([("general.alignment", U32, 48)]),
    "text alignment": GgufFile([("general.alignment", STRING, "32")]),
    "duplicate tensor": GgufFile(tensors=[GgufTensor("t", (8,), data=F32_8)] * 2),
    "no dimensions": GgufFile(tensors=[GgufTensor("t", (), data=F32_8)]),
    "five dimensions": GgufFile(tensors=[GgufTensor("t", (1,) * 5, data=F32_8)]),
    "empty dimension": GgufFile(tensors=[GgufTensor("t", (8, 0), data=F32_8)]),
    "huge dimensions": GgufFile(tensors=[GgufTensor("t", (1 << 39,) * 4, data=F32_8)]),
    "overflowing dimension": GgufFile(tensors=[GgufTensor("t", ((1 << 64) - 1,), data=F32_8)]),
    "data past the end": GgufFile(tensors=[GgufTensor("t", (64,), data=F32_8)]),
    "offset past the end": GgufFile(tensors=[GgufTensor("t", (8,), offset=1 << 40, data=F32_8)]),
    "unaligned offset": GgufFile(tensors=[GgufTensor("t", (4,), offset=4, data=F32_8)]),
    "unknown tensor type": GgufFile(tensors=[GgufTensor("t", (8,), 4711, data=F32_8)]),
    "partial block": GgufFile(tensors=[GgufTensor("t", (33,), 2, data=b"\0" * 64)]),
    "partial K-quant block": GgufFile(tensors=[GgufTensor("t", (128,), 12, data=b"\0" * 144)]),
    "overlap": GgufFile(
        tensors=[
            GgufTensor("a", (16,), data=b"\0" * 64),
            GgufTensor("b", (8,), offset=32, data=F32_8),
        ]
    ),
    "template of another type": GgufFile([("tokenizer.chat_template", U32, 1)]),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_corrupt_file_is_a_typed_error(tmp_path: Path, case: str) -> None:
    path = write(tmp_path, HOSTILE[case].encode())
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)
    assert caught.value.field
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("file", "word"),
    [
        (GgufFile(version=1), "version"),
        (GgufFile(version=4), "version"),
        (GgufFile(version=3 << 24), "big-endian"),
        (GgufFile(tensors=[GgufTensor("t", (256,), 10, data=b"\0" * 84)]), "Q2_K"),
    ],
)
def test_valid_file_in_another_format_is_unsupported(
    tmp_path: Path, file: GgufFile, word: str
) -> None:
    with pytest.raises(UnsupportedFormatError, match=word):
        open_bytes(tmp_path, file.encode())


@pytest.mark.parametrize("text", [b"\xff\xfe", b"\xc3", b"\xed\xa0\x80"])
def test_strings_must_be_utf8(tmp_path: Path, text: bytes) -> None:
    for key, value in ((b"key", text), (text, b"value")):
        content = GgufFile(metadata_count=1).encode()[:24]
        content += string(key) + struct.pack("<I", STRING) + string(value)
        with pytest.raises(CheckpointError, match="UTF-8"):
            open_bytes(tmp_path, content)


def test_lazy_strings_must_be_utf8(tmp_path: Path) -> None:
    content = GgufFile([("k", ARRAY, (STRING, [b"ok", b"\xff"]))]).encode()
    with (
        open_checkpoint(write(tmp_path, content)) as checkpoint,
        pytest.raises(CheckpointError, match="k: expected UTF-8"),
    ):
        checkpoint.config["k"].tolist()


def test_booleans_must_be_0_or_1(tmp_path: Path) -> None:
    content = bytearray(GgufFile([("k", BOOL, True)]).encode())
    content[24 + 8 + 1 + 4] = 2
    with pytest.raises(CheckpointError, match="boolean"):
        open_bytes(tmp_path, bytes(content))


def test_every_truncation_is_a_typed_error(tmp_path: Path) -> None:
    content = GgufFile(
        [("s", STRING, "text"), ("a", ARRAY, (STRING, ["x", "yz"])), ("n", ARRAY, (F32, [1, 2]))],
        [GgufTensor("t", (8,), data=F32_8)],
    ).encode()
    open_bytes(tmp_path, content)
    for length in range(len(content)):
        with pytest.raises(CheckpointError):
            open_bytes(tmp_path, content[:length])


@pytest.mark.parametrize("seed", range(4))
def test_mutated_files_raise_only_typed_errors(tmp_path: Path, seed: int) -> None:
    original = (GOLDEN / "gguf" / "qwen3_q8_0.gguf").read_bytes()
    header = original[:16384]
    generator = np.random.default_rng(seed)
    refused = 0
    for _ in range(100):
        content = bytearray(header)
        for _ in range(int(generator.integers(1, 6))):
            at = int(generator.integers(0, len(content) - 8))
            value = int(generator.choice([0, 1, 0xFF, 0x7F, 0x80, int(generator.integers(256))]))
            width = int(generator.choice([1, 1, 4, 8]))
            content[at : at + width] = bytes([value]) * width
        try:
            open_bytes(tmp_path, bytes(content) + original[16384:])
        except ManymindError:
            refused += 1
    assert refused > 0


def test_missing_file_and_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing there"):
        open_checkpoint(tmp_path / "absent.gguf")
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(UnsupportedFormatError, match=r"\.gguf"):
        open_checkpoint(tmp_path / "model.bin")
