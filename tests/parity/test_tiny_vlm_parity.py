# SPDX-License-Identifier: Apache-2.0
"""The answers of the model that comes with the package, against those of transformers' own
processor and generate(), to every fifth question that tests/vision/test_tiny_vlm.py asks:
transformers takes most of a second for each. (STRIDE = 1 compares all.)
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import transformers
from score_tiny_vlm import ENGINE, answers_to
from test_tiny_vlm import COUNT
from tiny_vlm.cases import Case, held_out_cases
from tiny_vlm.pictures import built_in_face

from manymind import EngineConfig, pipeline
from manymind.fetch import resolve_model

STRIDE = 5  # shares no factor with the number of categories


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return held_out_cases(COUNT, [built_in_face], "tests")[::STRIDE]


@pytest.fixture(scope="module")
def expected(cases: list[Case]) -> list[str]:
    """In float32, one picture at a time."""
    return list(_transformers_answers(cases))


@torch.inference_mode()
def _transformers_answers(cases: list[Case]) -> Iterator[str]:
    folder = resolve_model("tiny-vlm")
    processor = transformers.AutoProcessor.from_pretrained(folder)
    # With pillow, as the engine's side resizes, whatever else is installed.
    processor.image_processor = transformers.Idefics3ImageProcessorPil.from_pretrained(folder)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    for case in cases:
        content = [{"type": "image"}, {"type": "text", "text": case.question}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        inputs = processor(text=text, images=[case.image], return_tensors="pt")
        ids = model.generate(**inputs, max_new_tokens=40, do_sample=False)[0]
        new = ids[inputs["input_ids"].shape[1] :]
        yield processor.decode(new, skip_special_tokens=True)


@pytest.mark.parametrize("exact", [True, False], ids=["float32", "default"])
def test_every_answer_is_transformers_answer(
    cases: list[Case], expected: list[str], exact: bool
) -> None:
    config = EngineConfig(
        compute_dtype="float32",
        kv_cache_dtype="float32",
        max_batch_size=ENGINE.max_batch_size,
        session_len=ENGINE.session_len,
    )
    with pipeline("tiny-vlm", config if exact else ENGINE) as pipe:
        found = answers_to(pipe, cases)
    differing = [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]]
    assert differing == []
