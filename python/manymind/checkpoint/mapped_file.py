# SPDX-License-Identifier: Apache-2.0
"""A whole file as one read-only memory mapping."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from manymind.errors import CheckpointError


class MappedFile:
    """Maps ``path`` for reading. Views cut from ``data`` keep the mapping alive by themselves.

    Raises CheckpointError if the file is missing, unreadable, not a regular file or empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size == 0:
                    raise CheckpointError("file", "at least one byte", "an empty file", path)
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise CheckpointError("file", "a readable file", error, path) from error
        if hasattr(mmap, "MADV_WILLNEED"):
            self._map.madvise(mmap.MADV_WILLNEED)  # read ahead while headers are being parsed
        self.data = memoryview(self._map)

    def release_pages(self) -> None:
        """Takes the file's pages out of this process's memory; reading one brings it back."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        """Unmaps the file now, or, while views of it are in use, when the last of them dies."""
        try:
            self.data.release()
            self._map.close()
        except BufferError:
            pass
