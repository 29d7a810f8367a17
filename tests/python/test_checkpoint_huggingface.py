# SPDX-License-Identifier: Apache-2.0
"""The reader of Hugging Face folders, against the safetensors package and against typed errors."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_data import GOLDEN
from safetensors.numpy import save_file

from manymind.checkpoint import open_checkpoint
from manymind.errors import CheckpointError, ManymindError, UnsupportedFormatError


def write_folder(tmp_path: Path, weights: bytes, config: str = "{}") -> Path:
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").write_bytes(weights)
    return tmp_path


def encode(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_reads_what_the_safetensors_package_wrote(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(12, dtype=np.float32).reshape(3, 4),
        "b": np.arange(5, dtype=np.float16),
    }
    (tmp_path / "config.json").write_text('{"architectures": []}')
    save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.kind == "huggingface"
        assert {name: t.format for name, t in checkpoint.tensors.items()} == {
            "a": "f32",
            "b": "f16",
        }
        for name, array in arrays.items():
            source = checkpoint.tensors[name]
            assert source.shape == array.shape
            assert bytes(source.data) == array.tobytes()
            assert source.row_bytes == array.shape[-1] * array.itemsize


def test_sharded_folder_is_one_set_of_tensors() -> None:
    folder = GOLDEN / "tiny" / "llama"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == 2
    with open_checkpoint(folder) as checkpoint:
        assert set(checkpoint.tensors) == set(index["weight_map"])
        assert checkpoint.generation_config["eos_token_id"] == [1, 2]
        assert checkpoint.chat_template is not None


def test_bfloat16_is_kept() -> None:
    with open_checkpoint(GOLDEN / "tiny" / "llama_wide") as checkpoint:
        assert {source.format for source in checkpoint.tensors.values()} == {"bf16"}


def test_chat_template_file_wins(tmp_path: Path) -> None:
    write_folder(tmp_path, encode({}))
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "old"}')
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.chat_template == "old"
    (tmp_path / "chat_template.jinja").write_text("new")
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.chat_template == "new"


def test_named_chat_templates(tmp_path: Path) -> None:
    write_folder(tmp_path, encode({}))
    named = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.chat_templates == {"default": "a", "tool_use": "b"}
    for wrong in (3, [1], [{"name": "default"}], [{"name": 1, "template": "a"}]):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": wrong}))
        with pytest.raises(CheckpointError, match="chat_template"):
            open_checkpoint(tmp_path)


DATA = struct.pack("<4f", 1, 2, 3, 4)
HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "short": b"\x01\x00",
    "header past the end": struct.pack("<Q", 1 << 40) + b"{}",
    "header of 2^64": b"\xff" * 8 + b"{}",
    "not JSON": encode(b"{]"),
    "not UTF-8": encode(b'{"\xff": 1}'),
    "not an object": encode([1, 2]),
    "deep nesting": encode(b"[" * 100_000),
    "duplicate name": encode(b'{"a": {"x": 1}, "a": {"x": 2}}'),
    "entry is no object": encode({"a": 1}),
    "entry lacks offsets": encode({"a": {"dtype": "F32", "shape": [4]}}, DATA),
    "unknown dtype": encode({"a": entry(0, 16, [4], "F31")}, DATA),
    "dtype is no string": encode({"a": {**entry(0, 16, [4]), "dtype": ["F32"]}}, DATA),
    "negative shape": encode({"a": entry(0, 16, [-4])}, DATA),
    "fractional shape": encode({"a": {**entry(0, 16, [4]), "shape": [4.0]}}, DATA),
    "boolean shape": encode({"a": {**entry(0, 4, [1]), "shape": [True]}}, DATA[:4]),
    "empty tensor": encode({"a": entry(0, 0, [0])}),
    "too many dimensions": encode({"a": entry(0, 16, [1] * 64 + [4])}, DATA),
    "huge shape": encode({"a": entry(0, 16, [1 << 40, 1 << 40])}, DATA),
    "wrong size": encode({"a": entry(0, 12, [4])}, DATA),
    "reversed range": encode({"a": entry(16, 0, [4])}, DATA),
    "past the end": encode({"a": entry(0, 16, [4])}, DATA[:12]),
    "trailing data": encode({"a": entry(0, 16, [4])}, DATA + b"x"),
    "hole": encode({"a": entry(4, 20, [4])}, b"xxxx" + DATA),
    "overlap": encode({"a": entry(0, 16, [4]), "b": entry(8, 16, [2])}, DATA),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_corrupt_safetensors_is_a_typed_error(tmp_path: Path, case: str) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        open_checkpoint(write_folder(tmp_path, HOSTILE[case]))


@pytest.mark.parametrize("seed", range(4))
def test_mutated_headers_raise_only_typed_errors(tmp_path: Path, seed: int) -> None:
    original = (GOLDEN / "tiny" / "qwen3" / "model.safetensors").read_bytes()
    generator = np.random.default_rng(seed)
    refused = 0
    for _ in range(60):
        content = bytearray(original)
        for _ in range(int(generator.integers(1, 4))):
            content[int(generator.integers(0, 2000))] = int(generator.integers(256))
        try:
            open_checkpoint(write_folder(tmp_path, bytes(content))).close()
        except ManymindError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("dtype", ["I32", "F8_E4M3", "F64", "U8"])
def test_other_dtypes_are_unsupported(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=dtype):
        open_checkpoint(write_folder(tmp_path, encode({"a": entry(0, 16, [4], dtype)}, DATA)))


def test_numbered_positions_are_left_out(tmp_path: Path) -> None:
    """Old exports of BERT saved them; the bytes still have to be where the header says."""
    name = "embeddings.position_ids"
    folder = write_folder(tmp_path, encode({name: entry(0, 16, [2], "I64")}, DATA))
    with open_checkpoint(folder) as checkpoint:
        assert set(checkpoint.tensors) == set()
    wrong = encode({name: entry(0, 16, [4], "I64")}, DATA)
    with pytest.raises(CheckpointError, match="a range of 32 bytes"):
        open_checkpoint(write_folder(tmp_path, wrong))


def test_quantised_and_pickled_weights_are_unsupported(tmp_path: Path) -> None:
    config = '{"quantization_config": {"quant_method": "awq"}}'
    with pytest.raises(UnsupportedFormatError, match="awq"):
        open_checkpoint(write_folder(tmp_path, encode({}), config))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"never opened")
    with pytest.raises(UnsupportedFormatError, match="pickled"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "weight_map",
    [
        None,
        {},
        {"a": "../model.safetensors"},
        {"a": "/etc/passwd"},
        {"a": "model.bin"},
        {"a": 1},
        {"a": "absent.safetensors"},
        {"absent": "model.safetensors"},
    ],
)
def test_bad_index_is_a_typed_error(tmp_path: Path, weight_map: Any) -> None:
    write_folder(tmp_path, encode({"a": entry(0, 16, [4])}, DATA))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("config", ["", "[]", "{", '{"a": 1, "a": 2}', "[" * 100_000])
def test_bad_config_is_a_typed_error(tmp_path: Path, config: str) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        open_checkpoint(write_folder(tmp_path, encode({}), config))


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        open_checkpoint(tmp_path)
