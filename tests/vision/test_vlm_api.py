# SPDX-License-Identifier: Apache-2.0
"""Pictures through ``pipeline()``: every form of a prompt, batches, sessions, errors, budgets."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pictures import encoded, rgb
from PIL import Image, TiffImagePlugin
from vlm_cases import FPS, GOLDEN_VLMS, WITH_VIDEO, conversations

from manymind import (
    EngineConfig,
    GenerationConfig,
    MediaLimits,
    Pipeline,
    VisionConfig,
    load_image,
    pipeline,
)
from manymind.errors import (
    ChatTemplateError,
    InvalidParameterError,
    MediaAccessError,
    MediaError,
    MediaFetchError,
    MediaTooLargeError,
    PromptTooLongError,
)
from manymind.media_side import MediaSide
from manymind.prompts import MediaSource

FOLDER = GOLDEN_VLMS / "qwen2_vl"
ENGINE = EngineConfig(
    compute_dtype="float32", kv_cache_dtype="float32", max_batch_size=4, session_len=512
)
GREEDY = GenerationConfig(max_new_tokens=6, ignore_eos=True)


def start(folder: Path = FOLDER, engine: EngineConfig = ENGINE, **vision: Any) -> Pipeline:
    return pipeline(folder, engine, vision_config=VisionConfig(**vision))


@pytest.fixture(scope="module")
def pipe() -> Iterator[Pipeline]:
    with start() as running:
        yield running


def golden_tokens(label: str) -> list[int]:
    tokens: list[int] = np.load(FOLDER / "logits.npz")[f"{label}/tokens"].tolist()
    return tokens


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def test_every_form_of_a_picture(pipe: Pipeline, tmp_path: Path) -> None:
    picture = rgb(20, 45, 1)
    data = encoded(picture, "PNG")
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    question, expected = "Describe the picture.", golden_tokens("one_image")
    forms: list[Any] = [
        (question, picture),
        (question, [picture]),
        (question, str(path)),
        (question, load_image(path)),
        (question, data),
        (question, data_url(data)),
        (picture, question),
        ([picture], question),
    ]
    for item in (
        {"type": "image", "image": picture},
        {"type": "image_url", "image_url": {"url": path.as_uri()}},
        {"type": "image_url", "image_url": data_url(data)},
        {"type": "image_data", "image_data": {"data": picture}},  # LMDeploy's
    ):
        content = [item, {"type": "text", "text": question}]
        forms.append([{"role": "user", "content": content}])
    for form in forms:
        assert pipe(form, GREEDY).token_ids == expected
    # Pairs of prompts are two prompts.
    for several in (((question, picture), question), (forms[-1], question)):
        assert len(pipe(several, GREEDY)) == 2


@pytest.mark.parametrize("name", ["qwen2_vl", "smolvlm", "llava", "llava_onevision", "internvl"])
def test_conversations_in_one_batch(name: str) -> None:
    golden = np.load(GOLDEN_VLMS / name / "logits.npz")
    cases = conversations(name)
    engine = EngineConfig(compute_dtype="float32", kv_cache_dtype="float32", max_batch_size=3)
    with start(GOLDEN_VLMS / name, engine) as running:
        answers = running([list(case.messages) for case in cases.values()], GREEDY)
        for label, answer in zip(cases, answers, strict=True):
            assert answer.token_ids == golden[f"{label}/tokens"].tolist(), label
            assert answer.input_token_len == len(golden[f"{label}/ids"])


def test_streams_and_asyncio_agree(pipe: Pipeline) -> None:
    prompt = ("Describe the picture.", rgb(20, 45, 1))
    streamed = [token for piece in pipe.stream_infer(prompt, GREEDY) for token in piece.token_ids]
    assert streamed == golden_tokens("one_image")
    answer = asyncio.run(pipe.async_infer(prompt, GREEDY))
    assert answer.token_ids == golden_tokens("one_image")


def test_a_session_remembers_its_pictures(pipe: Pipeline) -> None:
    config = GenerationConfig(max_new_tokens=4, ignore_eos=True)
    before = pipe.stats()["media_encoded"]
    session = pipe.chat(("What is this?", rgb(33, 44, 71)), gen_config=config)
    assert pipe.stats()["media_encoded"] == before + 1
    session = pipe.chat("And its colour?", session, config)
    assert len(session.history) == 4
    # The picture is in the prefix cache, or its embeddings are: it is not encoded again.
    assert pipe.stats()["media_encoded"] == before + 1
    fresh = pipe([{**message} for message in session.history[:3]], config)
    assert fresh.token_ids == session.response.token_ids


def test_pan_and_scan_adds_crops_of_a_long_picture() -> None:
    prompt = ("What is this?", rgb(300, 700, 4))
    with (
        start(GOLDEN_VLMS / "gemma3") as whole,
        start(GOLDEN_VLMS / "gemma3", pan_and_scan=True) as panned,
    ):
        plain, cut = whole(prompt, GREEDY), panned(prompt, GREEDY)
        assert cut.input_token_len > plain.input_token_len + 2 * 9  # two crops of nine tokens
        square = ("What is this?", rgb(300, 300, 4))
        assert panned(square, GREEDY).input_token_len == plain.input_token_len
    with pytest.raises(InvalidParameterError, match="pan_and_scan"):
        start(pan_and_scan=True)


def test_pictures_change_the_answer(pipe: Pipeline) -> None:
    config = GenerationConfig(max_new_tokens=1, output_logits="generation")
    first, second = (
        np.asarray(pipe(("Describe.", rgb(30, 30, seed)), config).logits) for seed in (1, 2)
    )
    assert np.abs(first - second).max() > 1e-3


def test_a_text_alone_needs_no_picture(pipe: Pipeline) -> None:
    answer = pipe("What is the capital of Japan?", GREEDY)
    assert answer.token_ids == golden_tokens("text")


def test_a_written_placeholder_is_only_letters(pipe: Pipeline) -> None:
    """Nobody can claim another picture, or shift his own, by writing a placeholder."""
    picture = rgb(20, 45, 1)
    plain = pipe(("What?", picture), GREEDY)
    written = pipe(("What? <|image_pad|>", picture), GREEDY)
    assert written.input_token_len > plain.input_token_len
    assert pipe("<|image_pad|>", GREEDY).input_token_len > 5


def test_damaged_and_forbidden_pictures(pipe: Pipeline, tmp_path: Path) -> None:
    data = encoded(rgb(30, 30), "PNG")
    for bad in (b"no picture", data[: len(data) // 2], b""):
        with pytest.raises(MediaError):
            pipe(("?", bad), GREEDY)
    with pytest.raises(MediaAccessError):
        pipe(("?", "http://127.0.0.1:9/picture.png"), GREEDY)
    with pytest.raises(MediaError, match="expected http, https, data or file, found 'ftp'"):
        pipe(("?", "ftp://example.org/picture.png"), GREEDY)
    with pytest.raises(MediaError, match="aspect ratio"):
        pipe(("?", rgb(1, 300)), GREEDY)
    with pytest.raises(InvalidParameterError, match="image_url"):
        pipe([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}])
    # The engine goes on serving.
    assert pipe(("Describe the picture.", rgb(20, 45, 1)), GREEDY).token_ids


@pytest.mark.parametrize("option", [{"detail": "low"}, {"max_dynamic_patch": 12}])
def test_what_nothing_heeds_is_named(pipe: Pipeline, option: dict[str, Any]) -> None:
    url = {"url": data_url(encoded(rgb(30, 30), "PNG"))}
    content: list[Any] = [{"type": "image_url", "image_url": {**url, "detail": "auto"}}]
    assert pipe([{"role": "user", "content": content}], GREEDY).token_ids
    content = [{"type": "image_url", "image_url": {**url, **option}}]
    with pytest.raises(
        InvalidParameterError, match=rf"content\[0\].image_url.*{next(iter(option))}"
    ):
        pipe([{"role": "user", "content": content}], GREEDY)


def test_one_bad_picture_of_a_batch(pipe: Pipeline) -> None:
    with pytest.raises(MediaError):
        pipe([("?", rgb(20, 20)), ("?", b"no picture")], GREEDY)
    assert pipe.runtime.media is not None
    gc.collect()
    assert pipe.runtime.media.budget.taken.pixels == 0


def test_files_are_for_the_caller_of_a_pipeline_only(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(rgb(20, 20), "PNG"))
    with (
        start(limits=MediaLimits(allow_files=False)) as running,
        pytest.raises(MediaAccessError, match="not allowed"),
    ):
        running(("?", str(path)), GREEDY)
    from manymind.config import ChatTemplateConfig
    from manymind.runtime import Runtime

    runtime = Runtime.load(FOLDER, ENGINE, ChatTemplateConfig())
    try:
        assert runtime.media is not None
        assert runtime.media.limits.allow_files is False
    finally:
        runtime.close()


def test_limits_of_a_picture() -> None:
    with (
        start(limits=MediaLimits(max_pixels=399)) as running,
        pytest.raises(MediaTooLargeError, match="pixels"),
    ):
        running(("?", rgb(20, 20)), GREEDY)
    with start(max_patches=16) as running:
        running(("?", rgb(16, 16)), GREEDY)
        with pytest.raises(InvalidParameterError, match="max_encoder_patches"):
            running(("?", rgb(64, 64)), GREEDY)
    with start(embedding_cache_bytes=48 * 4 * 4) as running:  # four embeddings
        running(("?", rgb(16, 16)), GREEDY)
        with pytest.raises(InvalidParameterError, match="encoder_cache_bytes"):
            running(("?", rgb(64, 64)), GREEDY)


def test_a_prompt_may_be_too_long_for_its_pictures() -> None:
    engine = EngineConfig(max_batch_size=2, session_len=40)
    with start(engine=engine) as running, pytest.raises(PromptTooLongError):
        running(("?", [rgb(64, 64), rgb(64, 64)]), GREEDY)


@pytest.mark.parametrize("part", ["bytes", "pixels", "patches"])
def test_the_budget_is_charged_before_anything_is_decoded(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(rgb(40, 40), "PNG")
    sizes = {"bytes": len(data), "pixels": 1600, "patches": 100}
    # Room for one such picture at a time: a list goes through one by one, two at once never fit.
    with start(**{f"max_pending_{part}": sizes[part] * 3 // 2}) as running:
        answers = running([("?", data)] * 3, GREEDY)
        assert len({tuple(answer.token_ids) for answer in answers}) == 1
        monkeypatch.setattr(
            "manymind.media.LoadedImage.decode", lambda _: pytest.fail("it was decoded")
        )
        with pytest.raises(MediaTooLargeError, match=part):
            running(("?", [data, data]), GREEDY)


@contextmanager
def web(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """The address of a server of pictures."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()


