# SPDX-License-Identifier: Apache-2.0
"""Videos against transformers' video processors, live: which frames are shown, when they were, and
their pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from num2words import num2words
from reference_video import process_video, shown_pixels
from video_cases import CLIPS, VIDEO_CASES, clip_frames, make_video_rules

from manymind.models.number_words import in_words
from manymind.vision.rgb import to_rgb

ROUNDING = 1e-6  # of normalised values; frames themselves are equal


def check(name: str, clip: tuple[int, int, int, float]) -> None:
    case = VIDEO_CASES[name]
    frames, fps = clip_frames(*clip[:3]), clip[3]
    found = process_video(case.reference, case.config, frames, fps)
    expected = shown_pixels(found, case.merge)
    rules = make_video_rules(name)
    media = rules.video([to_rgb(frame) for frame in frames], fps)
    pixels = np.concatenate([item.pixels for item in media.inputs])
    assert pixels.shape == expected.shape
    np.testing.assert_allclose(pixels, expected, rtol=0, atol=ROUNDING)
    assert rules.video_rows(*clip) == len(pixels)
    check_times(found, media.grid, media.seconds, media.seconds_per_slice)


def check_times(
    found: dict[str, Any], grid: tuple[int, ...], seconds: tuple[float, ...], interval: float
) -> None:
    (metadata,) = found["video_metadata"]
    times = [float(time) for time in metadata.timestamps]
    step = 1
    if "video_grid_thw" in found:
        assert grid == tuple(found["video_grid_thw"][0].tolist())
        step = 2
        times += times[-1:] * (len(times) % 2)
    middles = [(times[i] + times[i + step - 1]) / 2 for i in range(0, len(times), step)]
    assert seconds == pytest.approx(middles, rel=1e-6)
    assert interval == pytest.approx(step / metadata.sampled_fps)


@pytest.mark.parametrize("name", VIDEO_CASES)
@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: "x".join(map(str, clip[:3])))
def test_videos(name: str, clip: tuple[int, int, int, float]) -> None:
    check(name, clip)


@pytest.mark.parametrize("name", [name for name in VIDEO_CASES if name not in ("qwen3_vl_all",)])
@pytest.mark.parametrize("count", [30, 64, 100])
def test_frames_of_long_videos(name: str, count: int) -> None:
    # The reference fails where a single frame is left.
    for fps in (1.0, 2.5, 12.0):
        check(name, (count, 9, 12, fps))


def test_numbers_in_words() -> None:
    for number in [*range(1300), 7000, 9999, 10001, 123456, 999999]:
        assert in_words(number) == num2words(number)
