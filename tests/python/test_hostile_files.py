# SPDX-License-Identifier: Apache-2.0
"""Damaged and hostile model files end as a typed error of pipeline(), never as a crash."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from golden_data import GOLDEN

from manymind import EngineConfig, GenerationConfig, pipeline
from manymind.errors import ManymindError

LLAMA = GOLDEN / "tiny" / "llama_wide"
SETTINGS = EngineConfig(session_len=64, max_batch_size=2, num_kv_blocks=16)


def load(path: Path) -> None:
    """Loads the model and lets it say two tokens."""
    with pipeline(path, SETTINGS) as pipe:
        pipe("a b", GenerationConfig(max_new_tokens=2), do_preprocess=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a valid checkpoint to be damaged."""
    return Path(shutil.copytree(LLAMA, tmp_path / "model"))


def test_the_undamaged_folder_loads(folder: Path) -> None:
    load(folder)


def edit_json(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


CONFIG_EDITS: list[tuple[str, Callable[[dict[str, Any]], Any]]] = [
    ("architectures", lambda c: c.update(architectures=["DoomForCausalLM"])),
    ("architectures", lambda c: c.pop("architectures")),
    ("hidden_size", lambda c: c.update(hidden_size=2**31)),
    ("hidden_size", lambda c: c.update(hidden_size="wide")),
    ("num_hidden_layers", lambda c: c.update(num_hidden_layers=10**9)),
    ("num_hidden_layers", lambda c: c.update(num_hidden_layers=-1)),
    ("num_attention_heads", lambda c: c.update(num_attention_heads=0)),
    ("rms_norm_eps", lambda c: c.update(rms_norm_eps="tiny")),
    ("vocab_size", lambda c: c.update(vocab_size=3)),
    ("head_dim", lambda c: c.update(head_dim=2**30)),
    ("rms_norm_eps", lambda c: c.update(rms_norm_eps=10**400)),
    ("Unicode|utf-8", lambda c: c.update(bos_token_id=["\ud800"])),
]


@pytest.mark.parametrize(("field", "edit"), CONFIG_EDITS)
def test_config(folder: Path, field: str, edit: Callable[[dict[str, Any]], Any]) -> None:
    edit_json(folder / "config.json", edit)
    with pytest.raises(ManymindError, match=field):
        load(folder)


@pytest.mark.parametrize("scale", [0, -3.5])
def test_attention_scale(tmp_path: Path, scale: float) -> None:
    folder = Path(shutil.copytree(GOLDEN / "tiny" / "gemma3", tmp_path / "model"))
    edit_json(folder / "config.json", lambda c: c.update(query_pre_attn_scalar=scale))
    with pytest.raises(ManymindError, match="query_pre_attn_scalar: expected a positive number"):
        load(folder)


def test_half_a_character_in_a_token(folder: Path) -> None:
    edit_json(folder / "tokenizer_config.json", lambda c: c.update(eos_token="\ud800"))
    with pytest.raises(ManymindError, match=r"tokenizer_config\.json"):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("keep", [0, 1, 7, 100, 0.5, 0.98])
def test_truncated_files(folder: Path, name: str, keep: float) -> None:
    content = (folder / name).read_bytes()
    size = keep if isinstance(keep, int) else int(keep * len(content))
    (folder / name).write_bytes(content[:size])
    with pytest.raises(ManymindError, match=name.replace(".", r"\.")):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_missing_files(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ManymindError):
        load(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_flipped_bytes(folder: Path, name: str) -> None:
    """Whatever a flipped byte in the first kilobytes does, it must not crash."""
    draw = random.Random(name)
    original = (folder / name).read_bytes()
    failures = 0
    for _ in range(40):
        damaged = bytearray(original)
        damaged[draw.randrange(min(len(original), 3000))] ^= 1 << draw.randrange(8)
        (folder / name).write_bytes(damaged)
        try:
            load(folder)
        except ManymindError:
            failures += 1
    assert failures > 5


def test_a_pickle_is_not_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ManymindError):
        load(folder)


@pytest.mark.parametrize("size", [0, 3, 24, 1000, 50_000])
def test_truncated_gguf(smollm2_path: Path, tmp_path: Path, size: int) -> None:
    path = tmp_path / "short.gguf"
    with smollm2_path.open("rb") as source:
        path.write_bytes(source.read(size))
    with pytest.raises(ManymindError, match=r"short\.gguf"):
        load(path)


def test_gguf_that_promises_too_much(tmp_path: Path) -> None:
    path = tmp_path / "big.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 2**60, 2**60) + bytes(64))
    with pytest.raises(ManymindError, match=r"big\.gguf"):
        load(path)


def test_flipped_bytes_in_gguf(tmp_path: Path) -> None:
    draw = random.Random("gguf")
    original = (GOLDEN / "gguf" / "llama_mixed.gguf").read_bytes()
    path = tmp_path / "damaged.gguf"
    for _ in range(60):
        damaged = bytearray(original)
        damaged[draw.randrange(min(len(original), 4000))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with contextlib.suppress(ManymindError):
            load(path)


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(10**9) %}{% for j in range(10**9) %}x{% endfor %}{% endfor %}",
        "{{ 'x' * 10**12 }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_hostile_templates(folder: Path, template: str) -> None:
    edit_json(folder / "tokenizer_config.json", lambda c: c.update(chat_template=template))
    with pytest.raises(ManymindError), pipeline(folder, SETTINGS) as pipe:
        pipe("hi", GenerationConfig(max_new_tokens=1))
