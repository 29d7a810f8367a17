# SPDX-License-Identifier: Apache-2.0
"""Anthropic's, Ollama's and OpenAI's newer interfaces by their own clients."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import gguf
import numpy as np
import ollama
import openai
import pydantic
import pytest
from serving import QUESTION, STORY, RunningServer, events

from manymind import GenerationConfig, Pipeline
from manymind.server.anthropic import MessageRequest
from manymind.server.ollama import ChatRequest, GenerateRequest, Options
from manymind.server.openai.responses import ResponseRequest


@pytest.fixture(scope="module")
def claude(server: RunningServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(scope="module")
def llama(server: RunningServer) -> Iterator[ollama.Client]:
    with ollama.Client(host=server.url) as made:
        yield made


def message(claude: anthropic.Anthropic, messages: Any = QUESTION, **options: Any) -> Any:
    sampling = {"temperature": 0, **options.pop("extra_body", {})}
    options = {"max_tokens": 16, "extra_body": sampling, **options}
    return claude.messages.create(model="smollm2", messages=messages, **options)


def test_message(claude: anthropic.Anthropic) -> None:
    answer = message(claude)
    assert "Tokyo" in answer.content[0].text
    assert (answer.role, answer.stop_reason, answer.stop_sequence) == (
        "assistant",
        "end_turn",
        None,
    )
    cut = message(claude, STORY)
    assert cut.stop_reason == "max_tokens"
    assert cut.usage.output_tokens == 16


def test_message_stream(claude: anthropic.Anthropic) -> None:
    whole = message(claude, STORY)
    with claude.messages.stream(
        model="smollm2", max_tokens=16, messages=STORY, extra_body={"temperature": 0}
    ) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 5
    assert "".join(pieces) == final.content[0].text == whole.content[0].text
    assert final.stop_reason == whole.stop_reason
    counts, expected = final.usage, whole.usage
    assert counts.output_tokens == expected.output_tokens
    assert (counts.input_tokens or 0) + (counts.cache_read_input_tokens or 0) == (
        expected.input_tokens + (expected.cache_read_input_tokens or 0)
    )


def test_message_forms(claude: anthropic.Anthropic) -> None:
    def tokens(messages: Any, **options: Any) -> int:
        count = claude.messages.count_tokens(model="smollm2", messages=messages, **options)
        return int(count.input_tokens)

    blocks = [
        {"type": "text", "text": "What is the "},
        {"type": "text", "text": "capital of Japan?"},
    ]
    plain = tokens(QUESTION)
    assert tokens([{"role": "user", "content": blocks}]) == plain
    assert tokens([{"role": "user", "content": [block]} for block in blocks]) == plain
    pirate = [{"type": "text", "text": "You are a pirate.", "cache_control": {"type": "ephemeral"}}]
    assert tokens(QUESTION, system=pirate) == tokens(QUESTION, system="You are a pirate.")
    assert tokens(QUESTION, system=pirate) != plain
    usage = message(claude).usage
    assert usage.input_tokens + usage.cache_read_input_tokens == plain


def test_a_last_turn_of_the_assistant_is_continued(claude: anthropic.Anthropic) -> None:
    begun = [*QUESTION, {"role": "assistant", "content": "The capital of Japan is"}]
    answer = message(claude, begun)
    assert answer.content[0].text.startswith(" Tokyo")


def test_stop_sequences(claude: anthropic.Anthropic) -> None:
    answer = message(claude, stop_sequences=[" never", " Japan"])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", " Japan")
    assert answer.content[0].text == "The capital of"


@pytest.mark.parametrize(
    "change",
    [{"temperature": 1.0, "top_k": 1}, {"temperature": 1.0, "top_p": 1e-6}],
    ids=["top_k", "top_p"],
)
def test_message_sampling(claude: anthropic.Anthropic, change: dict[str, Any]) -> None:
    greedy = message(claude, STORY).content[0].text
    assert message(claude, STORY, extra_body=change).content[0].text == greedy
    warm = {"temperature": 1.0}
    assert len({message(claude, STORY, extra_body=warm).content[0].text for _ in range(2)}) == 2


def test_message_of_a_schema(claude: anthropic.Anthropic) -> None:
    """``messages.parse`` is the client's word for it."""

    class City(pydantic.BaseModel):
        name: str
        inhabitants: int

    answer = claude.messages.parse(
        model="smollm2", max_tokens=60, messages=QUESTION, output_format=City
    )
    assert isinstance(answer.parsed_output, City)
    for config, place in (
        ({"task_budget": {"type": "tokens"}}, "output_config.task_budget: "),
        ({"effort": "high"}, "output_config.effort: "),
        ({"format": {"type": "json_schema"}}, "output_config.format.schema: "),
    ):
        with pytest.raises(anthropic.BadRequestError, match=place):
            message(claude, extra_body={"output_config": config})


