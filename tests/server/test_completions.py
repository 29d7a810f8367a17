# SPDX-License-Identifier: Apache-2.0
"""``/v1/completions``, ``/tokenize`` and ``/detokenize``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
from serving import Held, RunningServer, running_server

import manymind
from manymind import EngineConfig, Pipeline, pipeline
from manymind.server.config import ServerConfig
from manymind.tokenizer import Tokenizer

PROMPT = "The capital of France is"


def complete(client: openai.OpenAI, prompt: Any = PROMPT, **options: Any) -> Any:
    options = {"temperature": 0, "max_tokens": 8, **options}
    return client.completions.create(model="smollm2", prompt=prompt, **options)


def texts_of_stream(stream: Any) -> list[str]:
    texts: dict[int, str] = {}
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
    return [texts[index] for index in sorted(texts)]


def test_continues_a_text(client: openai.OpenAI) -> None:
    answer = complete(client)
    assert "Paris" in answer.choices[0].text
    assert answer.object == "text_completion"
    assert answer.choices[0].finish_reason == "length"
    assert client.completions.create(model="smollm2", prompt=PROMPT).usage.completion_tokens <= 16


def test_all_forms_of_prompts(client: openai.OpenAI, smollm2: Pipeline) -> None:
    ids = smollm2.runtime.tokenizer.encode(PROMPT)
    alone = complete(client).choices[0].text
    assert complete(client, ids).choices[0].text == alone
    several = complete(client, [PROMPT, "One, two, three,"])
    assert [choice.index for choice in several.choices] == [0, 1]
    assert several.choices[0].text == alone
    assert [choice.text for choice in complete(client, [ids, ids]).choices] == [alone, alone]


def test_tokens_in_and_out(client: openai.OpenAI, smollm2: Pipeline) -> None:
    tokenizer = smollm2.runtime.tokenizer
    ids = tokenizer.encode(PROMPT)
    (whole,) = complete(client, ids, extra_body={"return_token_ids": True}).choices
    assert whole.prompt_token_ids == ids
    assert tokenizer.decode(whole.token_ids, True) == whole.text
    chunks = list(complete(client, PROMPT, stream=True, extra_body={"return_token_ids": True}))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert [choice.prompt_token_ids for choice in choices if choice.prompt_token_ids] == [ids]
    assert [token for choice in choices for token in choice.token_ids] == whole.token_ids
    assert not hasattr(complete(client).choices[0], "token_ids")


def test_a_stream_scores_a_long_prompt(smollm2_path: Path) -> None:
    """Which the engine computes in several steps."""
    prompt = [5 + i % 70 for i in range(200)]
    config = EngineConfig(session_len=256, max_batch_size=4, max_prefill_token_num=64)
    options: dict[str, Any] = {"model": "m", "prompt": prompt, "echo": True, "logprobs": 2}
    with (
        pipeline(smollm2_path, config) as pipe,
        running_server(pipe, ServerConfig("m", port=0)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        for count, n in ((0, 1), (3, 2)):
            options |= {"max_tokens": count, "n": n, "seed": 1}
            whole = client.completions.create(**options).choices
            found: dict[int, list[float | None]] = {}
            for chunk in client.completions.create(**options, stream=True):
                for choice in chunk.choices:
                    assert choice.logprobs is not None
                    rows = found.setdefault(choice.index, [])
                    rows += choice.logprobs.token_logprobs or []
            assert len(found) == len(whole) == n
            for choice in whole:
                assert choice.logprobs is not None
                expected = choice.logprobs.token_logprobs or []
                assert len(expected) == len(prompt) + count
                assert found[choice.index][1:] == pytest.approx(expected[1:], abs=1e-4)


def test_choices_are_numbered_prompt_by_prompt(client: openai.OpenAI) -> None:
    options = {"n": 2, "temperature": 1.0, "seed": 3}
    prompts = [PROMPT, "One, two, three,"]
    whole = complete(client, prompts, **options)
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
    first = complete(client, prompts[0], **options)
    assert [c.text for c in first.choices] == [c.text for c in whole.choices[:2]]
    streamed = texts_of_stream(complete(client, prompts, stream=True, **options))
    assert streamed == [choice.text for choice in whole.choices]


def test_echo(client: openai.OpenAI) -> None:
    plain = complete(client).choices[0].text
    assert complete(client, echo=True).choices[0].text == PROMPT + plain
    assert texts_of_stream(complete(client, echo=True, stream=True)) == [PROMPT + plain]


def test_scoring_a_text(client: openai.OpenAI, smollm2: Pipeline) -> None:
    """Echo without new tokens, as evaluation harnesses ask."""
    answer = complete(client, echo=True, logprobs=2, max_tokens=0)
    choice = answer.choices[0]
    logprobs = choice.logprobs
    assert choice.text == PROMPT
    assert logprobs.token_logprobs[0] is None
    assert logprobs.top_logprobs[0] is None
    ids = smollm2.runtime.tokenizer.encode(PROMPT)
    assert len(logprobs.tokens) == len(ids) == answer.usage.prompt_tokens
    for token, offset in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        assert PROMPT[offset : offset + len(token)] == token
    rest = logprobs.token_logprobs[1:]
    assert -sum(rest) / len(rest) == pytest.approx(smollm2.get_ppl(ids)[0], rel=1e-3)
    assert all(len(row) == 2 for row in logprobs.top_logprobs[1:])


def test_logprobs_of_the_answer(client: openai.OpenAI) -> None:
    choice = complete(client, logprobs=1).choices[0]
    assert "".join(choice.logprobs.tokens) == choice.text
    for token, value, top in zip(
        choice.logprobs.tokens,
        choice.logprobs.token_logprobs,
        choice.logprobs.top_logprobs,
        strict=True,
    ):
        assert top == {token: value}
    both = complete(client, logprobs=1, echo=True, stream=True)
    offsets = [offset for chunk in both for offset in chunk.choices[0].logprobs.text_offset]
    assert offsets == sorted(offsets)
    assert offsets[-1] >= len(PROMPT)


def test_stop_and_usage(client: openai.OpenAI) -> None:
    chunks = list(complete(client, stop=".", stream=True, stream_options={"include_usage": True}))
    text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    assert "." not in text
    assert chunks[-1].usage.prompt_tokens == 5


@pytest.mark.parametrize(
    ("param", "change"),
    [
        ("prompt", {"prompt": []}),
        ("prompt", {"prompt": ["x"] * 257}),
        ("best_of", {"best_of": 2}),
        ("suffix", {"suffix": "end"}),
        ("logprobs", {"logprobs": 21}),
        ("n", {"n": 100, "prompt": ["a"] * 3}),
        ("messages", {"messages": []}),
    ],
)
def test_wrong_values_are_named(server: RunningServer, param: str, change: dict[str, Any]) -> None:
    answer = server.post("/v1/completions", {"model": "smollm2", "prompt": "x", **change})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_a_token_outside_the_vocabulary(server: RunningServer) -> None:
    answer = server.post("/v1/completions", {"model": "smollm2", "prompt": [10**6]})
    assert answer.status_code == 400


def test_models(client: openai.OpenAI, server: RunningServer) -> None:
    assert [model.id for model in client.models.list()] == ["smollm2"]
    assert client.models.retrieve("smollm2").owned_by == "manymind"
    assert server.get("/v1/models").json()["data"][0]["max_model_len"] == 2048
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_version(server: RunningServer) -> None:
    assert server.get("/version").json() == {"version": manymind.__version__}


def test_tokenize_and_back(server: RunningServer, smollm2: Pipeline) -> None:
    text = "Grüße, 世界! <|im_end|>"
    answer = server.post("/tokenize", {"prompt": text, "return_token_strs": True}).json()
    assert answer["tokens"] == smollm2.runtime.tokenizer.encode(text)
    assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
    back = server.post("/detokenize", {"model": "smollm2", "tokens": answer["tokens"]})
    assert back.json() == {"prompt": text}
    for wrong in ({}, {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}):
        assert server.post("/tokenize", wrong).status_code == 400


def test_a_conversation_has_the_tokens_that_a_chat_counts(server: RunningServer) -> None:
    turns = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Hello,"},
    ]
    forms: list[dict[str, Any]] = [
        {},
        {"add_generation_prompt": False},
        {"continue_final_message": True, "add_generation_prompt": False},
        {"chat_template_kwargs": {"x": 1}, "add_special_tokens": False, "tools": []},
    ]
    counts = []
    for form in forms:
        count = server.post("/tokenize", {"messages": turns, **form}).json()["count"]
        chat = {name: value for name, value in form.items() if name != "add_special_tokens"}
        body = {"model": "smollm2", "messages": turns, "max_tokens": 1, **chat}
        answer = server.post("/v1/chat/completions", body).json()
        assert count == answer["usage"]["prompt_tokens"], form
        counts.append(count)
    assert len(set(counts)) == 3


def test_nothing_of_tokenising_is_ignored(server: RunningServer) -> None:
    turns = {"messages": [{"role": "user", "content": "x"}]}
    tool = {"type": "function", "function": {"name": "f"}}
    for path, body, name in (
        ("/tokenize", {"prompt": "x", "add_generation_prompt": False}, "add_generation_prompt"),
        ("/tokenize", {"prompt": "x", "tools": []}, "tools"),
        ("/tokenize", {**turns, "add_special_tokens": True}, "add_special_tokens"),
        ("/tokenize", {**turns, "tools": [tool]}, "tools"),
        ("/detokenize", {"tokens": [5, 99999]}, "tokens[1]"),
    ):
        answer = server.post(path, body)
        assert (answer.status_code, answer.json()["error"].get("param")) == (400, name)


def test_the_event_loop_stays_free_while_a_text_is_tokenised(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tokenizer, "encode", held := Held(Tokenizer.encode))
    with held.by(lambda: server.post("/tokenize", {"prompt": "A text."}).status_code) as answered:
        assert server.get("/health").status_code == 200
    assert answered == [200]