def test_pictures_of_a_prompt_are_fetched_side_by_side() -> None:
    """The time for all is that for one."""
    both = threading.Barrier(2)
    datas = {f"/{seed}": encoded(rgb(20, 45, seed), "PNG") for seed in range(2)}

    def answer(request: BaseHTTPRequestHandler) -> None:
        both.wait(5)
        request.wfile.write(datas[request.path])

    limits = MediaLimits(allow_private_addresses=True)
    with web(answer) as address, start(limits=limits) as running:
        found = running(("?", [f"{address}/0", f"{address}/1"]), GREEDY)
        expected = running(("?", list(datas.values())), GREEDY)
    assert found.token_ids == expected.token_ids


def test_pictures_of_a_prompt_share_their_time() -> None:
    """Else a prompt of many slow ones would be waited for as many times as long."""
    data = encoded(rgb(20, 45), "PNG")

    def answer(request: BaseHTTPRequestHandler) -> None:
        time.sleep(0.2)
        request.wfile.write(data)

    limits = MediaLimits(allow_private_addresses=True, timeout=0.5)
    with web(answer) as address, start(limits=limits) as running:
        running(("?", f"{address}/0"), GREEDY)
        with pytest.raises(MediaFetchError, match=r"content\[\d+\].*time"):
            running(("?", [f"{address}/{index}" for index in range(24)]), GREEDY)


