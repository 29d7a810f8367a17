# SPDX-License-Identifier: Apache-2.0
"""Videos against what transformers' video processors gave (tools/make_golden.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import sample
from video_cases import CLIPS, VIDEO_CASES, clip_frames, make_video_rules

from manymind._turbomind import scale_axis
from manymind.checkpoint.fields import Fields
from manymind.errors import CheckpointError, InvalidParameterError, MediaError
from manymind.models.number_words import in_words
from manymind.vision.qwen_vl import Layout, QwenPreprocessor
from manymind.vision.rgb import to_rgb

GOLDEN = Path(__file__).parents[1] / "golden" / "vision" / "video.npz"
ROUNDING = 1e-6  # of normalised values; frames themselves are equal


@pytest.mark.parametrize("name", VIDEO_CASES)
def test_videos_are_those_of_transformers(name: str) -> None:
    golden = np.load(GOLDEN)
    rules = make_video_rules(name)
    for index, clip in enumerate(CLIPS):
        frames = [to_rgb(frame) for frame in clip_frames(*clip[:3])]
        media = rules.video(frames, clip[3])
        pixels = np.concatenate([item.pixels for item in media.inputs])
        label = f"{name}/{index}"
        assert pixels.shape == tuple(golden[f"{label}/shape"])
        assert rules.video_rows(*clip) == len(pixels)
        samples = golden[f"{label}/samples"]
        np.testing.assert_allclose(sample(pixels), samples, rtol=0, atol=ROUNDING)
        times = golden[f"{label}/times"]
        if not name.startswith("qwen"):  # which pair frames to slices
            np.testing.assert_allclose(media.seconds, times, rtol=1e-6)
        else:
            assert len(media.seconds) == (len(times) + 1) // 2


@pytest.mark.parametrize("name", VIDEO_CASES)
def test_no_rate_makes_more_patches_than_are_charged_for_any(name: str) -> None:
    rules = make_video_rules(name)
    for count, height, width in ((5, 40, 60), (300, 250, 250), (768, 480, 480)):
        charged = rules.video_rows(count, height, width, None)
        for fps in np.geomspace(1e-3, 1e3, 200):
            assert rules.video_rows(count, height, width, float(fps)) <= charged


def test_fewer_frames_may_be_more_patches() -> None:
    """So the extremes of the rate do not bound what a video of Qwen3-VL costs."""
    limits = {"size": {"shortest_edge": 4096, "longest_edge": 25165824}}
    layout = Layout(one_input_per_slice=True)
    rules = QwenPreprocessor(Fields({"patch_size": 16}), layout, video=Fields(limits))
    extremes = [rules.video_rows(768, 250, 250, fps) for fps in (1e-3, 1e3)]
    assert rules.video_rows(768, 250, 250, 4.0) > max(extremes)
    assert rules.video_rows(768, 250, 250, None) >= rules.video_rows(768, 250, 250, 4.0)


def test_a_video_has_its_own_digest() -> None:
    """A frame that is a picture elsewhere is normalised otherwise there."""
    rules = make_video_rules("internvl_sampled")
    frame = to_rgb(clip_frames(1, 16, 16)[0])
    shown = rules.video([frame, frame], 1.0).inputs[0]
    picture = rules.image(frame).inputs[0]
    assert not np.array_equal(shown.pixels, picture.pixels)
    assert shown.digest != picture.digest


def test_patches_of_a_video_must_be_those_of_pictures() -> None:
    with pytest.raises(CheckpointError, match="patch_size"):
        QwenPreprocessor(Fields({"patch_size": 14}), Layout(), video=Fields({"patch_size": 16}))


def test_sampling_needs_a_rate() -> None:
    with pytest.raises(CheckpointError, match="do_sample_frames"):
        QwenPreprocessor(Fields({}), Layout(), video=Fields({"do_sample_frames": True}))


@pytest.mark.parametrize("name", ["qwen2_vl", "internvl", "llava_onevision", "smolvlm"])
def test_frames_and_a_rate_are_needed(name: str) -> None:
    rules = make_video_rules(name)
    with pytest.raises(MediaError, match="frames"):
        rules.video([], 1.0)
    with pytest.raises(MediaError, match="fps"):
        rules.video([np.zeros((20, 20, 3), np.uint8)], 0.0)


def test_numbers_in_words() -> None:
    words = {0: "zero", 13: "thirteen", 21: "twenty-one", 80: "eighty", 101: "one hundred and one"}
    for number, expected in words.items():
        assert in_words(number) == expected
    assert in_words(1768) == "one thousand, seven hundred and sixty-eight"
    with pytest.raises(ValueError, match="999999"):
        in_words(1_000_000)


@pytest.mark.parametrize(
    ("first", "count", "bits"), [(5, 2, 14), (-1, 1, 14), (0, 3, 14), (0, 1, 0), (0, 1, 23)]
)
def test_a_filter_that_does_not_fit_the_frame_is_refused(first: int, count: int, bits: int) -> None:
    frame = np.zeros((6, 4, 3), np.uint8)
    weights = np.full((1, 2), 1 << 13, np.int16)
    with pytest.raises(InvalidParameterError, match="filter"):
        scale_axis(
            frame, 0, np.array([first], np.int32), np.array([count], np.int32), weights, bits
        )
