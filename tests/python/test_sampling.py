# SPDX-License-Identifier: Apache-2.0
"""Every field of GenerationConfig changes what it says: there is no accepted-and-ignored one."""

from __future__ import annotations

import dataclasses
import threading
from contextlib import closing

import numpy as np
import pytest
from support import FieldCoverage, wait_until

from manymind import EngineConfig, GenerationConfig, Pipeline, Response, pipeline
from manymind.errors import InvalidParameterError, RequestTimeoutError
from manymind.sampling import text_rules

STORY = "Write a story about a lighthouse."
CAPITAL = "What is the capital of Japan?"
LOOP = "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"

covers = FieldCoverage()


def ask(pipe: Pipeline, prompt: str = STORY, *, plain: bool = False, **fields: object) -> Response:
    config = GenerationConfig(**{"max_new_tokens": 16, **fields})  # type: ignore[arg-type]
    answer = pipe(prompt, config, do_preprocess=not plain)
    assert isinstance(answer, Response)
    return answer


@pytest.fixture(scope="module")
def greedy(smollm2: Pipeline) -> list[int]:
    """The likeliest continuation of STORY."""
    return ask(smollm2).token_ids


@covers("max_new_tokens", "ignore_eos")
def test_max_new_tokens_and_ignore_eos(smollm2: Pipeline) -> None:
    stopped = ask(smollm2, CAPITAL, max_new_tokens=64)
    assert stopped.finish_reason == "stop"
    length = stopped.generate_token_len + 5
    ignored = ask(smollm2, CAPITAL, max_new_tokens=length, ignore_eos=True)
    assert ignored.finish_reason == "length"
    assert ignored.generate_token_len == length
    assert ignored.token_ids[: stopped.generate_token_len] == stopped.token_ids
    assert ask(smollm2, max_new_tokens=0).token_ids == []


@covers("stop_token_ids", "min_new_tokens")
def test_stop_tokens_and_minimum(smollm2: Pipeline, greedy: list[int]) -> None:
    stop = greedy[3]
    first = greedy.index(stop)
    stopped = ask(smollm2, stop_token_ids=[stop])
    assert stopped.token_ids == greedy[:first]
    assert stopped.finish_reason == "stop"
    later = ask(smollm2, stop_token_ids=[stop], min_new_tokens=8)
    assert later.generate_token_len >= 8
    assert stop not in later.token_ids[:8]


@covers("stop_words", "include_stop_str_in_output")
def test_stop_words_end_the_text_wherever_tokens_are_cut(smollm2: Pipeline) -> None:
    text = ask(smollm2, max_new_tokens=24).text
    middle = len(text) // 2
    for size in (1, 3, 9):
        word = text[middle : middle + size]
        config = {"max_new_tokens": 24, "stop_words": [word, "not in the text"]}
        stopped = ask(smollm2, **config)
        assert stopped.text == text[: text.index(word)]
        assert stopped.finish_reason == "stop"
        kept = ask(smollm2, include_stop_str_in_output=True, **config)
        assert kept.text == stopped.text + word
        pieces = smollm2.stream_infer(STORY, GenerationConfig(**config))  # type: ignore[arg-type]
        assert "".join(piece.text for piece in pieces) == stopped.text


@covers("stop_words", "min_new_tokens")
def test_a_stop_word_within_the_minimum_ends_nothing(smollm2: Pipeline, greedy: list[int]) -> None:
    decode = smollm2.runtime.tokenizer.decode
    word = decode(greedy[2:4])
    assert word not in decode(greedy[4:])
    stopped = ask(smollm2, stop_words=[word])
    assert stopped.text == decode(greedy).partition(word)[0]
    for least in (4, 8):
        whole = ask(smollm2, stop_words=[word], min_new_tokens=least)
        assert (whole.token_ids, whole.text) == (greedy, decode(greedy))
    # Completed by the first token behind the minimum.
    assert ask(smollm2, stop_words=[word], min_new_tokens=3).text == stopped.text


@covers("do_sample", "temperature", "top_k", "top_p", "min_p")
def test_sampling_narrows_down_to_greedy(smollm2: Pipeline, greedy: list[int]) -> None:
    wide = {"do_sample": True, "temperature": 1.5, "top_k": 0, "random_seed": 3}
    assert ask(smollm2, **wide).token_ids != greedy
    assert ask(smollm2, **{**wide, "do_sample": False}).token_ids == greedy
    assert ask(smollm2, **{**wide, "temperature": 0.0}).token_ids == greedy
    assert ask(smollm2, **{**wide, "temperature": 0.01}).token_ids == greedy
    assert ask(smollm2, **{**wide, "top_k": 1}).token_ids == greedy
    assert ask(smollm2, **{**wide, "top_p": 1e-6}).token_ids == greedy
    assert ask(smollm2, **{**wide, "min_p": 1.0}).token_ids == greedy


