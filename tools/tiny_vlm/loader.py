# SPDX-License-Identifier: Apache-2.0
"""Batches drawn by processes beside the training. What is in a batch depends on its number and the
seed alone, not on how many processes draw."""

from __future__ import annotations

import contextlib
import functools
import itertools
import mmap
import os
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tiny_vlm import tokenizer as words
from tiny_vlm.pictures import Scene, file_face
from tiny_vlm.questions import Turn, ask, new_scene

LANCZOS, BILINEAR = Image.Resampling.LANCZOS, Image.Resampling.BILINEAR
SIDE = 128  # pixels of the square that the model sees
PATCH = 8
IMAGE_TOKENS = 64
TEXT_TOKENS = 56  # behind the picture
GRID = SIDE // PATCH
ROUNDS = 2  # steps that see the same pictures: drawing takes longer than learning
_SLOTS = 3  # batches that each process may be ahead


@dataclass(frozen=True)
class Batch:
    """pixels: uint8 [batch, SIDE, SIDE, 3]; ids and the 0/1 of ``answers`` [ROUNDS, batch,
    TEXT_TOKENS], other questions in each round; marks: int8 [batch, 3, GRID, GRID], kind, ordinal
    and colour of what covers a patch, -1 where there is nothing."""

    pixels: npt.NDArray[np.uint8]
    ids: npt.NDArray[np.int16]
    answers: npt.NDArray[np.uint8]
    marks: npt.NDArray[np.int8]

    @classmethod
    def layout(cls, size: int) -> tuple[tuple[tuple[int, ...], Any], ...]:
        return (
            ((size, SIDE, SIDE, 3), np.uint8),
            ((ROUNDS, size, TEXT_TOKENS), np.int16),
            ((ROUNDS, size, TEXT_TOKENS), np.uint8),
            ((size, 3, GRID, GRID), np.int8),
        )

    @classmethod
    def over(cls, memory: mmap.mmap, size: int) -> Batch:
        """A batch of ``size`` whose arrays lie in ``memory``."""
        arrays, offset = [], 0
        for shape, kind in cls.layout(size):
            count = int(np.prod(shape))
            arrays.append(np.frombuffer(memory, kind, count, offset).reshape(shape))
            offset += count * np.dtype(kind).itemsize
        return cls(*arrays)

    @classmethod
    def num_bytes(cls, size: int) -> int:
        return sum(
            int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in cls.layout(size)
        )


def batches(
    fonts: Sequence[Path], seed: int, size: int, count: int, workers: int
) -> Iterator[Batch]:
    """``count`` batches in order; one is valid until the next is asked for."""
    drawers = [
        _Drawer(fonts, seed, size, range(worker, count, workers)) for worker in range(workers)
    ]
    try:
        for number in range(count):
            drawer = drawers[number % workers]
            yield drawer.next()
            drawer.give_back()
    finally:
        # All before the first is waited for: a process holds ends of the pipes made before it.
        for drawer in drawers:
            drawer.close()
        for drawer in drawers:
            drawer.wait()


class _Drawer:
    """A child process that fills batches in shared memory. One byte goes through a pipe for each
    batch that is full, and one back for each place that is free; it ends with its parent."""

    def __init__(self, fonts: Sequence[Path], seed: int, size: int, numbers: Sequence[int]) -> None:
        slots = [mmap.mmap(-1, Batch.num_bytes(size)) for _ in range(_SLOTS)]
        self._batches = itertools.cycle([Batch.over(memory, size) for memory in slots])
        self._full, full = os.pipe()
        free, self._free = os.pipe()
        os.write(self._free, bytes(_SLOTS))
        self._process = os.fork()
        if self._process == 0:
            os.close(self._free)
            status = 1
            try:
                for number in numbers:
                    if not os.read(free, 1):
                        break
                    _fill(next(self._batches), fonts, seed, number * size)
                    os.write(full, bytes(1))
                status = 0
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(full)
        os.close(free)

    def next(self) -> Batch:
        if not os.read(self._full, 1):
            raise RuntimeError("batches: a process that draws pictures has ended")
        return next(self._batches)

    def give_back(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has drawn its last
            os.write(self._free, bytes(1))

    def close(self) -> None:
        os.close(self._free)
        os.close(self._full)

    def wait(self) -> None:
        os.waitpid(self._process, 0)


def _fill(batch: Batch, fonts: Sequence[Path], seed: int, first: int) -> None:
    faces = [file_face(path) for path in fonts]
    batch.ids[:], batch.answers[:] = 0, 0
    for row in range(len(batch.pixels)):
        random = Random(f"{seed}/{first + row}")
        scene = new_scene(random, faces)
        # The model's own filter is slow, and others do no harm.
        own = random.random() < 0.3
        batch.pixels[row] = as_square(scene.image, LANCZOS if own else BILINEAR)
        batch.marks[row] = patch_marks(scene)
        for turn in range(ROUNDS):
            ids, answers = encode_turns(ask(random, scene.truth))
            batch.ids[turn, row, : len(ids)] = ids
            batch.answers[turn, row, : len(ids)] = answers


def as_square(image: Image.Image, resample: Image.Resampling = LANCZOS) -> npt.NDArray[np.uint8]:
    """As the model's image processor scales it, by default."""
    return np.asarray(image.resize((SIDE, SIDE), resample))


def patch_marks(scene: Scene) -> npt.NDArray[np.int8]:
    """What covers the centre of each patch."""
    marks = np.full((3, GRID, GRID), -1, np.int8)
    for mark in scene.marks:
        left, top, right, bottom = (round(edge * GRID) for edge in mark.box)
        rows, columns = slice(max(0, top), max(bottom, top + 1)), slice(max(0, left), right)
        for plane, value in zip(marks, (mark.kind, mark.ordinal, mark.colour), strict=True):
            plane[rows, columns] = value
    return marks


@functools.lru_cache(maxsize=1)
def _tokenizer() -> Any:
    return words.make_tokenizer()


@functools.lru_cache(maxsize=100_000)
def encode(text: str) -> tuple[int, ...]:
    return tuple(_tokenizer().encode(text).ids)


def encode_turns(turns: Sequence[Turn]) -> tuple[list[int], list[int]]:
    """Token ids behind the picture, as many turns as fit, and which of them the model answers."""
    ids: list[int] = []
    answers: list[int] = []
    for turn in turns:
        asked = encode(("<|user|>" if ids else "") + turn.question)
        asked += encode(words.END + words.ASSISTANT)
        answer = encode(turn.answer + words.END)
        if len(ids) + len(asked) + len(answer) > TEXT_TOKENS:
            break
        ids += asked + answer
        answers += [0] * len(asked) + [1] * len(answer)
    return ids, answers
