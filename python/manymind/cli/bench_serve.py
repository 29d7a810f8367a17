# SPDX-License-Identifier: Apache-2.0
"""``manymind bench serve``: flags to runs, runs to reports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from manymind.environment import api_key
from manymind.errors import InvalidParameterError, ManymindError
from manymind.load.report import Point, as_html, as_text
from manymind.load.runner import Target, run
from manymind.load.statistics import Objectives, samples, summary
from manymind.load.workload import Arrivals, Conversation, DataConfig, conversations
from manymind.validation import require, require_int

_WARM_UP_SEED = 1 << 20  # other texts than those that are measured


@dataclass(frozen=True)
class BenchServeFlags:
    """The flags of the command."""

    model: str
    url: str
    endpoint: str
    data: str
    path: str | None
    num_requests: int
    input_len: int
    output_len: int
    prefix_len: int
    num_prefixes: int
    turns: int
    image_size: int
    rate: str | None
    burstiness: float
    concurrency: str | None
    goodput: str
    warmup: int
    ignore_eos: bool
    extra_body: str
    timeout: float
    seed: int
    json: str | None
    html: str | None


def run_command(flags: BenchServeFlags) -> None:
    """Measures every point of the sweep, prints and writes. Raises ManymindError if no request of
    a point completed.
    """
    for name, path in (("json", flags.json), ("html", flags.html)):
        require(path is None or Path(path).parent.is_dir(), name, "a file in a folder", path)
    require_int("warmup", flags.warmup, 0)
    target = _target(flags)
    data = _data(flags)
    objectives = Objectives.parse(flags.goodput)
    axis, loads = _loads(flags)
    asyncio.run(_warm_up(target, data, flags.warmup))
    points = []
    for number, (name, load, arrivals) in enumerate(loads):
        items = conversations(replace(data, seed=data.seed + number))
        points.append(_measure(target, items, arrivals, objectives, name, load))
        print(as_text(points[-1:]) + "\n", flush=True)
    _write(flags, axis, points)
    for point in points:
        if not point.result["completed"]:
            raise ManymindError(f"{point.name}: no request completed")


def _measure(
    target: Target,
    items: Sequence[Conversation],
    arrivals: Arrivals,
    objectives: Objectives,
    name: str,
    load: float,
) -> Point:
    traces, seconds = asyncio.run(run(target, items, arrivals))
    return Point(name, load, summary(traces, seconds, objectives), samples(traces))


async def _warm_up(target: Target, data: DataConfig, count: int) -> None:
    if count:
        few = replace(data, num_requests=count, seed=data.seed + _WARM_UP_SEED)
        await run(target, conversations(few), Arrivals(concurrency=count))


def _target(flags: BenchServeFlags) -> Target:
    try:
        body = json.loads(flags.extra_body)
    except ValueError:
        body = None
    require(isinstance(body, dict), "extra_body", "a JSON object", flags.extra_body)
    if flags.ignore_eos:
        body["ignore_eos"] = True
    return Target(flags.url, flags.model, flags.endpoint, api_key(), body, flags.timeout)


def _data(flags: BenchServeFlags) -> DataConfig:
    chat_only = flags.data in ("image", "multi_turn")
    require(
        flags.endpoint == "chat" or not chat_only, "endpoint", "chat for this data", flags.endpoint
    )
    return DataConfig(
        kind=flags.data,
        num_requests=flags.num_requests,
        input_len=flags.input_len,
        output_len=flags.output_len,
        prefix_len=flags.prefix_len,
        num_prefixes=flags.num_prefixes,
        turns=flags.turns,
        image_size=flags.image_size,
        path=flags.path,
        seed=flags.seed,
    )


def _loads(flags: BenchServeFlags) -> tuple[str, list[tuple[str, float, Arrivals]]]:
    """The sweep: over rates if there are several, else over concurrencies."""
    rates = _numbers("rate", flags.rate, float)
    bounds = _numbers("concurrency", flags.concurrency, int)
    if not rates:
        found = [
            (f"concurrency {bound}", float(bound), Arrivals(concurrency=bound, seed=flags.seed))
            for bound in bounds or [8]
        ]
        return "concurrent requests", found
    require(len(bounds) < 2, "concurrency", "one bound beside rates", flags.concurrency)
    bound = bounds[0] if bounds else None
    return "requests/s offered", [
        (f"rate {rate:g}/s", rate, Arrivals(rate, flags.burstiness, bound, flags.seed))
        for rate in rates
    ]


def _numbers(name: str, text: str | None, kind: Any) -> list[Any]:
    try:
        return [kind(item) for item in text.split(",")] if text else []
    except ValueError:
        expected = "numbers separated by commas"
        raise InvalidParameterError(f"{name}: expected {expected}, found {text!r}") from None


def _write(flags: BenchServeFlags, axis: str, points: Sequence[Point]) -> None:
    settings = asdict(flags)
    if flags.json is not None:
        runs = [{"name": point.name, "load": point.load, **point.result} for point in points]
        text = json.dumps({"settings": settings, "runs": runs}, indent=2)
        Path(flags.json).write_text(text + "\n", encoding="utf-8")
    if flags.html is not None:
        title = f"{flags.model}: {flags.data} requests"
        Path(flags.html).write_text(as_html(title, settings, axis, points), encoding="utf-8")
