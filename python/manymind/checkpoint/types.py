# SPDX-License-Identifier: Apache-2.0
"""What every checkpoint reader returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from manymind.checkpoint.formats import row_bytes
from manymind.checkpoint.mapped_file import MappedFile

CheckpointKind = Literal["huggingface", "gguf"]


@dataclass(frozen=True, slots=True)
class TensorSource:
    """One tensor as stored: ``data`` is a read-only byte view of the mapped file, never a copy.

    ``shape`` is (rows, cols) row-major or (n,); a stack of more dimensions keeps them all,
    outermost first.
    """

    name: str
    format: str
    shape: tuple[int, ...]
    data: memoryview

    @property
    def row_bytes(self) -> int:
        """Bytes from one row (of the innermost dimension) to the next."""
        return row_bytes(self.format, self.shape[-1])


@dataclass
class Checkpoint:
    """An opened model. Close it, or use it as a context manager, once the engine has loaded the
    weights.

    Attributes:
        path: the folder or file that was opened.
        kind: which reader opened it; decides how ``config`` and the tensor names are to be
            understood.
        config: config.json of a Hugging Face folder, or all metadata of a GGUF file.
        tensors: by their name in the file.
        chat_templates: Jinja sources by name; the usual one is called "default".
        generation_config: generation_config.json of a folder, else empty.
        preprocessor_config: settings of a folder's image processor, else empty.
        video_preprocessor_config: the same of its video processor; those of the image processor
            where it has none.
        files: the mapped files that the tensors are views of.
    """

    path: Path
    kind: CheckpointKind
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorSource]
    chat_templates: Mapping[str, str] = field(default_factory=dict)
    generation_config: Mapping[str, Any] = field(default_factory=dict)
    preprocessor_config: Mapping[str, Any] = field(default_factory=dict)
    video_preprocessor_config: Mapping[str, Any] = field(default_factory=dict)
    files: list[MappedFile] = field(default_factory=list)

    @property
    def chat_template(self) -> str | None:
        """The default chat template, or None for a base model without one."""
        return self.chat_templates.get("default")

    def release_pages(self) -> None:
        """Takes what was read of the files out of this process's memory; it can be read again."""
        for file in self.files:
            file.release_pages()

    def close(self) -> None:
        """Drops the tensors and unmaps the files; safe to call twice.

        A file stays mapped while someone still holds a view of one of its tensors.
        """
        self.tensors = {}
        while self.files:
            self.files.pop().close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
