# SPDX-License-Identifier: Apache-2.0
"""What clients of other servers send without their users' asking: nulls, answers sent back whole,
curl's own content type, probes by HEAD.
"""

from __future__ import annotations

import json
from typing import Any

import httpx
import ollama
import openai
import pytest
from serving import QUESTION, RunningServer, events
from test_parameters import INTERFACES, fields

from manymind import GenerationConfig, Pipeline
from manymind.server.anthropic import MessageRequest
from manymind.server.ollama import ChatRequest as OllamaRequest
from manymind.server.openai.responses import ResponseRequest


@pytest.mark.parametrize("path", INTERFACES)
def test_null_is_the_same_as_nothing(server: RunningServer, path: str) -> None:
    model, _, body = INTERFACES[path]
    body = {"model": "smollm2", **body}
    answer = server.post(path, {**dict.fromkeys(fields(model)), **body})
    assert answer.status_code == 200, answer.text


def test_null_of_a_needed_field_is_named(server: RunningServer) -> None:
    answer = server.post("/v1/completions", {"model": "smollm2", "prompt": None})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt"


def test_options_of_null_are_none(server: RunningServer) -> None:
    """As LangChain sends them."""
    options = {"num_ctx": None, "mirostat": None, "temperature": None}
    for path, body in (
        ("/api/embed", {"input": "a"}),
        ("/api/chat", {"messages": None}),  # as Go spells a list that is not there
    ):
        answer = server.post(path, {"model": "smollm2", **body, "options": options})
        assert answer.status_code == 200, answer.text
    refused = server.post("/api/embed", {"model": "smollm2", "input": "a", "options": {"a": 1}})
    assert refused.status_code == 400


def test_an_answer_can_be_sent_back_whole(server: RunningServer, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="smollm2", messages=QUESTION, max_tokens=4)
    said = answer.choices[0].message.model_dump()
    assert "annotations" in said
    history: Any = [*QUESTION, said, {"role": "user", "content": "And of France?"}]
    assert client.chat.completions.create(model="smollm2", messages=history, max_tokens=1)
    said["audio"] = {"id": "a"}
    body = {"model": "smollm2", "messages": history, "max_tokens": 1}
    assert server.post("/v1/chat/completions", body).json()["error"]["param"] == (
        "messages[1].audio"
    )


def test_a_message_that_says_nothing_is_named(server: RunningServer) -> None:
    for role in ("user", "assistant", "tool"):
        body = {"model": "smollm2", "messages": [*QUESTION, {"role": role}], "max_tokens": 1}
        error = server.post("/v1/chat/completions", body).json()["error"]
        assert error["param"] == "messages[1].content"


def test_thoughts_are_sent_back() -> None:
    """What is left of them is the template's choice, so it has to get them."""
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": '{"a": 1}'}
    thought = {"type": "reasoning", "id": "rs", "summary": [], "status": "completed"}
    thought["content"] = [{"type": "reasoning_text", "text": "Hm."}]
    said = {"type": "message", "role": "assistant", "content": "I see."}
    asked = {"role": "user", "content": "Where?"}
    items = [asked, thought, said, call, {**call, "call_id": "2"}, asked, said, said]
    body = {"model": "m", "input": items}
    messages = ResponseRequest.model_validate(body).dialogue().messages
    assert [item["role"] for item in messages] == [
        "user",
        *["assistant", "user", "assistant"],
        "assistant",
    ]
    turn = messages[1]
    assert (turn["reasoning_content"], turn["content"]) == ("Hm.", "I see.")
    assert [item["id"] for item in turn["tool_calls"]] == ["1", "2"]

    blocks = [{"type": "thinking", "thinking": "Hm.", "signature": ""}]
    blocks += [{"type": "text", "text": "I see."}]
    history = [asked, {"role": "assistant", "content": blocks}, asked]
    body = {"model": "m", "max_tokens": 1, "messages": history}
    assert MessageRequest.model_validate(body).dialogue().messages[1] == {
        "role": "assistant",
        "content": "I see.",
        "reasoning_content": "Hm.",
    }
    message = {"role": "assistant", "content": "I see.", "thinking": "Hm."}
    body = {"model": "m", "messages": [asked, message, {"role": "tool", "tool_call_id": "7"}]}
    told = OllamaRequest.model_validate(body).dialogue().messages
    assert told[1]["reasoning_content"] == "Hm."
    assert told[2]["tool_call_id"] == "7"


