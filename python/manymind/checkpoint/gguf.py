# SPDX-License-Identifier: Apache-2.0
"""Reads GGUF files (versions 2 and 3) strictly, without copies and without numpy.

Every length is checked against what is left of the file before it is used, so a hostile file costs
memory in proportion to its own size. String arrays (vocabularies of up to 262k entries) are only
measured here and decoded when asked for.
Source: the GGUF specification (ggml project, docs/gguf.md).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from manymind.checkpoint.formats import FORMATS, row_bytes
from manymind.checkpoint.gguf_cursor import Cursor, StringArray
from manymind.checkpoint.gguf_format import (
    ARRAY,
    BOOL,
    DEFAULT_ALIGNMENT,
    MAGIC,
    MAX_DIMENSIONS,
    MAX_NAME_BYTES,
    OTHER_TENSOR_TYPES,
    SCALARS,
    STRING,
    TENSOR_FORMATS,
    VERSIONS,
)
from manymind.checkpoint.mapped_file import MappedFile
from manymind.checkpoint.types import Checkpoint, TensorSource
from manymind.errors import CheckpointError, UnsupportedFormatError


def open_gguf(path: Path) -> Checkpoint:
    """Opens one GGUF file.

    Raises CheckpointError on a corrupt file, UnsupportedFormatError on a valid one of another
    version, byte order or tensor type.
    """
    file = MappedFile(path)
    try:
        return _parse(path, file)
    except CheckpointError as error:
        raise error.located(path) from error
    except UnsupportedFormatError as error:
        raise UnsupportedFormatError(f"{path}: {error}") from error


def _parse(path: Path, file: MappedFile) -> Checkpoint:
    cursor = Cursor(file.data)
    _read_magic_and_version(cursor)
    # A tensor record takes at least 33 bytes, a key-value pair at least 14.
    tensor_count = cursor.count("tensor_count", 33)
    metadata_count = cursor.count("metadata_kv_count", 14)
    metadata = _read_metadata(cursor, metadata_count)
    tensors = _read_tensors(cursor, tensor_count, _alignment(metadata))
    return Checkpoint(
        path=path,
        kind="gguf",
        config=metadata,
        tensors=tensors,
        chat_templates=_chat_templates(metadata),
        files=[file],
    )


def _read_magic_and_version(cursor: Cursor) -> None:
    magic = bytes(cursor.take(4, "magic"))
    if magic != MAGIC:
        raise CheckpointError("magic", MAGIC, magic)
    version = cursor.u32("version")
    if version & 0xFFFF == 0 and version >> 24 in VERSIONS:
        raise UnsupportedFormatError("byte order: expected little-endian, found big-endian")
    if version not in VERSIONS:
        raise UnsupportedFormatError(f"GGUF version: expected one of {VERSIONS}, found {version}")


def _read_metadata(cursor: Cursor, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for index in range(count):
        key = cursor.string(f"metadata key {index}", MAX_NAME_BYTES)
        if key in metadata:
            raise CheckpointError(key, "each metadata key once", "a duplicate")
        metadata[key] = _read_value(cursor, key, cursor.u32(f"type of {key}"))
    return metadata


def _read_value(cursor: Cursor, key: str, value_type: int) -> Any:
    if value_type == STRING:
        return cursor.string(key)
    if value_type == ARRAY:
        return _read_array(cursor, key)
    layout = _scalar_layout(key, value_type)
    if value_type == BOOL:
        _check_bools(key, cursor.data[cursor.position : cursor.position + 1])
    return cursor.unpack(layout, key)


def _read_array(cursor: Cursor, key: str) -> StringArray | memoryview:
    """Strings as a StringArray, numbers as a typed view of the file: ``.tolist()`` gives Python
    values of either."""
    item_type = cursor.u32(f"item type of {key}")
    if item_type == STRING:
        return cursor.string_array(key, cursor.count(f"length of {key}", 8))
    layout = _scalar_layout(key, item_type)
    count = cursor.count(f"length of {key}", layout.size)
    data = cursor.take(count * layout.size, key)
    if item_type == BOOL:
        _check_bools(key, data)
    # Host order equals file order: big-endian files are refused and no big-endian host is
    # supported.
    return data.cast(layout.format[-1])  # type: ignore[call-overload,no-any-return]


def _scalar_layout(key: str, value_type: int) -> struct.Struct:
    layout = SCALARS.get(value_type)
    if layout is None:
        raise CheckpointError(f"type of {key}", "a scalar value type (0 to 12)", value_type)
    return layout


def _check_bools(key: str, data: memoryview) -> None:
    if bytes(data).strip(b"\x00\x01"):
        raise CheckpointError(key, "booleans stored as 0 or 1", "another byte")


def _alignment(metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment & (alignment - 1):
        raise CheckpointError("general.alignment", "a power of two from 8 to 2^20", alignment)
    return alignment


def _read_tensors(cursor: Cursor, count: int, alignment: int) -> dict[str, TensorSource]:
    records: dict[str, tuple[str, tuple[int, ...], int]] = {}
    for index in range(count):
        name = cursor.string(f"name of tensor {index}", MAX_NAME_BYTES)
        if name in records:
            raise CheckpointError(name, "each tensor name once", "a duplicate")
        records[name] = _read_tensor_record(cursor, name, alignment)
    data_start = -(-cursor.position // alignment) * alignment
    tensors: dict[str, TensorSource] = {}
    end_of_previous = 0
    for name, (format_name, shape, offset) in sorted(records.items(), key=lambda item: item[1][2]):
        if offset < end_of_previous:
            raise CheckpointError(f"offset of {name}", f"at least {end_of_previous}", offset)
        size = row_bytes(format_name, shape[-1])
        for extent in shape[:-1]:
            size *= extent
        end_of_previous = offset + size
        if data_start + end_of_previous > len(cursor.data):
            left = max(len(cursor.data) - data_start - offset, 0)
            raise CheckpointError(
                f"data of {name}", f"{size} bytes at offset {offset}", f"{left} bytes"
            )
        data = cursor.data[data_start + offset : data_start + end_of_previous]
        tensors[name] = TensorSource(name, format_name, shape, data)
    return tensors


def _read_tensor_record(
    cursor: Cursor, name: str, alignment: int
) -> tuple[str, tuple[int, ...], int]:
    """Format, shape (outermost dimension first) and offset into the data section."""
    rank = cursor.u32(f"number of dimensions of {name}")
    if not 1 <= rank <= MAX_DIMENSIONS:
        raise CheckpointError(f"number of dimensions of {name}", f"1 to {MAX_DIMENSIONS}", rank)
    # The file lists the contiguous dimension first.
    shape = tuple(cursor.u64(f"dimensions of {name}") for _ in range(rank))[::-1]
    if any(not 0 < extent < 1 << 40 for extent in shape):
        raise CheckpointError(f"dimensions of {name}", "1 to 2^40 each", shape)
    type_number = cursor.u32(f"type of {name}")
    format_name = TENSOR_FORMATS.get(type_number)
    if format_name is None:
        type_name = OTHER_TENSOR_TYPES.get(type_number)
        if type_name is None:
            raise CheckpointError(f"type of {name}", "a GGUF tensor type", type_number)
        raise UnsupportedFormatError(
            f"tensor {name}: expected one of {', '.join(FORMATS)}, found {type_name}"
        )
    block = FORMATS[format_name].block_elements
    if shape[-1] % block:
        raise CheckpointError(
            f"row length of {name}", f"a multiple of {block} ({format_name})", shape[-1]
        )
    offset = cursor.u64(f"offset of {name}")
    if offset % alignment:
        raise CheckpointError(f"offset of {name}", f"a multiple of {alignment}", offset)
    return format_name, shape, offset


def _chat_templates(metadata: dict[str, Any]) -> dict[str, str]:
    prefix = "tokenizer.chat_template"
    templates: dict[str, str] = {}
    for key, value in metadata.items():
        if key == prefix or key.startswith(f"{prefix}."):
            if not isinstance(value, str):
                raise CheckpointError(key, "a string", type(value).__name__)
            templates[key[len(prefix) + 1 :] or "default"] = value
    return templates
