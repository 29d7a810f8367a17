# SPDX-License-Identifier: Apache-2.0
"""Typed settings of an engine, of a generation and of a chat template. A wrong value is an error that names the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from manymind.errors import InvalidParameterError

OutputRows = Literal["all", "generation"]


def require(condition: bool, name: str, expected: str, found: object) -> None:
    """Raises InvalidParameterError unless condition holds."""
    if not condition:
        raise InvalidParameterError(f"{name}: expected {expected}, found {found!r}")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require_int(name: str, value: object, minimum: int) -> None:
    require(_is_int(value) and value >= minimum, name, f"an integer >= {minimum}", value)  # type: ignore[operator]


def _require_float(name: str, value: object, low: float, high: float) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    require(number and low <= value <= high, name, f"a number in [{low}, {high}]", value)  # type: ignore[operator]


def _require_choice(name: str, value: object, choices: Sequence[object]) -> None:
    require(value in choices, name, f"one of {', '.join(map(repr, choices))}", value)


@dataclass
class EngineConfig:
    """How the engine runs; the same settings on every device.

    backend: plug-in name, or "auto" for the best usable one. num_threads: 0 = all cores. tp: ranks of
    tensor parallelism. dtype: activations; compute_dtype="float32" forbids quantised activations. session_len: most tokens of
    one sequence, 0 = the model's own limit. max_batch_size: sequences in one step. max_prefill_token_num: token rows of
    one step. cache_max_entry_count: fraction of the memory left after loading that the KV cache may take.
    num_kv_blocks: 0 = sized by memory. backend_config: extra keys for the plug-in.
    """

    backend: str = "auto"
    device_index: int = 0
    num_threads: int = 0
    tp: int = 1
    dtype: str = "auto"
    compute_dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    block_size: int = 0
    session_len: int = 0
    max_batch_size: int = 32
    max_prefill_token_num: int = 512
    cache_max_entry_count: float = 0.5
    num_kv_blocks: int = 0
    enable_prefix_caching: bool = True
    max_queue_size: int = 4096
    plugin_paths: Sequence[str] = ()
    backend_config: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("device_index", "num_threads", "block_size", "session_len", "num_kv_blocks"):
            _require_int(name, getattr(self, name), 0)
        for name in ("tp", "max_batch_size", "max_prefill_token_num", "max_queue_size"):
            _require_int(name, getattr(self, name), 1)
        _require_choice("dtype", self.dtype, ("auto", "float32", "bfloat16", "float16"))
        _require_choice("compute_dtype", self.compute_dtype, ("auto", "float32"))
        kv_dtypes = ("auto", "float32", "bfloat16", "float16", "int8")
        _require_choice("kv_cache_dtype", self.kv_cache_dtype, kv_dtypes)
        _require_float("cache_max_entry_count", self.cache_max_entry_count, 0.01, 0.99)
        require(
            isinstance(self.enable_prefix_caching, bool),
            "enable_prefix_caching",
            "a bool",
            self.enable_prefix_caching,
        )


@dataclass
class GenerationConfig:
    """How one request is answered, in LMDeploy's names.

    do_sample=False is greedy and ignores temperature, top_k, top_p and min_p; penalties and biases apply in both cases.
    top_k 0 = all tokens. stop_words are strings of any length, matched on the text. logprobs: number of
    alternatives reported beside each chosen token. output_logits / output_last_hidden_state: rows to return.
    random_seed None: a fresh random one. n: answers per prompt.
    """

    n: int = 1
    max_new_tokens: int = 512
    min_new_tokens: int = 0
    do_sample: bool = False
    temperature: float = 0.8
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = None
    random_seed: int | None = None
    ignore_eos: bool = False
    stop_words: Sequence[str] | None = None
    stop_token_ids: Sequence[int] | None = None
    bad_words: Sequence[str] | None = None
    bad_token_ids: Sequence[int] | None = None
    allowed_token_ids: Sequence[int] | None = None
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    logprobs: int | None = None
    output_logits: OutputRows | None = None
    output_last_hidden_state: OutputRows | None = None
    priority: int = 0

    def __post_init__(self) -> None:
        _require_int("n", self.n, 1)
        _require_int("max_new_tokens", self.max_new_tokens, 0)
        _require_int("min_new_tokens", self.min_new_tokens, 0)
        _require_int("top_k", self.top_k, 0)
        _require_float("temperature", self.temperature, 0.0, 100.0)
        _require_float("top_p", self.top_p, 0.0, 1.0)
        require(self.top_p > 0, "top_p", "a number in (0, 1]", self.top_p)
        _require_float("min_p", self.min_p, 0.0, 1.0)
        _require_float("repetition_penalty", self.repetition_penalty, 1e-3, 1e3)
        _require_float("presence_penalty", self.presence_penalty, -100.0, 100.0)
        _require_float("frequency_penalty", self.frequency_penalty, -100.0, 100.0)
        require(
            self.min_new_tokens <= self.max_new_tokens,
            "min_new_tokens",
            f"at most max_new_tokens ({self.max_new_tokens})",
            self.min_new_tokens,
        )
        if self.random_seed is not None:
            _require_int("random_seed", self.random_seed, 0)
        if self.logprobs is not None:
            _require_int("logprobs", self.logprobs, 0)
        for name in ("output_logits", "output_last_hidden_state"):
            _require_choice(name, getattr(self, name), (None, "all", "generation"))
        for name in ("stop_words", "bad_words"):
            self._check_strings(name)
        for name in ("stop_token_ids", "bad_token_ids", "allowed_token_ids"):
            self._check_ids(name)

    def _check_strings(self, name: str) -> None:
        words = getattr(self, name)
        valid = words is None or (
            not isinstance(words, str) and all(isinstance(word, str) and word for word in words)
        )
        require(valid, name, "a list of non-empty strings", words)

    def _check_ids(self, name: str) -> None:
        ids = getattr(self, name)
        require(
            ids is None or all(_is_int(i) and i >= 0 for i in ids), name, "a list of token ids", ids
        )


@dataclass
class ChatTemplateConfig:
    """Replaces the checkpoint's chat template by a Jinja text, and may set a default system message."""

    chat_template: str | None = None
    system: str | None = None


@dataclass
class Response:
    """The answer to one prompt (one of n).

    logits [rows, vocab_size] and last_hidden_state [rows, hidden_size] are float32 and cross by DLPack
    (``torch.from_dlpack(response.logits)``, ``numpy.from_dlpack``). finish_reason: stop, length, cancelled or error.
    logprobs: for each generated token a mapping of token id to raw log probability, the chosen token first.
    """

    text: str
    generate_token_len: int
    input_token_len: int
    finish_reason: str | None = None
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, float]] | None = None
    logits: Any = None
    last_hidden_state: Any = None
    index: int = 0
    cached_tokens: int = 0
    error_message: str | None = None