def test_a_turn_in_several_messages_is_one() -> None:
    """Transcripts have a message for each block as it came."""
    blocks = [
        {"type": "thinking", "thinking": "Hm.", "signature": ""},
        {"type": "text", "text": "I see."},
        {"type": "thinking", "thinking": " So.", "signature": ""},
        {"type": "tool_use", "id": "1", "name": "f", "input": {}},
    ]
    asked = {"role": "user", "content": "Where?"}
    history = [asked, *({"role": "assistant", "content": [block]} for block in blocks), asked]
    body = {"model": "m", "max_tokens": 1, "messages": history}
    messages = MessageRequest.model_validate(body).dialogue().messages
    assert [item["role"] for item in messages] == ["user", "assistant", "user"]
    assert (messages[1]["reasoning_content"], messages[1]["content"]) == ("Hm. So.", "I see.")
    assert [item["id"] for item in messages[1]["tool_calls"]] == ["1"]


TEXT = {"type": "text", "text": "a"}
INPUT_TEXT = {"type": "input_text", "text": "a"}


@pytest.mark.parametrize(
    ("path", "part", "name"),
    [
        ("/v1/chat/completions", {**TEXT, "image_url": {"url": "data:,"}}, "image_url"),
        ("/v1/chat/completions", {**TEXT, "refusal": "no"}, "refusal"),
        ("/v1/chat/completions", {"type": "image_url", "image_url": "x", "text": "a"}, "text"),
        ("/tokenize", {**TEXT, "video_url": "x"}, "video_url"),
        ("/v1/responses", {**INPUT_TEXT, "image_url": "x"}, "image_url"),
        ("/v1/responses", {**INPUT_TEXT, "annotations": []}, "annotations"),
        ("/v1/responses", {"type": "input_image", "image_url": "x", "file_id": "f"}, "file_id"),
        ("/v1/messages", {**TEXT, "source": {"type": "url", "url": "x"}}, "source"),
        ("/v1/messages", {**TEXT, "is_error": True}, "is_error"),
        ("/v1/messages", {"type": "image", "source": {}, "text": "a"}, "text"),
        ("/v1/messages/count_tokens", {**TEXT, "thinking": "a"}, "thinking"),
    ],
)
def test_what_does_not_go_with_a_parts_type_is_named(
    server: RunningServer, path: str, part: dict[str, Any], name: str
) -> None:
    field = "input" if path == "/v1/responses" else "messages"
    limit = {"max_tokens": 1} if path in ("/v1/chat/completions", "/v1/messages") else {}
    message = {"role": "user", "content": [part]}
    answer = server.post(path, {"model": "smollm2", field: [message], **limit})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(f"{field}[0].content[0].{name}: ")
    # Null says nothing.
    known = {**(INPUT_TEXT if path == "/v1/responses" else TEXT), name: None}
    body = {"model": "smollm2", field: [{**message, "content": [known]}], **limit}
    if name != "text":
        assert server.post(path, body).status_code == 200


