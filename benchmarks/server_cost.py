# SPDX-License-Identifier: Apache-2.0
"""What the HTTP server costs on top of the pipeline, at many streams at once.

    python benchmarks/server_cost.py --model smollm2 --streams 64 --rounds 5

Two processes hold the same model: one answers through ``pipeline()``, one through ``manymind
serve``. They take turns at the same prompts, and while one works the other sleeps. The client of
the server does as little as a client can: it waits for bytes and looks for the last event. Linux
only: processor time per thread is read from /proc.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")
_LAST_EVENT = b"data: [DONE]"
_TAIL_BYTES = 64  # enough for the last event and the end of the body


@dataclass(frozen=True)
class Load:
    """What a round asks for."""

    streams: int
    prompt_words: int
    tokens: int

    def prompts(self, seed: int) -> list[str]:
        """Prompts of which no two begin alike, so that the prefix cache gives nothing."""
        words = [f"word{(seed * 7919 + i * 31) % 977}" for i in range(self.prompt_words)]
        return [f"{seed} {stream} " + " ".join(words) for stream in range(self.streams)]


def thread_seconds(pid: int) -> dict[int, tuple[str, float]]:
    """Thread -> its name and the processor time it has used."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        text = (task / "stat").read_text()
        name, rest = text[text.index("(") + 1 : text.rindex(")")], text[text.rindex(")") + 2 :]
        fields = rest.split()
        found[int(task.name)] = (name, (int(fields[11]) + int(fields[12])) / _TICKS)
    return found


class Served:
    """``manymind serve`` and its client."""

    def __init__(self, model: str, load: Load) -> None:
        command = [sys.executable, "-m", "manymind", "serve", model, "--served_name=model"]
        command += ["--port=0", f"--max_batch_size={load.streams}", "--log_level=warning"]
        self._load = load
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        found = re.search(r"http://([\d.]+):(\d+)", self._process.stdout.readline())
        assert found
        self._address = (found[1], int(found[2]))

    def seconds(self, seed: int) -> tuple[float, dict[str, float]]:
        """Wall time of a round, and processor time by kind of thread."""
        before, own = thread_seconds(self._process.pid), time.process_time()
        begin = time.perf_counter()
        self._drive([self._request(prompt) for prompt in self._load.prompts(seed)])
        wall = time.perf_counter() - begin
        used = {"client": time.process_time() - own, "python": 0.0, "engine": 0.0}
        for thread, (name, seconds) in thread_seconds(self._process.pid).items():
            main = thread == self._process.pid
            kind = "python" if main or name.startswith("manymind") else "engine"
            used[kind] += seconds - before.get(thread, ("", 0.0))[1]
        return wall, used

    def _request(self, prompt: str) -> bytes:
        body: dict[str, Any] = {"model": "model", "max_tokens": self._load.tokens, "stream": True}
        body |= {"messages": [{"role": "user", "content": prompt}], "temperature": 0}
        data = json.dumps({**body, "ignore_eos": True}).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        return head.encode() + data

    def _drive(self, requests: Sequence[bytes]) -> None:
        with selectors.DefaultSelector() as waiting:
            for request in requests:
                connection = socket.create_connection(self._address)
                connection.sendall(request)
                waiting.register(connection, selectors.EVENT_READ, bytearray())
            left = len(requests)
            while left:
                for key, _ in waiting.select():
                    assert isinstance(key.fileobj, socket.socket)
                    data = key.fileobj.recv(1 << 16)
                    key.data[:] = key.data[-_TAIL_BYTES:] + data
                    if data:
                        continue
                    assert _LAST_EVENT in key.data, bytes(key.data)
                    waiting.unregister(key.fileobj)
                    key.fileobj.close()
                    left -= 1

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


class InProcess:
    """``pipeline()`` in a process of its own, told by lines which round to run."""

    def __init__(self, model: str, load: Load) -> None:
        command = [sys.executable, __file__, "--model", model, "--role", "pipeline"]
        command += [f"--streams={load.streams}", f"--tokens={load.tokens}"]
        command += [f"--prompt-words={load.prompt_words}"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, text=True, **pipes)

    def seconds(self, seed: int) -> float:
        """Wall time of a round."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{seed}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def run_pipeline(model: str, load: Load) -> None:
    """The in-process side: a round per line of input."""
    from manymind import EngineConfig, GenerationConfig, pipeline

    config = GenerationConfig(max_new_tokens=load.tokens, ignore_eos=True)
    with pipeline(model, EngineConfig(max_batch_size=load.streams)) as pipe:
        for line in sys.stdin:
            chats = [[{"role": "user", "content": text}] for text in load.prompts(int(line))]
            begin = time.perf_counter()
            for _ in pipe.stream_infer(chats, config):
                pass
            print(time.perf_counter() - begin, flush=True)


def compare(model: str, load: Load, rounds: int) -> dict[str, Any]:
    """Medians over the rounds after the first."""
    inside, served = InProcess(model, load), Served(model, load)
    walls: dict[str, list[float]] = {"pipeline": [], "server": []}
    used: list[dict[str, float]] = []
    try:
        for round_index in range(rounds + 1):
            inside_wall = inside.seconds(2 * round_index)
            served_wall, threads = served.seconds(2 * round_index + 1)
            if round_index > 0:
                walls["pipeline"].append(inside_wall)
                walls["server"].append(served_wall)
                used.append(threads)
    finally:
        inside.close()
        served.close()
    tokens = load.streams * load.tokens
    rates = {name: tokens / statistics.median(times) for name, times in walls.items()}
    pairs = [a / b - 1 for a, b in zip(walls["server"], walls["pipeline"], strict=True)]
    result: dict[str, Any] = {f"{name}_tokens_per_second": rate for name, rate in rates.items()}
    result["cost"] = statistics.median(pairs)
    result["cost_of_each_round"] = pairs
    for kind in used[0]:
        median = statistics.median(item[kind] for item in used)
        result[f"{kind}_cpu_seconds_per_1000_tokens"] = median / tokens * 1000
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--prompt-words", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--role", choices=("compare", "pipeline"), default="compare")
    options = parser.parse_args()
    load = Load(options.streams, options.prompt_words, options.tokens)
    if options.role == "pipeline":
        run_pipeline(options.model, load)
        return
    print(json.dumps(compare(options.model, load, options.rounds), indent=1))


if __name__ == "__main__":
    main()
