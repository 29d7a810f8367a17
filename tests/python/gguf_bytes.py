# SPDX-License-Identifier: Apache-2.0
"""Writes GGUF files byte by byte, so that tests can make them wrong on purpose."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10
_SCALARS = {U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q"}


@dataclass
class GgufTensor:
    """``shape`` as the file lists it: the contiguous dimension first."""

    name: str
    shape: tuple[int, ...]
    type_number: int = 0
    offset: int | None = None
    data: bytes = b""


@dataclass
class GgufFile:
    """``metadata``: (key, value type, value); an array's value is (item type, items)."""

    metadata: list[tuple[str, int, Any]] = field(default_factory=list)
    tensors: list[GgufTensor] = field(default_factory=list)
    version: int = 3
    magic: bytes = b"GGUF"
    tensor_count: int | None = None
    metadata_count: int | None = None
    alignment: int = 32

    def encode(self) -> bytes:
        """The file's bytes; tensors without offset follow one another, aligned."""
        tensor_count = len(self.tensors) if self.tensor_count is None else self.tensor_count
        count = len(self.metadata) if self.metadata_count is None else self.metadata_count
        head = self.magic + struct.pack("<IQQ", self.version, tensor_count, count)
        for key, kind, value in self.metadata:
            head += string(key) + struct.pack("<I", kind) + _value(kind, value)
        data = b""
        for tensor in self.tensors:
            offset = len(data) if tensor.offset is None else tensor.offset
            head += string(tensor.name) + struct.pack("<I", len(tensor.shape))
            head += b"".join(struct.pack("<Q", extent) for extent in tensor.shape)
            head += struct.pack("<IQ", tensor.type_number, offset)
            data += _padded(tensor.data, self.alignment)
        return _padded(head, self.alignment) + data


def string(text: str | bytes) -> bytes:
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return string(value)
    if kind == ARRAY:
        item_kind, items = value
        body = b"".join(_value(item_kind, item) for item in items)
        return struct.pack("<IQ", item_kind, len(items)) + body
    return struct.pack(_SCALARS.get(kind, "<I"), value)


def _padded(data: bytes, alignment: int) -> bytes:
    return data + b"\0" * (-len(data) % alignment)
