# SPDX-License-Identifier: Apache-2.0
"""Typed settings of an engine, of a generation and of a chat template, and the answer.

A wrong value raises InvalidParameterError that names the field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

from manymind.guided.formats import check_response_format
from manymind.lmdeploy_fields import CHAT_TEMPLATE, GENERATION, takes_neutral
from manymind.validation import (
    require,
    require_bool,
    require_choice,
    require_int,
    require_number,
    require_strings,
    require_token_ids,
    require_token_weights,
)

OutputRows = Literal["all", "generation"]

_MAX_SEED = 2**64 - 1


@dataclass(slots=True)
class EngineConfig:
    """How the engine runs; the same settings on every device.

    Attributes:
        backend: name of a plug-in, or "auto" for the best usable one.
        device_index: of the first device.
        num_threads: host threads of the backend; 0 = all cores.
        tp: ranks of tensor parallelism.
        dtype: of activations: "auto", "float32", "bfloat16" or "float16".
        weight_dtype: "auto" keeps the checkpoint's; "int8" makes bytes with a scale for each row of
            weights in floats: half the memory and traffic of bfloat16, for a little accuracy.
        compute_dtype: "float32" forbids the backend to quantise activations; "auto" lets it.
        kv_cache_dtype: "auto", "float32", "bfloat16", "float16" or "int8".
        block_size: tokens per KV block; 0 = the backend's choice.
        session_len: most tokens of one sequence, prompt included; 0 = the model's own limit.
        max_batch_size: most sequences in one step.
        max_prefill_token_num: most token rows in one step, at least max_batch_size; 0 = 512, or
            max_batch_size where that is more.
        cache_max_entry_count: share of the memory left after loading that the KV cache may take;
            0 = the device's usual share.
        num_kv_blocks: exact size of the KV cache; 0 = sized by memory.
        enable_prefix_caching: reuse the KV blocks of prompts that begin alike.
        max_queue_size: most requests waiting; beyond it, QueueFullError.
        plugin_paths: backend plug-ins, or folders of them, looked at in this order and before
            those that are installed; of several of one name the first is taken.
        backend_config: further settings for the plug-in, which documents them.
    """

    backend: str = "auto"
    device_index: int = 0
    num_threads: int = 0
    tp: int = 1
    dtype: str = "auto"
    weight_dtype: str = "auto"
    compute_dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    block_size: int = 0
    session_len: int = 0
    max_batch_size: int = 32
    max_prefill_token_num: int = 0
    cache_max_entry_count: float = 0.0
    num_kv_blocks: int = 0
    enable_prefix_caching: bool = True
    max_queue_size: int = 4096
    plugin_paths: Sequence[str] = ()
    backend_config: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Raises InvalidParameterError naming a field outside its domain; also done before use."""
        for name in ("device_index", "num_threads", "block_size", "session_len", "num_kv_blocks"):
            require_int(name, getattr(self, name), 0)
        for name in ("tp", "max_batch_size", "max_queue_size"):
            require_int(name, getattr(self, name), 1)
        self._check_step()
        require(isinstance(self.backend, str), "backend", "a plug-in's name", self.backend)
        dtypes = ("auto", "float32", "bfloat16", "float16")
        require_choice("dtype", self.dtype, dtypes)
        require_choice("weight_dtype", self.weight_dtype, ("auto", "int8"))
        require_choice("compute_dtype", self.compute_dtype, ("auto", "float32"))
        require_choice("kv_cache_dtype", self.kv_cache_dtype, (*dtypes, "int8"))
        require_number("cache_max_entry_count", self.cache_max_entry_count, 0.0, 0.99)
        require_bool("enable_prefix_caching", self.enable_prefix_caching)
        require_strings("plugin_paths", self.plugin_paths)
        valid = isinstance(self.backend_config, Mapping) and all(
            isinstance(word, str) for item in self.backend_config.items() for word in item
        )
        require(valid, "backend_config", "a mapping of str to str", self.backend_config)

    def _check_step(self) -> None:
        rows = self.max_prefill_token_num
        require_int("max_prefill_token_num", rows, 0)
        # Every sequence that decodes takes one row of each step.
        expected = f"0 or at least max_batch_size ({self.max_batch_size})"
        require(rows == 0 or rows >= self.max_batch_size, "max_prefill_token_num", expected, rows)


