# SPDX-License-Identifier: Apache-2.0
"""The pictures and questions that every engine gets."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

QUESTION = "Describe the picture in detail."
FOLLOW_UP = "Which colours do you see?"
ANSWER_TOKENS = 32


def picture(seed: int, height: int = 720, width: int = 960) -> Image.Image:
    """A picture of its own for each seed: smooth shapes with noise, as photographs have."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(y / (17 + c)) + np.cos(x / (23 + seed % 7 + c)) for c in range(3)]
    noise = generator.normal(0, 12, (height, width, 3))
    pixels = 127 + 55 * np.stack(waves, -1) + noise
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def turns(image: Any, follow_up: bool = False) -> list[dict[str, Any]]:
    """A question about a picture; with ``follow_up``, a second one after a fixed answer."""
    content = [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if follow_up:
        answer = {"type": "text", "text": "A pattern of waves with some noise over it."}
        messages.append({"role": "assistant", "content": [answer]})
        messages.append({"role": "user", "content": [{"type": "text", "text": FOLLOW_UP}]})
    return messages


def rates(process: Callable[[Image.Image], Any], threads: int) -> dict[str, float]:
    """Pictures of 1080 x 1920 processed per second, in one thread and in so many at once."""
    images = [picture(seed, 1080, 1920) for seed in range(4)]
    process(images[0])  # warm

    def rate(workers: int) -> float:
        with ThreadPoolExecutor(workers) as pool:
            start = time.perf_counter()
            list(pool.map(process, images * workers))
            return len(images) * workers / (time.perf_counter() - start)

    return {"images_per_s": rate(1), f"images_per_s_{threads}_threads": rate(threads)}