def test_anthropics_client_lists_the_model(claude: anthropic.Anthropic) -> None:
    (model,) = claude.models.list()
    assert (model.id, model.type, model.display_name) == ("smollm2", "model", "smollm2")
    assert claude.models.retrieve("smollm2").created_at.year >= 2026


def test_message_errors(claude: anthropic.Anthropic, server: RunningServer) -> None:
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.create(model="other", max_tokens=1, messages=QUESTION)
    with pytest.raises(anthropic.BadRequestError, match="nonsense: unknown parameter"):
        message(claude, extra_body={"nonsense": 1})
    picture = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/"}}
    with pytest.raises(anthropic.BadRequestError, match="image"):
        message(claude, [{"role": "user", "content": [picture]}])
    body = {"model": "smollm2", "messages": QUESTION}
    answer = server.post("/v1/messages", body).json()
    assert answer["type"] == "error"
    assert answer["error"]["type"] == "invalid_request_error"
    assert "max_tokens" in answer["error"]["message"]


UNSUPPORTED = [
    *(("/v1/messages", MessageRequest, name) for name in MessageRequest.unsupported),
    *(("/v1/responses", ResponseRequest, name) for name in ResponseRequest.unsupported),
    *(("/api/generate", GenerateRequest, name) for name in GenerateRequest.unsupported),
    *(("/api/chat", ChatRequest, name) for name in ChatRequest.unsupported),
]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/messages": {"messages": QUESTION, "max_tokens": 1},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 1},
    "/api/generate": {"prompt": "Hi", "stream": False, "options": {"num_predict": 1}},
    "/api/chat": {"messages": QUESTION, "stream": False, "options": {"num_predict": 1}},
}


@pytest.mark.parametrize(("path", "kind", "name"), UNSUPPORTED)
def test_unsupported_parameters_are_named(
    server: RunningServer, path: str, kind: Any, name: str
) -> None:
    body = {"model": "smollm2", **BODIES[path]}
    refused = server.post(path, {**body, name: {"some": "thing"}})
    assert refused.status_code == 400
    assert f"{name}: not supported" in refused.text
    for harmless in (None, *kind.unsupported[name]):
        accepted = server.post(path, {**body, name: harmless})
        assert accepted.status_code == 200, accepted.text


def test_ollama_generate(llama: ollama.Client) -> None:
    options = {"temperature": 0, "num_predict": 16}
    whole = llama.generate("smollm2", "What is the capital of Japan?", options=options)
    assert "Tokyo" in whole.response
    assert whole.done
    assert whole.done_reason == "stop"
    assert whole.eval_count > 0
    assert 0 < whole.eval_duration <= whole.total_duration
    parts = list(
        llama.generate("smollm2", "What is the capital of Japan?", options=options, stream=True)
    )
    assert "".join(part.response for part in parts) == whole.response
    assert [part.done for part in parts[:-1]] == [False] * (len(parts) - 1)
    assert parts[-1].eval_count == whole.eval_count
    raw = llama.generate("smollm2", "The capital of France is", raw=True, options=options)
    assert "Paris" in raw.response
    pirate = llama.generate("smollm2", "Hello!", system="You are a pirate.", options=options)
    assert pirate.response != llama.generate("smollm2", "Hello!", options=options).response
    assert llama.generate("smollm2").done_reason == "load"


def test_ollama_chat(llama: ollama.Client) -> None:
    options = {"temperature": 0, "num_predict": 16}
    whole = llama.chat("smollm2:latest", QUESTION, options=options)
    assert whole.message.role == "assistant"
    assert "Tokyo" in whole.message.content
    parts = list(llama.chat("smollm2", QUESTION, options=options, stream=True))
    assert "".join(part.message.content for part in parts) == whole.message.content
    assert parts[-1].prompt_eval_count == whole.prompt_eval_count > 0
    scored = llama.chat("smollm2", QUESTION, options=options, logprobs=True, top_logprobs=2)
    assert len(scored.logprobs) == scored.eval_count
    assert scored.logprobs[0].logprob == scored.logprobs[0].top_logprobs[0].logprob


