# SPDX-License-Identifier: Apache-2.0
"""How pictures are taken in, said on the command line."""

from __future__ import annotations

import inspect
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from pictures import encoded, rgb
from vlm_cases import GOLDEN_VLMS

from manymind import MediaLimits, VisionConfig
from manymind.cli import commands, main
from manymind.cli.vision_flags import vision_config
from manymind.errors import MediaError
from manymind.media_side import MediaSide
from manymind.prompts import MediaSource
from manymind.runtime import Runtime

LIMIT_FLAGS = {
    "max_bytes": "media_max_bytes",
    "max_pixels": "media_max_pixels",
    "max_frames": "media_max_frames",
    "timeout": "media_timeout",
    "allow_urls": "media_allow_urls",
    "allow_private_addresses": "media_allow_private_addresses",
    "allow_files": "media_folder",
}


def other(value: Any) -> Any:
    """Another value than a default."""
    return not value if isinstance(value, bool) else True if value is None else value + 1


@pytest.mark.parametrize("command", [commands.chat, commands.serve])
def test_every_field_has_a_flag_with_the_same_default(command: Any) -> None:
    flags = inspect.signature(command).parameters
    for field in fields(VisionConfig):
        if field.name == "limits":
            continue
        name = "media_threads" if field.name == "num_threads" else field.name
        assert flags[name].default == field.default, name
        found = vision_config({name: other(field.default)}, local_files=True)
        expected = replace(VisionConfig(limits=MediaLimits()), **{field.name: other(field.default)})
        assert found == expected
    for field in fields(MediaLimits):
        name = LIMIT_FLAGS[field.name]
        if name == "media_folder":
            continue
        assert flags[name].default == field.default, name
        found = vision_config({name: other(field.default)}, local_files=True)
        assert found.limits == MediaLimits(**{field.name: other(field.default)})


def test_local_files_are_a_servers_only_below_a_folder() -> None:
    for flags, local_files, expected in (
        ({}, True, True),
        ({}, False, False),
        ({"media_folder": "/pictures"}, True, "/pictures"),
        ({"media_folder": "/pictures"}, False, "/pictures"),
    ):
        assert vision_config(flags, local_files).limits == MediaLimits(allow_files=expected)


def test_a_servers_flags_reach_what_prepares_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "allowed").mkdir()
    for folder in ("", "allowed"):
        (tmp_path / folder / "a.png").write_bytes(encoded(rgb(300, 700, 1), "PNG"))
    found: list[int] = []

    def serve(runtime: Runtime, *_: object) -> None:
        media = runtime.media
        assert isinstance(media, MediaSide)
        source = MediaSource("image", str(tmp_path / "allowed" / "a.png"), "here")
        segments = [(media.prompt.image_token, True)]
        found.append(len(media.encode(segments, [source], runtime.tokenizer)))
        outside = MediaSource("image", str(tmp_path / "a.png"), "here")
        with pytest.raises(MediaError):
            media.encode(segments, [outside], runtime.tokenizer)

    monkeypatch.setattr("manymind.server.run.serve", serve)
    folder = f"--media_folder={tmp_path / 'allowed'}"
    for more in ([], ["--pan_and_scan"]):
        with pytest.raises(SystemExit) as ended:
            main(["serve", str(GOLDEN_VLMS / "gemma3"), folder, "--session_len=512", *more])
        assert ended.value.code == 0
    assert found[1] > found[0]  # crops after the whole


def test_flags_about_pictures_are_refused_where_none_are_seen(
    smollm2_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["serve"], ["chat", "--prompt=a"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, str(smollm2_path), "--max_patches=5", "--session_len=512"])
        assert ended.value.code == 1
        assert "max_patches: this model takes no pictures" in capsys.readouterr().err
