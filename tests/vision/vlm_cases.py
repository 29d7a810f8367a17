# SPDX-License-Identifier: Apache-2.0
"""Conversations with pictures for the tiny vision-language checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pictures import rgb
from PIL import Image

GOLDEN_VLMS = Path(__file__).parents[1] / "golden" / "vision" / "tiny"
VLMS = sorted(path.name for path in GOLDEN_VLMS.iterdir()) if GOLDEN_VLMS.is_dir() else []
WITH_VIDEO = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm", "internvl", "llava_onevision")
FPS = 2.0
# Rows of the golden logits: some of the prompt's, and the last.
ROW_STEP = 13


@dataclass(frozen=True)
class Conversation:
    """``messages`` in OpenAI's form, whose pictures are "image" items with a PIL image and videos
    "video" items with frames."""

    messages: Sequence[Mapping[str, Any]]

    @property
    def images(self) -> list[Image.Image]:
        return [item["image"] for item in self._items() if item["type"] == "image"]

    @property
    def videos(self) -> list[list[Image.Image]]:
        return [item["video"] for item in self._items() if item["type"] == "video"]

    def _items(self) -> list[Mapping[str, Any]]:
        return [item for message in self.messages for item in message["content"]]


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def image(picture: Image.Image) -> dict[str, Any]:
    return {"type": "image", "image": picture}


def video(frames: list[Image.Image]) -> dict[str, Any]:
    return {"type": "video", "video": frames, "fps": FPS}


def user(*content: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def assistant(content: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [text(content)]}


def conversations(name: str) -> dict[str, Conversation]:
    """Cases of one family."""
    wide, tall, small = rgb(20, 45, 1), rgb(50, 31, 2), rgb(9, 12, 3)
    cases = {
        "text": Conversation([user(text("What is the capital of Japan?"))]),
        "one_image": Conversation([user(image(wide), text("Describe the picture."))]),
        "several_images": Conversation(
            [
                user(text("Compare "), image(wide), text(" with "), image(tall)),
                user(image(small), text("and this.")),
            ]
        ),
        "several_turns": Conversation(
            [
                user(image(tall), text("What is this?")),
                assistant("A lighthouse by the sea."),
                user(text("And this?"), image(tall), image(small)),
                assistant("The same, and a boat."),
                user(text("Thank you.")),
            ]
        ),
    }
    if name.removesuffix("_6b") in WITH_VIDEO:
        frames = [rgb(22, 33, seed) for seed in range(5)]
        cases["video"] = Conversation([user(video(frames), text("What happens?"))])
    return cases


def kept_rows(count: int) -> np.ndarray:
    """Positions of a prompt of ``count`` tokens whose logits are kept."""
    return np.unique([*range(0, count, ROW_STEP), *range(max(0, count - 3), count)])
