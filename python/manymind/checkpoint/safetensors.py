# SPDX-License-Identifier: Apache-2.0
"""Reads safetensors files as views of a memory mapping.

The header is parsed here and not by the ``safetensors`` package, because that package copies each
tensor into a new array, and cannot represent bfloat16 in numpy at all; the core wants the file's
own bytes.
Source: the safetensors format description (huggingface/safetensors, README, section Format).
"""

from __future__ import annotations

import math
import struct
from typing import Any

from manymind.checkpoint.formats import FORMATS
from manymind.checkpoint.json_file import parse_json_object
from manymind.checkpoint.mapped_file import MappedFile
from manymind.checkpoint.types import TensorSource
from manymind.errors import CheckpointError, UnsupportedFormatError

_MAX_HEADER_BYTES = 100_000_000  # the limit of the format's reference implementation
_FORMAT_OF_DTYPE = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
_OTHER_DTYPES = {
    *("BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"),
    *("F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16", "U16", "I32", "U32", "F64", "I64", "U64", "C64"),
}

# Old exports saved 0, 1, 2, ... with their weights.
_COUNTING = "embeddings.position_ids"
_COUNTING_BYTES = {"I32": 4, "I64": 8}


def read_safetensors(file: MappedFile) -> dict[str, TensorSource]:
    """All tensors of one file by name.

    Raises CheckpointError on a corrupt file (the header's byte ranges must tile the data exactly,
    as the format demands), UnsupportedFormatError on a valid data type outside f32, f16 and bf16.
    """
    try:
        return _parse(file.data)
    except CheckpointError as error:
        raise error.located(file.path) from error
    except UnsupportedFormatError as error:
        raise UnsupportedFormatError(f"{file.path}: {error}") from error


def _parse(content: memoryview) -> dict[str, TensorSource]:
    if len(content) < 8:
        raise CheckpointError("header length", "8 bytes", f"{len(content)} bytes")
    (header_bytes,) = struct.unpack_from("<Q", content)
    limit = min(_MAX_HEADER_BYTES, len(content) - 8)
    if not 2 <= header_bytes <= limit:
        raise CheckpointError("header length", f"2 to {limit}", header_bytes)
    header = parse_json_object(bytes(content[8 : 8 + header_bytes]), "header")
    header.pop("__metadata__", None)
    data = content[8 + header_bytes :]
    records = sorted((_record(name, entry) for name, entry in header.items()), key=lambda r: r[3])
    tensors: dict[str, TensorSource] = {}
    end_of_previous = 0
    for name, format_name, shape, begin, end in records:
        if begin != end_of_previous or end > len(data):
            raise CheckpointError(
                f"data_offsets of {name}",
                f"to begin at {end_of_previous} and end by {len(data)}",
                (begin, end),
            )
        if format_name is not None:
            tensors[name] = TensorSource(name, format_name, shape, data[begin:end])
        end_of_previous = end
    if end_of_previous != len(data):
        raise CheckpointError("data", f"{end_of_previous} bytes", f"{len(data)} bytes")
    return tensors


def _record(name: str, entry: Any) -> tuple[str, str | None, tuple[int, ...], int, int]:
    """Name, format, shape and byte range of one header entry; no format for one that holds no
    weights.
    """
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(name, "an object of dtype, shape and data_offsets", entry)
    dtype = entry["dtype"]
    if not isinstance(dtype, str):
        raise CheckpointError(f"dtype of {name}", "a string", dtype)
    format_name = _FORMAT_OF_DTYPE.get(dtype)
    numbers = _COUNTING_BYTES.get(dtype) if name.endswith(_COUNTING) else None
    if format_name is None and numbers is None:
        if dtype in _OTHER_DTYPES:
            raise UnsupportedFormatError(f"tensor {name}: expected F32, F16 or BF16, found {dtype}")
        raise CheckpointError(f"dtype of {name}", "a safetensors dtype", dtype)
    shape = _integers(f"shape of {name}", entry["shape"])
    if not shape or 0 in shape:
        raise CheckpointError(f"shape of {name}", "at least one value", shape)
    offsets = _integers(f"data_offsets of {name}", entry["data_offsets"])
    width = FORMATS[format_name].block_bytes if format_name is not None else numbers
    size = math.prod(shape) * (width or 0)
    if len(offsets) != 2 or offsets[1] - offsets[0] != size:
        raise CheckpointError(f"data_offsets of {name}", f"a range of {size} bytes", offsets)
    return name, format_name, shape, offsets[0], offsets[1]


def _integers(field: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or any(
        type(item) is not int or not 0 <= item < 1 << 48 for item in value
    ):
        raise CheckpointError(field, "a list of integers from 0 to 2^48", value)
    if len(value) > 8:
        raise CheckpointError(field, "at most 8 integers", len(value))
    return tuple(value)
