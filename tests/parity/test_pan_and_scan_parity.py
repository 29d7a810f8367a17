# SPDX-License-Identifier: Apache-2.0
"""Gemma 3 with pan and scan against transformers: ids and logits, of pictures that are cut and of
one that is not.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from pictures import rgb
from reference_vlm import VlmReference
from vlm_cases import GOLDEN_VLMS, Conversation, image, text, user
from vlm_engine import vlm_engine

SETTINGS = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 16}
TOLERANCE = 3e-4  # as of the golden logits
PICTURE_TOKENS = 9


def test_pan_and_scan(tmp_path: Path) -> None:
    folder = tmp_path / "gemma3"
    shutil.copytree(GOLDEN_VLMS / "gemma3", folder)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **SETTINGS}))
    wide, square, tall = rgb(20, 70, 1), rgb(30, 32, 2), rgb(50, 31, 3)
    asked = Conversation(
        [user(text("Compare "), image(wide), image(square), text(" with "), image(tall))]
    )
    expected_ids, expected = VlmReference(folder).run(asked)
    with vlm_engine(folder) as engine:
        ids, media = engine.prepare(asked)
        assert ids == expected_ids
        counts = [span.item.num_tokens for span in media.spans]
        assert counts == [PICTURE_TOKENS] * (1 + 4 + 1 + 1 + 2)
        _, logits, _ = engine.run(ids, media, max_new_tokens=1, output_logits="all")
    assert logits is not None
    np.testing.assert_allclose(logits[: len(ids)], expected, rtol=0, atol=TOLERANCE)
