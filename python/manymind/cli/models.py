# SPDX-License-Identifier: Apache-2.0
"""``manymind models``: the catalog."""

from __future__ import annotations

from pathlib import Path

from manymind.catalog import BUNDLED, CATALOG, BundledModel, CatalogEntry, FolderEntry
from manymind.download import is_complete_folder, is_intact
from manymind.environment import home_folder
from manymind.errors import FetchError


def run(check: bool) -> None:
    """Prints one line per short name; ``check`` reads the files that are here.

    Raises FetchError, after the lines, if one is damaged.
    """
    folder = home_folder() / "models"
    width = max(map(len, (*CATALOG, *BUNDLED)))
    damaged: list[str] = []
    for entry in CATALOG.values():
        path = folder / entry.file_name
        place = _place(entry, path, check)
        if place.startswith(_DAMAGED):
            damaged.append(str(path))
        print(f"{entry.name:{width}}  {_facts(entry, entry.size)}; {place}")
    for model in BUNDLED.values():
        size = sum(file.stat().st_size for file in model.folder.iterdir())
        print(f"{model.name:{width}}  {_facts(model, size)}; part of this package: {model.folder}")
    if damaged:
        raise FetchError(f"delete {' and '.join(damaged)}: the next use fetches it again")


_DAMAGED = "damaged"


def _facts(entry: CatalogEntry | FolderEntry | BundledModel, size: int) -> str:
    return f"{entry.description}, {size / 1e6:.0f} MB, {entry.licence}"


def _place(entry: CatalogEntry | FolderEntry, path: Path, check: bool) -> str:
    here = is_complete_folder(path, entry) if isinstance(entry, FolderEntry) else path.is_file()
    if not here:
        return "fetched on first use"
    if not check:
        return str(path)
    return f"{'intact' if is_intact(path, entry) else _DAMAGED}: {path}"
