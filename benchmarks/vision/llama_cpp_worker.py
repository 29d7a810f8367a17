# SPDX-License-Identifier: Apache-2.0
"""One workload of ``compare_vision.py`` on llama.cpp's server with a multimodal projector; prints
JSON.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cases import ANSWER_TOKENS, jpeg, picture, turns

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from served import served

_PORT = 18090
_CONTEXT = 2048  # tokens of a request


def messages(data: bytes, follow_up: bool = False) -> list[dict[str, Any]]:
    """In OpenAI's form."""
    url = "data:image/jpeg;base64," + base64.b64encode(data).decode()
    picture_part = {"type": "image_url", "image_url": {"url": url}}
    return [
        {
            **message,
            "content": [picture_part if "image" in part else part for part in message["content"]],
        }
        for message in turns(data, follow_up)
    ]


def ask(conversation: list[dict[str, Any]], count: int) -> tuple[float, float]:
    """Clock times of the first token and of the end."""
    body = {
        "messages": conversation,
        "max_tokens": count,
        "temperature": 0,
        "stream": True,
        "ignore_eos": True,
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{_PORT}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    first = 0.0
    with urllib.request.urlopen(request, timeout=600) as response:
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            choices = json.loads(line[6:]).get("choices")
            # The first piece says who speaks; one that ends the answer has no text either.
            if choices and not first and choices[0]["delta"].get("content") is not None:
                first = time.perf_counter()
    end = time.perf_counter()
    return first or end, end


def first_token(conversation: list[dict[str, Any]]) -> float:
    start = time.perf_counter()
    return ask(conversation, 1)[0] - start


def concurrent(count: int, seed: int) -> dict[str, float]:
    prompts = [messages(jpeg(picture(seed + index))) for index in range(count)]
    with ThreadPoolExecutor(count) as pool:
        start = time.perf_counter()
        ends = list(pool.map(lambda prompt: ask(prompt, ANSWER_TOKENS), prompts))
    wall = max(end for _, end in ends) - start
    ttft = sum(first - start for first, _ in ends) / count
    return {"ttft": ttft, "tokens_per_s": count * ANSWER_TOKENS / wall, "wall": wall}


def main() -> None:
    _, workload, threads, server, text, projector = sys.argv[1:7]
    count = 1 if workload == "repeated" else int(workload)
    command = [server, "-m", text, "--mmproj", projector, "-t", threads, "-tb", threads]
    command += ["-c", str(count * _CONTEXT), "-np", str(count), "--port", str(_PORT)]
    command += ["--jinja", "--chat-template", "chatml", "--no-warmup"]
    health = f"http://127.0.0.1:{_PORT}/health"
    with tempfile.TemporaryFile() as log, served(command, health, log):
        first_token(messages(jpeg(picture(1000))))  # warm
        if workload == "repeated":
            data = jpeg(picture(2000))
            result = {"new": first_token(messages(data))}
            result["repeated"] = first_token(messages(data))
            result["follow_up"] = first_token(messages(data, follow_up=True))
        else:
            result = concurrent(count, 3000)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