CALL = {"type": "tool_use", "id": "1", "name": "f", "input": {}}


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"tool_choice": {"type": "auto", "name": "f"}}, "tool_choice.name: expected none"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name: expected a value"),
        (
            {"tool_choice": {"type": "none", "disable_parallel_tool_use": True}},
            "tool_choice.disable_parallel_tool_use",
        ),
        ({"content": [{**CALL, "id": None}], "role": "assistant"}, "messages[0].content[0].id"),
        ({"content": [{**CALL, "name": None}], "role": "assistant"}, "messages[0].content[0].name"),
        ({"content": [{"type": "tool_result"}]}, "messages[0].content[0].tool_use_id"),
        ({"content": [{"type": "text"}]}, "messages[0].content[0].text: expected a value"),
        ({"content": [{"type": "image"}]}, "messages[0].content[0].source: expected a value"),
        (
            {"content": [{"type": "image", "source": {"type": "base64", "media_type": "x"}}]},
            "messages[0].content[0].source.data: expected a value",
        ),
        (
            {"content": [{"type": "image", "source": {"type": "url"}}]},
            "messages[0].content[0].source.url: expected a value",
        ),
        (
            {"content": [{"type": "image", "source": {"type": "url", "url": "x", "data": "y"}}]},
            "messages[0].content[0].source.data: expected none beside the type 'url'",
        ),
    ],
)
def test_what_messages_lack_or_ignore_is_named(
    server: RunningServer, body: dict[str, Any], name: str
) -> None:
    message = {"role": body.pop("role", "user"), "content": body.pop("content", "a")}
    body = {"tools": [{"name": "f", "input_schema": {}}], **body} if "tool_choice" in body else body
    body = {"model": "smollm2", "max_tokens": 1, "messages": [message], **body}
    answer = server.post("/v1/messages", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(name)


def test_what_does_not_go_with_an_items_type_is_named(server: RunningServer) -> None:
    said = {"role": "user", "content": "a"}
    for item, name in (
        ({**said, "output": "b"}, "output"),
        ({"type": "function_call_output", "call_id": "1", "output": "b", "name": "f"}, "name"),
    ):
        answer = server.post("/v1/responses", {"model": "smollm2", "input": [said, item]})
        assert answer.json()["error"]["param"] == f"input[1].{name}"
    for content, name in (
        ([{"type": "input_text"}], "content[0].text"),
        ([{"type": "output_text", "annotations": []}], "content[0].text"),
    ):
        body = {"model": "smollm2", "input": [{"role": "user", "content": content}]}
        error = server.post("/v1/responses", body).json()["error"]
        assert (error["code"], error["param"]) == ("missing_parameter", f"input[0].{name}")


def test_hints_about_caching_and_users_are_taken(server: RunningServer) -> None:
    hints = {"prompt_cache_key": "k", "safety_identifier": "u"}
    for path, body in (
        ("/v1/chat/completions", {"messages": QUESTION, "max_tokens": 1}),
        ("/v1/responses", {"input": "a", "max_output_tokens": 1}),
    ):
        assert server.post(path, {"model": "smollm2", **body, **hints}).status_code == 200


def test_head_is_get_without_a_body(server: RunningServer) -> None:
    """Load balancers ask so, and Ollama's command line before everything else."""
    for path in ("/", "/health", "/ping", "/api/tags", "/v1/models"):
        with httpx.Client(base_url=server.url) as client:
            got = client.get(path)
            head = client.head(path)
            assert (head.status_code, head.content) == (200, b"")
            # The connection is still in step.
            assert client.get("/version").json()
        assert head.headers["content-length"] == got.headers["content-length"]
    assert httpx.head(f"{server.url}/v1/completions").status_code == 405


def test_curl_without_a_content_type(server: RunningServer) -> None:
    """As in Ollama's documents. A page of a browser may send the same to any server, but then says
    where it is from.
    """
    form = {"content-type": "application/x-www-form-urlencoded"}
    body = json.dumps({"model": "smollm2"})
    for headers in (form, {}):
        answer = httpx.post(f"{server.url}/api/show", content=body, headers=headers)
        assert answer.status_code == 200, answer.text
    for name, value in (
        ("origin", server.url),
        ("referer", "http://a.example/"),
        ("sec-fetch-site", "cross-site"),
    ):
        headers = {**form, name: value}
        assert (
            httpx.post(f"{server.url}/api/show", content=body, headers=headers).status_code == 415
        )
    plain = {"content-type": "text/plain"}
    assert httpx.post(f"{server.url}/api/show", content=body, headers=plain).status_code == 415


def test_ollamas_clients_chat_with_a_decoder(server: RunningServer) -> None:
    """They take a model that lists "embedding" for one that does nothing else."""
    with ollama.Client(host=server.url) as client:
        assert client.show("smollm2").capabilities == ["completion"]
        former = client.embeddings("smollm2", "a").embedding
        assert former == client.embed("smollm2", "a").embeddings[0]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/api/show",
            {"system": "", "template": "", "verbose": False, "options": None, "name": ""},
        ),
        (
            "/api/generate",
            {"prompt": "", "suffix": "", "system": "", "template": "", "options": None},
        ),
        ("/api/chat", {"messages": None, "options": {}}),
        ("/api/embed", {"input": "a", "options": None}),
    ],
)
def test_bodies_as_ollamas_command_line_writes_them(
    server: RunningServer, path: str, body: dict[str, Any]
) -> None:
    """Go writes fields that are not set as well."""
    answer = server.post(path, {"model": "smollm2", **body})
    assert answer.status_code == 200, answer.text


def test_a_model_is_shown_by_its_former_field(server: RunningServer) -> None:
    assert server.post("/api/show", {"name": "smollm2"}).status_code == 200
    assert server.post("/api/show", {}).status_code == 404


def test_keep_alive_of_zero_is_refused_everywhere(server: RunningServer) -> None:
    for path, body in (
        ("/api/generate", {"prompt": "a"}),
        ("/api/embed", {"input": "a"}),
        ("/api/embeddings", {"prompt": "a"}),
    ):
        answer = server.post(path, {"model": "smollm2", **body, "keep_alive": 0})
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("keep_alive: ")


def test_keep_alive_is_a_duration(server: RunningServer) -> None:
    for value, status in (
        ("5m", 200),
        ("1h30m0.5s", 200),
        ("-1", 200),
        ("-1ns", 200),
        (300, 200),
        ("0h0m", 400),
        ("0ms", 400),
        ("-0", 400),
        ("for ever", 400),
        ("5 m", 400),
        ("m", 400),
    ):
        body = {"model": "smollm2", "keep_alive": value}
        assert server.post("/api/generate", body).status_code == status, value


