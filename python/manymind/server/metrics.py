# SPDX-License-Identifier: Apache-2.0
"""Prometheus metrics: the server's own names, and the core of vLLM's so that existing dashboards,
gateways and autoscalers work.

Names after ``vllm:`` and bucket edges are those of vLLM 0.33 (``vllm/v1/metrics``), with finer ones
where small models would fall below its first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.exposition import generate_latest

from manymind.server.record import RequestRecord
from manymind.server.service import Service

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric


def _edges(text: str) -> tuple[float, ...]:
    return tuple(map(float, text.split()))


_TTFT = _edges(".001 .005 .01 .02 .04 .06 .08 .1 .25 .5 .75 1 2.5 5 7.5 10 20 40 80 160 640 2560")
_TPOT = _edges(".001 .0025 .005 .01 .025 .05 .075 .1 .15 .2 .3 .4 .5 .75 1 2.5 5 7.5 10 20 40 80")
_E2E = _edges(
    ".001 .005 .01 .02 .05 .1 .2 .3 .5 .8 1 1.5 2 2.5 5 10 15 20 30 40 50 60 "
    "120 240 480 960 1920 7680"
)
_TOKENS = tuple(float(scale * 10**power) for power in range(6) for scale in (1, 2, 5))
_CHOICES = _edges("1 2 5 10 20")
_PREEMPTIONS = _edges("0 1 2 5 10 20 50 100")

_HISTOGRAMS = {
    "time_to_first_token_seconds": ("From the request's head to its first token.", _TTFT),
    "inter_token_latency_seconds": ("Gap between tokens of an answer.", _TPOT),
    "request_time_per_output_token_seconds": ("Mean time per token after the first.", _TPOT),
    "e2e_request_latency_seconds": ("From a request's head to its answer's last byte.", _E2E),
    "request_queue_time_seconds": ("Waiting for the engine.", _E2E),
    "request_prefill_time_seconds": ("First scheduled to first token.", _E2E),
    "request_decode_time_seconds": ("First token to last.", _E2E),
    "request_inference_time_seconds": ("First scheduled to last token.", _E2E),
    "request_prompt_tokens": ("Tokens of a request's prompts.", _TOKENS),
    "request_generation_tokens": ("Tokens of a request's answers.", _TOKENS),
    "request_max_num_generation_tokens": ("Tokens of a request's longest answer.", _TOKENS),
    "request_prefill_kv_computed_tokens": ("Prompt tokens not in the prefix cache.", _TOKENS),
    "request_num_preemptions": ("Times a request gave back its KV blocks.", _PREEMPTIONS),
    "request_params_n": ("Answers asked for.", _CHOICES),
    "request_params_max_tokens": ("Tokens allowed.", _TOKENS),
}
# Names that boards of vLLM before 0.10 ask for.
_FORMER_NAMES = {
    "inter_token_latency_seconds": "time_per_output_token_seconds",
    "kv_cache_usage_perc": "gpu_cache_usage_perc",
}
_OWN_HISTOGRAMS = {
    "request_receive_time_seconds": ("Until the body had arrived.", _E2E),
    "request_preprocess_time_seconds": ("Templates and tokenising, with the wait for both.", _E2E),
    "request_grammar_time_seconds": ("Compiling the grammar of a response format.", _E2E),
    "request_network_time_seconds": ("Waiting for the client to take its answer.", _E2E),
}

# Engine counter -> own name (also vLLM's, where the second item says so).
_ENGINE_COUNTERS = {
    "prompt_tokens": ("prompt_tokens", "Prompt tokens admitted."),
    "cached_tokens": ("prompt_tokens_cached", "Prompt tokens that the prefix cache supplied."),
    "generated_tokens": ("generation_tokens", "Tokens generated."),
    "preemptions": ("num_preemptions", "Sequences that had to give back their KV blocks."),
    "steps": ("engine_steps", "Steps of the engine."),
    "device_recoveries": ("engine_device_recoveries", "Lost devices opened again."),
    "failed_steps": ("engine_failed_steps", "Steps that failed."),
}
_VLLM_ENGINE_COUNTERS = {
    "prompt_tokens",
    "prompt_tokens_cached",
    "generation_tokens",
    "num_preemptions",
}


class Histogram:
    """Counts per bucket. Not thread-safe: belongs to the event loop."""

    def __init__(
        self, edges: Sequence[float], counts: Sequence[int] = (), total: float = 0.0
    ) -> None:
        """counts, total: what has been observed; of each bucket, and its sum."""
        self._edges = edges
        self._counts = list(counts) or [0] * (len(edges) + 1)
        self._sum = total

    def observe(self, value: float, count: int = 1) -> None:
        """Adds ``count`` observations of ``value``."""
        self._counts[bisect_left(self._edges, value)] += count
        self._sum += value * count

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """Buckets as Prometheus wants them, and the sum."""
        total = 0
        buckets = []
        for edge, count in zip((*self._edges, float("inf")), self._counts, strict=True):
            total += count
            label = "+Inf" if edge == float("inf") else str(edge)
            buckets.append((label, float(total)))
        return buckets, self._sum


class Metrics:
    """Everything ``/metrics`` shows."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._histograms = {
            name: Histogram(edges)
            for name, (_, edges) in {**_HISTOGRAMS, **_OWN_HISTOGRAMS}.items()
        }
        self._http: Counter[tuple[str, str, int]] = Counter()
        # From zero on: of a series that appears with its first event, rates do not see that event.
        self._finished = Counter(dict.fromkeys(("stop", "length", "abort", "error"), 0))
        self._bounded: Counter[str] = Counter()
        self._by_key: Counter[tuple[str, str]] = Counter()
        self._refused = 0
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def exposition(self) -> bytes:
        """Prometheus' text format, version 0.0.4."""
        return generate_latest(self._registry)

    def observe(self, record: RequestRecord, route: str) -> None:
        """Counts a finished request; ``route`` is a template, so that paths cannot fill memory."""
        self._http[(record.method, route, record.status)] += 1
        if (bounded_by := record.bounded_by()) is not None:
            self._bounded[bounded_by] += 1
        self._refused += record.refused
        if not record.generates:
            return
        if record.key is not None:
            self._by_key[(record.key.name, "prompt")] += record.begun_prompt_tokens
            self._by_key[(record.key.name, "generation")] += record.generated_tokens
        reasons = record.reasons or (["abort"] if record.gone or record.aborted else [])
        self._finished.update(reasons)
        record.tell_rest()
        if record.times:
            self._observe_end(record)

    def observe_latency(self, name: str, seconds: float, count: int = 1) -> None:
        """What is known of a request before its end, as soon as it is."""
        self._histograms[name].observe(seconds, count)

    def _observe_end(self, record: RequestRecord) -> None:
        spent = record.phases()
        values = {
            "e2e_request_latency_seconds": record.seconds,
            "request_decode_time_seconds": spent["decode"],
            "request_inference_time_seconds": spent["prefill"] + spent["decode"],
            "request_prompt_tokens": record.prompt_tokens,
            "request_generation_tokens": record.generated_tokens,
            "request_max_num_generation_tokens": record.longest_answer,
            "request_prefill_kv_computed_tokens": record.begun_prompt_tokens - record.cached_tokens,
            "request_num_preemptions": record.preemptions,
            "request_params_n": record.choices,
            "request_params_max_tokens": record.max_tokens,
            "request_network_time_seconds": record.network,
        }
        if record.gap_tokens:
            values["request_time_per_output_token_seconds"] = record.gap_seconds / record.gap_tokens
        for name, value in values.items():
            self._histograms[name].observe(value)

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        stats = self._service.runtime.engine.stats()
        model = self._service.config.served_name
        yield from self._gauges(stats, "manymind_", ["model_name"], [model])
        yield from self._gauges(stats, "vllm:", ["model_name", "engine"], [model, "0"])
        yield self._cache_config(stats, model)
        yield from _vllm_states(stats, model)
        yield from self._engine_counters(stats, model)
        yield from self._media_counters(model)
        yield from self._step_sizes(stats, model)
        yield from _block_ages(stats, model)
        yield from self._request_counters(model)
        for name, histogram in self._histograms.items():
            text = {**_HISTOGRAMS, **_OWN_HISTOGRAMS}[name][0]
            yield _histogram(f"manymind_{name}", text, {"model_name": model}, histogram)
            if name in _HISTOGRAMS:
                labels = {"model_name": model, "engine": "0"}
                for known_as in _vllm_names(name):
                    yield _histogram(known_as, text, labels, histogram)

    def _cache_config(self, stats: dict[str, Any], model: str) -> Metric:
        """What gateways read to know how much a server holds."""
        plan = self._service.runtime.memory_plan
        labels = {
            "model_name": model,
            "engine": "0",
            "block_size": str(plan.get("block_size", 0)),
            "num_gpu_blocks": str(stats["kv_blocks_total"]),
        }
        text = "Size of the KV cache, as labels."
        name = "vllm:cache_config_info"
        return _single(GaugeMetricFamily, name, text, list(labels), list(labels.values()), 1.0)

    def _gauges(
        self, stats: dict[str, Any], prefix: str, labels: list[str], values: list[str]
    ) -> Iterator[Metric]:
        used = stats["kv_blocks_used"] / max(1, stats["kv_blocks_total"])
        rows = [
            ("num_requests_running", "Sequences that hold KV blocks.", stats["running"]),
            ("num_requests_waiting", "Sequences that wait for KV blocks.", stats["waiting"]),
            ("kv_cache_usage_perc", "Share of KV blocks held by sequences, 0 to 1.", used),
        ]
        if prefix != "vllm:":
            cached = stats["kv_blocks_cached"] / max(1, stats["kv_blocks_total"])
            rows += [
                ("kv_cache_prefix_perc", "Share of KV blocks held for reuse, 0 to 1.", cached),
                ("http_requests_active", "Requests being answered.", self._service.active),
                ("draining", "1 while shutting down.", int(self._service.draining)),
            ]
        for name, text, value in rows:
            for known_as in _vllm_names(name) if prefix == "vllm:" else [prefix + name]:
                yield _single(GaugeMetricFamily, known_as, text, labels, values, value)

    def _engine_counters(self, stats: dict[str, Any], model: str) -> Iterator[Metric]:
        for key, (name, text) in _ENGINE_COUNTERS.items():
            if name in _VLLM_ENGINE_COUNTERS:
                yield from _both_counters(name, text, model, stats[key])
            else:
                yield _own_counter(name, text, model, stats[key])
        text = "Prompt tokens looked up in the prefix cache."
        yield from _both_counters("prefix_cache_queries", text, model, stats["prompt_tokens"])
        yield from _by_source(stats, model)
        text = "Of these, tokens found."
        yield from _both_counters("prefix_cache_hits", text, model, stats["cached_tokens"])
        text = "Requests refused for want of room."
        yield from _both_counters("admission_rejections", text, model, self._refused)

    def _media_counters(self, model: str) -> Iterator[Metric]:
        """Of models that read pictures."""
        media = self._service.runtime.media
        if media is None:
            return
        queries, hits = media.prepared.queries_and_hits
        text = "Pictures looked up among those preprocessed."
        yield from _both_counters("mm_cache_queries", text, model, queries)
        yield from _both_counters("mm_cache_hits", "Of these, pictures found.", model, hits)

    def _step_sizes(self, stats: dict[str, Any], model: str) -> Iterator[Metric]:
        """Of models with steps; encoders of texts have none."""
        if stats["step_sizes"]:
            edges, counts = zip(*stats["step_sizes"], strict=True)
            values = Histogram(edges[:-1], counts, stats["computed_tokens"])
            text = "Tokens computed in a step."
            yield _histogram("manymind_iteration_tokens", text, {"model_name": model}, values)
            labels = {"model_name": model, "engine": "0"}
            yield _histogram("vllm:iteration_tokens_total", text, labels, values)

    def _request_counters(self, model: str) -> Iterator[Metric]:
        http = CounterMetricFamily(
            "manymind_http_requests", "Answers sent.", labels=["method", "route", "status"]
        )
        for (method, route, status), count in self._http.copy().items():
            http.add_metric([method, route, str(status)], count)
        yield http
        bounded = CounterMetricFamily(
            "manymind_requests_bounded_by",
            "By the phase that took longest, or refused.",
            labels=["phase"],
        )
        for phase, count in self._bounded.copy().items():
            bounded.add_metric([phase], count)
        yield bounded
        tokens = CounterMetricFamily("manymind_key_tokens", "By API key.", labels=["key", "kind"])
        for (key, kind), count in self._by_key.copy().items():
            tokens.add_metric([key, kind], count)
        yield tokens
        for name, more in (("manymind_request_success", []), ("vllm:request_success", ["engine"])):
            labels = ["model_name", *more, "finished_reason"]
            family = CounterMetricFamily(name, "Answers by the reason they ended.", labels=labels)
            for reason, count in self._finished.copy().items():
                family.add_metric([model, *(["0"] if more else []), reason], count)
            yield family


