# SPDX-License-Identifier: Apache-2.0
"""Tiny checkpoints of every vision-language family against transformers' ids, logits and answers:
text only, pictures of unlike sizes between texts, several turns, videos.
"""

from __future__ import annotations

import numpy as np
import pytest
from vlm_cases import GOLDEN_VLMS, VLMS, conversations, kept_rows
from vlm_engine import vlm_engine

# Both sides add float32 in their own order: that rounding is all that may differ.
TOLERANCE = 3e-4
# Not a multiple of a picture's tokens; Gemma 3 reads each of its 9 in one step, beside which three
# more sequences may decode.
CHUNKS = {"gemma3": 12}
FAMILIES = pytest.mark.parametrize("name", VLMS)


def test_every_family_is_there() -> None:
    assert len(VLMS) == 10


@FAMILIES
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunked"])
def test_prompt_logits(name: str, chunked: bool) -> None:
    """Chunks of 8 tokens cut inside pictures."""
    golden = np.load(GOLDEN_VLMS / name / "logits.npz")
    chunk = CHUNKS.get(name, 8) if chunked else 512
    with vlm_engine(GOLDEN_VLMS / name, max_prefill_token_num=chunk) as engine:
        for label, conversation in conversations(name).items():
            ids, media = engine.prepare(conversation)
            assert ids == golden[f"{label}/ids"].tolist()
            _, logits, _ = engine.run(ids, media, max_new_tokens=1, output_logits="all")
            assert logits is not None
            found, expected = logits[kept_rows(len(ids))], golden[f"{label}/logits"]
            np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@FAMILIES
def test_greedy_answers(name: str) -> None:
    """All conversations at once: pictures of several requests share encoder runs."""
    golden = np.load(GOLDEN_VLMS / name / "logits.npz")
    with vlm_engine(GOLDEN_VLMS / name, max_batch_size=8) as engine:
        cases = conversations(name)
        requests = {}
        for label, conversation in cases.items():
            ids, media = engine.prepare(conversation)
            count = len(golden[f"{label}/tokens"])
            request = engine.submit(ids, media, max_new_tokens=count, ignore_eos=True)
            requests[request] = (label, [])
        finished = 0
        while finished < len(cases):
            for output in engine.native.poll(1000):
                assert output.error is None
                requests[output.request_id][1].extend(output.token_ids)
                finished += output.finished
        for label, tokens in requests.values():
            assert tokens == golden[f"{label}/tokens"].tolist(), label
