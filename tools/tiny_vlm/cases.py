# SPDX-License-Identifier: Apache-2.0
"""Questions about pictures that training never drew, and how answers to them are counted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from PIL import Image

from tiny_vlm.pictures import CLEAR, Face, LetterSize
from tiny_vlm.questions import CATEGORIES, ask, new_scene


@dataclass(frozen=True)
class Case:
    image: Image.Image
    category: str
    question: str
    answer: str


def held_out_cases(
    count: int, faces: Sequence[Face], seed: str, least: LetterSize = CLEAR
) -> list[Case]:
    """As many of each category, with English words, which training leaves out, in ``faces``.

    ``seed`` is a text, and those of training pictures are numbers with a stroke: no picture is one
    of them.
    """
    return [
        _case(Random(f"{seed}, {number}"), CATEGORIES[number % len(CATEGORIES)], faces, least)
        for number in range(count)
    ]


def _case(random: Random, category: str, faces: Sequence[Face], least: LetterSize) -> Case:
    while True:
        scene = new_scene(random, faces, held_out=True, least=least)
        for turn in ask(random, scene.truth):
            if turn.category == category:
                return Case(scene.image, category, turn.question, turn.answer)


def with_other_pictures(cases: Sequence[Case], seed: int = 0) -> list[Case]:
    """The same questions and answers, each with the picture of another case."""
    images = [case.image for case in cases]
    Random(seed).shuffle(images)
    return [replace(case, image=image) for case, image in zip(cases, images, strict=True)]


def accuracy(cases: Sequence[Case], answers: Sequence[str]) -> dict[str, float]:
    """The share of answers that are right to the letter, by category and under "all"."""
    right: dict[str, list[bool]] = defaultdict(list)
    for case, answer in zip(cases, answers, strict=True):
        right[case.category].append(answer == case.answer)
        right["all"].append(answer == case.answer)
    return {name: sum(found) / len(found) for name, found in sorted(right.items())}


def blind_accuracy(cases: Sequence[Case], others: Sequence[Case]) -> dict[str, float]:
    """What one scores who knows the question alone, and gives the answer that is the most frequent
    among ``others`` that were asked it."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for case in others:
        seen[_plain(case.question)][case.answer] += 1
    guesses = [
        found.most_common(1)[0][0] if (found := seen.get(_plain(case.question))) else ""
        for case in cases
    ]
    return accuracy(cases, guesses)


def _plain(question: str) -> str:
    return question.lower().rstrip("?.").replace("color", "colour")


def as_text(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
