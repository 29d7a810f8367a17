# SPDX-License-Identifier: Apache-2.0
"""What the traces of a run amount to.

TPOT is (last piece - first piece) / (tokens - 1) of each request, ITL every gap between pieces;
goodput counts completed requests that met all objectives (DistServe, Zhong et al. 2024,
arXiv:2401.09670).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from manymind.errors import InvalidParameterError
from manymind.load.runner import Trace

METRICS = ("ttft", "tpot", "itl", "e2e")
_PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Objectives:
    """Most milliseconds of each metric that a good request may take; None: any."""

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None

    @classmethod
    def parse(cls, text: str) -> Objectives:
        """From ``ttft:500,tpot:50,e2e:8000``. Raises InvalidParameterError."""
        limits: dict[str, float] = {}
        for item in filter(None, text.split(",")):
            name, _, value = item.strip().partition(":")
            try:
                if name not in ("ttft", "tpot", "e2e") or name in limits or not float(value) > 0:
                    raise ValueError
                limits[name] = float(value)
            except ValueError:
                raise InvalidParameterError(
                    f"goodput: expected ttft:MS,tpot:MS,e2e:MS or some of them, found {text!r}"
                ) from None
        return cls(**limits)

    def met_by(self, trace: Trace) -> bool:
        """Whether the request completed in time."""
        if trace.outcome != "completed":
            return False
        found = ((self.ttft, trace.ttft), (self.tpot, trace.tpot), (self.e2e, trace.e2e))
        return all(limit is None or value is None or 1e3 * value <= limit for limit, value in found)


def summary(traces: Sequence[Trace], seconds: float, objectives: Objectives) -> dict[str, Any]:
    """Counts, rates and percentiles; times in milliseconds."""
    done = [trace for trace in traces if trace.outcome == "completed"]
    outcomes = Counter(trace.outcome for trace in traces)
    output = sum(trace.output_tokens or len(trace.pieces) for trace in done)
    prompts = sum(trace.prompt_tokens for trace in done)
    good = sum(objectives.met_by(trace) for trace in traces)
    return {
        "requests": len(traces),
        **{name: outcomes[name] for name in ("completed", "refused", "failed")},
        "seconds": seconds,
        "requests_per_second": len(done) / seconds,
        "goodput_per_second": good / seconds,
        "good_share": good / len(traces) if traces else 0.0,
        "output_tokens_per_second": output / seconds,
        "total_tokens_per_second": (output + prompts) / seconds,
        "prompt_tokens": prompts,
        "cached_tokens": sum(trace.cached_tokens for trace in done),
        "output_tokens": output,
        "most_in_flight": _most_in_flight(traces),
        **{f"{name}_ms": spread(values) for name, values in samples(traces).items()},
        "errors": Counter(t.error for t in traces if t.outcome == "failed").most_common(5),
    }


def samples(traces: Sequence[Trace]) -> dict[str, list[float]]:
    """Milliseconds of each metric, of completed requests."""
    done = [trace for trace in traces if trace.outcome == "completed"]
    seconds: dict[str, list[float]] = {
        "ttft": [trace.ttft for trace in done],
        "tpot": [trace.tpot for trace in done if trace.tpot is not None],
        "itl": [gap for trace in done for gap in trace.gaps],
        "e2e": [trace.e2e for trace in done],
    }
    return {name: sorted(1e3 * value for value in values) for name, values in seconds.items()}


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Nearest rank."""
    return ordered[max(0, math.ceil(percent * len(ordered) / 100) - 1)]


def spread(ordered: Sequence[float]) -> dict[str, float] | None:
    """Mean, percentiles and maximum; None without samples."""
    if not ordered:
        return None
    found = {f"p{percent}": percentile(ordered, percent) for percent in _PERCENTILES}
    return {"mean": sum(ordered) / len(ordered), **found, "max": ordered[-1]}


def _most_in_flight(traces: Sequence[Trace]) -> int:
    changes = [(trace.sent, 1) for trace in traces] + [(trace.end, -1) for trace in traces]
    most = now = 0
    for _, change in sorted(changes):
        now += change
        most = max(most, now)
    return most
