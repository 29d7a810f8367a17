# SPDX-License-Identifier: Apache-2.0
"""``manymind bench serve``: what it asks, when, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from serving import RunningServer, running_server
from support import wait_until

from manymind import Pipeline
from manymind.cli import main
from manymind.load.plots import Line, chart
from manymind.load.runner import Target, Trace, run
from manymind.load.statistics import Objectives, samples, spread, summary
from manymind.load.workload import Arrivals, DataConfig, conversations
from manymind.server.config import Limits, ServerConfig


def command(server: RunningServer, *flags: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "serve", "smollm2", f"--url={server.url}", *flags])
    assert ended.value.code == 0


def test_counts_agree_with_the_server(server: RunningServer, tmp_path: Path) -> None:
    before = server.metrics()
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    flags = ("--num_requests=6", "--input_len=20", "--output_len=8", "--ignore_eos")
    command(
        server, *flags, "--concurrency=1,3", "--warmup=0", "--goodput=e2e:60000",
        f"--json={out}", f"--html={page}",
    )  # fmt: skip
    wait_until(lambda: server.service.active == 0)
    after = server.metrics()
    runs = json.loads(out.read_text())["runs"]
    assert [item["name"] for item in runs] == ["concurrency 1", "concurrency 3"]
    assert [item["most_in_flight"] for item in runs] == [1, 3]
    for name, key in (("prompt", "prompt_tokens"), ("generation", "output_tokens")):
        grown = after[f"vllm:{name}_tokens_total"] - before[f"vllm:{name}_tokens_total"]
        assert grown == sum(item[key] for item in runs) > 0
    for item in runs:
        assert (item["requests"], item["completed"], item["good_share"]) == (6, 6, 1.0)
        assert item["output_tokens"] == 48
        assert 0 < item["ttft_ms"]["p50"] <= item["e2e_ms"]["p50"]
        assert item["goodput_per_second"] == item["requests_per_second"]
    text = page.read_text()
    assert text.count("<svg") == 9
    assert not [word for word in ("src=", "href=", "http:", "https:", "url(")
                if word in text.replace(server.url, "")]  # fmt: skip


def test_rates_completions_and_a_shared_prefix(server: RunningServer, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    flags = ("--num_requests=8", "--input_len=8", "--prefix_len=200", "--output_len=2")
    command(
        server, *flags, "--rate=40", "--burstiness=0.5", "--endpoint=completions",
        "--data=shared_prefix", "--ignore_eos", f"--json={out}",
    )  # fmt: skip
    (item,) = json.loads(out.read_text())["runs"]
    assert item["completed"] == 8
    assert item["cached_tokens"] > 0.5 * item["prompt_tokens"]


def test_turns_hold_what_was_said(server: RunningServer) -> None:
    data = DataConfig("multi_turn", num_requests=2, input_len=10, output_len=6, turns=3)
    target = Target(server.url, "smollm2", body={"ignore_eos": True})
    traces, _ = asyncio.run(run(target, conversations(data), Arrivals(concurrency=1)))
    lengths = [trace.prompt_tokens for trace in traces]
    assert len(lengths) == 6
    for first in (0, 3):
        assert lengths[first] < lengths[first + 1] - 10 < lengths[first + 2] - 20
    assert all(trace.cached_tokens > 0 for trace in traces[1:3])


def test_refusals_and_failures_are_told_apart(smollm2: Pipeline) -> None:
    config = ServerConfig("smollm2", port=0, limits=Limits(max_concurrent_requests=1))
    data = conversations(DataConfig(num_requests=4, input_len=5, output_len=40))
    with running_server(smollm2, config) as server:
        target = Target(server.url, "smollm2", body={"ignore_eos": True})
        traces, seconds = asyncio.run(run(target, data, Arrivals(concurrency=4)))
        result = summary(traces, seconds, Objectives())
        assert (result["completed"], result["refused"], result["failed"]) == (1, 3, 0)
        wrong = Target(server.url, "smollm2", body={"nonsense": 1})
        traces, _ = asyncio.run(run(wrong, data[:1], Arrivals(concurrency=1)))
        assert traces[0].outcome == "failed"
        assert "nonsense" in traces[0].error
    gone, _ = asyncio.run(run(target, data[:1], Arrivals(concurrency=1)))
    assert gone[0].outcome == "failed"
    assert "Connect" in gone[0].error


def failures(answer: bytes) -> list[Trace]:
    """Two requests, one after the other, to a server that says this and closes."""

    async def serve() -> list[Trace]:
        async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            with suppress(OSError):
                await writer.drain()
            writer.close()

        async with await asyncio.start_server(reply, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            target = Target(f"http://127.0.0.1:{port}", "x", timeout=20)
            data = conversations(DataConfig(num_requests=2))
            return (await run(target, data, Arrivals(concurrency=1)))[0]

    traces = asyncio.run(serve())
    assert [trace.outcome for trace in traces] == ["failed", "failed"]
    return traces


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1\r\n\r\n", b"200 OK\r\n\r\n", b"HTTP/1.1 x\r\n\r\n", b"a" * (3 << 20)]
)
def test_a_head_that_is_none_fails_its_request_only(head: bytes) -> None:
    traces = failures(head)
    assert all(trace.error.startswith("LoadError") for trace in traces), traces[0].error


CONTENT = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
BAD_STREAMS = {
    "no object": b"data: 7\n\n",
    "no JSON": b"data: {\n\n",
    "no UTF-8": b'data: "\xff"\n\n',
    "choices are no list": b'data: {"choices": 3}\n\n',
    "choice is no object": b'data: {"choices": ["x"]}\n\n',
    "content is no text": b'data: {"choices": [{"delta": {"content": 5}}]}\n\n',
    "usage is no object": b'data: {"choices": [], "usage": [1]}\n\n',
    "count is no number": b'data: {"usage": {"completion_tokens": "x"}}\n\n',
    "error event": b'data: {"error": {"message": "sorry"}}\n\n',
    "nested too deep": b"data: " + b"[" * 100_000 + b"\n\n",
    "broken off": CONTENT,
}


@pytest.mark.parametrize("stream", BAD_STREAMS.values(), ids=BAD_STREAMS)
@pytest.mark.parametrize("after", [b"", CONTENT])
def test_a_stream_that_goes_wrong_fails_its_request_only(after: bytes, stream: bytes) -> None:
    traces = failures(b"HTTP/1.1 200 OK\r\n\r\n" + after + stream)
    assert all(trace.error for trace in traces)


@pytest.mark.parametrize("end", [b"", b"zz\r\n", b"-5\r\nabcde\r\n"])
def test_chunks_that_break_off_fail_their_request_only(end: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%s\r\n" % (len(CONTENT), CONTENT)
    traces = failures(head + chunk + end)
    assert all(trace.error.startswith("LoadError") for trace in traces), traces[0].error


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gaps_follow_the_gamma_distribution(burstiness: float) -> None:
    """Mean 1/rate, variance mean^2 / shape."""
    offsets = Arrivals(50.0, burstiness, seed=3).offsets()
    times = [next(offsets) for _ in range(20_000)]
    gaps = np.diff([0.0, *times])
    assert gaps.mean() == pytest.approx(0.02, rel=0.05)
    assert gaps.var() == pytest.approx(0.02**2 / burstiness, rel=0.1)


def test_custom_and_image_data(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    said = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    lines = [{"prompt": "p", "output_len": 3}, {"messages": said}]
    path.write_text("\n".join(map(json.dumps, lines)))
    made = conversations(DataConfig("custom", num_requests=3, output_len=9, path=str(path)))
    assert [(item.turns, item.output_len) for item in made] == [(["p"], 3), (["q"], 9), (["p"], 3)]
    assert made[1].history == said[:1]
    pictures = conversations(DataConfig("image", num_requests=2, image_size=32))
    urls = [item.turns[0][0]["image_url"]["url"] for item in pictures]
    assert urls[0] != urls[1]
    assert all(url.startswith("data:image/png;base64,") for url in urls)


def test_prompts_differ_between_seeds_and_repeat_within() -> None:
    make: Callable[[int], object] = lambda seed: conversations(DataConfig(seed=seed))  # noqa: E731
    assert make(1) == make(1) != make(2)


def test_statistics_against_numpy() -> None:
    draw = np.random.default_rng(5)
    traces = []
    for index in range(101):
        times = np.cumsum(draw.random(5)).tolist()
        traces.append(Trace(0.0, 0.0, times[-1], times[:4], 200, output_tokens=4))
        assert traces[index].tpot == pytest.approx((times[3] - times[0]) / 3)
    ttft = [1e3 * trace.pieces[0] for trace in traces]
    found = summary(traces, 10.0, Objectives(ttft=500.0))
    for percent in (50, 90, 95, 99):
        expected = np.percentile(ttft, percent, method="inverted_cdf")
        assert found["ttft_ms"][f"p{percent}"] == pytest.approx(expected)
    assert found["ttft_ms"]["mean"] == pytest.approx(statistics.mean(ttft))
    assert found["goodput_per_second"] == sum(value <= 500 for value in ttft) / 10
    assert len(samples(traces)["itl"]) == 3 * 101
    assert spread([]) is None


def test_latency_counts_from_when_a_request_was_due() -> None:
    late = Trace(due=1.0, sent=3.0, end=5.0, pieces=[4.0], status=200)
    assert (late.ttft, late.e2e) == (3.0, 4.0)
    assert not Objectives(ttft=2000.0).met_by(late)


def test_a_chart_is_well_formed_and_escaped() -> None:
    made = chart("a < b", "x", "y", [Line("<l>", [(0.0, 0.0), (3.0, 7.0)]), Line("none", [])])
    root = ElementTree.fromstring(f"<div>{made}</div>")
    assert root[0].attrib["aria-label"] == "a < b"
    assert len(root.findall(".//circle")) == 2


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--data=nothing", "data"),
        ("--goodput=ttft:x", "goodput"),
        ("--rate=fast", "rate"),
        ("--rate=1,2 --concurrency=1,2", "concurrency"),
        ("--turns=2", "turns"),
        ("--prefix_len=5", "prefix_len"),
        ("--data=image --endpoint=completions", "endpoint"),
        ("--data=custom", "path"),
        ("--extra_body=[1]", "extra_body"),
        ("--url=ftp://host", "url"),
        ("--json=/no/such/folder/x", "json"),
    ],
)
def test_wrong_flags_are_named(flag: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "serve", "smollm2", *flag.split()])
    assert ended.value.code == 1
    assert f"error: {name}: expected" in capsys.readouterr().err