@takes_neutral(GENERATION)
@dataclass(slots=True)
class GenerationConfig:
    """How one request is answered, in LMDeploy's names.

    LMDeploy's fields that are not among them are taken at the value that changes nothing.

    Attributes:
        n: answers per prompt.
        max_new_tokens: most tokens of an answer; 0 computes the prompt only.
        min_new_tokens: no end-of-sequence or stop token before so many, and no stop word that they
            complete; None = 0.
        do_sample: False is greedy and leaves temperature, top_k, top_p and min_p unused; penalties
            and biases apply in both cases.
        temperature: divides the logits.
        top_k: sample among so many likeliest tokens; 0 = all.
        top_p: sample among the likeliest tokens that reach so much probability together.
        min_p: drop tokens less likely than this share of the likeliest one's probability.
        repetition_penalty: of tokens in the prompt or the answer; 1 = none.
        presence_penalty: taken once off the logit of a token in the answer.
        frequency_penalty: taken off once per occurrence.
        logit_bias: added to the logits of token ids.
        random_seed: repeats a sampled answer; None = a fresh one.
        ignore_eos: go on after end-of-sequence tokens.
        stop_words: strings of any length, matched on the text, that end the answer.
        stop_token_ids: token ids that end it.
        bad_words: words that are never generated, with or without a space before them: where all
            tokens of one but the last are there, the last is not drawn. Other tokens may still
            spell the same.
        bad_token_ids: token ids that are never generated.
        allowed_token_ids: if given, nothing else is generated.
        skip_special_tokens: leave control tokens out of the text.
        include_stop_str_in_output: keep the stop word that ended the answer.
        logprobs: report so many alternatives beside each token; None = no log probabilities.
        prompt_logprobs: the same for the prompt's tokens after the first.
        output_logits: return the logits of the answer's positions, or of all.
        output_last_hidden_state: the same for the last hidden state.
        priority: higher is served first.
        timeout: seconds after which the request fails; None = never.
        tenant: whose share of the engine the request uses: while several tenants wait, each gets
            tokens in proportion to its weight.
        tenant_weight: what that share is beside the others'.
        cache_salt: prompts share cached prefixes, and embeddings of pictures, only with prompts of
            the same salt.
        response_format: what the text must be, by its "type": "json_object", "json_schema",
            "regex", "choice", "grammar" or "structural_tag"; see ``manymind.guided.formats``. The
            text is whole even where max_new_tokens is short.
    """

    n: int = 1
    max_new_tokens: int = 512
    min_new_tokens: int | None = 0
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
    prompt_logprobs: int | None = None
    output_logits: OutputRows | None = None
    output_last_hidden_state: OutputRows | None = None
    priority: int = 0
    timeout: float | None = None
    tenant: str = ""
    tenant_weight: float = 1.0
    cache_salt: str = ""
    response_format: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Raises InvalidParameterError naming a field outside its domain; also done before use."""
        require_int("n", self.n, 1)
        self._check_lengths()
        self._check_sampling()
        self._check_words()
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                require_int(name, getattr(self, name), 0)
        for name in ("output_logits", "output_last_hidden_state"):
            require_choice(name, getattr(self, name), (None, "all", "generation"))
        require_int("priority", self.priority, -(2**31))
        if self.timeout is not None:
            require_number("timeout", self.timeout, 1e-3, 1e9)
        for name in ("tenant", "cache_salt"):
            require(isinstance(getattr(self, name), str), name, "a str", getattr(self, name))
        require_number("tenant_weight", self.tenant_weight, 1e-3, 1e3)
        check_response_format(self.response_format)

    def _check_lengths(self) -> None:
        require_int("max_new_tokens", self.max_new_tokens, 0)
        if self.min_new_tokens is not None:
            require_int("min_new_tokens", self.min_new_tokens, 0)
            expected = f"at most max_new_tokens ({self.max_new_tokens})"
            fits = self.min_new_tokens <= self.max_new_tokens
            require(fits, "min_new_tokens", expected, self.min_new_tokens)

    def _check_sampling(self) -> None:
        require_bool("do_sample", self.do_sample)
        require_int("top_k", self.top_k, 0)
        require_number("temperature", self.temperature, 0.0, 100.0)
        require_number("top_p", self.top_p, 0.0, 1.0)
        require(self.top_p > 0, "top_p", "a number in (0, 1]", self.top_p)
        require_number("min_p", self.min_p, 0.0, 1.0)
        require_number("repetition_penalty", self.repetition_penalty, 1e-3, 1e3)
        require_number("presence_penalty", self.presence_penalty, -100.0, 100.0)
        require_number("frequency_penalty", self.frequency_penalty, -100.0, 100.0)
        if self.random_seed is not None:
            require_int("random_seed", self.random_seed, 0, _MAX_SEED)

    def _check_words(self) -> None:
        for name in ("ignore_eos", "skip_special_tokens", "include_stop_str_in_output"):
            require_bool(name, getattr(self, name))
        for name in ("stop_words", "bad_words"):
            require_strings(name, getattr(self, name))
        for name in ("stop_token_ids", "bad_token_ids", "allowed_token_ids"):
            require_token_ids(name, getattr(self, name))
        require_token_weights("logit_bias", self.logit_bias)


@takes_neutral(CHAT_TEMPLATE)
@dataclass(slots=True)
class ChatTemplateConfig:
    """Changes to how messages become a prompt.

    Attributes:
        model_name: LMDeploy's name of a built-in template. None is the only value: templates come
            with the checkpoint.
        chat_template: a Jinja text used instead of the checkpoint's template.
        system: system message of conversations that bring none.
    """

    model_name: None = None
    _: KW_ONLY
    chat_template: str | None = None
    system: str | None = None

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Raises InvalidParameterError naming a field outside its domain; also done before use."""
        expected = "None (templates come with the checkpoint, or as chat_template)"
        require(self.model_name is None, "ChatTemplateConfig.model_name", expected, self.model_name)
        for name in ("chat_template", "system"):
            value = getattr(self, name)
            require(value is None or isinstance(value, str), name, "a str", value)
        text = self.chat_template
        is_template = text is None or "{{" in text or "{%" in text
        require(is_template, "chat_template", "a Jinja template", text)


