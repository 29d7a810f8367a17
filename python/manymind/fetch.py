# SPDX-License-Identifier: Apache-2.0
"""From what a user calls a model to the files it consists of."""

from __future__ import annotations

import os
import reprlib
from pathlib import Path

from manymind.catalog import BUNDLED, CATALOG, CatalogEntry, FolderEntry
from manymind.environment import home_folder
from manymind.errors import FetchError


def resolve_model(model: str | os.PathLike[str], progress: bool = True) -> Path:
    """Path of a model given as a folder, a ``.gguf`` file or a short name of the catalog.

    A short name is fetched on first use, unless its model comes with this package. Raises
    FetchError if ``model`` is none of these or cannot be fetched.
    """
    name = os.fspath(model)
    # Not Path.exists(), which raises for a name that is too long for a file.
    if name and os.path.exists(path := os.path.expanduser(name)):
        return Path(path)
    if name in BUNDLED:
        return BUNDLED[name].folder
    entry = CATALOG.get(name)
    if entry is None:
        raise FetchError(
            f"model: expected a folder, a .gguf file or one of {', '.join((*CATALOG, *BUNDLED))}; "
            f"found {reprlib.repr(name)}, which does not exist"
        )
    return fetch(entry, home_folder() / "models", progress)


def fetch(entry: CatalogEntry | FolderEntry, folder: Path, progress: bool = True) -> Path:
    """The entry's file or folder in ``folder``, downloaded and checked first if it is not there
    yet.
    """
    target = folder / entry.file_name
    if isinstance(entry, FolderEntry):
        from manymind.download import download_folder, is_complete_folder

        if not is_complete_folder(target, entry):
            download_folder(entry, target, progress)
    elif not (target.is_file() and target.stat().st_size == entry.size):
        from manymind.download import download

        download(entry, target, progress)
    return target