def test_ollama_options(llama: ollama.Client) -> None:
    def text(**options: Any) -> str:
        options = {"num_predict": 24, "temperature": 0, **options}
        return str(llama.chat("smollm2", STORY, options=options).message.content)

    plain = text()
    for change in (
        {"num_predict": 3},
        {"stop": ["the"]},
        {"repeat_penalty": 5.0},
        {"presence_penalty": 2.0},
        {"frequency_penalty": 2.0},
        {"temperature": 2.0, "seed": 1},
    ):
        assert text(**change) != plain, change
    hot = {"temperature": 2.0, "seed": 1}
    for sharp in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
        assert text(**hot, **sharp) == plain, sharp
    prompt = llama.chat("smollm2", STORY, options={"num_predict": 1}).prompt_eval_count
    limited = llama.chat("smollm2", STORY, options={"num_ctx": prompt + 5, "temperature": 0})
    assert (limited.eval_count, limited.done_reason) == (5, "length")
    for name in Options.unsupported:
        with pytest.raises(ollama.ResponseError, match=f"{name}: not supported"):
            llama.chat("smollm2", STORY, options={name: 17})
    for wrong in ({"num_ctx": 10**6}, {"num_ctx": 3}, {"num_gpu": 1}):
        with pytest.raises(ollama.ResponseError, match="num_"):
            llama.chat("smollm2", STORY, options=wrong)