@dataclass(frozen=True)
class RequestTimes:
    """When a request reached each stage: seconds of ``time.monotonic()``; 0 = it did not."""

    arrival: float
    first_scheduled: float
    first_token: float
    finish: float


@dataclass
class Response:
    """The answer to one prompt (one of n), or the next piece of it when streaming.

    Attributes:
        text: the answer.
        generate_token_len: tokens generated so far.
        input_token_len: tokens of the prompt.
        finish_reason: "stop", "length", "cancelled" or "error"; None while the answer grows.
        token_ids: generated tokens, without the one that stopped the answer.
        logprobs: per generated token, token id -> raw log probability, the chosen token first.
        prompt_logprobs: the same for the prompt's tokens after the first.
        logits: float32 [rows, vocab_size] that crosses by DLPack (``numpy.from_dlpack``,
            ``torch.from_dlpack``).
        last_hidden_state: float32 [rows, hidden_size], likewise.
        index: the prompt's place in the list it came in.
        choice: which of the prompt's n answers this is.
        cached_tokens: tokens of the prompt that the prefix cache supplied.
        preemptions: how often the answer had to give its KV cache to another, to go on later.
        stop_word: the one that ended the answer, if one did.
        error_message: set with finish_reason "error".
        times: set with finish_reason, and in the piece that has the first token.
    """

    text: str
    generate_token_len: int
    input_token_len: int
    finish_reason: str | None = None
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, float]] | None = None
    prompt_logprobs: list[dict[int, float]] | None = None
    logits: Any = None
    last_hidden_state: Any = None
    index: int = 0
    choice: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    stop_word: str | None = None
    error_message: str | None = None
    times: RequestTimes | None = None