def _vllm_states(stats: dict[str, Any], model: str) -> Iterator[Metric]:
    """What this engine has one value of only: nothing waits for anything but room, and it never
    sleeps.
    """
    for name, text, label, values in (
        (
            "vllm:num_requests_waiting_by_reason",
            "Sequences that wait, by what for.",
            "reason",
            {"capacity": stats["waiting"], "deferred": 0},
        ),
        (
            "vllm:engine_sleep_state",
            "1 for the state that the engine is in.",
            "sleep_state",
            {"awake": 1, "weights_offloaded": 0, "discard_all": 0},
        ),
    ):
        family = GaugeMetricFamily(name, text, labels=["model_name", "engine", label])
        for key, value in values.items():
            family.add_metric([model, "0", key], value)
        yield family


def _by_source(stats: dict[str, Any], model: str) -> Iterator[Metric]:
    """There is one cache, in the device's memory."""
    cached = stats["cached_tokens"]
    computed = stats["prompt_tokens"] - cached
    elsewhere = dict.fromkeys(("host", "disk", "p2p", "external_unspecified"), 0)
    for name, text, values in (
        (
            "vllm:prompt_tokens_by_source",
            "Prompt tokens admitted, by where their KV comes from.",
            {"local_compute": computed, "local_cache_hit": cached, "external_kv_transfer": 0},
        ),
        (
            "vllm:prompt_tokens_cached_by_source",
            "Prompt tokens found in a cache, by where that is.",
            {"device": cached, **elsewhere},
        ),
    ):
        family = CounterMetricFamily(name, text, labels=["model_name", "engine", "source"])
        for source, value in values.items():
            family.add_metric([model, "0", source], value)
        yield family


