# SPDX-License-Identifier: Apache-2.0
"""What the operators' page and the Dockerfile tell people to type, where no hardware is needed."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cann import LIBRARIES

from manymind.cli import serve as serve_command
from manymind.cli.commands import serve, verify_ascend

ROOT = Path(__file__).resolve().parents[3]
PAGES = ("ascend.md", "ascend.zh-CN.md")
DOCKERFILE = (ROOT / "backends/ascend/Dockerfile").read_text(encoding="utf-8")


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def commands(text: str) -> list[list[str]]:
    """The shell commands of a page's blocks, split into words."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [shlex.split(block.replace("\\\n", " ")) for block in blocks]


def test_both_languages_say_the_same() -> None:
    english, chinese = (page(name) for name in PAGES)
    assert commands(english) == commands(chinese)
    assert len(commands(english)) == 2
    codes = [set(re.findall(r"\b[25][06][17]\d{3}\b", text)) for text in (english, chinese)]
    assert codes[0] == codes[1]
    assert len(codes[0]) >= 9
    rows = [re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) for text in (english, chinese)]
    assert rows[0] == rows[1]


def test_the_verification_s_flags_and_files_are_there() -> None:
    words = next(words for words in commands(page(PAGES[0])) if words[0] == "manymind")
    assert words[1] == "verify_ascend"
    given = dict(zip(words[2::2], words[3::2], strict=True))
    assert {name.lstrip("-") for name in given} <= set(inspect.signature(verify_ascend).parameters)
    made_by_hand = ("--report", "--large_model")
    for name, path in given.items():
        assert name in made_by_hand or (ROOT / path).exists(), name


@pytest.mark.parametrize("name", PAGES)
def test_flags_in_the_text_are_there(name: str) -> None:
    known = {*inspect.signature(serve).parameters, *inspect.signature(verify_ascend).parameters}
    prose = re.sub(r"```.*?```", "", page(name), flags=re.DOTALL)
    flags = set(re.findall(r"--(\w+)", prose))
    assert {"backend", "tp", "soak_seconds"} <= flags <= known


def test_serving_on_two_devices_reaches_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[serve_command.ServeFlags] = []
    monkeypatch.setattr(serve_command, "run", given.append)
    serve("MODEL", backend="ascend", tp=2)
    config = given[0].engine_config()
    assert (config.backend, config.tp) == ("ascend", 2)


def test_the_container_s_entry_point(tmp_path: Path) -> None:
    """With a script in CANN's place that sets the loader path, as CANN's does."""
    script = tmp_path / "set_env.sh"
    script.write_text(f"export LD_LIBRARY_PATH={LIBRARIES}\n", encoding="utf-8")
    entry, default = (
        json.loads(re.findall(rf"^{name} (\[.*\])$", DOCKERFILE, re.MULTILINE)[0])
        for name in ("ENTRYPOINT", "CMD")
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "SET_ENV": str(script), "PATH": path}
    done = subprocess.run(
        [*entry, *default], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^ +ascend \S+: usable$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("file", re.findall(r"^COPY (?!--)(\S+) /opt", DOCKERFILE, re.MULTILINE))
def test_what_the_image_copies_is_in_the_checkout(file: str) -> None:
    assert (ROOT / file).exists()
