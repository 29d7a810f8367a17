# SPDX-License-Identifier: Apache-2.0
"""The contract on real weights: a request's tokens depend on nothing but the request.

Each test changes one circumstance and compares with the same request alone on an idle engine.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from manymind import EngineConfig, GenerationConfig, Pipeline, pipeline

PROMPT = (
    "Here is a list of things a lighthouse keeper does on an ordinary day, with the reasons for "
    "each of them, written down for the successor who will arrive with the next supply ship. "
) * 3
NEW_TOKENS = 48
GREEDY = GenerationConfig(max_new_tokens=NEW_TOKENS, ignore_eos=True)
SAMPLED = GenerationConfig(
    max_new_tokens=NEW_TOKENS,
    ignore_eos=True,
    do_sample=True,
    temperature=1.2,
    top_k=0,
    top_p=0.95,
    repetition_penalty=1.1,
    random_seed=20,
)
BOTH = (GREEDY, SAMPLED)
CONFIGS = pytest.mark.parametrize("config", BOTH, ids=["greedy", "sampled"])

Tokens = list[int]


def start(path: Path, **fields: object) -> Pipeline:
    settings = {"session_len": 1024, "num_threads": 2, **fields}
    return pipeline(path, EngineConfig(**settings))  # type: ignore[arg-type]


def tokens(pipe: Pipeline, config: GenerationConfig) -> Tokens:
    ids: Tokens = pipe(PROMPT, config, do_preprocess=False).token_ids
    assert len(ids) == NEW_TOKENS
    return ids


@pytest.fixture(scope="module")
def alone(smollm2_path: Path) -> dict[int, Tokens]:
    """Tokens of each configuration, alone and cold."""
    expected = {}
    for config in BOTH:
        with start(smollm2_path, enable_prefix_caching=False) as pipe:
            expected[id(config)] = tokens(pipe, config)
    assert expected[id(GREEDY)] != expected[id(SAMPLED)]
    return expected


@CONFIGS
def test_in_a_batch_of_32(
    smollm2_path: Path, alone: dict[int, Tokens], config: GenerationConfig
) -> None:
    others = [f"Question {n}: " + "tell me more " * (n % 7) for n in range(31)]
    other = GenerationConfig(max_new_tokens=NEW_TOKENS, do_sample=True, ignore_eos=True)
    with start(smollm2_path, max_batch_size=32) as pipe:
        prompts = [*others[:17], PROMPT, *others[17:]]
        configs = [*[other] * 17, config, *[other] * 14]
        answers = pipe(prompts, configs, do_preprocess=False)
        assert pipe.stats()["steps"] < 4 * NEW_TOKENS
    assert answers[17].token_ids == alone[id(config)]


@CONFIGS
def test_prefix_hit(smollm2_path: Path, alone: dict[int, Tokens], config: GenerationConfig) -> None:
    with start(smollm2_path) as pipe:
        assert tokens(pipe, config) == alone[id(config)]
        again = pipe(PROMPT, config, do_preprocess=False)
        assert again.cached_tokens > again.input_token_len // 2
        assert again.token_ids == alone[id(config)]
        # A hit that ends inside a block and inside the prompt.
        longer = pipe(PROMPT[: len(PROMPT) // 2] + " and", GREEDY, do_preprocess=False)
        assert longer.cached_tokens > 0
        assert tokens(pipe, config) == alone[id(config)]


@CONFIGS
@pytest.mark.parametrize("chunk", [7, 64])
def test_chunks(
    smollm2_path: Path, alone: dict[int, Tokens], config: GenerationConfig, chunk: int
) -> None:
    with start(smollm2_path, max_prefill_token_num=chunk, max_batch_size=4) as pipe:
        assert tokens(pipe, config) == alone[id(config)]


@CONFIGS
def test_preemption(smollm2_path: Path, alone: dict[int, Tokens], config: GenerationConfig) -> None:
    # The short ones grow into the memory that the last, and so least protected, request needs.
    with start(smollm2_path, num_kv_blocks=16, block_size=16, max_batch_size=8) as pipe:
        answers = pipe(["One", "Two", "Three", PROMPT], config, do_preprocess=False)
        assert pipe.stats()["preemptions"] > 0
    assert answers[-1].token_ids == alone[id(config)]


@CONFIGS
def test_one_thread(smollm2_path: Path, alone: dict[int, Tokens], config: GenerationConfig) -> None:
    with start(smollm2_path, num_threads=1) as pipe:
        assert tokens(pipe, config) == alone[id(config)]


@CONFIGS
def test_streaming_and_n(
    smollm2: Pipeline, alone: dict[int, Tokens], config: GenerationConfig
) -> None:
    pieces = smollm2.stream_infer(PROMPT, config, do_preprocess=False)
    assert [token for piece in pieces for token in piece.token_ids] == alone[id(config)]
    group = dataclasses.replace(config, n=2)
    assert smollm2(PROMPT, group, do_preprocess=False)[0].token_ids == alone[id(config)]


@CONFIGS
@pytest.mark.parametrize("kv_cache_dtype", ["int8", "float32"])
def test_batch_and_prefix_hit_with_other_kv_formats(
    smollm2_path: Path, config: GenerationConfig, kv_cache_dtype: str
) -> None:
    with start(smollm2_path, kv_cache_dtype=kv_cache_dtype, max_prefill_token_num=48) as pipe:
        cold = tokens(pipe, config)
        answers = pipe([PROMPT, "Something else", PROMPT], config, do_preprocess=False)
        assert answers[0].cached_tokens > 0
    assert [answers[0].token_ids, answers[2].token_ids] == [cold, cold]


@CONFIGS
def test_gemma_with_sliding_windows(gemma_path: Path, config: GenerationConfig) -> None:
    """Longer than the model's window of 512."""
    prompt = PROMPT * 6
    found = []
    for chunk in (512, 90):
        settings = EngineConfig(session_len=1024, max_prefill_token_num=chunk, max_batch_size=4)
        with pipeline(gemma_path, settings) as pipe:
            cold = pipe(prompt, config, do_preprocess=False)
            assert cold.input_token_len > 512
            warm = pipe([prompt, "A rainbow is", prompt], config, do_preprocess=False)
            assert warm[2].cached_tokens > 512
            found += [cold.token_ids, warm[0].token_ids, warm[2].token_ids]
    assert all(ids == found[0] for ids in found)