def test_what_ollamas_server_has_more_of_is_refused(server: RunningServer) -> None:
    answer = server.post("/api/show", {"model": "smollm2", "verbose": True})
    assert (answer.status_code, answer.json()["error"][:9]) == (400, "verbose: ")
    body: dict[str, Any] = {"model": "smollm2", "prompt": "a", "options": {"num_ctx": 1 << 30}}
    assert server.post("/api/generate", body).json()["error"].startswith("options.num_ctx: ")


def test_pictures_that_nobody_sees_are_named_in_the_interfaces_words(server: RunningServer) -> None:
    part = {"type": "input_image", "image_url": "data:image/png;base64,aa"}
    turns = [{"role": "user", "content": "a"}, {"role": "user", "content": [part]}]
    body = {"model": "smollm2", "instructions": "Be brief.", "input": turns}
    error = server.post("/v1/responses", body).json()["error"]
    assert error["param"] == "input[1].content[0].image_url"
    told = server.post("/api/generate", {"model": "smollm2", "prompt": "a", "images": ["aa"]})
    assert told.json()["error"].startswith("images[0]: ")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_usage_in_every_chunk(server: RunningServer, path: str) -> None:
    body: dict[str, Any] = {"model": "smollm2", "max_tokens": 5, "n": 2, "ignore_eos": True}
    body |= {"messages": QUESTION} if "chat" in path else {"prompt": "The sea"}
    options = {"include_usage": True, "continuous_usage_stats": True}
    answer = server.post(path, {**body, "stream": True, "stream_options": options})
    *chunks, total, done = events(answer.text)
    assert done == "[DONE]"
    assert total["usage"]["completion_tokens"] == 10
    for choice in (0, 1):
        mine = [item for item in chunks if item["choices"][0]["index"] == choice]
        counts = [item["usage"]["completion_tokens"] for item in mine]
        assert counts == sorted(counts)
        assert (counts[0] < 5, counts[-1]) == (True, 5)
        assert {item["usage"]["prompt_tokens"] for item in mine} == {
            total["usage"]["prompt_tokens"]
        }
    lone = {"continuous_usage_stats": True}
    refused = server.post(path, {**body, "stream": True, "stream_options": lone})
    assert refused.json()["error"]["param"] == "stream_options.continuous_usage_stats"


def test_log_probabilities_of_the_prompt(server: RunningServer, smollm2: Pipeline) -> None:
    """In vLLM's form: the engine's own numbers, by token id."""
    text = "The sea is deep and blue"
    asked = {"model": "smollm2", "prompt": text, "max_tokens": 1, "prompt_logprobs": 2}
    (choice,) = server.post("/v1/completions", asked).json()["choices"]
    rows = choice["prompt_logprobs"]
    ids = smollm2.runtime.tokenizer.encode(text)
    config = GenerationConfig(max_new_tokens=1, prompt_logprobs=2)
    expected = smollm2([text], config, do_preprocess=False)[0].prompt_logprobs
    assert rows[0] is None
    assert len(rows) == len(ids) == len(expected) + 1
    for token_id, row, known in zip(ids[1:], rows[1:], expected, strict=True):
        assert row.keys() == {str(key) for key in known}
        assert next(iter(row)) == str(token_id)
        assert row[str(token_id)]["decoded_token"] in text
        for key, value in known.items():
            assert row[str(key)]["logprob"] == pytest.approx(value, abs=1e-4)
        ranks = [entry["rank"] for entry in row.values() if entry["rank"] is not None]
        assert sorted(ranks) == [1, 2]
    body = {"model": "smollm2", "messages": QUESTION, "max_tokens": 1, "prompt_logprobs": 0}
    answer = server.post("/v1/chat/completions", body).json()
    assert len(answer["prompt_logprobs"]) == answer["usage"]["prompt_tokens"]
    assert {len(row) for row in answer["prompt_logprobs"][1:]} == {1}
    refused = server.post("/v1/completions", {**asked, "stream": True}).json()["error"]
    assert refused["param"] == "prompt_logprobs"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", {"prompt": ""}, "prompt"),
        ("/v1/completions", {"prompt": [10**9]}, "prompt"),
        ("/v1/completions", {"prompt": "a", "max_tokens": 4, "min_tokens": 9}, "min_tokens"),
        ("/v1/embeddings", {"input": ""}, "input"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "a " * 9000}]},
            "messages",
        ),
    ],
)
def test_errors_use_the_interfaces_words(
    server: RunningServer, path: str, body: dict[str, Any], param: str
) -> None:
    answer = server.post(path, {"model": "smollm2", **body})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: ")
    assert "prompt_token_ids" not in error["message"]
    assert "max_new_tokens" not in error["message"]


@pytest.mark.parametrize("body", ["[]", "1", "null", '"a"'])
def test_a_body_that_is_no_object(server: RunningServer, body: str) -> None:
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{server.url}/v1/completions", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("the body: ")
