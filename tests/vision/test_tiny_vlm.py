# SPDX-License-Identifier: Apache-2.0
"""The model that comes with the package sees: words, numbers, shapes, colours and counts in
pictures that it never saw, scored through the engine.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from score_tiny_vlm import ENGINE, answers_to
from tiny_vlm.cases import (
    Case,
    accuracy,
    as_text,
    blind_accuracy,
    held_out_cases,
    with_other_pictures,
)
from tiny_vlm.pictures import built_in_face
from tiny_vlm.questions import HELD_OUT_WORDS
from tiny_vlm.tokenizer import make_tokenizer

from manymind import GenerationConfig, Pipeline, pipeline
from manymind.checkpoint import open_checkpoint
from manymind.fetch import resolve_model

COUNT, COUNT_OF_CONTROL = 300, 120
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "pictures"


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return held_out_cases(COUNT, [built_in_face], "tests")


@pytest.fixture(scope="module")
def pipe() -> Iterator[Pipeline]:
    with pipeline("tiny-vlm", ENGINE) as running:
        yield running


def test_it_is_right_nine_times_in_ten(pipe: Pipeline, cases: list[Case]) -> None:
    """English words, which training left out, in a typeface that it left out, too."""
    found = accuracy(cases, answers_to(pipe, cases))
    print(as_text(found))
    assert len(found) == 7
    assert min(found.values()) >= 0.9, as_text(found)


def test_it_is_as_right_in_int8(pipe: Pipeline, cases: list[Case]) -> None:
    config = dataclasses.replace(ENGINE, weight_dtype="int8")
    with pipeline("tiny-vlm", config) as small:
        lines = {line["name"]: line["bytes"] for line in small.memory_plan["lines"]}
        found = accuracy(cases, answers_to(small, cases))
    assert min(found.values()) >= 0.9, as_text(found)
    whole = {line["name"]: line["bytes"] for line in pipe.memory_plan["lines"]}
    for name in ("weights", "vision weights"):
        assert lines[name] < 0.65 * whole[name]


def test_with_other_pictures_it_is_right_by_chance(pipe: Pipeline, cases: list[Case]) -> None:
    """Chance: the most frequent answer to the question, which needs no picture."""
    others = with_other_pictures(cases[:COUNT_OF_CONTROL])
    found = accuracy(others, answers_to(pipe, others))
    chance = blind_accuracy(others, held_out_cases(600, [built_in_face], "chance"))
    print(as_text(found), "; chance:", as_text(chance))
    assert chance["all"] < 0.25
    assert found["all"] <= chance["all"] + 0.05
    for category in ("word", "number", "description"):
        assert found[category] <= 0.05


def test_a_conversation_about_one_picture(pipe: Pipeline) -> None:
    greedy = GenerationConfig(max_new_tokens=40)
    session = pipe.chat(
        ("How many stars are there?", str(EXAMPLES / "shapes.png")), gen_config=greedy
    )
    assert session.response is not None
    assert session.response.text == "There are three stars."
    session = pipe.chat("What colour are the stars?", session, greedy)
    assert session.response is not None
    assert session.response.text == "The stars are yellow."


def chat(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "manymind", "chat", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_command_line_takes_a_picture() -> None:
    picture = ("tiny-vlm", "--image", str(EXAMPLES / "word.png"))
    done = chat(*picture, "--prompt", "What does it say?")
    assert done.returncode == 0, done.stderr
    assert done.stdout == 'It says "HELLO".\n'
    # In a conversation it belongs to the first turn, and to the first after /new.
    turns = "What does it say?\nWhat is in the picture?\n/new\nWhat does it say?\n"
    done = chat(*picture, stdin=turns)
    assert done.returncode == 0, done.stderr
    says, shows = 'It says "HELLO".', 'The picture shows the word "HELLO".'
    assert done.stdout.splitlines() == [says, shows, says]


def test_a_picture_that_cannot_be_shown_is_an_error(tmp_path: Path) -> None:
    done = chat("tiny-vlm", "--prompt", "hi", "--image", str(tmp_path / "absent.png"))
    assert done.returncode == 1
    assert "absent.png" in done.stderr
    blind = Path(__file__).resolve().parents[1] / "golden" / "tiny" / "llama"
    done = chat(str(blind), "--prompt", "hi", "--image", str(EXAMPLES / "word.png"))
    assert done.returncode == 1
    assert "manymind: error:" in done.stderr


def test_the_folder_is_small_and_what_the_tools_write() -> None:
    folder = resolve_model("tiny-vlm")
    weights = folder / "model.safetensors"
    assert weights.stat().st_size <= 12_000_000
    with open_checkpoint(folder) as checkpoint:
        assert {tensor.format for tensor in checkpoint.tensors.values()} == {"bf16"}
    found = json.loads((folder / "tokenizer.json").read_text())
    made = json.loads(make_tokenizer().to_str())
    for part in ("vocab", "merges"):
        assert found["model"][part] == made["model"][part]
    assert found["added_tokens"] == made["added_tokens"]


def test_training_leaves_the_words_out() -> None:
    from random import Random

    from tiny_vlm.questions import new_word

    drawn = {new_word(Random(f"0/{number}")).lower() for number in range(3000)}
    assert not drawn & set(HELD_OUT_WORDS)
