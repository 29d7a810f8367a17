# SPDX-License-Identifier: Apache-2.0
"""Writes dequantize_vectors.h: seeded GGUF blocks and their values by the `gguf` package.

Run: python tests/unit/make_dequantize_vectors.py > tests/unit/dequantize_vectors.h
"""

import gguf
import numpy as np

FORMATS = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
# Byte offsets of the float16 scales in a block; random bits there could be infinite.
SCALE_OFFSETS = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}


def make_block(name: str, rng: np.random.Generator) -> np.ndarray:
    _, num_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    block = rng.integers(0, 256, num_bytes, dtype=np.uint8)
    for offset in SCALE_OFFSETS[name]:
        scale = np.float16(rng.uniform(-0.1, 0.1))
        block[offset : offset + 2] = np.frombuffer(scale.tobytes(), np.uint8)
    return block


def print_array(declaration: str, values: list[str]) -> None:
    print(f"inline constexpr {declaration}{{")
    line = "   "
    for value in values:
        if len(line) + len(value) > 118:
            print(line)
            line = "   "
        line += f" {value},"
    print(line)
    print("};")


def main() -> None:
    rng = np.random.default_rng(20240613)
    print("// SPDX-License-Identifier: Apache-2.0")
    print("// Made by make_dequantize_vectors.py from the gguf package; do not edit.")
    print("// clang-format off")
    print("#pragma once\n\n#include <cstdint>\n\nnamespace turbomind::dequantize_vectors {\n")
    for name in FORMATS:
        block = make_block(name, rng)
        values = gguf.dequantize(block, gguf.GGMLQuantizationType[name])
        symbol = name.replace("_", "")
        print_array(f"uint8_t k{symbol}Block[]", [str(byte) for byte in block])
        print_array(f"float k{symbol}Values[]", [f"{float(v).hex()}f" for v in values])
        print()
    print("}  // namespace turbomind::dequantize_vectors")


if __name__ == "__main__":
    main()
