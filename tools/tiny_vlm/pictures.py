# SPDX-License-Identifier: Apache-2.0
"""Pictures of words, numbers and coloured shapes, drawn by pillow from a seeded generator."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

from PIL import Image, ImageDraw, ImageFont

Rgb: TypeAlias = tuple[int, int, int]
Face: TypeAlias = Callable[[int], Any]  # a font at a size in pixels
Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom as parts of the side

COLOURS: dict[str, Rgb] = {
    "red": (220, 30, 35),
    "green": (35, 150, 55),
    "blue": (35, 70, 215),
    "yellow": (245, 215, 30),
    "orange": (250, 130, 20),
    "purple": (130, 45, 165),
    "black": (20, 20, 22),
    "white": (248, 248, 248),
}
SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross", "heart")
CHARACTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
MAX_COUNT = 6
MAX_SHAPES = 8

_PAPERS: tuple[Rgb, ...] = (
    (255, 255, 255),
    (238, 236, 228),
    (214, 220, 226),
    (200, 214, 196),
    (158, 160, 164),
    (96, 98, 104),
    (52, 56, 66),
    (0, 0, 0),
)
_SIDE = 128  # of the square that the model sees


@dataclass(frozen=True)
class LetterSize:
    """The smallest letters, in pixels of the square that the model sees: their mean width and their
    height."""

    width: float
    height: float

    def fits(self, text: str) -> bool:
        return len(text) * self.width <= 0.9 * _SIDE


SMALL = LetterSize(7.5, 13.0)  # hard to read in a picture of 128 pixels
CLEAR = LetterSize(18.0, 24.0)  # up to six letters


@dataclass(frozen=True)
class Text:
    """A word or a number that stands in the picture."""

    text: str

    @property
    def is_number(self) -> bool:
        return self.text.isdigit()


@dataclass(frozen=True)
class Group:
    """``count`` equal shapes of one colour."""

    shape: str
    colour: str
    count: int


@dataclass(frozen=True)
class Mark:
    """Where one letter or shape lies. ``kind``: an index into CHARACTERS, or SHAPES behind them;
    ``ordinal``: of a letter in its word; ``colour``: an index into COLOURS, -1 for letters."""

    box: Box
    kind: int
    ordinal: int = 0
    colour: int = -1


@dataclass(frozen=True)
class Scene:
    image: Image.Image
    truth: Text | tuple[Group, ...]
    marks: tuple[Mark, ...]


def built_in_face(size: int) -> Any:
    """Aileron, which comes with pillow."""
    return ImageFont.load_default(size)


@functools.lru_cache(maxsize=256)
def file_face(path: Path) -> Face:
    return functools.partial(_open_font, str(path))


@functools.lru_cache(maxsize=8192)
def _open_font(path: str, size: int) -> Any:
    return ImageFont.truetype(path, size)


def draw_text(random: Random, face: Face, text: str, least: LetterSize = SMALL) -> Scene:
    """``text`` on one line, anywhere in a picture of any proportions."""
    box = face(64).getbbox(text)
    aspect = (box[2] - box[0]) / (box[3] - box[1])
    while True:
        width, height = _canvas(random, 0.5, 4.0)
        span = random.uniform(0.4, 0.94) * width
        span = min(span, random.uniform(0.4, 0.85) * height * aspect)
        tall = span / aspect * _SIDE / height
        if span * _SIDE / width >= least.width * len(text) and tall >= least.height:
            break
    size = max(8, round(64 * span / (box[2] - box[0])))
    left, top, right, bottom = (edge * size / 64 for edge in box)
    x = _place(random, width, right - left) - left
    y = _place(random, height, bottom - top) - top
    paper, ink = _paper_and_ink(random)
    image = Image.new("RGB", (width, height), paper)
    ImageDraw.Draw(image).text((x, y), text, fill=ink, font=face(size))
    edges = [x, *(x + length * size / 64 for length in _lengths(face, text))]
    marks = tuple(
        Mark(
            (a / width, (y + top) / height, b / width, (y + bottom) / height),
            CHARACTERS.index(letter),
            ordinal,
        )
        for ordinal, (letter, a, b) in enumerate(zip(text, edges, edges[1:], strict=False))
    )
    return Scene(image, Text(text), marks)


def _lengths(face: Face, text: str) -> Iterator[float]:
    """How far each letter reaches at size 64, but for kerning."""
    return itertools.accumulate(_advance(face, letter) for letter in text)


@functools.lru_cache(maxsize=8192)
def _advance(face: Face, letter: str) -> float:
    return float(face(64).getlength(letter))


def draw_shapes(random: Random, groups: Sequence[Group]) -> Scene:
    """The shapes of all groups, mixed, none over another."""
    total = sum(group.count for group in groups)
    width, height = _canvas(random, 0.6, 1.7)
    side = random.randint(max(1, math.ceil(math.sqrt(total))), max(3, math.ceil(math.sqrt(total))))
    cells = random.sample(range(side * side), total)
    image = Image.new("RGB", (width, height), _paper(random, [g.colour for g in groups]))
    draw = ImageDraw.Draw(image)
    marks = []
    for group in groups:
        for _ in range(group.count):
            row, column = divmod(cells.pop(), side)
            cell_x, cell_y = width / side, height / side
            radius = random.uniform(0.28, 0.45) * min(cell_x, cell_y)
            x = column * cell_x + random.uniform(radius, cell_x - radius)
            y = row * cell_y + random.uniform(radius, cell_y - radius)
            _draw_shape(draw, random, group, x, y, radius)
            marks.append(
                Mark(
                    (
                        (x - radius) / width,
                        (y - radius) / height,
                        (x + radius) / width,
                        (y + radius) / height,
                    ),
                    len(CHARACTERS) + SHAPES.index(group.shape),
                    colour=list(COLOURS).index(group.colour),
                )
            )
    return Scene(image, tuple(groups), tuple(marks))


def choose_groups(random: Random) -> list[Group]:
    """One to three groups that differ in shape and in colour."""
    number = random.choices((1, 2, 3), (5, 4, 1))[0]
    shapes, colours = random.sample(SHAPES, number), random.sample(list(COLOURS), number)
    while True:
        counts = [random.randint(1, MAX_COUNT) for _ in range(number)]
        if sum(counts) <= MAX_SHAPES:
            return [Group(*group) for group in zip(shapes, colours, counts, strict=True)]


def _canvas(random: Random, narrowest: float, widest: float) -> tuple[int, int]:
    """Width and height; the proportions between the two limits."""
    aspect = math.exp(random.uniform(math.log(narrowest), math.log(widest)))
    area = random.uniform(96, 200) ** 2
    return round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))


def _place(random: Random, side: int, length: float) -> float:
    """Where something of this length begins on a side, a little away from both ends."""
    margin = min(0.02 * side, max(0.0, side - length) / 2)
    return random.uniform(margin, max(margin, side - length - margin))


def _jitter(random: Random, colour: Rgb, amount: int) -> Rgb:
    r, g, b = (min(255, max(0, part + random.randint(-amount, amount))) for part in colour)
    return r, g, b


def _luminance(colour: Rgb) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _paper_and_ink(random: Random) -> tuple[Rgb, Rgb]:
    """Two colours of unlike brightness; black on white often."""
    if random.random() < 0.3:
        paper, ink = _jitter(random, (245, 245, 245), 10), _jitter(random, (15, 15, 15), 15)
        return (paper, ink) if random.random() < 0.7 else (ink, paper)
    while True:
        paper, ink = (
            (random.randint(0, 255), random.randint(0, 255), random.randint(0, 255)),
            (random.randint(0, 255), random.randint(0, 255), random.randint(0, 255)),
        )
        if abs(_luminance(paper) - _luminance(ink)) > 90:
            return paper, ink


def _paper(random: Random, colours: Sequence[str]) -> Rgb:
    """A neutral colour on which all ``colours`` stand out."""
    while True:
        paper = _jitter(random, random.choice(_PAPERS), 8)
        if all(math.dist(paper, COLOURS[colour]) > 95 for colour in colours):
            return paper


def _draw_shape(
    draw: ImageDraw.ImageDraw, random: Random, group: Group, x: float, y: float, radius: float
) -> None:
    fill = _jitter(random, COLOURS[group.colour], 14)
    if group.shape == "circle":
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
        return
    turn = math.radians(random.uniform(-12, 12))
    cos, sin = radius * math.cos(turn), radius * math.sin(turn)
    points = [(x + cos * u - sin * v, y + sin * u + cos * v) for u, v in _OUTLINES[group.shape]]
    draw.polygon(points, fill=fill)


def _star() -> list[tuple[float, float]]:
    angles = [math.pi * (index / 5 - 0.5) for index in range(10)]
    reach = [1.0 if index % 2 == 0 else 0.42 for index in range(10)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(reach, angles, strict=True)]


def _heart() -> list[tuple[float, float]]:
    points = []
    for index in range(28):
        t = 2 * math.pi * index / 28
        curve = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((math.sin(t) ** 3 * 0.98, -(curve + 2.5) / 15))
    return points


# In a square from -1 to 1, y downwards.
_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
    "triangle": [(0, -0.95), (0.95, 0.75), (-0.95, 0.75)],
    "diamond": [(0, -1), (0.75, 0), (0, 1), (-0.75, 0)],
    "cross": [
        *((-0.3, -0.95), (0.3, -0.95), (0.3, -0.3), (0.95, -0.3), (0.95, 0.3), (0.3, 0.3)),
        *((0.3, 0.95), (-0.3, 0.95), (-0.3, 0.3), (-0.95, 0.3), (-0.95, -0.3), (-0.3, -0.3)),
    ],
    "star": _star(),
    "heart": _heart(),
}
