# SPDX-License-Identifier: Apache-2.0
"""Gemma 3's pictures, whose tokens see each other: what must hold beyond every family's logits."""

from __future__ import annotations

import numpy as np
import pytest
from pictures import rgb
from PIL import Image
from vlm_cases import GOLDEN_VLMS, Conversation, image, text, user
from vlm_engine import VlmEngine, vlm_engine

from manymind.errors import InvalidParameterError

FOLDER = GOLDEN_VLMS / "gemma3"
PICTURE = rgb(40, 30, 5)


def ask(engine: VlmEngine, question: str, seed: int = 5) -> tuple[list[int], np.ndarray, int]:
    """Tokens, logits of the first one, and cached tokens."""
    ids, media = engine.prepare(Conversation([user(image(rgb(40, 30, seed)), text(question))]))
    tokens, logits, cached = engine.run(
        ids, media, max_new_tokens=4, ignore_eos=True, output_logits="generation"
    )
    assert logits is not None
    return tokens, logits, cached


def test_prefixes_with_pictures_are_shared() -> None:
    with vlm_engine(FOLDER) as engine:
        first = ask(engine, "What is this?")
        second = ask(engine, "Whose?")
        repeated = ask(engine, "What is this?")
        other = ask(engine, "What is this?", seed=6)
    with vlm_engine(FOLDER, enable_prefix_caching=False) as engine:
        fresh, fresh_other = ask(engine, "Whose?"), ask(engine, "What is this?", seed=6)
    assert first[2] == 0
    assert second[2] > 17  # the picture's tokens are 8 to 16
    assert other[2] <= 8
    for found, expected in ((second, fresh), (repeated, first), (other, fresh_other)):
        assert found[0] == expected[0]
        np.testing.assert_array_equal(found[1], expected[1])


def test_a_prefix_may_end_inside_a_picture() -> None:
    """What the cache holds of a picture was computed when all of it was there."""
    with vlm_engine(FOLDER) as engine:
        ids, media = engine.prepare(Conversation([user(image(PICTURE), text("?"))]))
        end = media.spans[0].begin + media.spans[0].item.num_tokens
        runs = [
            engine.run(ids[:end], media, max_new_tokens=3, output_logits="generation")
            for _ in range(2)
        ]
    assert [cached for _, _, cached in runs] == [0, end - 1]
    assert runs[0][0] == runs[1][0]
    np.testing.assert_array_equal(runs[0][1], runs[1][1])


def test_the_last_tokens_of_a_picture_change_the_first() -> None:
    """The logits at a picture's first token depend on those after it, those before it do not."""
    rows = []
    with vlm_engine(FOLDER, enable_prefix_caching=False) as engine:
        for lower in (0, 255):
            pixels = np.array(PICTURE)
            pixels[-5:] = lower
            asked = Conversation([user(image(Image.fromarray(pixels)), text("?"))])
            ids, media = engine.prepare(asked)
            begin = media.spans[0].begin
            _, logits, _ = engine.run(ids, media, max_new_tokens=1, output_logits="all")
            assert logits is not None
            rows.append(logits[begin - 1 : begin + 1])
    np.testing.assert_array_equal(rows[0][0], rows[1][0])
    assert np.abs(rows[0][1] - rows[1][1]).max() > 1e-3


def test_steps_too_small_for_a_picture() -> None:
    with vlm_engine(FOLDER, max_prefill_token_num=11) as engine:
        with pytest.raises(InvalidParameterError, match="max_num_batched_tokens leave beside"):
            ask(engine, "?")
        assert ask_text(engine)


def ask_text(engine: VlmEngine) -> list[int]:
    ids, media = engine.prepare(Conversation([user(text("Hello"))]))
    return engine.run(ids, media, max_new_tokens=2)[0]
