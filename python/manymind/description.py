# SPDX-License-Identifier: Apache-2.0
"""What can be said of a model without running it."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manymind.checkpoint import Checkpoint


@dataclass(frozen=True)
class ModelDescription:
    """Facts about a checkpoint.

    Attributes:
        family: its architecture's name in its own configuration.
        file_kind: "gguf" or "safetensors".
        num_parameters: elements of all tensors.
        num_bytes: that they take in the file.
        commonest_format: of most elements.
        digest: SHA-256 of the tensors' names, formats and shapes, in hexadecimal.
    """

    family: str
    file_kind: str
    num_parameters: int
    num_bytes: int
    commonest_format: str
    digest: str


def describe(checkpoint: Checkpoint) -> ModelDescription:
    """The description of an opened checkpoint."""
    is_gguf = checkpoint.kind == "gguf"
    family = checkpoint.config.get("general.architecture" if is_gguf else "model_type")
    elements: Counter[str] = Counter()
    digest = hashlib.sha256()
    for name, tensor in sorted(checkpoint.tensors.items()):
        elements[tensor.format] += math.prod(tensor.shape)
        digest.update(f"{name} {tensor.format} {tensor.shape}\n".encode())
    return ModelDescription(
        family=str(family or "unknown"),
        file_kind="gguf" if is_gguf else "safetensors",
        num_parameters=elements.total(),
        num_bytes=sum(tensor.data.nbytes for tensor in checkpoint.tensors.values()),
        commonest_format=elements.most_common(1)[0][0] if elements else "none",
        digest=digest.hexdigest(),
    )
