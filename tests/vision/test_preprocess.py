# SPDX-License-Identifier: Apache-2.0
"""Preprocessing against numbers that transformers' image processors gave (tools/make_golden.py)."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pictures import golden_pictures, rgb, sample
from preprocess_cases import CASES, make

from manymind.checkpoint.fields import Fields
from manymind.errors import CheckpointError, MediaError, UnsupportedModelError
from manymind.vision.llava import ClipPreprocessor, SquarePreprocessor
from manymind.vision.llava_onevision import LlavaOnevisionPreprocessor
from manymind.vision.patches import Normalizer
from manymind.vision.qwen_vl import Layout, QwenPreprocessor
from manymind.vision.rgb import resize, to_rgb
from manymind.vision.settings import LANCZOS
from manymind.vision.tiles import TileLayout
from manymind.vision.types import PreparedMedia

GOLDEN = Path(__file__).parents[1] / "golden" / "vision" / "preprocess.npz"
QWEN_CONFIG = {"min_pixels": 3136, "max_pixels": 30000}


def all_pixels(media: PreparedMedia) -> np.ndarray:
    return np.concatenate([item.pixels for item in media.inputs])


def check_consistent(media: PreparedMedia) -> None:
    """What the engine relies on."""
    for item in media.inputs:
        rows = len(item.pixels)
        assert item.pixels.dtype == np.float32
        assert item.pixels.flags.c_contiguous
        assert item.segments.sum() == rows
        assert len(item.digest) == 32
        if item.windows is not None:
            assert item.windows.sum() == rows
            assert item.windows.min() > 0
        if item.positions is not None:
            assert item.positions.shape == (2, rows)
        if item.table is not None:
            assert len(item.table.rows) == rows
        for array in (item.segments, item.windows, item.positions, item.merge):
            assert array is None or (array.dtype == np.int32 and array.flags.c_contiguous)


@pytest.mark.parametrize("name", CASES)
def test_pixels_are_those_of_transformers(name: str) -> None:
    golden = np.load(GOLDEN)
    preprocessor = make(name)
    for label, picture in golden_pictures().items():
        found = preprocessor.image(to_rgb(picture))
        check_consistent(found)
        pixels = all_pixels(found)
        assert pixels.shape == tuple(golden[f"{name}/{label}/shape"])
        np.testing.assert_allclose(
            sample(pixels), golden[f"{name}/{label}/samples"], rtol=0, atol=1e-6
        )
        if f"{name}/{label}/grid" in golden:
            assert found.grid == tuple(golden[f"{name}/{label}/grid"])


@pytest.mark.parametrize("name", CASES)
def test_rows_are_known_before_decoding(name: str) -> None:
    preprocessor = make(name)
    for picture in golden_pictures().values():
        found = preprocessor.image(to_rgb(picture))
        assert preprocessor.rows(picture.height, picture.width) == len(all_pixels(found))


@pytest.mark.parametrize("name", CASES)
def test_a_digest_stands_for_the_content(name: str) -> None:
    preprocessor = make(name)
    picture = to_rgb(rgb(64, 80))
    changed = picture.copy()
    changed[32, 40] ^= 255  # the middle, which every rule keeps
    digests = [item.digest for item in preprocessor.image(picture).inputs]
    assert [item.digest for item in preprocessor.image(picture.copy()).inputs] == digests
    assert [item.digest for item in preprocessor.image(changed).inputs] != digests


def test_equal_pixels_of_another_shape_have_another_digest() -> None:
    preprocessor = QwenPreprocessor(Fields(QWEN_CONFIG), Layout())
    wide = preprocessor.image(np.full((56, 112, 3), 9, np.uint8))
    tall = preprocessor.image(np.full((112, 56, 3), 9, np.uint8))
    assert wide.inputs[0].pixels.shape == tall.inputs[0].pixels.shape
    assert wide.inputs[0].digest != tall.inputs[0].digest


def test_many_threads_get_what_one_gets() -> None:
    preprocessor = make("qwen2_vl")
    pictures = [to_rgb(rgb(100 + 7 * index, 200 - 5 * index)) for index in range(16)]
    expected = [item.inputs[0].digest for item in map(preprocessor.image, pictures)]
    with ThreadPoolExecutor(8) as pool:
        found = [item.inputs[0].digest for item in pool.map(preprocessor.image, pictures * 4)]
    assert found == expected * 4


def test_other_threads_run_while_pixels_are_worked_on() -> None:
    """A thread that only counts goes on counting during one call of pillow or numpy: they let go of
    the GIL."""
    picture = np.tile(to_rgb(rgb(100, 100)), (20, 20, 1))
    normalize = Normalizer(1 / 255, (0.5,) * 3, (0.5,) * 3)
    for call in (lambda: resize(picture, 1900, 1900, LANCZOS), lambda: normalize(picture, 2)):
        assert counted_during(call) > 20


def counted_during(call: Callable[[], object]) -> int:
    count, running = 0, threading.Event()

    def work() -> None:
        running.set()
        call()

    worker = threading.Thread(target=work)
    worker.start()
    running.wait()
    while worker.is_alive():
        count += 1
        hashlib.sha256(b"x").digest()
    return count


def test_a_video_is_cut_into_slices() -> None:
    preprocessor = QwenPreprocessor(Fields(QWEN_CONFIG), Layout())
    # Of a size that needs no scaling, which rounds otherwise for frames than for pictures.
    frames = [to_rgb(rgb(56, 84, seed)) for seed in range(5)]
    found = preprocessor.video(frames, fps=2.0)
    check_consistent(found)
    slices, y, x = found.grid
    assert slices == 3
    assert found.seconds == (0.25, 1.25, 2.0)  # the last slice shows one frame
    assert found.seconds_per_slice == 1.0
    assert found.inputs[0].segments.tolist() == [y * x] * 3
    # Slice by slice it is what a picture gives: patches are [channel, frame, y, x].
    patches = found.inputs[0].pixels.reshape(3, y * x, 3, 2, 14 * 14)
    for index, frame in enumerate([*frames, frames[-1]]):
        single = preprocessor.image(frame).inputs[0].pixels.reshape(y * x, 3, 2, 14 * 14)
        np.testing.assert_array_equal(patches[index // 2, :, :, index % 2], single[:, :, 0])
    apart = QwenPreprocessor(Fields(QWEN_CONFIG), Layout(one_input_per_slice=True))
    assert [item.num_tokens for item in apart.video(frames, 2.0).inputs] == [y * x // 4] * 3


def test_windows_sort_patches_and_merging_sorts_them_back() -> None:
    plain = QwenPreprocessor(Fields(QWEN_CONFIG), Layout())
    windowed = QwenPreprocessor(Fields(QWEN_CONFIG), Layout(window=112))
    picture = to_rgb(rgb(140, 200))
    expected, found = plain.image(picture).inputs[0], windowed.image(picture).inputs[0]
    check_consistent(windowed.image(picture))
    assert found.merge is not None
    assert found.positions is not None
    assert expected.positions is not None
    np.testing.assert_array_equal(found.pixels[found.merge], expected.pixels)
    np.testing.assert_array_equal(found.positions[:, found.merge], expected.positions)
    assert found.windows is not None
    begin = 0
    for length in found.windows:  # a window is a square of 8 x 8 patches, less at the edges
        block = found.positions[:, begin : begin + length]
        assert len({tuple(cell // 8) for cell in block.T}) == 1
        begin += length


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"do_normalize": False}, "do_normalize"),
        ({"image_mean": [1.0]}, "image_mean"),
        ({"image_std": [0.0, 1.0, 1.0]}, "image_std"),
        ({"patch_size": 0}, "patch_size"),
        ({"size": {"shortest_edge": "large"}}, "shortest_edge"),
        ({"resample": 99}, "resample"),
    ],
)
def test_a_wrong_setting_is_named(config: dict[str, object], message: str) -> None:
    with pytest.raises((CheckpointError, UnsupportedModelError), match=message):
        QwenPreprocessor(Fields(config), Layout())


@pytest.mark.parametrize(
    "wrong",
    [
        {"do_pan_and_scan": 1},
        {"pan_and_scan_min_crop_size": 15},
        {"pan_and_scan_max_num_crops": 17},
        {"pan_and_scan_min_ratio_to_activate": 0},
    ],
)
def test_a_wrong_setting_of_pan_and_scan_is_named(wrong: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match=next(iter(wrong))):
        SquarePreprocessor(Fields({"size": 56, **wrong}), TileLayout(14, 4, 2))


def test_rules_must_fit_the_encoder() -> None:
    with pytest.raises(CheckpointError, match="crop_size"):
        ClipPreprocessor(Fields({"crop_size": 224}), TileLayout(14, 24))
    with pytest.raises(CheckpointError, match="image_grid_pinpoints"):
        LlavaOnevisionPreprocessor(Fields({"size": 28}), TileLayout(14, 2), [[30, 30]], 9)


def test_a_picture_out_of_proportion_is_refused() -> None:
    preprocessor = make("qwen2_vl")
    with pytest.raises(MediaError, match="aspect ratio"):
        preprocessor.image(np.zeros((1, 201, 3), np.uint8))
    with pytest.raises(MediaError, match="aspect ratio"):
        preprocessor.rows(201, 1)
    assert preprocessor.rows(1, 200) > 0


def test_video_frames_must_match() -> None:
    preprocessor = QwenPreprocessor(Fields(QWEN_CONFIG), Layout())
    frame = np.zeros((30, 30, 3), np.uint8)
    with pytest.raises(MediaError, match="equal size"):
        preprocessor.video([frame, frame[:20]], 1.0)