_BLOCK_AGES = {
    "lifetime": ("kv_block_lifetime_seconds", "From a KV block's allocation to its eviction."),
    "idle": ("kv_block_idle_before_evict_seconds", "Nobody using a KV block that is evicted."),
    "reuse": ("kv_block_reuse_gap_seconds", "Nobody using a KV block that is used again."),
}


def _block_ages(stats: dict[str, Any], model: str) -> Iterator[Metric]:
    """Of models with a KV cache."""
    for key, (pairs, total) in stats["block_ages"].items():
        edges, counts = zip(*pairs, strict=True)
        name, text = _BLOCK_AGES[key]
        values = Histogram(edges[:-1], counts, total)
        yield _histogram(f"manymind_{name}", text, {"model_name": model}, values)
        yield _histogram(f"vllm:{name}", text, {"model_name": model, "engine": "0"}, values)


def _vllm_names(name: str) -> list[str]:
    former = _FORMER_NAMES.get(name)
    return [f"vllm:{name}", *([f"vllm:{former}"] if former else [])]


def _own_counter(name: str, text: str, model: str, value: float) -> Metric:
    return _single(CounterMetricFamily, f"manymind_{name}", text, ["model_name"], [model], value)


def _both_counters(name: str, text: str, model: str, value: float) -> Iterator[Metric]:
    yield _own_counter(name, text, model, value)
    labels, values = ["model_name", "engine"], [model, "0"]
    yield _single(CounterMetricFamily, f"vllm:{name}", text, labels, values, value)


def _single(
    kind: Callable[..., Any],
    name: str,
    text: str,
    labels: list[str],
    values: list[str],
    value: float,
) -> Metric:
    family = kind(name, text, labels=labels)
    family.add_metric(values, value)
    metric: Metric = family
    return metric


def _histogram(name: str, text: str, labels: dict[str, str], values: Histogram) -> Metric:
    family = HistogramMetricFamily(name, text, labels=list(labels))
    buckets, total = values.cumulative()
    family.add_metric(list(labels.values()), buckets=buckets, sum_value=total)
    return family