@pytest.mark.parametrize(("field", "value"), [("top_k", 3), ("top_p", 0.5), ("min_p", 0.2)])
def test_filters_keep_to_their_set(smollm2: Pipeline, field: str, value: float) -> None:
    fields = {"do_sample": True, "temperature": 1.0, "top_k": 0, field: value}
    answer = ask(
        smollm2,
        max_new_tokens=48,
        ignore_eos=True,
        output_logits="generation",
        random_seed=1,
        **fields,
    )
    logits = np.asarray(answer.logits, dtype=np.float64)
    for row, token in zip(logits, answer.token_ids, strict=True):
        probability = np.exp(row - row.max())
        probability /= probability.sum()
        larger = probability[probability > probability[token]]
        assert {
            "top_k": len(larger) < 3,
            "top_p": larger.sum() < 0.5 + 1e-6,
            "min_p": probability[token] >= 0.2 * probability.max() - 1e-9,
        }[field]


@covers("random_seed", "n")
def test_seed_repeats_and_n_differ(smollm2: Pipeline) -> None:
    wide = {"do_sample": True, "temperature": 1.5, "top_k": 0}
    first = ask(smollm2, random_seed=11, **wide).token_ids
    assert ask(smollm2, random_seed=11, **wide).token_ids == first
    assert ask(smollm2, random_seed=12, **wide).token_ids != first
    assert ask(smollm2, **wide).token_ids != ask(smollm2, **wide).token_ids
    config = GenerationConfig(n=3, max_new_tokens=16, random_seed=11, **wide)  # type: ignore[arg-type]
    group = smollm2(STORY, config)
    assert group[0].token_ids == first
    assert len({tuple(answer.token_ids) for answer in group}) == 3


def test_sampled_frequencies_follow_the_distribution(smollm2: Pipeline) -> None:
    row = np.asarray(ask(smollm2, max_new_tokens=1, output_logits="generation").logits)[0]
    probability = np.exp(row.astype(np.float64) - row.max())
    probability /= probability.sum()
    draws = 400
    config = [
        GenerationConfig(
            max_new_tokens=1,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            random_seed=seed,
            ignore_eos=True,
        )
        for seed in range(draws)
    ]
    found = [answer.token_ids[0] for answer in smollm2([STORY] * draws, config)]
    for token in np.argsort(probability)[-3:]:
        share = found.count(int(token)) / draws
        error = np.sqrt(probability[token] * (1 - probability[token]) / draws)
        assert abs(share - probability[token]) < 5 * error + 1 / draws


@covers("repetition_penalty", "presence_penalty", "frequency_penalty")
@pytest.mark.parametrize(
    "penalty",
    [{"repetition_penalty": 50.0}, {"presence_penalty": 100.0}, {"frequency_penalty": 100.0}],
)
def test_penalties_stop_a_loop(smollm2: Pipeline, penalty: dict[str, float]) -> None:
    plain = ask(smollm2, LOOP, plain=True)
    assert len(set(plain.token_ids)) <= 3
    answer = ask(smollm2, LOOP, plain=True, ignore_eos=True, **penalty)
    assert len(set(answer.token_ids)) == len(answer.token_ids)
    in_prompt = set(smollm2.runtime.tokenizer.encode(LOOP))
    if "repetition_penalty" in penalty:
        assert not in_prompt & set(answer.token_ids)
    else:
        assert answer.token_ids[0] == plain.token_ids[0]  # the prompt is not counted


def test_frequency_penalty_grows_with_the_count(smollm2: Pipeline) -> None:
    def repeats(**fields: float) -> int:
        ids = ask(smollm2, LOOP, plain=True, max_new_tokens=40, ignore_eos=True, **fields).token_ids
        return len(ids) - len(set(ids))

    assert repeats(presence_penalty=1.0) > repeats(frequency_penalty=1.0)


@covers("logit_bias", "bad_words", "bad_token_ids", "allowed_token_ids")
def test_biases_and_bans(smollm2: Pipeline, greedy: list[int]) -> None:
    assert set(ask(smollm2, logit_bias={1234: 1000.0}).token_ids) == {1234}
    banned = greedy[0]
    assert banned not in ask(smollm2, logit_bias={banned: float("-inf")}).token_ids
    assert banned not in ask(smollm2, bad_token_ids=[banned]).token_ids
    word = smollm2.runtime.tokenizer.decode([banned])
    assert banned not in ask(smollm2, bad_words=[word]).token_ids
    allowed = [200, 300, 400]
    assert set(ask(smollm2, allowed_token_ids=allowed).token_ids) <= set(allowed)


