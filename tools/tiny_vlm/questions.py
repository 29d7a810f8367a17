# SPDX-License-Identifier: Apache-2.0
"""Questions about drawn pictures with their answers, and words and numbers to draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tiny_vlm.pictures import (
    COLOURS,
    SHAPES,
    SMALL,
    Face,
    Group,
    LetterSize,
    Scene,
    Text,
    choose_groups,
    draw_shapes,
    draw_text,
)

CATEGORIES = ("word", "number", "shape", "colour", "count", "description")
NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
_PLURALS = {shape: f"{shape}es" if shape == "cross" else f"{shape}s" for shape in SHAPES}


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# English words that training leaves out: all that it draws are made up of syllables or letters.
HELD_OUT_WORDS = _split((Path(__file__).parent / "held_out_words.txt").read_text())
_ONSETS = _split(
    "b c d f g h j k l m n p qu r s t v w x y z bl br ch cl cr dr fl fr gl gr kn ph pl pr sc "
    "sh sk sl sm sn sp st str sw th tr tw wh"
)
_VOWELS = _split("a e i o u a e i o u ai au ea ee ei ia ie io oa oo ou y")
_CODAS = _split(
    "b c d f g k l m n p r s t x z ck ct ff ft ld ll lt mp nd ng nk nt pt rd rk rm rn rt sh "
    "sk ss st th"
)
_SAME_IN_BOTH_CASES = set("cosuvwxz")
_LETTERS = "abcdefghijkmnopqrstuvwxyz"  # without l, which many fonts draw as they draw I


@dataclass(frozen=True)
class Turn:
    """One question about a picture; ``category`` is one of CATEGORIES."""

    category: str
    question: str
    answer: str


def new_word(random: Random) -> str:
    """A made-up word in small letters, capitals, or small letters with a capital first."""
    while True:
        if random.random() < 0.25:
            letters = "".join(random.choices(_LETTERS, k=random.randint(1, 8)))
        else:
            letters = "".join(_syllable(random) for _ in range(random.randint(1, 3)))
        if len(letters) <= 8 and letters not in HELD_OUT_WORDS:
            break
    return in_some_case(random, letters)


def _syllable(random: Random) -> str:
    onset = random.choice(_ONSETS) if random.random() < 0.85 else ""
    coda = random.choice(_CODAS) if random.random() < 0.5 else ""
    return onset + random.choice(_VOWELS) + coda


def in_some_case(random: Random, letters: str) -> str:
    """Capitals alone where small letters would look the same but for their size."""
    if set(letters) <= _SAME_IN_BOTH_CASES or len(letters) == 1:
        return letters.upper()
    return random.choice((letters, letters.upper(), letters.capitalize()))


def held_out_word(random: Random, least: LetterSize) -> str:
    """One that fits into a picture with letters of that size."""
    return in_some_case(random, random.choice([w for w in HELD_OUT_WORDS if least.fits(w)]))


def new_number(random: Random) -> str:
    digits = random.randint(1, 6)
    return str(random.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits))


def new_scene(
    random: Random, faces: Sequence[Face], held_out: bool = False, least: LetterSize = SMALL
) -> Scene:
    """A word, a number or shapes. ``held_out``: words that training never draws."""
    kind = random.choices(("word", "number", "shapes"), (5, 2, 4))[0]
    if kind == "shapes":
        return draw_shapes(random, choose_groups(random))
    if kind == "word":
        text = held_out_word(random, least) if held_out else new_word(random)
    else:
        text = new_number(random)
    return draw_text(random, random.choice(faces), text, least)


def ask(random: Random, truth: Text | tuple[Group, ...]) -> list[Turn]:
    """One question of every category that fits the picture, in random order."""
    turns = _ask_text(random, truth) if isinstance(truth, Text) else _ask_shapes(random, truth)
    random.shuffle(turns)
    return [Turn(turn.category, _spoken(random, turn.question), turn.answer) for turn in turns]


def describe(random: Random, answer: str) -> Turn:
    question = random.choice(
        (
            "Describe the picture.",
            "What is in the picture?",
            "What does the picture show?",
            "What do you see?",
            "What is this?",
        )
    )
    return Turn("description", question, answer)


def _ask_text(random: Random, truth: Text) -> list[Turn]:
    text = truth.text
    if truth.is_number:
        forms = ("Which number is this?", "What number do you see?", "Read the number.")
        answer = f"The number is {text}."
        noun = f"the number {text}"
        category = "number"
    else:
        forms = ("What does it say?", "Which word is this?", "Read the word.", "What is written?")
        answer = f'It says "{text}".'
        noun = f'the word "{text}"'
        category = "word"
    return [
        Turn(category, random.choice(forms), answer),
        describe(random, f"The picture shows {noun}."),
    ]


def _ask_shapes(random: Random, groups: tuple[Group, ...]) -> list[Turn]:
    return [
        describe(random, f"The picture shows {_listing(groups)}."),
        _ask_count(random, groups),
        _ask_colour(random, random.choice(groups)),
        _ask_shape(random, groups),
    ]


def _ask_count(random: Random, groups: tuple[Group, ...]) -> Turn:
    if random.random() < 0.25:
        noun, count = "shape", sum(group.count for group in groups)
    elif random.random() < 0.15:
        missing = [shape for shape in SHAPES if all(shape != group.shape for group in groups)]
        noun, count = random.choice(missing), 0
    else:
        group = random.choice(groups)
        noun, count = group.shape, group.count
    many = _PLURALS.get(noun, f"{noun}s")
    question = random.choice((f"How many {many} are there?", f"Count the {many}."))
    verb = "is" if count == 1 else "are"
    return Turn(
        "count", question, f"There {verb} {NUMBER_WORDS[count]} {noun if count == 1 else many}."
    )


def _ask_colour(random: Random, group: Group) -> Turn:
    noun, verb = (group.shape, "is") if group.count == 1 else (_PLURALS[group.shape], "are")
    word = random.choice(("colour", "color"))
    question = f"What {word} {verb} the {noun}?"
    return Turn("colour", question, f"The {noun} {verb} {group.colour}.")


def _ask_shape(random: Random, groups: tuple[Group, ...]) -> Turn:
    group = random.choice(groups)
    if len(groups) == 1 and random.random() < 0.5:
        if group.count == 1:
            return Turn("shape", "Which shape is this?", f"It is a {group.shape}.")
        return Turn("shape", "Which shapes are these?", f"They are {_PLURALS[group.shape]}.")
    question = f"Which shape is {group.colour}?"
    if group.count == 1:
        return Turn("shape", question, f"The {group.colour} shape is a {group.shape}.")
    return Turn("shape", question, f"The {group.colour} shapes are {_PLURALS[group.shape]}.")


def _listing(groups: Sequence[Group]) -> str:
    parts = [
        f"{_article(group.colour)} {group.colour} {group.shape}"
        if group.count == 1
        else f"{NUMBER_WORDS[group.count]} {group.colour} {_PLURALS[group.shape]}"
        for group in sorted(groups, key=lambda group: SHAPES.index(group.shape))
    ]
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _spoken(random: Random, question: str) -> str:
    """Some people write no capitals, and no mark at the end."""
    if random.random() < 0.1:
        return question[0].lower() + question[1:].rstrip("?.")
    return question


def template_words() -> list[str]:
    """Every word that questions and answers are made of, but for what is read from pictures."""
    sentences = (
        "Describe the picture. What is in the picture? What does the picture show? What do you "
        "see? What is this? Which number is this? What number do you see? Read the number. The "
        "number is. What does it say? Which word is this? Read the word. What is written? It says. "
        "The picture shows. How many are there? Count the shapes. There is. What colour are the? "
        "What color is the? Which shape is this? It is a. It is an. Which shapes are these? They "
        "are. The and"
    )
    words = {word.strip(".?") for word in sentences.split()}
    return sorted(words | set(COLOURS) | set(SHAPES) | set(_PLURALS.values()) | set(NUMBER_WORDS))