def test_pictures_are_charged_while_they_are_fetched() -> None:
    """Not when all of them are there."""
    sent = threading.Semaphore(0)

    def answer(request: BaseHTTPRequestHandler) -> None:
        for _ in range(200):
            request.wfile.write(bytes(1000))
            sent.release()
            time.sleep(0.005)

    limits = MediaLimits(allow_private_addresses=True)
    with web(answer) as address, start(limits=limits, max_pending_bytes=50_000) as running:
        assert running.runtime.media is not None
        with pytest.raises(MediaTooLargeError, match="bytes=50000"):
            running(("?", [f"{address}/{index}" for index in range(4)]), GREEDY)
        assert running.runtime.media.budget.taken.bytes == 0
        count = 0
        while sent.acquire(blocking=False):
            count += 1
        assert count < 400  # of 800


def test_a_picture_is_charged_as_its_exif_data_may_turn_it() -> None:
    """Rules that cut wide pictures only: 8 patches upright, 2 as stored."""
    rules = SimpleNamespace(rows=lambda height, width: 8 if width > height else 2)
    source = MediaSource("image", encoded(rgb(40, 20), "JPEG"))
    vision: Any = SimpleNamespace(preprocessor=rules, prompt=None)
    side = MediaSide(vision, VisionConfig(max_pending_patches=7), MediaLimits())
    with pytest.raises(MediaTooLargeError, match="patches=8"):
        side.encode([], [source], None)  # type: ignore[arg-type]
    side.close()


