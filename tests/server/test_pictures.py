# SPDX-License-Identifier: Apache-2.0
"""Pictures over HTTP, by the clients people use: every interface answers as ``pipeline()`` does,
and what is wrong with a picture is a 400 that names the part.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest
from pictures import encoded, rgb
from serving import RunningServer, running_server
from support import wait_until
from vlm_cases import GOLDEN_VLMS

from manymind import (
    ChatTemplateConfig,
    EngineConfig,
    GenerationConfig,
    MediaLimits,
    Pipeline,
    VisionConfig,
    pipeline,
)
from manymind.media import LoadedImage
from manymind.server import service as service_module
from manymind.server.config import ServerConfig
from manymind.server.fair_threads import FairThreads, client_of, server_of
from manymind.server.keys import ApiKey
from manymind.server.record import RequestRecord

PICTURE = encoded(rgb(20, 45, 1), "PNG")
OTHER = encoded(rgb(50, 31, 2), "JPEG")
QUESTION = "Describe the picture."
TOKENS = 6
ENGINE = EngineConfig(
    compute_dtype="float32", kv_cache_dtype="float32", max_batch_size=4, session_len=512
)


def data_url(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def bomb() -> bytes:
    """A PNG of a few bytes that claims 40,000 x 40,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        named = kind + data
        return struct.pack(">I", len(data)) + named + struct.pack(">I", zlib.crc32(named))

    head = struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """May fetch from this machine and read one folder."""
    folder = tmp_path_factory.mktemp("allowed")
    (folder / "picture.png").write_bytes(PICTURE)
    limits = MediaLimits(
        allow_private_addresses=True, allow_files=folder, max_pixels=100_000, max_bytes=100_000
    )
    vision = VisionConfig(limits=limits)
    with pipeline(GOLDEN_VLMS / "qwen2_vl", ENGINE, vision_config=vision) as running:
        yield running


@pytest.fixture(scope="module")
def server(pipe: Pipeline) -> Iterator[RunningServer]:
    with running_server(pipe, ServerConfig("tiny", port=0)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def claude(server: RunningServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def pictures_url() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = {"/picture.png": PICTURE, "/page": b"<html>"}.get(self.path)
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_address[1]}"
        web.shutdown()


def chat(client: openai.OpenAI, content: list[dict[str, Any]], **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": content}]
    extra = {"ignore_eos": True}
    return client.chat.completions.create(
        model="tiny",
        messages=messages,
        max_tokens=TOKENS,
        temperature=0,
        extra_body=extra,
        **options,
    )


def expected(pipe: Pipeline, *content: Any) -> str:
    items = [
        {"type": "image", "image": item} if isinstance(item, bytes) else text(item)
        for item in content
    ]
    config = GenerationConfig(max_new_tokens=TOKENS, ignore_eos=True)
    answer = pipe([{"role": "user", "content": items}], config)
    assert answer.text
    return str(answer.text)


def test_chat_completions(client: openai.OpenAI, pipe: Pipeline, pictures_url: str) -> None:
    wanted = expected(pipe, PICTURE, QUESTION)
    assert wanted != expected(pipe, OTHER, QUESTION)
    limits = pipe.runtime.media.limits if pipe.runtime.media else MediaLimits()
    urls = [
        data_url(PICTURE),
        f"{pictures_url}/picture.png",
        (Path(str(limits.allow_files)) / "picture.png").as_uri(),
    ]
    for url in urls:
        answer = chat(client, [picture(url), text(QUESTION)])
        assert answer.choices[0].message.content == wanted
    assert answer.usage.prompt_tokens > 30
    streamed = chat(client, [picture(urls[0]), text(QUESTION)], stream=True)
    pieces = [event.choices[0].delta.content or "" for event in streamed if event.choices]
    assert "".join(pieces) == wanted
    several = [text("Compare "), picture(urls[0]), text(" with "), picture(data_url(OTHER))]
    answer = chat(client, several)
    found = answer.choices[0].message.content
    assert found == expected(pipe, "Compare ", PICTURE, " with ", OTHER)


def test_responses(client: openai.OpenAI, pipe: Pipeline) -> None:
    content = [
        {"type": "input_image", "image_url": data_url(PICTURE), "detail": "auto"},
        {"type": "input_text", "text": QUESTION},
    ]
    answer = client.responses.create(
        model="tiny",
        input=[{"role": "user", "content": content}],  # type: ignore[list-item, misc]
        max_output_tokens=TOKENS,
        temperature=0,
    )
    assert expected(pipe, PICTURE, QUESTION).startswith(answer.output_text)
    assert answer.output_text


def test_messages(claude: anthropic.Anthropic, pipe: Pipeline, pictures_url: str) -> None:
    data = base64.b64encode(PICTURE).decode()
    sources: list[Any] = [
        {"type": "base64", "media_type": "image/png", "data": data},
        {"type": "url", "url": f"{pictures_url}/picture.png"},
    ]
    wanted = expected(pipe, PICTURE, QUESTION)
    for source in sources:
        block: Any = {"type": "image", "source": source}
        # Turns of one role become one.
        turns: Any = [
            {"role": "user", "content": [block]},
            {"role": "user", "content": [text(QUESTION)]},
        ]
        answer = claude.messages.create(
            model="tiny", max_tokens=TOKENS, messages=turns, extra_body={"temperature": 0}
        )
        assert wanted.startswith(answer.content[0].text)
        assert answer.content[0].text
        usage = answer.usage
        count = claude.messages.count_tokens(model="tiny", messages=turns)
        assert count.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)


def called_for(result: Any) -> list[dict[str, Any]]:
    """A conversation in which a tool was called, in OpenAI's form."""
    function = {"name": "look", "arguments": {}}
    call = {"id": "1", "type": "function", "function": function}
    return [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "I look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": result},
    ]


