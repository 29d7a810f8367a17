# SPDX-License-Identifier: Apache-2.0
"""What transformers makes of the test pictures and of conversations about them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

_ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_ROOT / "tests" / name) for name in ("parity", "vision")]

from pictures import golden_pictures, sample  # noqa: E402
from preprocess_cases import CASES  # noqa: E402
from reference_video import process_video, shown_pixels  # noqa: E402
from reference_vision import process  # noqa: E402
from reference_vlm import VlmReference  # noqa: E402
from video_cases import CLIPS, VIDEO_CASES, clip_frames  # noqa: E402
from vlm_cases import conversations, kept_rows  # noqa: E402

ANSWER_LENGTH = 6


def make_preprocessed(folder: Path) -> None:
    """vision/preprocess.npz: "<case>/<picture>/shape" int64 [2], "/samples" float32, and "/grid"
    where the processor tells it."""
    values = {}
    for name, case in CASES.items():
        for label, picture in golden_pictures().items():
            found = process(case.reference, case.config, picture, case.patch_size, case.merge)
            values[f"{name}/{label}/shape"] = np.array(found.pixels.shape)
            values[f"{name}/{label}/samples"] = sample(found.pixels)
            if found.grid is not None:
                values[f"{name}/{label}/grid"] = np.array(found.grid)
    target = folder / "vision" / "preprocess.npz"
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(target, **values)


def make_videos(folder: Path) -> None:
    """vision/video.npz: "<case>/<clip>/samples" float32, and "/times" float32, of the frames that
    are shown."""
    values = {}
    for name, case in VIDEO_CASES.items():
        for index, clip in enumerate(CLIPS):
            found = process_video(case.reference, case.config, clip_frames(*clip[:3]), clip[3])
            pixels, (metadata,) = shown_pixels(found, case.merge), found["video_metadata"]
            values[f"{name}/{index}/shape"] = np.array(pixels.shape)
            values[f"{name}/{index}/samples"] = sample(pixels)
            values[f"{name}/{index}/times"] = np.array(metadata.timestamps, np.float32)
    np.savez_compressed(folder / "vision" / "video.npz", **values)


def make_vlm_logits(folder: Path) -> None:
    """vision/tiny/<family>/logits.npz: of each conversation ids int32 [n], logits of kept rows
    float32 [rows, vocab_size], and tokens int32, the greedy answer's first."""
    for path in sorted((folder / "vision" / "tiny").iterdir()):
        reference = VlmReference(path)
        values = {}
        for label, conversation in conversations(path.name).items():
            ids, logits = reference.run(conversation)
            values[f"{label}/ids"] = np.array(ids, np.int32)
            values[f"{label}/logits"] = logits[kept_rows(len(ids))]
            tokens = reference.generate(conversation, ANSWER_LENGTH)
            values[f"{label}/tokens"] = np.array(tokens, np.int32)
        np.savez_compressed(path / "logits.npz", **values)