def test_the_budget_is_given_back(pipe: Pipeline) -> None:
    assert pipe.runtime.media is not None
    for _ in range(3):
        pipe([("?", rgb(40, 40, seed)) for seed in range(4)], GREEDY)
    gc.collect()
    assert pipe.runtime.media.budget.taken.patches == 0


def test_a_repeated_picture_is_not_decoded_again(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(rgb(37, 41, 99), "PNG")
    first = pipe(("Look.", data), GREEDY)
    monkeypatch.setattr(
        "manymind.media.LoadedImage.decode", lambda _: pytest.fail("it was decoded")
    )
    assert pipe(("Look.", data), GREEDY).token_ids == first.token_ids


def test_a_model_that_sees_nothing_says_so(smollm2: Pipeline) -> None:
    with pytest.raises(InvalidParameterError, match="no other media"):
        smollm2(("Describe.", rgb(20, 20)), GREEDY)


def test_videos_need_a_model_that_takes_them() -> None:
    clip = {"type": "video", "video": [rgb(20, 20)] * 2, "fps": 1.0}
    with (
        start(GOLDEN_VLMS / "llava") as running,
        pytest.raises(InvalidParameterError, match="no videos"),
    ):
        running([{"role": "user", "content": [clip]}], GREEDY)


def test_a_template_without_placeholder_is_refused() -> None:
    from manymind import ChatTemplateConfig

    template = ChatTemplateConfig(chat_template="{{ messages[0]['role'] }}")
    with (
        pipeline(FOLDER, ENGINE, template) as running,
        pytest.raises((MediaError, ChatTemplateError), match="placeholder"),
    ):
        running(("?", rgb(20, 20)), GREEDY)


def animation(frames: list[Any], **options: Any) -> bytes:
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], **options)
    return file.getvalue()


