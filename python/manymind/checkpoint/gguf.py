# SPDX-License-Identifier: Apache-2.0
"""Reads GGUF files (versions 2 and 3) strictly, without copies and without numpy.

Every length is checked against what is left of the file before it is used, so a hostile file costs
no more memory than its own size. String arrays (vocabularies of up to 262k entries) are only
measured here and decoded when asked for.
Source: the GGUF specification (ggml project, docs/gguf.md).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from manymind.checkpoint.formats import FORMATS, row_bytes
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

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class StringArray(Sequence[str]):
    """A metadata array of strings, decoded on access. ``offsets[i]`` is where string i begins in
    ``data``."""

    def __init__(self, key: str, data: memoryview, offsets: list[int]) -> None:
        self._key = key
        self._data = data
        self._offsets = offsets

    def __len__(self) -> int:
        return len(self._offsets)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = self._offsets[index]
        (length,) = _U64.unpack_from(self._data, start - 8)
        return self._decode(self._data[start : start + length])

    def __iter__(self) -> Iterator[str]:
        return iter(self.tolist())

    def tolist(self) -> list[str]:
        """All strings. Raises CheckpointError if one is not UTF-8."""
        if not self._offsets:
            return []
        data, offsets = bytes(self._data), self._offsets
        # A string ends 8 bytes (the next length field) before the next one begins.
        ends = [offset - 8 for offset in offsets[1:]]
        ends.append(len(data))
        try:
            return [data[start:end].decode() for start, end in zip(offsets, ends, strict=True)]
        except UnicodeDecodeError as error:
            raise CheckpointError(self._key, "UTF-8 strings", error) from error

    def _decode(self, data: memoryview) -> str:
        try:
            return str(data, "utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(self._key, "UTF-8 strings", error) from error


class _Cursor:
    """Reads little-endian values front to back; every read past the end is a CheckpointError."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.position = 0

    def require(self, size: int, field: str) -> None:
        left = len(self.data) - self.position
        if size > left:
            raise CheckpointError(field, f"{size} bytes at offset {self.position}", f"{left} bytes")

    def take(self, size: int, field: str) -> memoryview:
        self.require(size, field)
        start = self.position
        self.position += size
        return self.data[start : self.position]

    def unpack(self, layout: struct.Struct, field: str) -> Any:
        (value,) = layout.unpack(self.take(layout.size, field))
        return value

    def u32(self, field: str) -> int:
        return int(self.unpack(_U32, field))

    def u64(self, field: str) -> int:
        return int(self.unpack(_U64, field))

    def count(self, field: str, min_bytes_each: int) -> int:
        """A 64-bit count of items that take at least ``min_bytes_each`` bytes of the rest of the
        file."""
        value = self.u64(field)
        limit = (len(self.data) - self.position) // min_bytes_each
        if value > limit:
            raise CheckpointError(field, f"at most {limit} (by the file's size)", value)
        return value

    def string(self, field: str, limit: int | None = None) -> str:
        length = self.u64(f"length of {field}")
        if limit is not None and not 0 < length <= limit:
            raise CheckpointError(f"length of {field}", f"1 to {limit} bytes", length)
        try:
            return str(self.take(length, field), "utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(field, "UTF-8", error) from error

    def string_array(self, key: str, count: int) -> StringArray:
        data, start = self.data, self.position
        limit = len(data) - 8
        offsets: list[int] = []
        append, unpack = offsets.append, _U64.unpack_from
        position = start
        for index in range(count):
            if position > limit:
                raise CheckpointError(f"{key}[{index}]", "a string", "the end of the file")
            append(position + 8 - start)
            position += 8 + unpack(data, position)[0]
        if position > len(data):
            raise CheckpointError(
                key, f"{count} strings", "a string reaching past the end of the file"
            )
        self.position = position
        return StringArray(key, data[start:position], offsets)


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
    cursor = _Cursor(file.data)
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
        on_close=file.close,
    )


def _read_magic_and_version(cursor: _Cursor) -> None:
    magic = bytes(cursor.take(4, "magic"))
    if magic != MAGIC:
        raise CheckpointError("magic", MAGIC, magic)
    version = cursor.u32("version")
    if version & 0xFFFF == 0 and version >> 24 in VERSIONS:
        raise UnsupportedFormatError("byte order: expected little-endian, found big-endian")
    if version not in VERSIONS:
        raise UnsupportedFormatError(f"GGUF version: expected one of {VERSIONS}, found {version}")


def _read_metadata(cursor: _Cursor, count: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for index in range(count):
        key = cursor.string(f"metadata key {index}", MAX_NAME_BYTES)
        if key in metadata:
            raise CheckpointError(key, "each metadata key once", "a duplicate")
        metadata[key] = _read_value(cursor, key, cursor.u32(f"type of {key}"))
    return metadata


def _read_value(cursor: _Cursor, key: str, value_type: int) -> Any:
    if value_type == STRING:
        return cursor.string(key)
    if value_type == ARRAY:
        return _read_array(cursor, key)
    layout = _scalar_layout(key, value_type)
    if value_type == BOOL:
        _check_bools(key, cursor.data[cursor.position : cursor.position + 1])
    return cursor.unpack(layout, key)


def _read_array(cursor: _Cursor, key: str) -> StringArray | memoryview:
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


def _read_tensors(cursor: _Cursor, count: int, alignment: int) -> dict[str, TensorSource]:
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
    cursor: _Cursor, name: str, alignment: int
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