def test_pictures_that_a_tool_returns(
    client: openai.OpenAI, claude: anthropic.Anthropic, pipe: Pipeline
) -> None:
    """The answer is that to the same conversation with the picture in the tool's message."""
    config = GenerationConfig(max_new_tokens=TOKENS)
    result = [text("Here: "), {"type": "image", "image": PICTURE}, text("Seen.")]
    wanted: Any = pipe(called_for(result), config)
    assert wanted.input_token_len > pipe(called_for([text("Here: Seen.")]), config).input_token_len  # type: ignore[union-attr]

    source = {"media_type": "image/png", "data": base64.b64encode(PICTURE).decode()}
    shown = {"type": "image", "source": {"type": "base64", **source}}
    call = {"type": "tool_use", "id": "1", "name": "look", "input": {}}
    found = {"type": "tool_result", "tool_use_id": "1"}
    found |= {"content": [text("Here: "), shown, text("Seen.")]}
    turns: Any = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": [text("I look."), call]},
        {"role": "user", "content": [found]},
    ]
    asked: dict[str, Any] = {"model": "tiny", "messages": turns}
    message = claude.messages.create(**asked, max_tokens=TOKENS, extra_body={"temperature": 0})
    assert message.content[0].text == wanted.text
    assert claude.messages.count_tokens(**asked).input_tokens == wanted.input_token_len

    items: Any = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "I look."},
        {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"},
        {
            "type": "function_call_output",
            "call_id": "1",
            "output": [
                {"type": "input_text", "text": "Here: "},
                {"type": "input_image", "image_url": data_url(PICTURE)},
                {"type": "input_text", "text": "Seen."},
            ],
        },
    ]
    answer = client.responses.create(
        model="tiny", input=items, max_output_tokens=TOKENS, temperature=0
    )
    assert answer.output_text == wanted.text

    shown["source"] = {"type": "file", "file_id": "f"}
    with pytest.raises(
        anthropic.BadRequestError, match=r"messages\[2\].content\[0\].content\[1\].source"
    ):
        claude.messages.create(**asked, max_tokens=TOKENS)


def test_ollama(server: RunningServer, pipe: Pipeline) -> None:
    wanted = expected(pipe, PICTURE, QUESTION)
    options = {"temperature": 0, "num_predict": TOKENS}
    with ollama.Client(host=server.url) as client:
        message = {"role": "user", "content": QUESTION, "images": [PICTURE]}
        answer = client.chat(model="tiny", messages=[message], options=options)
        assert answer.message.content
        assert wanted.startswith(answer.message.content)
        told = client.generate(model="tiny", prompt=QUESTION, images=[PICTURE], options=options)
        assert told.response == answer.message.content
        # Without it, clients offer no pictures.
        assert "vision" in client.show("tiny").capabilities
        with pytest.raises(ollama.ResponseError, match="raw"):
            client.generate(model="tiny", prompt=QUESTION, images=[PICTURE], raw=True)


