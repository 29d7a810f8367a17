# SPDX-License-Identifier: Apache-2.0
"""``manymind models``: the catalog."""

from __future__ import annotations

from manymind.catalog import CATALOG
from manymind.environment import home_folder


def run() -> None:
    """Prints one line per short name."""
    folder = home_folder() / "models"
    width = max(map(len, CATALOG))
    for entry in CATALOG.values():
        path = folder / entry.file_name
        place = str(path) if path.is_file() else "fetched on first use"
        size = f"{entry.size / 1e6:.0f} MB"
        print(f"{entry.name:{width}}  {entry.description}, {size}, {entry.licence}; {place}")
