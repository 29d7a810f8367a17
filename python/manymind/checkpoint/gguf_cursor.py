# SPDX-License-Identifier: Apache-2.0
"""Reads the values a GGUF file is made of; every length is checked before it is used."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, overload

from manymind.errors import CheckpointError

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


class Cursor:
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
