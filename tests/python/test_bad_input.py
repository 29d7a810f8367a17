# SPDX-License-Identifier: Apache-2.0
"""A user's mistake is a typed error naming the argument, and the engine serves the next request."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
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
    FetchError,
    InvalidParameterError,
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
    ("tenant", 5),
    ("tenant_weight", 0.0),
    ("tenant_weight", NAN),
    ("cache_salt", None),
    # What can be read only once would be empty after the check.
    ("stop_words", iter(["a"])),
    ("bad_words", (word for word in ["a"])),
    ("stop_token_ids", iter([1])),
    ("bad_token_ids", iter([1])),
    ("allowed_token_ids", map(int, "12")),
    ("stop_token_ids", {1: 2}),
    ("output_logits", np.zeros(2)),
    ("response_format", {"type": []}),
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
    ("max_prefill_token_num", -1),
    ("max_prefill_token_num", 31),
    ("cache_max_entry_count", 1.0),
    ("cache_max_entry_count", -0.1),
    ("num_kv_blocks", -1),
    ("enable_prefix_caching", "on"),
    ("max_queue_size", 0),
    ("plugin_paths", "plugin.so"),
    ("plugin_paths", iter(["plugin.so"])),
    ("dtype", ["float32"]),
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
    with pytest.raises(InvalidParameterError, match="chat_template: expected a Jinja template"):
        ChatTemplateConfig(chat_template="qwen")


def test_a_field_changed_later_is_checked_before_use(smollm2: Pipeline) -> None:
    config = GenerationConfig(max_new_tokens=1)
    config.top_k = "few"  # type: ignore[assignment]
    with pytest.raises(InvalidParameterError, match="top_k"):
        smollm2("hi", config)
    _still_serves(smollm2)


def test_a_step_holds_every_sequence() -> None:
    expected = r"max_prefill_token_num: expected 0 or at least max_batch_size \(64\), found 32"
    with pytest.raises(InvalidParameterError, match=expected):
        EngineConfig(max_batch_size=64, max_prefill_token_num=32)
    assert EngineConfig(max_batch_size=1024).max_prefill_token_num == 0


@pytest.mark.parametrize("kind", [EngineConfig, GenerationConfig, ChatTemplateConfig])
def test_no_setting_is_set_by_a_misspelt_name(kind: Any) -> None:
    with pytest.raises(TypeError, match="max_token"):
        kind(max_token=1)
    with pytest.raises(AttributeError, match="max_token"):
        kind().max_token = 1


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("model_path", {"model_path": None}),
        ("model_path", {"model_path": 3}),
        ("backend_config", {"backend_config": {"tp": 1}}),
        ("backend_config", {"backend_config": GenerationConfig()}),
        ("chat_template_config", {"chat_template_config": "abc"}),
        ("log_level", {"log_level": 3}),
        ("pipeline.backend", {"backend": "cpu"}),
    ],
)
def test_arguments_of_pipeline(smollm2_path: str, name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameterError, match=f"^{name}: "):
        pipeline(**{"model_path": smollm2_path, **arguments})


@pytest.mark.parametrize("name", ["", "a" * 5000, "a\0b", "no/such/model"])
def test_names_that_are_no_model(name: str) -> None:
    with pytest.raises(FetchError, match=r"^model: expected a folder") as caught:
        pipeline(name)
    assert len(str(caught.value)) < 300


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


NEVER = float("-inf")
NO_9 = {9: NEVER}


def masked(**fields: Any) -> GenerationConfig:
    return GenerationConfig(max_new_tokens=4, **fields)


def all_tokens(pipe: Pipeline) -> range:
    return range(pipe.runtime.engine.vocab_size)


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
    ("input_ids", lambda pipe: pipe.generate(5)),
    (r"input_ids\[0\]", lambda pipe: pipe.generate([None])),
    (r"input_ids\[0\]", lambda pipe: pipe.generate([iter([1, 2])])),
    ("input_ids", lambda pipe: pipe.generate(iter([[1, 2]]))),
    (r"input_ids\[0\]", lambda pipe: pipe.generate(np.zeros((1, 2)))),
    ("input_ids", lambda pipe: pipe.get_ppl(5)),
    ("input_ids", lambda pipe: pipe.get_ppl(None)),
    ("prompts", lambda pipe: pipe(iter(["hi"]))),
    ("session", lambda pipe: pipe.chat("hi", session=3)),
    ("gen_config", lambda pipe: pipe.chat("hi", gen_config=3)),
    ("do_preprocess", lambda pipe: pipe("hi", do_preprocess=None)),
    ("use_tqdm", lambda pipe: pipe("hi", use_tqdm="yes")),
    ("infer.max_new_tokens", lambda pipe: pipe("hi", max_new_tokens=3)),
    # 9 is not end-of-sequence, 2 is.
    ("allowed_token_ids", lambda pipe: pipe("hi", masked(allowed_token_ids=[9], logit_bias=NO_9))),
    ("allowed_token_ids", lambda pipe: pipe("hi", masked(allowed_token_ids=[2], min_new_tokens=3))),
    ("bad_token_ids", lambda pipe: pipe("hi", masked(bad_token_ids=all_tokens(pipe)))),
    (
        "logit_bias",
        lambda pipe: pipe("hi", masked(logit_bias=dict.fromkeys(all_tokens(pipe), NEVER))),
    ),
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


def test_a_huge_n_is_refused_before_anything_is_made_for_it(smollm2: Pipeline) -> None:
    start = time.process_time()
    with pytest.raises(InvalidParameterError, match=r"^n: expected at most max_batch_size \(32\)"):
        smollm2("hi", GenerationConfig(n=2**31 - 1))
    assert time.process_time() - start < 5


def test_the_only_token_left_is_generated(smollm2: Pipeline) -> None:
    eos = smollm2.runtime.tokenizer.eos_token_ids[0]
    answer = smollm2("hi", masked(allowed_token_ids=[9, eos], bad_token_ids=[0], min_new_tokens=3))
    assert answer.token_ids[:3] == [9, 9, 9]
    assert smollm2("hi", masked(allowed_token_ids=[eos])).token_ids == []


def test_numbers_and_arrays_of_numpy(smollm2: Pipeline) -> None:
    prompt = [1, 100, 200, 300]
    plain = {"max_new_tokens": 6, "random_seed": 3, "temperature": 0.5, "bad_token_ids": [7, 8]}
    numpy = {
        "max_new_tokens": np.int64(6),
        "random_seed": np.uint64(3),
        "temperature": np.float32(0.5),
        "bad_token_ids": np.array([7, 8]),
        "logit_bias": {np.int32(5): np.float64(0.0)},
        "n": np.int32(1),
    }
    expected = smollm2.generate([prompt], GenerationConfig(do_sample=True, **plain))  # type: ignore[arg-type]
    config = GenerationConfig(do_sample=True, **numpy)  # type: ignore[arg-type]
    assert smollm2.generate(np.array([prompt]), config)[0].token_ids == expected[0].token_ids
    assert smollm2.generate([np.array(prompt)], config)[0].token_ids == expected[0].token_ids
    assert smollm2.get_ppl(np.array(prompt)) == smollm2.get_ppl(prompt)
    assert EngineConfig(session_len=np.int64(64), cache_max_entry_count=np.float32(0.5))


def test_bad_log_level(smollm2_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidParameterError, match="log_level"):
        pipeline(smollm2_path, log_level="chatty")
    monkeypatch.setenv("MANYMIND_LOG_LEVEL", "chatty")
    with pytest.raises(InvalidParameterError, match="MANYMIND_LOG_LEVEL"):
        pipeline(smollm2_path)


def test_bad_chat_templates(smollm2_path: str) -> None:
    small = EngineConfig(session_len=128)
    with pytest.raises(ChatTemplateError, match="template"):
        pipeline(smollm2_path, small, ChatTemplateConfig(chat_template="{% for %}"))
    broken = ChatTemplateConfig(chat_template="{{ messages[9].content }}")
    with pipeline(smollm2_path, small, broken) as pipe:
        with pytest.raises(ChatTemplateError):
            pipe("hi")
        assert pipe("hi", GenerationConfig(max_new_tokens=1), do_preprocess=False).token_ids


def _still_serves(pipe: Pipeline) -> None:
    answer = pipe("What is the capital of Japan?", GenerationConfig(max_new_tokens=8))
    assert "Tokyo" in answer.text