@covers("bad_words")
def test_words_of_several_tokens_are_not_written(smollm2: Pipeline, greedy: list[int]) -> None:
    tokenizer = smollm2.runtime.tokenizer
    for begin, length in ((0, 3), (1, 2), (4, 4)):
        ids = greedy[begin : begin + length]
        word = tokenizer.decode(ids)
        assert tokenizer.encode(word, add_special_tokens=False) == ids
        # Its first tokens may still be drawn.
        answer = ask(smollm2, bad_words=[word.lstrip(" ")])
        assert answer.token_ids[: begin + length - 1] == greedy[: begin + length - 1]
        assert answer.token_ids[begin + length - 1] != ids[-1]
        assert word not in answer.text


def test_bad_words_with_a_space_before_them_and_without(smollm2: Pipeline) -> None:
    def encode(word: str) -> list[int]:
        return smollm2.runtime.tokenizer.encode(word, add_special_tokens=False)

    several, one = "antidisestablishment", "house"
    assert len(encode(several)) > 2 < len(encode(f" {several}"))
    assert len(encode(one)) == len(encode(f" {one}")) == 1
    for space in ("", " ", "  "):
        config = GenerationConfig(bad_words=[space + several, space + one, " "])
        (params,) = smollm2.runtime.sampling_params([config])
        sequences = [encode(several), encode(f" {several}")]
        assert params.bad_token_sequences == sequences
        assert params.bad_token_ids == [*encode(one), *encode(f" {one}"), *encode(" ")]
    # Of words one of which ends as the other does, as the vocabularies of SentencePiece have them.
    rules = text_rules(config, lambda word: [7] * word.count(" ") + [8, 9], smollm2.runtime.guides)
    assert rules.bad_words == [[8, 9], [8, 9], [7, 8, 9]]
    with pytest.raises(InvalidParameterError, match="bad_words: expected words with a token"):
        text_rules(config, lambda _: [], smollm2.runtime.guides)


@covers("skip_special_tokens")
def test_special_tokens_are_shown_on_request(smollm2: Pipeline) -> None:
    fields = {"max_new_tokens": 40, "ignore_eos": True}
    assert "<|im_end|>" not in ask(smollm2, CAPITAL, **fields).text
    assert "<|im_end|>" in ask(smollm2, CAPITAL, skip_special_tokens=False, **fields).text


@covers("logprobs", "prompt_logprobs")
def test_logprobs_are_those_of_the_raw_logits(smollm2: Pipeline) -> None:
    answer = ask(
        smollm2, logprobs=3, output_logits="all", prompt_logprobs=2, temperature=2.0, do_sample=True
    )
    assert answer.logprobs is not None
    assert answer.prompt_logprobs is not None
    logits = np.asarray(answer.logits, dtype=np.float64)
    expected = logits - logits.max(axis=1, keepdims=True)
    expected -= np.log(np.exp(expected).sum(axis=1, keepdims=True))
    prompt = len(answer.prompt_logprobs)
    assert prompt == answer.input_token_len - 1
    assert logits.shape[0] == answer.input_token_len + answer.generate_token_len - 1
    for row, reported in zip(expected[prompt:], answer.logprobs, strict=True):
        _check_logprobs(row, reported, 3)
    assert [next(iter(row)) for row in answer.logprobs] == answer.token_ids
    for row, reported in zip(expected[:prompt], answer.prompt_logprobs, strict=True):
        _check_logprobs(row, reported, 2)
    assert ask(smollm2).logprobs is None
    assert ask(smollm2).prompt_logprobs is None


def _check_logprobs(row: np.ndarray, reported: dict[int, float], alternatives: int) -> None:
    assert alternatives <= len(reported) <= alternatives + 1
    for token, value in reported.items():
        assert value == pytest.approx(row[token], abs=1e-3)
    top = set(np.argsort(row)[-alternatives:].tolist())
    assert len(top & set(reported)) >= alternatives - 1  # ties aside


@covers("output_logits", "output_last_hidden_state")
def test_output_rows(smollm2: Pipeline) -> None:
    answer = ask(smollm2, output_last_hidden_state="generation", output_logits="generation")
    assert answer.last_hidden_state.shape == (16, 576)
    assert answer.logits.shape[0] == 16
    everything = ask(smollm2, output_last_hidden_state="all")
    assert everything.logits is None
    assert everything.last_hidden_state.shape[0] == everything.input_token_len + 15
    np.testing.assert_array_equal(everything.last_hidden_state[-16:], answer.last_hidden_state)


