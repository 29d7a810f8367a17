# SPDX-License-Identifier: Apache-2.0
"""Reads the values a GGUF file is made of; every length is checked before it is used."""

from __future__ import annotations

import struct
from typing import Any

from manymind import _turbomind
from manymind.errors import CheckpointError, InvalidParameterError

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class StringArray:
    """A metadata array of strings, which become Python's only when they are asked for."""

    def __init__(self, key: str, data: memoryview, count: int) -> None:
        self._key = key
        self._data = data
        self._count = count

    def __len__(self) -> int:
        return self._count

    def table(self) -> _turbomind.StringTable:
        """A copy that needs neither the file nor an object a string. Raises CheckpointError if one
        is not UTF-8."""
        try:
            return _turbomind.StringTable(self._data, self._count)
        except InvalidParameterError as error:
            raise CheckpointError(self._key, "UTF-8 strings", error) from error

    def tolist(self) -> list[str]:
        """All strings. Raises CheckpointError if one is not UTF-8."""
        return self.table().tolist()


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
        found, size = _turbomind.measure_strings(self.data[self.position :], count)
        if found < count:
            raise CheckpointError(f"{key}[{found}]", "a string", "the end of the file")
        return StringArray(key, self.take(size, key), count)
