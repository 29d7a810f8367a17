# SPDX-License-Identifier: Apache-2.0
"""Opens a Hugging Face model folder: config.json and one or more safetensors files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from manymind.checkpoint.json_file import MAX_CONFIG_BYTES, read_json_object
from manymind.checkpoint.mapped_file import MappedFile
from manymind.checkpoint.safetensors import read_safetensors
from manymind.checkpoint.types import Checkpoint, TensorSource
from manymind.errors import CheckpointError, UnsupportedFormatError

_SINGLE_FILE = "model.safetensors"
_INDEX_FILE = "model.safetensors.index.json"


def open_huggingface(folder: Path) -> Checkpoint:
    """Opens ``folder``.

    Raises CheckpointError on missing or corrupt files, UnsupportedFormatError on quantised weights
    and on weights that are stored only as pickles (which are never opened).
    """
    config = read_json_object(folder / "config.json")
    _refuse_quantization(folder, config)
    generation_config = folder / "generation_config.json"
    files: list[MappedFile] = []

    try:
        return Checkpoint(
            path=folder,
            kind="huggingface",
            config=config,
            tensors=_read_tensors(folder, files),
            chat_templates=_chat_templates(folder),
            generation_config=(
                read_json_object(generation_config) if generation_config.is_file() else {}
            ),
            preprocessor_config=_preprocessor_config(folder),
            video_preprocessor_config=_video_preprocessor_config(folder),
            files=files,
        )
    except BaseException:
        for file in files:
            file.close()
        raise


def _refuse_quantization(folder: Path, config: Mapping[str, Any]) -> None:
    quantization = config.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise UnsupportedFormatError(
            f"{folder / 'config.json'}: quantization_config: expected none, found {method!r}"
        )


def _read_tensors(folder: Path, files: list[MappedFile]) -> dict[str, TensorSource]:
    """Tensors of all shards; appends each file that it maps to ``files``."""
    index_path = folder / _INDEX_FILE
    if not index_path.is_file():
        if not (folder / _SINGLE_FILE).is_file() and any(folder.glob("*.bin")):
            raise UnsupportedFormatError(
                f"{folder}: expected {_SINGLE_FILE} or {_INDEX_FILE}, "
                "found only pickled weights (*.bin)"
            )
        files.append(MappedFile(folder / _SINGLE_FILE))
        return read_safetensors(files[0])
    weight_map = _weight_map(index_path)
    shards: dict[str, dict[str, TensorSource]] = {}
    for file_name in sorted(set(weight_map.values())):
        files.append(MappedFile(folder / file_name))
        shards[file_name] = read_safetensors(files[-1])
    tensors: dict[str, TensorSource] = {}
    for name, file_name in weight_map.items():
        if name not in shards[file_name]:
            raise CheckpointError(name, f"a tensor in {file_name}", "none", index_path)
        tensors[name] = shards[file_name][name]
    return tensors


def _weight_map(index_path: Path) -> dict[str, str]:
    weight_map = read_json_object(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError("weight_map", "a non-empty object", weight_map, index_path)
    for name, file_name in weight_map.items():
        plain = isinstance(file_name, str) and Path(file_name).name == file_name
        if not plain or not file_name.endswith(".safetensors"):
            raise CheckpointError(
                f"weight_map[{name!r}]",
                "the name of a safetensors file here",
                file_name,
                index_path,
            )
    return weight_map


def _chat_templates(folder: Path) -> dict[str, str]:
    """Templates of chat_template.jinja, else of tokenizer_config.json (one string, or a list of
    named ones)."""
    jinja_path, config_path = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if jinja_path.is_file():
        return {"default": _read_text(jinja_path)}
    if not config_path.is_file():
        return {}
    templates = read_json_object(config_path).get("chat_template")
    if templates is None:
        return {}
    if isinstance(templates, str):
        return {"default": templates}
    try:
        named = {entry["name"]: entry["template"] for entry in templates}
    except (TypeError, KeyError) as error:
        raise CheckpointError(
            "chat_template", "a string or a list of {name, template}", templates, config_path
        ) from error
    if not all(isinstance(text, str) for item in named.items() for text in item):
        raise CheckpointError("chat_template", "names and templates as strings", named, config_path)
    return named


def _preprocessor_config(folder: Path) -> Mapping[str, Any]:
    """preprocessor_config.json, or the part of processor_config.json that newer exports have
    instead."""
    path = folder / "preprocessor_config.json"
    return read_json_object(path) if path.is_file() else _combined(folder, "image_processor") or {}


def _video_preprocessor_config(folder: Path) -> Mapping[str, Any]:
    """The part of processor_config.json, video_preprocessor_config.json of older exports, or what
    the oldest have for pictures and videos alike."""
    path = folder / "video_preprocessor_config.json"
    combined = _combined(folder, "video_processor")
    if combined is not None:
        return combined
    return read_json_object(path) if path.is_file() else _preprocessor_config(folder)


def _combined(folder: Path, part: str) -> Mapping[str, Any] | None:
    """A part of processor_config.json, if there is one."""
    path = folder / "processor_config.json"
    if not path.is_file():
        return None
    nested = read_json_object(path).get(part)
    if nested is not None and not isinstance(nested, dict):
        raise CheckpointError(part, "an object", nested, path)
    return nested


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise CheckpointError("size", f"at most {MAX_CONFIG_BYTES} bytes", "more", path)
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError("file", "readable UTF-8 text", error, path) from error
