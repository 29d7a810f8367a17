# SPDX-License-Identifier: Apache-2.0
"""Every reader of untrusted files on seeded damage: a typed error or an answer, and soon.

``python tests/python/test_fuzz.py SECONDS [SEED]`` goes on with other seeds for as long as wanted.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from golden_data import GOLDEN

from manymind.chat_template import load_chat_template
from manymind.checkpoint import open_checkpoint
from manymind.errors import ManymindError
from manymind.models import load_model
from manymind.tokenizer import load_tokenizer

FOLDERS = [GOLDEN / "tiny" / name for name in ("llama", "llama3_rope", "phi3", "gemma3", "qwen3")]
GGUF_FILES = sorted((GOLDEN / "gguf").glob("*.gguf"))
SECONDS_PER_CASE = 5.0  # of a processor: whatever else the machine does

Random = random.Random
NUMBERS = [0, -1, 2**31, 2**63, 10**400, -0.5, 1e308, float("nan"), float("inf")]
VALUES = [*NUMBERS, None, True, "", "\0", "\ud800", "x" * 5000, [], {}, [[]], [1] * 500, {"a": {}}]
WORDS = [0, 1, 4, 8, 9, 12, 2**31, 2**32 - 1, 2**63, 2**64 - 1]
TEMPLATE_PIECES = [
    "{% for m in messages %}",
    "{% endfor %}",
    "{{ m.content }}",
    "{% macro a(x) %}{{ a(x) }}{{ a(x) }}{% endmacro %}{{ a(1) }}",
    "{% block b %}{{ self.b() }}{% endblock %}",
    "{{ range(10**12)|list }}",
    "{{ 'a'|center(10**10) }}",
    "{{ '%1000000000d'|format(1) }}",
    "{{ [1] * 10**9 }}",
    "{{ 9**9**9 }}",
    "{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x * 9 %}{% endfor %}",
    "{{ messages|tojson(indent=10**9) }}",
    "{{ ''.join(messages) }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ '\ud800' }}",
    "{{ none.x.y }}",
    "{{ " + "(" * 300,
    "{% if",
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to everything inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, (dict, list)):
            yield from places(item, (*path, key))


def damaged_json(draw: Random, content: bytes) -> bytes:
    """One value somewhere, most often near the top, is gone or another one."""
    document = json.loads(content)
    paths = sorted(places(document), key=len)
    *outer, key = draw.choice(paths[: max(5, len(paths) // draw.choice([1, 10, 50]))])
    parent = document
    for step in outer:
        parent = parent[step]
    if draw.random() < 0.2:
        del parent[key]
    elif isinstance(parent[key], int) and draw.random() < 0.5:
        parent[key] = parent[key] * draw.choice([-1, 2, 1_000_003]) + draw.choice([-1, 0, 1])
    else:
        parent[key] = copy.deepcopy(draw.choice(VALUES))
    return json.dumps(document).encode()


def damaged_bytes(draw: Random, content: bytes, first: int) -> bytes:
    """A few of the first bytes flipped, replaced, removed or doubled."""
    data = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 4])):
        at = draw.randrange(min(len(data), first))
        match draw.randrange(5):
            case 0:
                data[at] ^= 1 << draw.randrange(8)
            case 1:
                data[at : at + 8] = struct.pack("<Q", draw.choice([*WORDS, len(data)]))
            case 2:
                data[at : at + 4] = struct.pack("<I", draw.choice(WORDS) % 2**32)
            case 3:
                del data[at : at + draw.randrange(1, 64)]
            case _:
                data[at:at] = data[at : at + draw.randrange(1, 200)]
    return bytes(data)


def read(path: Path) -> None:
    """What loading a model does before the engine gets to see it."""
    with open_checkpoint(path) as checkpoint:
        load_model(checkpoint)
        tokenizer = load_tokenizer(checkpoint)
        tokenizer.decode(tokenizer.encode("né 日本 <|im_end|>", parse_special=True))
        render(checkpoint.chat_template, tokenizer)


def render(source: str | None, tokenizer: Any) -> None:
    template = load_chat_template(source, tokenizer)
    if template is not None:
        template.render_segments([{"role": "user", "content": "hi"}])


def try_gguf(draw: Random, place: Path) -> None:
    path = place / "model.gguf"
    content = draw.choice(GGUF_FILES).read_bytes()
    path.write_bytes(damaged_bytes(draw, content, draw.choice([64, 2000, 6000])))
    read(path)


def try_safetensors(draw: Random, place: Path) -> None:
    path = next(place.glob("*.safetensors"))
    content = path.read_bytes()
    if draw.random() < 0.5:
        path.write_bytes(damaged_bytes(draw, content, draw.choice([8, 2000])))
    else:
        end = 8 + struct.unpack_from("<Q", content)[0]
        header = damaged_json(draw, content[8:end])
        path.write_bytes(struct.pack("<Q", len(header)) + header + content[end:])
    read(place)


def try_json(draw: Random, place: Path) -> None:
    names = ["config.json", "config.json", "tokenizer.json", "tokenizer_config.json"]
    path = place / draw.choice(names)
    path.write_bytes(damaged_json(draw, path.read_bytes()))
    read(place)


def try_template(draw: Random, place: Path) -> None:
    source = "".join(draw.choice(TEMPLATE_PIECES) for _ in range(draw.randrange(1, 4)))
    with open_checkpoint(place) as checkpoint:
        render(source, load_tokenizer(checkpoint))


CASES: dict[str, Callable[[Random, Path], None]] = {
    "gguf": try_gguf,
    "safetensors": try_safetensors,
    "json": try_json,
    "template": try_template,
}


def run_case(kind: str, seed: int, place: Path) -> None:
    """Raises whatever is no ManymindError, naming the seed."""
    draw = Random(f"{kind} {seed}")
    shutil.copytree(draw.choice(FOLDERS), place, dirs_exist_ok=True)
    start = time.process_time()
    try:
        CASES[kind](draw, place)
    except ManymindError:
        pass
    except BaseException as error:
        raise AssertionError(f"{kind} {seed}: {error!r}") from error
    finally:
        shutil.rmtree(place)
    assert time.process_time() - start < SECONDS_PER_CASE, f"{kind} {seed} took too long"


@pytest.mark.parametrize("kind", CASES)
def test_damage_is_a_typed_error(kind: str, tmp_path: Path) -> None:
    for seed in range(40):
        run_case(kind, seed, tmp_path / "model")


if __name__ == "__main__":
    end = time.monotonic() + float(sys.argv[1])
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            for each in CASES:
                run_case(each, seed, Path(folder) / "model")
            seed += 1
    print(f"{seed} was not reached, all before it passed")
