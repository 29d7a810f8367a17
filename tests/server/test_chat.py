# SPDX-License-Identifier: Apache-2.0
"""``/v1/chat/completions`` by OpenAI's own client."""

from __future__ import annotations

import math
import re
from typing import Any

import openai
import pytest
from serving import QUESTION, STORY, RunningServer, events

from manymind.server.openai.chat import ChatRequest


def ask(client: openai.OpenAI, messages: Any = QUESTION, **options: Any) -> Any:
    options = {"temperature": 0, "max_tokens": 16, **options}
    return client.chat.completions.create(model="smollm2", messages=messages, **options)


def texts_of_stream(stream: Any) -> dict[int, str]:
    texts: dict[int, str] = {}
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
    return texts


def test_answers(client: openai.OpenAI) -> None:
    answer = ask(client)
    choice = answer.choices[0]
    assert "Tokyo" in choice.message.content
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    assert answer.model == "smollm2"
    assert answer.id.startswith("chatcmpl-")
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.prompt_tokens_details.cached_tokens <= usage.prompt_tokens or (
        usage.prompt_tokens_details.cached_tokens == 0
    )


def test_stream_adds_up_to_the_whole(client: openai.OpenAI) -> None:
    whole = ask(client, STORY)
    chunks = list(ask(client, STORY, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 16
    assert len({chunk.id for chunk in chunks}) == 1


def test_stream_ends_as_the_documents_say(server: RunningServer) -> None:
    body = {"model": "smollm2", "messages": QUESTION, "stream": True, "max_tokens": 3}
    answer = server.post("/v1/chat/completions", body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    received = events(answer.text)
    assert received[-1] == "[DONE]"
    assert all(event["object"] == "chat.completion.chunk" for event in received[:-1])
    assert all("usage" not in event for event in received[:-1])


def test_several_choices(client: openai.OpenAI) -> None:
    options = {"n": 3, "temperature": 1.2, "seed": 7}
    whole = ask(client, STORY, **options)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    texts = {choice.index: choice.message.content for choice in whole.choices}
    assert len(set(texts.values())) == 3
    assert texts_of_stream(ask(client, STORY, stream=True, **options)) == texts
    assert whole.usage.completion_tokens == 48


def test_seed_repeats(client: openai.OpenAI) -> None:
    def text(seed: int | None) -> str:
        answer = ask(client, STORY, temperature=1.5, seed=seed)
        return str(answer.choices[0].message.content)

    assert text(1) == text(1) != text(2)
    assert text(-1) == text(-1)


def test_logprobs(client: openai.OpenAI) -> None:
    choice = ask(client, STORY, logprobs=True, top_logprobs=3).choices[0]
    rows = choice.logprobs.content
    assert len(rows) == 16
    assert b"".join(bytes(row.bytes) for row in rows).decode() == choice.message.content
    for row in rows:
        top = [item.logprob for item in row.top_logprobs]
        assert top == sorted(top, reverse=True)
        assert len(top) == 3
        # Greedy: the chosen token is the likeliest.
        assert row.logprob == top[0]
        assert 0 < sum(map(math.exp, top)) <= 1 + 1e-5
    without = ask(client, STORY, logprobs=True).choices[0].logprobs.content
    assert [row.logprob for row in without] == pytest.approx([row.logprob for row in rows])
    assert without[0].top_logprobs == []
    stream = ask(client, STORY, logprobs=True, top_logprobs=3, stream=True)
    streamed = [
        row.logprob
        for chunk in stream
        if chunk.choices and chunk.choices[0].logprobs
        for row in chunk.choices[0].logprobs.content
    ]
    assert streamed == pytest.approx([row.logprob for row in rows])


def test_stop_strings_end_the_text_before_them(client: openai.OpenAI) -> None:
    whole = ask(client).choices[0].message.content
    assert " of" in whole
    for stream in (False, True):
        for stop in (" of", [" never", " of Japan"]):
            answer = ask(client, stop=stop, stream=stream)
            text = texts_of_stream(answer)[0] if stream else answer.choices[0].message.content
            assert text == whole.split(" of")[0]
    kept = ask(client, stop=" of", extra_body={"include_stop_str_in_output": True})
    assert kept.choices[0].message.content == whole.split(" of")[0] + " of"


CHANGES: list[dict[str, Any]] = [
    {"logit_bias": {"504": -100, "788": -100, "378": -100}},
    {"frequency_penalty": 2},
    {"presence_penalty": 2},
    {"temperature": 2.0, "seed": 3},
    {"extra_body": {"repetition_penalty": 5.0}},
    {"extra_body": {"bad_words": [" capital"]}},
    {"extra_body": {"bad_words": ["The capital of"]}},
    {"extra_body": {"allowed_token_ids": [100, 200, 300]}},
    {"extra_body": {"stop_token_ids": [282]}},
    {"extra_body": {"min_tokens": 12}},
    {"extra_body": {"ignore_eos": True, "skip_special_tokens": False}},
    {"extra_body": {"add_generation_prompt": False}},
    {"max_completion_tokens": 2, "max_tokens": None},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: "+".join(change))
def test_each_parameter_changes_something(client: openai.OpenAI, change: dict[str, Any]) -> None:
    def texts(options: dict[str, Any]) -> list[str]:
        options = {"max_tokens": 40, **options}
        return [
            ask(client, messages, **options).choices[0].message.content
            for messages in (QUESTION, STORY)
        ]

    assert texts(change) != texts({})


SHARPENING = [{"top_p": 1e-6}, {"extra_body": {"top_k": 1}}, {"extra_body": {"min_p": 1.0}}]


@pytest.mark.parametrize("change", SHARPENING, ids=["top_p", "top_k", "min_p"])
def test_sharpening_to_one_token_is_greedy(client: openai.OpenAI, change: dict[str, Any]) -> None:
    greedy = ask(client, STORY).choices[0].message.content
    options = {"temperature": 2.0, "seed": 5}
    assert ask(client, STORY, **options).choices[0].message.content != greedy
    assert ask(client, STORY, **options, **change).choices[0].message.content == greedy


STRUCTURED: list[tuple[dict[str, Any], str]] = [
    ({"json": {"const": {"a": 1}}}, r'\{\s*"a":\s*1\s*\}'),
    ({"json": '{"enum": ["x", "y"]}'}, '"[xy]"'),
    ({"json_object": True}, r"\{.*\}"),
    ({"regex": "[0-9]{3}"}, "[0-9]{3}"),
    ({"choice": ["yes", "no"], "disable_fallback": True}, "yes|no"),
    ({"grammar": 'root ::= "ab" | "cd"'}, "ab|cd"),
    (
        {
            "structural_tag": '{"type": "structural_tag", "structures": '
            '[{"begin": "<a>", "schema": {"const": 1}, "end": "</a>"}], "triggers": ["<a>"], '
            '"at_least_one": true, "stop_after_first": true}'
        },
        "<a>1</a>",
    ),
]


@pytest.mark.parametrize(("form", "pattern"), STRUCTURED, ids=lambda form: "+".join(form)[:20])
def test_structured_outputs_in_vllms_words(
    client: openai.OpenAI, form: dict[str, Any], pattern: str
) -> None:
    answer = ask(client, max_tokens=40, extra_body={"structured_outputs": form})
    assert re.fullmatch(pattern, answer.choices[0].message.content, re.DOTALL)


def test_a_begun_message_is_continued(client: openai.OpenAI) -> None:
    whole = ask(client).choices[0].message.content
    begun = [*QUESTION, {"role": "assistant", "content": whole[:11]}]
    going_on = {"continue_final_message": True}
    answer = ask(client, begun, extra_body={**going_on, "add_generation_prompt": False})
    assert whole[:11] + answer.choices[0].message.content == whole
    assert ask(client, begun).choices[0].message.content != answer.choices[0].message.content


def test_cache_salt_separates_prefixes(client: openai.OpenAI) -> None:
    def cached(salt: str) -> int:
        message = [{"role": "user", "content": "A salted question, " * 12}]
        usage = ask(client, message, max_tokens=1, extra_body={"cache_salt": salt}).usage
        return int(usage.prompt_tokens_details.cached_tokens)

    assert cached("one") == 0
    assert cached("one") > 0
    assert cached("two") == 0


def test_timeout_is_a_504(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client, STORY, max_tokens=1900, extra_body={"timeout": 0.05, "ignore_eos": True})
    assert caught.value.status_code == 504
    assert caught.value.code == "timeout"


def test_a_stream_that_fails_midway_says_so(client: openai.OpenAI) -> None:
    options = {"timeout": 0.6, "ignore_eos": True}
    stream = ask(client, STORY, max_tokens=1900, stream=True, extra_body=options)
    with pytest.raises(openai.APIError, match="timeout"):
        list(stream)


def test_message_forms(client: openai.OpenAI, server: RunningServer) -> None:
    parts = [
        {"type": "text", "text": "What is the capital "},
        {"type": "text", "text": "of Japan?"},
    ]
    assert "Tokyo" in ask(client, [{"role": "user", "content": parts}]).choices[0].message.content

    def tokens(role: str) -> list[int]:
        messages = [{"role": role, "content": "You are a pirate."}, *QUESTION]
        answer = server.post("/tokenize", {"messages": messages})
        return list(answer.json()["tokens"])

    assert tokens("system") == tokens("developer") != tokens("user")


@pytest.mark.parametrize("name", ChatRequest.unsupported)
def test_unsupported_parameters_are_named(server: RunningServer, name: str) -> None:
    body = {"model": "smollm2", "messages": QUESTION, "max_tokens": 1}
    refused = server.post("/v1/chat/completions", {**body, name: {"some": "thing"}})
    assert refused.status_code == 400
    error = refused.json()["error"]
    assert (error["param"], error["code"]) == (name, "unsupported_parameter")
    for harmless in (None, *ChatRequest.unsupported[name]):
        accepted = server.post("/v1/chat/completions", {**body, name: harmless})
        assert accepted.status_code == 200, accepted.text


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("nonsense", {"nonsense": 1}),
    ("temperature", {"temperature": 3}),
    ("temperature", {"temperature": "hot"}),
    ("top_p", {"top_p": 0}),
    ("n", {"n": 0}),
    ("n", {"n": 129}),
    ("max_tokens", {"max_tokens": 0}),
    ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
    ("top_logprobs", {"top_logprobs": 2}),
    ("logit_bias", {"logit_bias": {"word": 1}}),
    ("logit_bias", {"logit_bias": {"1": 101}}),
    ("stop", {"stop": ["a"] * 17}),
    ("stream_options", {"stream_options": {"include_usage": True}}),
    ("stream_options.nonsense", {"stream": True, "stream_options": {"nonsense": 1}}),
    ("messages", {"messages": []}),
    ("messages[0].role", {"messages": [{"role": "king", "content": "hi"}]}),
    ("messages[0].nonsense", {"messages": [{"role": "user", "content": "hi", "nonsense": 1}]}),
    ("chat_template_kwargs", {"chat_template_kwargs": {"messages": []}}),
    ("chat_template_kwargs", {"chat_template_kwargs": {"x": "y" * 20000}}),
    ("min_tokens", {"min_tokens": 5, "max_tokens": 2}),
    ("max_tokens", {"max_tokens": 5, "max_completion_tokens": 2}),
    (
        "messages[0].content[1].text",
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "text"}]}
            ]
        },
    ),
    ("bad_words", {"bad_words": ["a"], "response_format": {"type": "json_object"}}),
    ("continue_final_message", {"continue_final_message": True}),
    ("reasoning_effort", {"reasoning_effort": "low"}),
    ("structured_outputs", {"structured_outputs": {}}),
    ("structured_outputs", {"structured_outputs": {"json_object": False}}),
    ("structured_outputs", {"structured_outputs": {"regex": "a", "choice": ["a"]}}),
    ("structured_outputs.nonsense", {"structured_outputs": {"nonsense": "a"}}),
    ("structured_outputs.json", {"structured_outputs": {"json": "{"}}),
    (
        "structured_outputs.whitespace_pattern",
        {"structured_outputs": {"regex": "a", "whitespace_pattern": " "}},
    ),
    (
        "structured_outputs",
        {"structured_outputs": {"regex": "a"}, "response_format": {"type": "text"}},
    ),
    ("model", {"model": "other"}),
    ("messages", {"messages": None}),
]


@pytest.mark.parametrize(("param", "change"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_values_are_named(server: RunningServer, param: str, change: dict[str, Any]) -> None:
    body = {"model": "smollm2", "messages": QUESTION, **change}
    answer = server.post("/v1/chat/completions", body)
    assert answer.status_code == (404 if param == "model" else 400)
    assert answer.json()["error"]["param"] == param, answer.text


def test_media_are_refused_by_a_text_model(server: RunningServer) -> None:
    part = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}
    body = {"model": "smollm2", "messages": [{"role": "user", "content": [part]}]}
    answer = server.post("/v1/chat/completions", body)
    assert answer.status_code == 400
    assert "image_url" in answer.json()["error"]["message"]


def test_typed_errors_of_the_client(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="other", messages=QUESTION)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, [{"role": "user", "content": "word " * 3000}])
    assert caught.value.code == "context_length_exceeded"
