# SPDX-License-Identifier: Apache-2.0
"""Storage formats of tensors. Names are those of ``tm_weight_format`` in the core."""

from __future__ import annotations

from typing import NamedTuple


class FormatInfo(NamedTuple):
    """``block_elements`` consecutive values of one row take ``block_bytes`` bytes."""

    block_elements: int
    block_bytes: int


FORMATS: dict[str, FormatInfo] = {
    "f32": FormatInfo(1, 4),
    "f16": FormatInfo(1, 2),
    "bf16": FormatInfo(1, 2),
    "gguf_q4_0": FormatInfo(32, 18),
    "gguf_q4_1": FormatInfo(32, 20),
    "gguf_q5_0": FormatInfo(32, 22),
    "gguf_q5_1": FormatInfo(32, 24),
    "gguf_q8_0": FormatInfo(32, 34),
    "gguf_q4_k": FormatInfo(256, 144),
    "gguf_q5_k": FormatInfo(256, 176),
    "gguf_q6_k": FormatInfo(256, 210),
}


def row_bytes(format_name: str, cols: int) -> int:
    """Bytes of one row of ``cols`` values; ``cols`` must be a whole number of blocks."""
    info = FORMATS[format_name]
    return cols // info.block_elements * info.block_bytes