@pytest.mark.parametrize("name", WITH_VIDEO)
def test_every_form_of_a_video(name: str, tmp_path: Path) -> None:
    """Frames at the rate of transformers' golden answer, as objects, arrays, files and URLs."""
    golden = np.load(GOLDEN_VLMS / name / "logits.npz")
    frames = conversations(name)["video"].videos[0]
    lossless = animation(frames, lossless=True, duration=int(1000 / FPS))
    path = tmp_path / "clip.webp"
    path.write_bytes(lossless)
    pngs = [encoded(frame, "PNG") for frame in frames]
    url = "data:video/jpeg;base64," + ",".join(base64.b64encode(data).decode() for data in pngs)
    forms: list[dict[str, Any]] = [
        {"type": "video", "video": frames, "fps": FPS},
        {"type": "video", "video": np.stack([np.asarray(frame) for frame in frames]), "fps": FPS},
        {"type": "video", "video": pngs, "fps": FPS},
        {"type": "video", "video": lossless},
        {"type": "video_url", "video_url": {"url": path.as_uri()}},
        {"type": "video_url", "video_url": {"url": data_url(lossless), "fps": FPS}},
        {"type": "video_url", "video_url": {"url": url, "fps": FPS}},
    ]
    with start(GOLDEN_VLMS / name) as running:
        for form in forms:
            content = [form, {"type": "text", "text": "What happens?"}]
            answer = running([{"role": "user", "content": content}], GREEDY)
            assert answer.token_ids == golden["video/tokens"].tolist()


def test_faulty_videos(pipe: Pipeline) -> None:
    clip = animation([rgb(20, 20, seed) for seed in range(3)])
    faults: list[tuple[Any, str]] = [
        (b"\x00\x00\x00 ftypisom", "expected one of"),
        (clip[: len(clip) // 2], "damaged|expected one of"),
        ([], "one or more frames"),
        (np.zeros((2, 20, 20), np.uint8), "expected uint8"),
        ([rgb(20, 20), rgb(20, 30)], "equal size"),
        (5, "a list of pictures.*found int"),
    ]
    for source, words in faults:
        item = {"type": "video", "video": source}
        with pytest.raises(MediaError, match=rf"messages\[0\]\.content\[0\]: .*({words})"):
            pipe([{"role": "user", "content": [item]}], GREEDY)
    with pytest.raises(InvalidParameterError, match="fps"):
        pipe([{"role": "user", "content": [{"type": "video", "video": [], "fps": -1}]}], GREEDY)
    with (
        start(limits=MediaLimits(max_frames=2)) as running,
        pytest.raises(MediaTooLargeError, match="at most 2 frames, found 3"),
    ):
        running([{"role": "user", "content": [{"type": "video", "video": clip}]}], GREEDY)


def test_a_frame_larger_than_what_was_charged_is_not_decoded(
    pipe: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = io.BytesIO()
    Image.new("RGB", (8, 8)).save(
        pages, "TIFF", save_all=True, append_images=[Image.new("RGB", (4000, 3000))]
    )
    decoded: list[tuple[int, int]] = []
    load = TiffImagePlugin.TiffImageFile.load

    def recorded(page: TiffImagePlugin.TiffImageFile) -> Any:
        decoded.append(page.size)
        return load(page)

    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "load", recorded)
    item = {"type": "video", "video": pages.getvalue()}
    with pytest.raises(MediaError, match="expected frames of 8 x 8, found one of 4000 x 3000"):
        pipe([{"role": "user", "content": [item]}], GREEDY)
    assert set(decoded) == {(8, 8)}


def test_frames_are_charged_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    clip = animation([rgb(20, 20, seed) for seed in range(5)])
    monkeypatch.setattr(
        "manymind.media_video.LoadedAnimation.decode_all", lambda _: pytest.fail("decoded")
    )
    with (
        start(max_pending_pixels=4 * 400) as running,
        pytest.raises(MediaTooLargeError, match="pixels"),
    ):
        running([{"role": "user", "content": [{"type": "video", "video": clip}]}], GREEDY)


@pytest.mark.parametrize(("patches", "fits"), [(32, True), (31, False)])
def test_patches_are_charged_of_frames_that_are_shown(patches: int, fits: bool) -> None:
    """This model is shown one frame per second, two of these five, each a tile of 16 patches."""
    frames = [rgb(20, 30, seed) for seed in range(5)]
    content = [{"type": "video", "video": frames, "fps": FPS}]
    with start(GOLDEN_VLMS / "smolvlm", max_pending_patches=patches) as running:
        if fits:
            assert running([{"role": "user", "content": content}], GREEDY).token_ids
            return
        with pytest.raises(MediaTooLargeError, match="patches"):
            running([{"role": "user", "content": content}], GREEDY)