def faults(pictures_url: str) -> dict[str, tuple[str, str]]:
    """What is wrong -> URL, and words of the message."""
    wide = encoded(rgb(400, 300), "PNG", compress_level=9)
    return {
        "not_an_image": (data_url(b"no picture at all"), "expected one of JPEG"),
        "empty": (data_url(b""), "expected one of JPEG"),
        "truncated": (data_url(PICTURE[: len(PICTURE) // 2]), "damaged or truncated"),
        "bomb": (data_url(bomb()), "pixels"),
        "too_many_pixels": (data_url(wide[:2000]), "at most 100000 pixels"),
        "too_many_bytes": (data_url(bytes(100_001)), "at most 100000 bytes"),
        "no_base64": ("data:image/png;base64,%%%", "expected base64"),
        "not_encoded": ("data:image/png,abc", "base64"),
        "missing": (f"{pictures_url}/nothing", "status 200, found 404"),
        "page": (f"{pictures_url}/page", "expected one of JPEG"),
        "unreachable": ("http://127.0.0.1:9/picture.png", "failed"),
        "foreign_file": ("file:///etc/passwd", "expected one below"),
        "path": ("/etc/passwd", "expected one below"),
        "scheme": ("ftp://example.com/picture.png", "expected"),
        "too_flat": (data_url(encoded(rgb(1, 300), "PNG")), "aspect ratio"),
    }


def test_metrics_count_pictures_prepared_before(
    client: openai.OpenAI, server: RunningServer
) -> None:
    fresh = data_url(encoded(rgb(33, 44, 7), "PNG"))
    before = server.metrics()
    for _ in range(3):
        chat(client, [picture(fresh), text(QUESTION)])
    after = server.metrics()
    for prefix in ("manymind_mm_cache_", "vllm:mm_cache_"):
        names = (f"{prefix}queries_total", f"{prefix}hits_total")
        assert [after[name] - before[name] for name in names] == [3, 2]


def test_keys_do_not_share_pictures(pipe: Pipeline) -> None:
    """Nor do salts: whether a picture was seen before shows in the time to the first token."""
    keys = [ApiKey(name, hashlib.sha256(name.encode()).digest()) for name in ("a", "b")]
    fresh = picture(data_url(encoded(rgb(31, 42, 9), "PNG")))
    body = {"model": "tiny", "messages": [{"role": "user", "content": [fresh, text(QUESTION)]}]}
    media = pipe.runtime.media
    assert media is not None

    with running_server(pipe, ServerConfig("tiny", port=0, keys=keys)) as server:

        def reused(key: str, **more: Any) -> tuple[bool, bool]:
            """Whether it was not prepared again, and not encoded again."""
            encodes, (_, hits) = pipe.stats()["media_encoded"], media.prepared.queries_and_hits
            asked = {**body, "max_tokens": 1, **more}
            answer = server.post("/v1/chat/completions", asked, headers={"x-api-key": key})
            assert answer.status_code == 200
            prepared = media.prepared.queries_and_hits[1] > hits
            return prepared, pipe.stats()["media_encoded"] == encodes

        assert reused("a") == (False, False)
        assert reused("a") == (True, True)
        assert reused("b") == (False, False)
        assert reused("b", cache_salt="a\x00") == (False, False)
        assert reused("a", cache_salt="one user") == (False, False)
        assert reused("a", cache_salt="one user") == (True, True)
        tokens = server.post(
            "/tokenize", {"messages": body["messages"]}, headers={"x-api-key": "b"}
        )
        assert tokens.status_code == 200


def test_a_faulty_picture_is_named(client: openai.OpenAI, pictures_url: str) -> None:
    for name, (url, words) in faults(pictures_url).items():
        with pytest.raises(openai.BadRequestError) as caught:
            chat(client, [text(QUESTION), picture(data_url(PICTURE)), picture(url)])
        body: Any = caught.value.body
        assert body["param"] == "messages[0].content[2]", name
        assert body["code"] == "invalid_media", name
        assert words in body["message"], (name, body["message"])
    # The server goes on answering.
    assert chat(client, [picture(data_url(PICTURE)), text(QUESTION)]).choices


def test_faults_in_the_other_interfaces(
    server: RunningServer, client: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    bad = base64.b64encode(b"no picture").decode()
    block: Any = {"type": "image", "source": {"type": "base64", "media_type": "a/b", "data": bad}}
    messages: Any = [{"role": "user", "content": [text("?"), block]}]
    with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\]\.content\[1\]\.source: "):
        claude.messages.create(model="tiny", max_tokens=2, messages=messages, system="Be brief.")
    block["source"] = {"type": "file", "file_id": "x"}
    with pytest.raises(anthropic.BadRequestError, match="expected base64 data or a url"):
        claude.messages.create(model="tiny", max_tokens=2, messages=messages)
    with ollama.Client(host=server.url) as llama:
        turn = {"role": "user", "content": "?", "images": [PICTURE, b"no picture"]}
        with pytest.raises(ollama.ResponseError, match=r"messages\[0\]\.images\[1\]: ") as caught:
            llama.chat(model="tiny", messages=[turn])
        assert caught.value.status_code == 400
    content = [{"type": "input_image", "image_url": data_url(b"no picture")}]
    with pytest.raises(openai.BadRequestError, match=r"content\[0\]\.image_url: "):
        client.responses.create(
            model="tiny",
            input=[{"role": "user", "content": content}],  # type: ignore[list-item, misc]
        )
    with pytest.raises(openai.BadRequestError, match="input_audio"):
        chat(client, [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}])
    with pytest.raises(openai.BadRequestError, match=r"image_url"):
        chat(client, [{"type": "image_url", "image_url": {"uri": "x"}}])


def ask(server: RunningServer, content: Any) -> int:
    messages = [{"role": "user", "content": content}]
    body = {"model": "tiny", "max_tokens": 1, "messages": messages}
    return server.post("/v1/chat/completions", body).status_code


class SlowServer:
    """Answers nothing until it is ``free``; ``begun`` counts what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.begun, self.free = threading.Semaphore(0), threading.Event()

    @contextmanager
    def running(self) -> Iterator[SlowServer]:
        begun, free = self.begun, self.free

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                begun.release()
                free.wait(20)

            def log_message(self, *_: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
            threading.Thread(target=web.serve_forever, daemon=True).start()
            self.url = f"http://127.0.0.1:{web.server_address[1]}/"
            try:
                yield self
            finally:
                free.set()
                web.shutdown()


def test_nobody_waits_for_pictures_of_others_to_be_fetched(server: RunningServer) -> None:
    """Which takes as long as another server likes."""
    with SlowServer().running() as slow, ThreadPoolExecutor(12) as clients:
        waiting = [clients.submit(ask, server, [picture(slow.url)]) for _ in range(8)]
        for _ in waiting:
            assert slow.begun.acquire(timeout=20)
        assert ask(server, "hello") == 200
        # A picture that is there needs nobody else's server.
        assert ask(server, [picture(data_url(PICTURE))]) == 200
        slow.free.set()
        assert {each.result() for each in waiting} == {400}


def test_slow_pictures_of_one_key_leave_room_for_those_of_others(
    pipe: Pipeline, pictures_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it has asked for more than are fetched at once, and left."""
    monkeypatch.setattr(service_module, "_FETCHES_AT_ONCE", 16)
    monkeypatch.setattr(service_module, "_FETCHES_OF_A_CLIENT", 9)
    keys = [ApiKey(name, hashlib.sha256(name.encode()).digest()) for name in ("many", "few")]
    config = ServerConfig("tiny", port=0, keys=keys)

    def told(name: str, url: str, seconds: float = 60) -> int:
        message = {"role": "user", "content": [picture(url)]}
        body = {"model": "tiny", "messages": [message], "max_tokens": 1}
        headers = {"x-api-key": name}
        options: dict[str, Any] = {"headers": headers, "timeout": seconds}
        return server.post("/v1/chat/completions", body, **options).status_code

    with (
        running_server(pipe, config) as server,
        SlowServer().running() as slow,
        ThreadPoolExecutor(40) as clients,
    ):
        gone = [clients.submit(told, "many", slow.url, 1) for _ in range(8)]
        for _ in gone:
            assert slow.begun.acquire(timeout=20)
        assert all(isinstance(each.exception(), httpx.TimeoutException) for each in gone)
        waiting = [clients.submit(told, "many", slow.url) for _ in range(32)]
        wait_until(lambda: server.service.active == 32)
        for name in ("few", "many"):  # another key, and another server
            assert told(name, f"{pictures_url}/picture.png", 10) == 200
        # Those that left keep their places, as the work goes on.
        assert not slow.begun.acquire(blocking=False)
        slow.free.set()
        assert {each.result() for each in waiting} == {400}


def test_work_waits_for_a_place_in_each_share() -> None:
    """Those that wait, or left while they waited, keep nobody from a place."""
    free, begun = threading.Event(), threading.Semaphore(0)

    def work() -> bool:
        begun.release()
        return free.wait(20)

    async def scenario() -> None:
        threads = FairThreads(8, "t")
        part, whole = {"part": 1, "whole": 2}, {"whole": 2}
        first = asyncio.ensure_future(threads.run(part, work))
        left = asyncio.ensure_future(threads.run(part, work))
        second = asyncio.ensure_future(threads.run(part, work))
        await asyncio.sleep(0)
        left.cancel()
        other = asyncio.ensure_future(threads.run(whole, work))
        third = asyncio.ensure_future(threads.run(whole, work))
        for _ in range(2):
            assert await asyncio.to_thread(begun.acquire, timeout=10)
        await asyncio.sleep(0.05)
        assert not begun.acquire(blocking=False)  # "first" and "other"
        assert await threads.run({"else": 1}, lambda: 5) == 5
        free.set()
        assert await asyncio.gather(first, second, other, third) == [True] * 4
        await asyncio.sleep(0.05)
        assert threads._shares == {}
        threads.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("10.0.0.7", "address 10.0.0.7"),
        ("2001:db8:1:2:3::4", "address 2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "address 2001:db8:1:2::/64"),
        ("somewhere", "address unknown"),
        (None, "address unknown"),
    ],
)
def test_who_counts_as_one_client(address: str | None, client: str) -> None:
    record = RequestRecord("id", "POST", "/", client=address)
    assert client_of(record) == client
    record.key = ApiKey("mine", b"")
    assert client_of(record) == "key mine"
    assert server_of("http://A.example:80/b?c") == "a.example:80"
    assert server_of("http://[/") == ""


def test_text_does_not_wait_for_pictures_to_be_prepared(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, free = threading.Semaphore(0), threading.Event()
    decode = LoadedImage.decode

    def slowly(image: LoadedImage) -> Any:
        begun.release()
        assert free.wait(20)
        return decode(image)

    monkeypatch.setattr(LoadedImage, "decode", slowly)
    with ThreadPoolExecutor(2) as clients:
        urls = [data_url(encoded(rgb(28, 39, 20 + seed), "PNG")) for seed in range(2)]
        waiting = [clients.submit(ask, server, [picture(url)]) for url in urls]
        for _ in waiting:
            assert begun.acquire(timeout=20)
        assert ask(server, "hello") == 200
        free.set()
        assert {each.result() for each in waiting} == {200}


def test_a_server_reaches_nothing_inside_by_default(pictures_url: str) -> None:
    with (
        pipeline(
            GOLDEN_VLMS / "qwen2_vl",
            ENGINE,
            vision_config=VisionConfig(limits=MediaLimits(allow_files=False)),
        ) as pipe,
        running_server(pipe, ServerConfig("tiny", port=0)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        for url, words in (
            (f"{pictures_url}/picture.png", "expected a public address"),
            ("http://[::1]/picture.png", "expected a public address"),
            ("http://169.254.169.254/latest", "expected a public address"),
            ("file:///etc/passwd", "not allowed here"),
        ):
            with pytest.raises(openai.BadRequestError, match=words):
                chat(client, [picture(url), text(QUESTION)])
        assert chat(client, [picture(data_url(PICTURE)), text(QUESTION)]).choices


def test_placeholders_that_do_not_match_the_pictures() -> None:
    template = ChatTemplateConfig(chat_template="{{ messages[0]['role'] }}")
    with (
        pipeline(GOLDEN_VLMS / "qwen2_vl", ENGINE, template) as pipe,
        running_server(pipe, ServerConfig("tiny", port=0)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.BadRequestError, match="expected a placeholder for each of 1"),
    ):
        chat(client, [picture(data_url(PICTURE)), text(QUESTION)])


def test_videos(client: openai.OpenAI, pipe: Pipeline) -> None:
    frames = [rgb(22, 33, seed) for seed in range(5)]
    data = [base64.b64encode(encoded(frame, "PNG")).decode() for frame in frames]
    url = f"data:video/jpeg;base64,{','.join(data)}"
    config = GenerationConfig(max_new_tokens=TOKENS, ignore_eos=True)
    items = [{"type": "video", "video": frames, "fps": 2.0}, text("What happens?")]
    wanted = pipe([{"role": "user", "content": items}], config)
    part = {"type": "video_url", "video_url": {"url": url, "fps": 2.0}}
    answer = chat(client, [part, text("What happens?")])
    assert answer.choices[0].message.content == wanted.text
    bad = {"type": "video_url", "video_url": {"url": data_url(b"no video")}}
    with pytest.raises(openai.BadRequestError, match=r"messages\[0\]\.content\[1\]: "):
        chat(client, [text("?"), bad])
