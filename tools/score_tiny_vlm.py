# SPDX-License-Identifier: Apache-2.0
"""Scores the tiny vision-language model through the engine, on pictures that it never saw.

    python tools/score_tiny_vlm.py --pictures 3000

Prints the share of answers that are right to the letter: for a typeface that training left out, in
large letters and in all sizes that training drew; with --fonts for those it used; what the model
scores when every question comes with another question's picture; and what one scores who never
looks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tiny_vlm.cases import (
    Case,
    accuracy,
    as_text,
    blind_accuracy,
    held_out_cases,
    with_other_pictures,
)
from tiny_vlm.pictures import CLEAR, SMALL, Face, LetterSize, built_in_face, file_face

from manymind import EngineConfig, GenerationConfig, Pipeline, pipeline

ENGINE = EngineConfig(max_batch_size=32, session_len=512)
GREEDY = GenerationConfig(max_new_tokens=40)
_OTHERS = 6000  # questions from which one who never looks learns what to answer


def answers_to(pipe: Pipeline, cases: Sequence[Case]) -> list[str]:
    """One answer per case, greedily."""
    return [answer.text for answer in pipe([(case.question, case.image) for case in cases], GREEDY)]


def _report(
    pipe: Pipeline, title: str, count: int, faces: Sequence[Face], least: LetterSize = CLEAR
) -> None:
    cases = held_out_cases(count, faces, "scored", least)
    print(f"{title}: {as_text(accuracy(cases, answers_to(pipe, cases)))}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny-vlm")
    parser.add_argument("--pictures", type=int, default=3000)
    parser.add_argument("--fonts", type=Path, help="folder of the fonts used in training")
    arguments = parser.parse_args()
    count, aileron = arguments.pictures, [built_in_face]
    with pipeline(arguments.model, ENGINE) as pipe:
        _report(pipe, "a typeface it never saw", count, aileron)
        _report(pipe, "the same, small letters too", count, aileron, SMALL)
        if arguments.fonts:
            files = [file_face(path) for path in sorted(arguments.fonts.rglob("*.ttf"))]
            _report(pipe, "typefaces of its training", count, files)
        cases = held_out_cases(count, aileron, "scored")
        others = with_other_pictures(cases)
        print(f"other pictures: {as_text(accuracy(others, answers_to(pipe, others)))}", flush=True)
    blind = blind_accuracy(cases, held_out_cases(_OTHERS, aileron, "seen before"))
    print(f"without looking: {as_text(blind)}")


if __name__ == "__main__":
    main()
