# SPDX-License-Identifier: Apache-2.0
"""Checkpoint readers: Hugging Face folders (safetensors) and GGUF files, memory-mapped and strictly
checked."""

from __future__ import annotations

import os
from pathlib import Path

from manymind.checkpoint.types import Checkpoint, CheckpointKind, TensorSource
from manymind.errors import CheckpointError, UnsupportedFormatError

__all__ = ["Checkpoint", "CheckpointKind", "TensorSource", "open_checkpoint"]


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Opens a model folder or a .gguf file without reading its tensors.

    Raises CheckpointError on a missing or corrupt file, UnsupportedFormatError on a format that is
    not read.
    """
    path = Path(path)
    if path.is_dir():
        from manymind.checkpoint.huggingface import open_huggingface

        return open_huggingface(path)
    if not path.exists():
        raise CheckpointError("path", "a model folder or a .gguf file", "nothing there", path)
    if path.suffix.lower() != ".gguf":
        raise UnsupportedFormatError(f"{path}: expected a model folder or a .gguf file")
    from manymind.checkpoint.gguf import open_gguf

    return open_gguf(path)
