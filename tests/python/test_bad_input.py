# SPDX-License-Identifier: Apache-2.0
"""A user's mistake is a typed error naming the argument, and the engine serves the next request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from manymind import (
    ChatTemplateConfig,
    EngineConfig,
    GenerationConfig,
    Pipeline,
    pipeline,
)
from manymind.errors import (
    ChatTemplateError,
    InvalidParameterError,
    ManymindError,
    PromptTooLongError,
)

NAN = float("nan")

BAD_GENERATION: list[tuple[str, Any]] = [
    ("n", 0),
    ("n", 1.5),
    ("n", True),
    ("n", 2**40),
    ("max_new_tokens", -1),
    ("max_new_tokens", "ten"),
    ("min_new_tokens", 1000),
    ("temperature", -0.1),
    ("temperature", NAN),
    ("temperature", float("inf")),
    ("top_k", -1),
    ("top_p", 0.0),
    ("top_p", 1.1),
    ("top_p", NAN),
    ("min_p", -0.5),
    ("repetition_penalty", 0.0),
    ("presence_penalty", 1e6),
    ("frequency_penalty", NAN),
    ("logit_bias", [1, 2]),
    ("logit_bias", {-1: 1.0}),
    ("logit_bias", {1: NAN}),
    ("logit_bias", {1: "heavy"}),
    ("random_seed", -1),
    ("random_seed", 2**64),
    ("random_seed", 1.0),
    ("stop_words", "stop"),
    ("stop_words", [""]),
    ("stop_words", [1]),
    ("bad_words", ["fine", None]),
    ("stop_token_ids", [-1]),
    ("stop_token_ids", 5),
    ("bad_token_ids", ["a"]),
    ("allowed_token_ids", [2**40]),
    ("ignore_eos", "yes"),
    ("do_sample", 1),
    ("skip_special_tokens", None),
    ("logprobs", -1),
    ("prompt_logprobs", "all"),
    ("output_logits", "some"),
    ("output_last_hidden_state", True),
    ("priority", 0.5),
    ("timeout", 0),
    ("cache_salt", None),
]

BAD_ENGINE: list[tuple[str, Any]] = [
    ("backend", 3),
    ("num_threads", -1),
    ("tp", 0),
    ("dtype", "float64"),
    ("compute_dtype", "int8"),
    ("kv_cache_dtype", "int4"),
    ("block_size", -16),
    ("session_len", "long"),
    ("max_batch_size", 0),
    ("max_prefill_token_num", 0),
    ("cache_max_entry_count", 1.0),
    ("cache_max_entry_count", -0.1),
    ("num_kv_blocks", -1),
    ("enable_prefix_caching", "on"),
    ("max_queue_size", 0),
    ("plugin_paths", "plugin.so"),
    ("backend_config", {"a": 1}),
    ("backend_config", ["a"]),
]


@pytest.mark.parametrize(("field", "value"), BAD_GENERATION)
def test_generation_config(field: str, value: object) -> None:
    with pytest.raises(InvalidParameterError, match=field):
        GenerationConfig(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("field", "value"), BAD_ENGINE)
def test_engine_config(field: str, value: object) -> None:
    with pytest.raises(InvalidParameterError, match=field):
        EngineConfig(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["chat_template", "system"])
def test_template_config(field: str) -> None:
    with pytest.raises(InvalidParameterError, match=field):
        ChatTemplateConfig(**{field: 7})  # type: ignore[arg-type]


def test_a_field_changed_later_is_checked_before_use(smollm2: Pipeline) -> None:
    config = GenerationConfig(max_new_tokens=1)
    config.top_k = "few"  # type: ignore[assignment]
    with pytest.raises(InvalidParameterError, match="top_k"):
        smollm2("hi", config)
    _still_serves(smollm2)


def test_unknown_settings_are_named() -> None:
    with pytest.raises(TypeError, match="logits_processors"):
        GenerationConfig(logits_processors=[])  # type: ignore[call-arg]


BAD_PROMPTS: list[tuple[str, Any]] = [
    ("prompts", None),
    ("prompts", 7),
    ("prompts", b"bytes"),
    ("prompts", {"role": "user", "content": "a mapping, not a list"}),
    (r"prompts\[1\]", ["fine", 7]),
    (r"prompts\[0\]", [[]]),
    (r"messages\[0\]\.role", [{"role": "wizard", "content": "hi"}]),
    (r"messages\[0\]\.role", [{"content": "hi"}]),
    (r"messages\[1\]\.content", [{"role": "user", "content": "a"}, {"role": "user", "content": 5}]),
    ("image_url", [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]),
    ("Unicode", "half a pair: \ud800"),
]


@pytest.mark.parametrize(("name", "prompts"), BAD_PROMPTS)
def test_prompts(smollm2: Pipeline, name: str, prompts: object) -> None:
    with pytest.raises(InvalidParameterError, match=name):
        smollm2(prompts)
    with pytest.raises(InvalidParameterError, match=name):
        next(smollm2.stream_infer(prompts))
    _still_serves(smollm2)


CALLS: list[tuple[str, Callable[[Pipeline], Any]]] = [
    ("prompt", lambda pipe: pipe.generate([[]])),
    ("token", lambda pipe: pipe.generate([[1, 10**6]])),
    ("token", lambda pipe: pipe.generate([[1, -5]])),
    ("stop_token_ids", lambda pipe: pipe("hi", GenerationConfig(stop_token_ids=[10**6]))),
    ("bad_token_ids", lambda pipe: pipe("hi", GenerationConfig(bad_token_ids=[10**6]))),
    ("allowed_token_ids", lambda pipe: pipe("hi", GenerationConfig(allowed_token_ids=[10**6]))),
    ("logit_bias", lambda pipe: pipe("hi", GenerationConfig(logit_bias={10**6: 1.0}))),
    ("logprobs", lambda pipe: pipe("hi", GenerationConfig(logprobs=10**5))),
    ("n", lambda pipe: pipe("hi", GenerationConfig(n=10**4))),
    ("gen_config", lambda pipe: pipe(["a", "b"], [GenerationConfig()])),
    ("gen_config", lambda pipe: pipe("a", {"max_new_tokens": 1})),
    ("gen_config", lambda pipe: pipe(["a"], [None])),
    ("n", lambda pipe: pipe.chat("hi", gen_config=GenerationConfig(n=2))),
    ("input_ids", lambda pipe: pipe.get_ppl([5])),
    ("input_ids", lambda pipe: pipe.get_ppl([[5, 6], ["a", "b"]])),
    ("input_ids", lambda pipe: pipe.generate("text")),
]


@pytest.mark.parametrize(("name", "call"), CALLS)
def test_requests(smollm2: Pipeline, name: str, call: Callable[[Pipeline], Any]) -> None:
    with pytest.raises(InvalidParameterError, match=name):
        call(smollm2)
    _still_serves(smollm2)


def test_prompt_too_long(smollm2: Pipeline) -> None:
    with pytest.raises(PromptTooLongError, match="2048"):
        smollm2("word " * 3000)
    with pytest.raises(PromptTooLongError):
        smollm2(["short", "word " * 3000])
    _still_serves(smollm2)


def test_messages_need_a_chat_template(gemma_path: str) -> None:
    messages = [{"role": "user", "content": "hi"}]
    with pipeline(gemma_path, EngineConfig(session_len=64)) as pipe:
        with pytest.raises(InvalidParameterError, match="chat template"):
            pipe(messages)
        assert pipe("1, 2, 3,", GenerationConfig(max_new_tokens=1)).token_ids


def test_everything_forbidden(smollm2: Pipeline) -> None:
    config = GenerationConfig(max_new_tokens=2, allowed_token_ids=[5], bad_token_ids=[5])
    with pytest.raises(ManymindError):
        smollm2("hi", config)
    _still_serves(smollm2)


def test_bad_log_level(smollm2_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidParameterError, match="log_level"):
        pipeline(smollm2_path, log_level="chatty")
    monkeypatch.setenv("MANYMIND_LOG_LEVEL", "chatty")
    with pytest.raises(InvalidParameterError, match="MANYMIND_LOG_LEVEL"):
        pipeline(smollm2_path)


def test_bad_chat_templates(smollm2_path: str) -> None:
    small = EngineConfig(session_len=128)
    with pytest.raises(ChatTemplateError, match="template"):
        pipeline(smollm2_path, small, ChatTemplateConfig("{% for %}"))
    with pipeline(smollm2_path, small, ChatTemplateConfig("{{ messages[9].content }}")) as pipe:
        with pytest.raises(ChatTemplateError):
            pipe("hi")
        assert pipe("hi", GenerationConfig(max_new_tokens=1), do_preprocess=False).token_ids


def _still_serves(pipe: Pipeline) -> None:
    answer = pipe("What is the capital of Japan?", GenerationConfig(max_new_tokens=8))
    assert "Tokyo" in answer.text
