# SPDX-License-Identifier: Apache-2.0
"""What transformers' video processors make of frames."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torchvision_operators  # noqa: F401  before transformers
import transformers
from PIL import Image
from reference_vision import unfold


def process_video(
    processor_name: str, config: dict[str, Any], frames: list[Image.Image], fps: float
) -> dict[str, Any]:
    """Pixels as tensors, and the metadata that prompts are made of."""
    processor = getattr(transformers, processor_name)(**deepcopy(config))  # it changes them
    metadata = {
        "total_num_frames": len(frames),
        "fps": fps,
        "duration": len(frames) / fps,
        "frames_indices": list(range(len(frames))),
    }
    video = np.stack([np.asarray(frame.convert("RGB")) for frame in frames])
    found: dict[str, Any] = processor(
        videos=[video], video_metadata=[metadata], return_metadata=True, return_tensors="pt"
    )
    return found


def shown_pixels(found: dict[str, Any], merge: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """float32 [rows, patch_dim] in the order in which the engine's encoder reads them; patches of 4
    x 4."""
    pixels = found.get("pixel_values_videos", found.get("pixel_values"))
    array = np.asarray(pixels[0] if isinstance(pixels, list) else pixels)
    if "video_grid_thw" in found:
        return array
    return unfold(array.reshape(-1, *array.shape[-3:]), 4, merge)
