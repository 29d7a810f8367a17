# SPDX-License-Identifier: Apache-2.0
"""Constants of the GGUF container, versions 2 and 3, little-endian.

Source: the GGUF specification (ggml project, docs/gguf.md).
"""

from __future__ import annotations

import struct

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4
MAX_NAME_BYTES = 65535

# Metadata value types: scalar layouts by type number.
SCALARS: dict[int, struct.Struct] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
BOOL = 7
STRING = 8
ARRAY = 9

TENSOR_FORMATS: dict[int, str] = {
    0: "f32",
    1: "f16",
    2: "gguf_q4_0",
    3: "gguf_q4_1",
    6: "gguf_q5_0",
    7: "gguf_q5_1",
    8: "gguf_q8_0",
    12: "gguf_q4_k",
    13: "gguf_q5_k",
    14: "gguf_q6_k",
    30: "bf16",
}

# Valid types that are refused, so that the error can name them.
OTHER_TENSOR_TYPES: dict[int, str] = {
    9: "Q8_1",
    10: "Q2_K",
    11: "Q3_K",
    15: "Q8_K",
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    20: "IQ4_NL",
    21: "IQ3_S",
    22: "IQ2_S",
    23: "IQ4_XS",
    24: "I8",
    25: "I16",
    26: "I32",
    27: "I64",
    28: "F64",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
}
