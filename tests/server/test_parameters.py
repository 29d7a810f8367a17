# SPDX-License-Identifier: Apache-2.0
"""No parameter of any interface is ignored: what the clients' own types know is understood or
refused by name.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import ollama
import openai
import pytest
from anthropic.types import message_count_tokens_params, message_create_params
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params
from openai.types.responses import response_create_params
from serving import RunningServer

from manymind.server import anthropic as messages
from manymind.server import ollama as native
from manymind.server.embeddings import EmbeddingRequest
from manymind.server.messages import RequestModel
from manymind.server.openai.chat import ChatRequest
from manymind.server.openai.completions import CompletionRequest
from manymind.server.openai.responses import ResponseRequest


def keys_of(*types: Any) -> list[str]:
    """The keys of typed dictionaries and of their bases."""
    return sorted(
        {key for kind in types for key in kind.__required_keys__ | kind.__optional_keys__}
    )


def arguments_of(function: Any) -> list[str]:
    return sorted(set(inspect.signature(function).parameters) - {"self"})


HELLO = [{"role": "user", "content": "Hello"}]
# Route, our model, what its client knows, a body that is right.
INTERFACES: dict[str, tuple[type[RequestModel], list[str], dict[str, Any]]] = {
    "/v1/chat/completions": (
        ChatRequest,
        keys_of(chat_create_params.CompletionCreateParamsStreaming),
        {"messages": HELLO, "max_tokens": 1},
    ),
    "/v1/completions": (
        CompletionRequest,
        keys_of(completion_create_params.CompletionCreateParamsStreaming),
        {"prompt": "Hello", "max_tokens": 1},
    ),
    "/v1/responses": (
        ResponseRequest,
        keys_of(response_create_params.ResponseCreateParamsStreaming),
        {"input": "Hello", "max_output_tokens": 1},
    ),
    "/v1/embeddings": (
        EmbeddingRequest,
        keys_of(embedding_create_params.EmbeddingCreateParams),
        {"input": "Hello"},
    ),
    "/v1/messages": (
        messages.MessageRequest,
        keys_of(message_create_params.MessageCreateParamsStreaming),
        {"messages": HELLO, "max_tokens": 1},
    ),
    "/v1/messages/count_tokens": (
        messages.CountRequest,
        keys_of(message_count_tokens_params.MessageCountTokensParams),
        {"messages": HELLO},
    ),
    "/api/generate": (
        native.GenerateRequest,
        arguments_of(ollama.Client.generate),
        {"prompt": "Hello", "stream": False, "options": {"num_predict": 1}},
    ),
    "/api/chat": (
        native.ChatRequest,
        arguments_of(ollama.Client.chat),
        {"messages": HELLO, "stream": False, "options": {"num_predict": 1}},
    ),
    "/api/embed": (native.EmbedRequest, arguments_of(ollama.Client.embed), {"input": "Hello"}),
    "/api/embeddings": (
        native.EmbeddingsRequest,
        arguments_of(ollama.Client.embeddings),
        {"prompt": "Hello"},
    ),
}


def fields(model: type[RequestModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def refused() -> Iterator[tuple[str, str]]:
    """(route, parameter) of everything that is not implemented."""
    for path, (model, known, _) in INTERFACES.items():
        for name in {*known, "nonsense"} - fields(model) | set(model.unsupported):
            yield path, name


@pytest.mark.parametrize("path", INTERFACES)
def test_a_plain_request_is_answered(server: RunningServer, path: str) -> None:
    body = {"model": "smollm2", **INTERFACES[path][2]}
    assert server.post(path, body).status_code == 200


@pytest.mark.parametrize(("path", "name"), sorted(refused()))
def test_what_is_not_implemented_is_named(server: RunningServer, path: str, name: str) -> None:
    body = {"model": "smollm2", **INTERFACES[path][2], name: {"a value": 1}}
    answer = server.post(path, body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    message = error if isinstance(error, str) else error["message"]
    assert message.startswith(f"{name}: ")
    if path.startswith("/v1") and not path.startswith("/v1/messages"):
        assert error["param"] == name


def test_ollamas_options_are_understood_or_named(server: RunningServer) -> None:
    for name in set(ollama.Options.model_fields) - set(native.Options.model_fields):
        body = {"model": "smollm2", "prompt": "a", "options": {name: 1}}
        answer = server.post("/api/generate", body)
        assert answer.status_code == 400
        assert name in answer.json()["error"]


# What only the size of a body bounds: what a model reads, and what is checked where it is used.
BOUNDED_BY_BODY = {
    *("arguments", "content", "grammar", "images[*]", "input", "input[*]", "instructions", "json"),
    *(
        "data",
        "output",
        "prompt",
        "prompt[*]",
        "reasoning",
        "reasoning_content",
        "refusal",
        "regex",
    ),
    *("signature", "structural_tag", "system", "text", "thinking", "choice[*]", "cache_control{}"),
    *("chat_template_kwargs{}", "format{}", "input_schema{}", "input{}", "json{}"),
    *("parameters{}", "response_format{}", "schema{}", "tool_calls[*]{}"),
    # Counted by limits.max_prompts, by the context's length or by MAX_CHOICES.
    *("choice[]", "input[]", "input[*][]", "prompt[]", "prompt[*][]", "tokens[]"),
}


def unbounded(schema: dict[str, Any], where: str) -> Iterator[str]:
    """Texts "where", lists "where[]" and objects "where{}" that a JSON Schema sets no bound to."""
    for kind in schema.get("anyOf") or [schema]:
        if kind.get("type") == "array":
            yield from [f"{where}[]"] if "maxItems" not in kind else []
            yield from unbounded(kind.get("items", {}), f"{where}[*]")
        elif kind.get("type") == "string" and not {"maxLength", "const", "enum", "pattern"} & set(
            kind
        ):
            yield where
        elif kind.get("type") == "object" and not {"maxProperties", "properties"} & set(kind):
            yield f"{where}{{}}"


def test_every_parameter_has_a_bound(server: RunningServer) -> None:
    schemas = server.get("/openapi.json").json()["components"]["schemas"]
    found = {
        place: model
        for model, schema in schemas.items()
        if "." in model  # the framework's own have none
        for name, field in schema.get("properties", {}).items()
        for place in unbounded(field, name)
    }
    assert {place: model for place, model in found.items() if place not in BOUNDED_BY_BODY} == {}
    assert set(found) == BOUNDED_BY_BODY


STREAMED: dict[str, dict[str, Any]] = {
    "plain": {},
    "choices": {"n": 3, "temperature": 1.0, "seed": 7},
    "log probabilities": {"logprobs": 2},
    "echo": {"echo": True, "logprobs": 1},
    "bias": {"logit_bias": {"28": 5}},
    "stop": {"stop": [" the", "."]},
    "penalties": {"presence_penalty": 1.5, "frequency_penalty": 0.5},
    "form": {"extra_body": {"response_format": {"type": "regex", "regex": " [a-z]{3,9}"}}},
}


@pytest.mark.parametrize("name", STREAMED)
def test_a_completions_stream_adds_up(client: openai.OpenAI, name: str) -> None:
    """The same text, log probabilities, reasons and usage as without a stream."""
    options = {"temperature": 0.0, "max_tokens": 12, **STREAMED[name]}
    asked: dict[str, Any] = {"model": "smollm2", "prompt": "The sea is", **options}
    whole = client.completions.create(**asked)
    texts: dict[int, str] = {}
    tokens: dict[int, list[Any]] = {}
    reasons: dict[int, str] = {}
    usage = None
    for chunk in client.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            if choice.logprobs is not None:
                tokens.setdefault(choice.index, []).extend(choice.logprobs.token_logprobs or [])
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    assert len(whole.choices) == options.get("n", 1)
    for choice in whole.choices:
        assert texts[choice.index] == choice.text
        assert reasons[choice.index] == choice.finish_reason
        if choice.logprobs is not None:
            expected = choice.logprobs.token_logprobs or []
            assert tokens[choice.index][1:] == pytest.approx(expected[1:], abs=1e-5)
    assert usage is not None
    assert whole.usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens
    assert usage.prompt_tokens == whole.usage.prompt_tokens


def test_each_completion_parameter_changes_something(client: openai.OpenAI) -> None:
    def text(**options: Any) -> str:
        asked: dict[str, Any] = {"temperature": 0.0, "max_tokens": 16, **options}
        answer = client.completions.create(model="smollm2", prompt="The sea is", **asked)
        return answer.choices[0].text

    plain = text()
    assert text() == plain
    for change in (
        {"logit_bias": {"28": 100}},
        {"stop": plain.split()[1]},
        {"frequency_penalty": 2.0, "presence_penalty": 2.0},
        {"temperature": 1.5, "seed": 3},
        {"extra_body": {"repetition_penalty": 1.8}},
        {"extra_body": {"bad_words": [f" {plain.split()[0]}"]}},
        {"echo": True},
        {"max_tokens": 3},
    ):
        assert text(**change) != plain, change


def test_the_document_describes_every_body(server: RunningServer) -> None:
    document = server.get("/openapi.json").json()
    for path in INTERFACES:
        content = document["paths"][path]["post"]["requestBody"]["content"]
        reference = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert document["components"]["schemas"][reference]["additionalProperties"] is False