def test_no_answer_ends_in_half_a_character(smollm2: Pipeline) -> None:
    """Cut by length inside an emoji's bytes: the text leaves them out, the ids keep them."""
    tokenizer = smollm2.runtime.tokenizer
    *begin, _ = tokenizer.encode("\U0001d518", add_special_tokens=False)
    assert tokenizer.decode(begin) == "\ufffd"
    config = GenerationConfig(allowed_token_ids=begin[:1], max_new_tokens=1)
    pieces = list(smollm2.stream_infer(STORY, config))
    assert "".join(piece.text for piece in pieces) == ""
    assert [token_id for piece in pieces for token_id in piece.token_ids] == begin[:1]
    answer = ask(smollm2, allowed_token_ids=begin[:1], max_new_tokens=3)
    # What no later byte can complete is an error of the model's and stays visible.
    assert answer.text == "\ufffd\ufffd"
    assert answer.token_ids == begin[:1] * 3
    assert answer.finish_reason == "length"


@covers("priority")
def test_priority_decides_who_waits(smollm2_path: str) -> None:
    with pipeline(smollm2_path, EngineConfig(session_len=512, max_batch_size=1)) as pipe:
        finished: list[str] = []

        def run(name: str, priority: int, tokens: int) -> None:
            ask(pipe, STORY, priority=priority, max_new_tokens=tokens, ignore_eos=True)
            finished.append(name)

        requests = [("running", 0, 200), ("low", 1, 20), ("high", 2, 20)]
        threads = [threading.Thread(target=run, args=request) for request in requests]
        for number, thread in enumerate(threads):
            thread.start()
            arrived = {"running": 1, "waiting": number}
            wait_until(lambda arrived=arrived: arrived.items() <= pipe.stats().items())  # type: ignore[misc]
        for thread in threads:
            thread.join()
        assert finished.index("high") < finished.index("low")


@covers("timeout")
def test_timeout_fails_the_request(smollm2: Pipeline) -> None:
    with pytest.raises(RequestTimeoutError, match=r"timeout: expected .* within 0.05 s"):
        ask(smollm2, max_new_tokens=2000, ignore_eos=True, timeout=0.05)
    assert ask(smollm2, timeout=60.0).finish_reason == "length"
    config = GenerationConfig(max_new_tokens=2000, ignore_eos=True, timeout=0.05)
    with pytest.raises(RequestTimeoutError, match="timeout"):
        list(smollm2.stream_infer(STORY, config))


@covers("tenant", "tenant_weight")
def test_tenants_share_by_weight(smollm2_path: str) -> None:
    """One place, two tenants with four requests each, all of which wait: the heavier one is served
    first.
    """
    with pipeline(smollm2_path, EngineConfig(session_len=1024, max_batch_size=1)) as pipe:
        served: list[tuple[float, str]] = []

        def run(name: str, weight: float) -> None:
            answer = ask(
                pipe, STORY, tenant=name, tenant_weight=weight, max_new_tokens=15, ignore_eos=True
            )
            assert answer.times is not None
            served.append((answer.times.first_scheduled, name))

        waiting = [("light", 0.25)] * 4 + [("heavy", 4.0)] * 4
        threads = [threading.Thread(target=run, args=item) for item in waiting]
        occupant = GenerationConfig(max_new_tokens=900, ignore_eos=True)
        with closing(pipe.stream_infer(STORY, occupant)) as stream:
            next(stream)
            for thread in threads:
                thread.start()
            wait_until(lambda: pipe.stats()["waiting"] == len(threads))
        for thread in threads:
            thread.join()
        names = [name for _, name in sorted(served)]
        # A share is owed from the first step on: one of the light ones may be served before.
        assert names[-3:] == ["light"] * 3, names


@covers("cache_salt")
def test_cache_salt_separates_prefixes(smollm2: Pipeline) -> None:
    prompt = "An unusual prompt that no other test sends, long enough to fill a few blocks. " * 3
    assert ask(smollm2, prompt, cache_salt="a").cached_tokens < 40
    assert ask(smollm2, prompt, cache_salt="a").cached_tokens > 40
    assert ask(smollm2, prompt, cache_salt="b").cached_tokens == 0


@covers("response_format")
def test_response_format_restricts_the_text(smollm2: Pipeline) -> None:
    choices = ["lighthouse", "seventeen"]
    answer = ask(smollm2, response_format={"type": "choice", "choice": choices})
    assert answer.text in choices


def test_every_field_is_covered() -> None:
    assert {field.name for field in dataclasses.fields(GenerationConfig)} == covers.fields