def test_ollama_tells_the_memory_of_a_device_that_has_its_own(
    llama: ollama.Client, smollm2: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = smollm2.runtime.memory_plan
    assert llama.ps().models[0].size_vram == 0  # a processor's is the host's
    monkeypatch.setitem(plan, "on_host", False)
    assert llama.ps().models[0].size_vram == sum(line["bytes"] for line in plan["lines"])


def test_ollama_models(llama: ollama.Client, smollm2_path: Path) -> None:
    listed = llama.list().models[0]
    assert listed.model == "smollm2:latest"
    assert listed.details.family == "llama"
    assert listed.details.quantization_level == "Q4_1"
    assert listed.details.parameter_size == "135M"
    assert listed.size < smollm2_path.stat().st_size < listed.size * 1.05
    assert llama.ps().models[0].context_length == 2048
    shown = llama.show("smollm2")
    assert shown.modelinfo["general.architecture"] == "llama"
    assert "<|im_start|>" in shown.template
    with pytest.raises(ollama.ResponseError, match="expected 'smollm2'"):
        llama.show("other")
    with pytest.raises(ollama.ResponseError, match="keep_alive"):
        llama.generate("smollm2", keep_alive=0)


def test_responses(client: openai.OpenAI) -> None:
    common: dict[str, Any] = {"model": "smollm2", "temperature": 0, "max_output_tokens": 16}
    answer = client.responses.create(input="What is the capital of Japan?", **common)
    assert "Tokyo" in answer.output_text
    assert answer.status == "completed"
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    cut = client.responses.create(input=STORY, **common)
    assert cut.status == "incomplete"
    assert cut.incomplete_details.reason == "max_output_tokens"
    assert cut.output[0].status == "incomplete"
    events = list(client.responses.create(input=STORY, stream=True, **common))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.incomplete"
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == events[-1].response.output_text == cut.output_text


def test_responses_forms(client: openai.OpenAI) -> None:
    def tokens(given: Any, **options: Any) -> int:
        common = {"model": "smollm2", "max_output_tokens": 1}
        return int(client.responses.create(input=given, **common, **options).usage.input_tokens)

    text = "What is the capital of Japan?"
    part = {"type": "input_text", "text": text}
    forms = [text, QUESTION, [{"type": "message", "role": "user", "content": [part]}]]
    assert len({tokens(form) for form in forms}) == 1
    pirate = {"role": "developer", "content": "You are a pirate."}
    told = tokens([pirate, *QUESTION])
    assert tokens(text, instructions="You are a pirate.") == told != tokens(text)
    with pytest.raises(openai.BadRequestError, match="type"):
        tokens([{"type": "item_reference", "id": "x"}])


def test_structured_output_everywhere(
    client: openai.OpenAI, llama: ollama.Client, server: RunningServer
) -> None:
    choice = {"type": "choice", "choice": ["maybe so", "never ever"]}
    answer = client.chat.completions.create(
        model="smollm2", messages=QUESTION, extra_body={"response_format": choice}
    )
    assert answer.choices[0].message.content in choice["choice"]
    text = client.completions.create(
        model="smollm2", prompt="x", extra_body={"response_format": choice}
    )
    assert text.choices[0].text in choice["choice"]
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Tokyo", "Kyoto"]}},
        "required": ["city"],
        "additionalProperties": False,
    }
    cities = ({"city": "Tokyo"}, {"city": "Kyoto"})
    options = {"num_predict": 60, "temperature": 0}
    spoken = llama.chat("smollm2", QUESTION, format=schema, options=options).message.content
    assert json.loads(spoken) in cities
    form = {"format": {"type": "json_schema", "name": "city", "schema": schema}}
    response = client.responses.create(model="smollm2", input="Where?", text=form)
    assert json.loads(response.output_text) in cities
    wrong = {"type": "regex", "regex": "("}
    body = {"model": "smollm2", "messages": QUESTION, "response_format": wrong}
    refused = server.post("/v1/chat/completions", body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "response_format.regex"


def test_embeddings(client: openai.OpenAI, smollm2_path: Path, smollm2: Pipeline) -> None:
    """The state that is pooled is the one the logits are made of: their ratio shows it, with the
    output matrix read by another library.
    """
    text = "The capital of France is"
    answer = client.embeddings.create(model="smollm2", input=[text, "Something else"])
    vectors = np.array([item.embedding for item in answer.data])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert answer.usage.prompt_tokens > 5
    config = GenerationConfig(max_new_tokens=1, output_logits="generation")
    expected = np.from_dlpack(smollm2(text, config, do_preprocess=False).logits)[0, :4096]
    tensor = next(t for t in gguf.GGUFReader(smollm2_path).tensors if t.name == "token_embd.weight")
    matrix = gguf.quants.dequantize(tensor.data[:4096], tensor.tensor_type)
    assert np.corrcoef(matrix @ vectors[0], expected)[0, 1] > 0.999
    assert np.corrcoef(matrix @ vectors[1], expected)[0, 1] < 0.99


def test_embedding_forms(
    client: openai.OpenAI, server: RunningServer, llama: ollama.Client
) -> None:
    def post(**body: Any) -> Any:
        return server.post("/v1/embeddings", {"model": "smollm2", **body})

    ids = server.post("/tokenize", {"prompt": "Hello there"}).json()["tokens"]
    expected = post(input="Hello there").json()["data"][0]["embedding"]
    for same in (["Hello there"], ids, [ids]):
        assert post(input=same).json()["data"][0]["embedding"] == expected
    packed = post(input=ids, encoding_format="base64").json()["data"][0]["embedding"]
    assert np.frombuffer(base64.b64decode(packed), "<f4") == pytest.approx(expected)
    assert llama.embed("smollm2", "Hello there").embeddings[0] == pytest.approx(expected)
    assert post(input=ids, dimensions=len(expected)).status_code == 200
    stats = server.service.runtime.engine.stats
    before = stats()["prompt_tokens"]
    refused = post(input=ids, dimensions=12).json()["error"]
    assert refused["param"] == "dimensions"
    assert refused["message"].startswith(f"dimensions: expected {len(expected)}, ")
    assert stats()["prompt_tokens"] == before
    for wrong in ([], [[]], ["x"] * 300, 5, [10**6]):
        assert post(input=wrong).status_code == 400


def test_embedding_of_a_text_behind_which_the_model_would_stop(
    server: RunningServer, smollm2: Pipeline
) -> None:
    ids = server.post("/tokenize", {"messages": QUESTION}).json()["tokens"]
    answer = smollm2(QUESTION, GenerationConfig(max_new_tokens=60, do_sample=False))
    assert answer.finish_reason == "stop"
    whole = {"model": "smollm2", "input": ids + answer.token_ids}
    answered = server.post("/v1/embeddings", whole)
    assert answered.status_code == 200
    assert np.linalg.norm(answered.json()["data"][0]["embedding"]) == pytest.approx(1.0, abs=1e-5)


def test_errors_of_each_interface(server: RunningServer) -> None:
    body = {"model": "smollm2", "messages": QUESTION, "max_tokens": 1, "stream": True}
    long = [{"role": "user", "content": "word " * 3000}]
    for path, more in (("/v1/messages", {"max_tokens": 1}), ("/api/chat", {})):
        given = {"model": "smollm2", "messages": long, "stream": True, **more}
        answer = server.post(path, given)
        assert answer.status_code == 400
        assert "error" in answer.json()
    assert server.post("/v1/messages", body).status_code == 200
    assert events(server.post("/v1/messages", body).text)[-1] == {"type": "message_stop"}
