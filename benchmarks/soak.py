# SPDX-License-Identifier: Apache-2.0
"""Overload a server for a long time and see whether it keeps its promises.

    python benchmarks/soak.py --model smollm2 --minutes 30

Measures what the server can do at most, then sends 1.5 times as much (a Poisson process) together
with bad requests, clients that leave and clients that read slowly. Exits 1, saying why, unless:
the process lives and is healthy; every good request was completed or refused with 429 or 503;
every bad one got its own 4xx; memory does not grow and all KV blocks come back; 99 of 100
admitted requests have their first token before a quarter more others than the limit admits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import socket
import statistics
import tempfile
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from served import manymind_command, served

from manymind.load.http_client import LoadError
from manymind.load.runner import Target, Trace, ask, run
from manymind.load.statistics import Objectives, percentile, summary
from manymind.load.workload import Arrivals, DataConfig, conversations

_BATCH = 16
_SESSION = 512
_OVERLOAD = 1.5
_SAMPLE_SECONDS = 1.0  # less in a run that is too short for it
# Whoever is let in waits for everyone who was let in before, and for few others. Counted in
# requests, so that it holds on a machine of any speed that others use, too.
_PATIENCE = 1.25
_MEMORY_GROWTH = 1.10  # of the last third's median over the second's
_IDLE_SECONDS = 60.0
_SLOW_SECONDS = 10.0
_SHARES = {"good": 0.8, "bad": 0.1, "leaving": 0.07, "slow": 0.03}

_QUESTION = [{"role": "user", "content": "Tell me a story."}]
# (path, body, status)
_BAD: tuple[tuple[str, Any, int], ...] = (
    ("/v1/chat/completions", b"{", 400),
    ("/v1/chat/completions", {"model": "model"}, 400),
    ("/v1/chat/completions", {"model": "other", "messages": _QUESTION}, 404),
    ("/v1/chat/completions", {"model": "model", "messages": _QUESTION, "nonsense": 1}, 400),
    ("/v1/chat/completions", {"model": "model", "messages": _QUESTION, "temperature": -1}, 400),
    ("/v1/completions", {"model": "model", "prompt": "a " * 5000}, 400),
    ("/v1/completions", {"model": "model", "prompt": "a", "n": 100000}, 400),
    ("/v1/completions", {"model": "model", "prompt": [10**7]}, 400),
    ("/v1/embeddings", {"model": "model", "input": []}, 400),
    ("/detokenize", {"tokens": [-1]}, 400),
    ("/nowhere", {}, 404),
)


@dataclass
class Sample:
    """What the server was like at one moment."""

    at: float
    resident_bytes: int
    kv_blocks_used: int
    running: int
    waiting: int
    active: int


@dataclass
class Findings:
    """What happened."""

    traces: list[Trace] = field(default_factory=list)
    bad: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Soak:
    """One server under load."""

    def __init__(self, url: str, pid: int, output_len: int, seed: int) -> None:
        self._target = Target(url, "model", body={"ignore_eos": True}, timeout=300.0)
        self._address = self._target.client()
        self._pid = pid
        self._output_len = output_len
        self._draw = random.Random(seed)
        self._data = conversations(
            DataConfig(num_requests=256, input_len=64, output_len=output_len, seed=seed)
        )
        self._start = self._seconds = 0.0
        self.found = Findings()

    async def capacity(self, seconds: float) -> float:
        """Requests per second of a closed loop that keeps the batch full."""
        rate = 1.0
        for count in (2 * _BATCH, 0):
            number = count or max(2 * _BATCH, round(rate * seconds))
            items = [self._data[index % len(self._data)] for index in range(number)]
            traces, spent = await run(self._target, items, Arrivals(concurrency=2 * _BATCH))
            rate = summary(traces, spent, Objectives())["requests_per_second"]
        return rate

    async def overload(self, rate: float, seconds: float) -> None:
        """Sends ``rate`` requests per second in all, and watches the server meanwhile."""
        self._start, self._seconds = time.perf_counter(), seconds
        watching = asyncio.create_task(self._watch())
        kinds = {"good": self._good, "bad": self._bad, "leaving": self._leave, "slow": self._slow}
        tasks: set[asyncio.Task[None]] = set()
        for due in Arrivals(rate, seed=1).offsets():
            if due > seconds:
                break
            await asyncio.sleep(max(0.0, self._start + due - time.perf_counter()))
            kind = self._draw.choices(list(_SHARES), list(_SHARES.values()))[0]
            task = asyncio.create_task(kinds[kind](due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        await self._until_idle()
        watching.cancel()
        self._address.close()

    async def _good(self, due: float) -> None:
        trace = Trace(due)
        self.found.traces.append(trace)
        await ask(self._target, self._address, self._body(), trace, self._start)

    async def _bad(self, _: float) -> None:
        path, body, expected = self._draw.choice(_BAD)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()

        async def work() -> None:
            async with self._address.request("POST", path, data) as reply:
                await reply.body()
                # A server that is full may say so first.
                kind = "refused" if reply.status in (429, 503) else "told"
                self.found.bad[kind] += 1
                if kind == "told" and reply.status != expected:
                    message = f"{path}: expected {expected}, found {reply.status}"
                    self.found.wrong.append(message)

        await self._noted("bad", work)

    async def _leave(self, _: float) -> None:
        """Goes away while waiting, or after some text."""
        patience = self._draw.expovariate(1.0)

        async def work() -> None:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._read_some(), patience)
            self.found.others["left"] += 1

        await self._noted("leaving", work)

    async def _read_some(self) -> None:
        path = "/v1/chat/completions"
        async with self._address.request("POST", path, self._body()) as reply:
            async for _ in reply.lines():
                """Until it is enough."""

    async def _slow(self, _: float) -> None:
        """Takes a large answer in sips, through a small buffer, and leaves it half read."""
        body = json.loads(self._body()) | {"logprobs": True, "top_logprobs": 20}
        body["max_tokens"] = 4 * self._output_len
        data = json.dumps(body).encode()
        loop = asyncio.get_running_loop()

        async def work() -> None:
            with socket.socket() as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                connection.setblocking(False)
                await loop.sock_connect(connection, self._address.address)
                head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
                head += f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
                await loop.sock_sendall(connection, head.encode() + data)
                end = time.monotonic() + _SLOW_SECONDS
                while time.monotonic() < end and await loop.sock_recv(connection, 512):
                    await asyncio.sleep(0.2)
            self.found.others["slow"] += 1

        await self._noted("slow", work)

    async def _noted(self, kind: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except (LoadError, OSError) as error:
            self.found.wrong.append(f"{kind}: {type(error).__name__}: {error}")

    def _body(self) -> bytes:
        item = self._draw.choice(self._data)
        return self._target.request_body([{"role": "user", "content": item.turns[0]}],
                                         item.output_len)  # fmt: skip

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(_SAMPLE_SECONDS, self._seconds / 12))
            self.found.samples.append(await self._look())

    async def _look(self) -> Sample:
        async with self._address.request("GET", "/load") as reply:
            load = json.loads(await reply.body())
        pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        return Sample(
            time.perf_counter() - self._start,
            pages * 4096,
            load["kv_blocks_used"],
            load["running"],
            load["waiting"],
            load["server_load"],
        )

    async def _until_idle(self) -> None:
        """Leaves as the last sample one of a server that has had time to tidy up."""
        deadline = time.monotonic() + _IDLE_SECONDS
        while True:
            sample = await self._look()
            busy = sample.active or sample.running or sample.kv_blocks_used
            if not busy or time.monotonic() > deadline:
                self.found.samples.append(sample)
                return
            await asyncio.sleep(0.2)


def judge(found: Findings, admitted: int) -> tuple[list[str], dict[str, Any]]:
    """What is wrong, and the numbers."""
    traces, samples = found.traces, found.samples
    last, seconds = samples[-1], samples[-1].at
    result = summary(traces, seconds, Objectives())
    done = [trace for trace in traces if trace.outcome == "completed"]
    wrong = list(found.wrong)
    if result["failed"]:
        wrong.append(f"{result['failed']} requests failed: {result['errors']}")
    if last.active or last.running or last.waiting or last.kv_blocks_used:
        wrong.append(f"not idle at the end: {asdict(last)}")
    third = max(trace.due for trace in traces) / 3 + 1e-9
    thirds = [[t.ttft for t in done if i <= t.due / third < i + 1] for i in range(3)]
    if not all(thirds):
        wrong.append(f"a third without an answer: {list(map(len, thirds))}")
    waits = [percentile(sorted(times), 99) if times else math.nan for times in thirds]
    ahead = sorted(_served_meanwhile(done))
    bound = round(_PATIENCE * admitted)
    if ahead and percentile(ahead, 99) > bound:
        found_ahead = f"found {percentile(ahead, 99)}"
        wrong.append(f"p99 TTFT: expected at most {bound} others served first, {found_ahead}")
    memory = _memory_of_thirds(samples, seconds)
    if not memory[2] <= _MEMORY_GROWTH * memory[1]:
        wrong.append(f"resident memory grew: medians of the thirds {memory}")
    numbers = {
        **{key: result[key] for key in ("requests", "completed", "refused", "failed")},
        "seconds": round(seconds, 1),
        "requests_per_second": round(result["requests_per_second"], 2),
        "ttft_ms": result["ttft_ms"],
        "p99_ttft_s_by_third": [round(wait, 3) for wait in waits],
        "p99_served_first": percentile(ahead, 99) if ahead else None,
        "most_served_first": ahead[-1] if ahead else None,
        "served_first_bound": bound,
        "resident_mib_by_third": [round(value / 2**20, 1) for value in memory],
        "resident_mib_at_end": round(last.resident_bytes / 2**20, 1),
        "most_kv_blocks": max(sample.kv_blocks_used for sample in samples),
        "kv_blocks_at_end": last.kv_blocks_used,
        "bad_requests": dict(found.bad),
        "other_clients": dict(found.others),
    }
    return wrong, numbers


def _served_meanwhile(done: Sequence[Trace]) -> list[int]:
    """For each request, how many others had their first token while it waited for its own."""
    firsts = sorted(trace.pieces[0] for trace in done)
    return [
        bisect_left(firsts, trace.pieces[0]) - bisect_left(firsts, trace.sent) for trace in done
    ]


def _memory_of_thirds(samples: Sequence[Sample], seconds: float) -> list[float]:
    thirds: list[list[int]] = [[], [], []]
    for sample in samples:
        thirds[min(2, int(3 * sample.at / seconds))].append(sample.resident_bytes)
    return [statistics.median(third) if third else math.nan for third in thirds]


def main() -> None:
    """Runs the soak, prints numbers as JSON and what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--port", type=int, default=18090)
    parser.add_argument("--output-len", type=int, default=32, help="tokens")
    parser.add_argument("--json", type=Path, help="write numbers and samples there")
    parser.add_argument("--threads", type=int, default=2, help="of the engine")
    parser.add_argument("--admitted", type=int, default=48, help="requests at once; beyond, 429")
    options = parser.parse_args()
    url = f"http://127.0.0.1:{options.port}"
    command = manymind_command(
        options.model, options.port, f"--max_concurrent_requests={options.admitted}",
        f"--max_batch_size={_BATCH}", f"--session_len={_SESSION}",
        f"--num_threads={options.threads}",
    )  # fmt: skip
    with tempfile.TemporaryFile() as log, served(command, f"{url}/ready", log) as process:
        soak = Soak(url, process.pid, options.output_len, seed=1)

        async def work() -> float:
            seconds = 60 * options.minutes
            capacity = await soak.capacity(min(20.0, seconds / 4))
            await soak.overload(_OVERLOAD * capacity / _SHARES["good"], seconds)
            return capacity

        capacity = asyncio.run(work())
        wrong, numbers = judge(soak.found, options.admitted)
        if process.poll() is not None:
            wrong.append(f"the server ended with status {process.returncode}")
        log.seek(0)
        errors = [line for line in log.read().decode().splitlines() if '"level": "error"' in line]
    wrong += [f"logged: {line[:500]}" for line in errors[:5]]
    numbers = {"capacity_per_second": round(capacity, 2), **numbers}
    print(json.dumps(numbers, indent=2))
    if options.json is not None:
        rows = [asdict(sample) for sample in soak.found.samples]
        options.json.write_text(json.dumps({**numbers, "wrong": wrong, "samples": rows}) + "\n")
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
