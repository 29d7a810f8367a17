# SPDX-License-Identifier: Apache-2.0
"""Tool calls and reasoning through every interface's own client.

The model is too small to call tools by itself. What it writes is forced by a grammar; how it is
read, worded and streamed is what these tests are about.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import ollama
import openai
import pytest
from serving import QUESTION, RunningServer, events, running_server

from manymind import ChatTemplateConfig, EngineConfig, Pipeline, pipeline
from manymind.config import Response
from manymind.parsers import (
    TOOL_PARSERS,
    OutputFormat,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from manymind.server.anthropic import MessageRequest, MessageWording
from manymind.server.config import ServerConfig
from manymind.server.dialogue import Delta
from manymind.server.ollama import called
from manymind.server.openai.response_wording import ResponseWording
from manymind.server.openai.responses import ResponseRequest
from manymind.server.tools import Toolset

TEMPLATE = """
{%- if tools %}<|im_start|>system
You may call: {% for tool in tools %}{{ tool | tojson }}{% endfor %}
Write calls as <tool_call>{"name": ..., "arguments": ...}</tool_call>.<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}{% for call in message.tool_calls or [] %}
<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"enum": [1, 2]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
FUNCTION = {"name": "weather", "description": "Tells the weather.", "parameters": SCHEMA}
TOOL: Any = {"type": "function", "function": FUNCTION}
OTHER: Any = {"type": "function", "function": {"name": "clock"}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome", "days": 2}}\n</tool_call>'
ARGUMENTS = {"city": "Rome", "days": 2}


@pytest.fixture(scope="module")
def calling_pipe(smollm2_path: Path) -> Iterator[Pipeline]:
    """A model whose template knows tools."""
    config = EngineConfig(session_len=1024)
    with pipeline(smollm2_path, config, ChatTemplateConfig(chat_template=TEMPLATE)) as pipe:
        yield pipe


@pytest.fixture(scope="module")
def calling(calling_pipe: Pipeline) -> Iterator[RunningServer]:
    config = ServerConfig("m", port=0, reasoning_parser="think")
    with running_server(calling_pipe, config) as server:
        yield server


@pytest.fixture(scope="module")
def chat(calling: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{calling.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def writing(text: str) -> dict[str, Any]:
    """The response format that lets nothing else than ``text`` be written."""
    return {"type": "choice", "choice": [text]}


def check(arguments: Any) -> None:
    assert set(arguments) == {"city", "days"}
    assert arguments["city"] in ("Paris", "Rome")
    assert arguments["days"] in (1, 2)


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
)
def test_a_forced_call_follows_its_schema(chat: openai.OpenAI, choice: Any) -> None:
    tools = [TOOL] if choice == "required" else [OTHER, TOOL]
    answer = chat.chat.completions.create(
        model="m", messages=QUESTION, tools=tools, tool_choice=choice, max_tokens=120
    )
    (call, *_) = answer.choices[0].message.tool_calls
    assert (call.type, call.function.name) == ("function", "weather")
    assert call.id.startswith("call_")
    check(json.loads(call.function.arguments))


@pytest.mark.parametrize("name", sorted(set(TOOL_PARSERS) - {"qwen"}))
def test_a_call_is_forced_in_every_format(calling_pipe: Pipeline, name: str) -> None:
    """Written as a grammar of the format says, read by the format's own parser."""
    config = ServerConfig("m", port=0, tool_call_parser=name, reasoning_parser=None)
    with (
        running_server(calling_pipe, config) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        stream = client.chat.completions.create(
            model="m",
            messages=QUESTION,
            tools=[OTHER, TOOL],
            tool_choice={"type": "function", "function": {"name": "weather"}},
            max_tokens=130,
            stream=True,
        )
        calls = [
            call
            for chunk in stream
            for call in (chunk.choices[0].delta.tool_calls or [])
            if call.index == 0
        ]
    assert calls[0].function.name == "weather"
    check(json.loads("".join(call.function.arguments for call in calls)))


@pytest.mark.parametrize(
    ("function", "param"),
    [
        ({"name": "get-weather"}, "tools[1].function.name"),
        ({"name": "class.a"}, "tools[1].function.name"),
        (
            {"name": "f", "parameters": {"properties": {"a-b": {}}}},
            "tools[1].function.parameters.properties",
        ),
        (
            {"name": "f", "parameters": {"properties": {"from": {}}}},
            "tools[1].function.parameters.properties",
        ),
    ],
)
def test_names_that_no_call_of_python_can_have(
    calling_pipe: Pipeline, function: dict[str, Any], param: str
) -> None:
    """They are refused where such a call is forced, in time rather than in the answer."""
    body: dict[str, Any] = {"model": "m", "messages": QUESTION, "max_tokens": 40}
    body["tools"] = [OTHER, {"type": "function", "function": function}]
    with running_server(
        calling_pipe, ServerConfig("m", port=0, tool_call_parser="pythonic")
    ) as server:
        answer = server.post("/v1/chat/completions", {**body, "tool_choice": "required"})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == param
        choice = {"type": "function", "function": {"name": "clock"}}
        answer = server.post("/v1/chat/completions", {**body, "tool_choice": choice})
        message = answer.json()["choices"][0]["message"]
        assert message["tool_calls"][0]["function"] == {"name": "clock", "arguments": "{}"}


def test_calls_in_chat_completions(chat: openai.OpenAI) -> None:
    common: dict[str, Any] = {"model": "m", "messages": QUESTION, "tools": [TOOL]}
    common["extra_body"] = {"response_format": writing(f"Let me see.\n{CALL}\n{CALL}")}
    choice = chat.chat.completions.create(**common).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me see."
    calls = choice.message.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == [ARGUMENTS] * 2
    assert len({call.id for call in calls}) == 2
    with chat.chat.completions.stream(**common) as stream:
        final = stream.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls"
    assert final.message.content == "Let me see."
    assert [call.function.name for call in final.message.tool_calls] == ["weather"] * 2
    streamed = [json.loads(call.function.arguments) for call in final.message.tool_calls]
    assert streamed == [ARGUMENTS] * 2


def test_a_single_call_may_be_asked_for(calling: RunningServer, chat: openai.OpenAI) -> None:
    common: dict[str, Any] = {"model": "m", "messages": QUESTION, "tools": [TOOL]}
    written: dict[str, Any] = {**common, "parallel_tool_calls": False}
    written["extra_body"] = {"response_format": writing(f"Let me see.\n{CALL}\n{CALL}")}
    message = chat.chat.completions.create(**written).choices[0].message
    assert [json.loads(call.function.arguments) for call in message.tool_calls] == [ARGUMENTS]
    with chat.chat.completions.stream(**written) as stream:
        message = stream.get_final_completion().choices[0].message
    assert [json.loads(call.function.arguments) for call in message.tool_calls] == [ARGUMENTS]
    # A call that is forced ends the answer.
    choice = chat.chat.completions.create(
        **common, tool_choice="required", parallel_tool_calls=False, max_tokens=900
    ).choices[0]
    assert (choice.finish_reason, len(choice.message.tool_calls)) == ("tool_calls", 1)
    tool: Any = {"type": "function", **FUNCTION}
    response = chat.responses.create(
        model="m", input="Where?", tools=[tool], tool_choice="required", parallel_tool_calls=False
    )
    assert [item.type for item in response.output] == ["function_call"]
    assert response.parallel_tool_calls is False
    with anthropic.Anthropic(base_url=calling.url, api_key="none", max_retries=0) as claude:
        answer = claude.messages.create(
            model="m",
            messages=QUESTION,
            max_tokens=900,
            tools=[{"name": "weather", "input_schema": SCHEMA}],
            tool_choice={"type": "any", "disable_parallel_tool_use": True},
        )
    assert answer.stop_reason == "tool_use"
    assert [block.type for block in answer.content] == ["tool_use"]


def test_reasoning_in_chat_completions(chat: openai.OpenAI) -> None:
    common: dict[str, Any] = {"model": "m", "messages": QUESTION}
    common["extra_body"] = {"response_format": writing("<think>I wonder.</think>\nTokyo.")}
    message: Any = chat.chat.completions.create(**common).choices[0].message
    assert (message.reasoning_content, message.content) == ("I wonder.", "Tokyo.")
    chunks = list(chat.chat.completions.create(**common, stream=True))
    deltas: list[Any] = [chunk.choices[0].delta for chunk in chunks]
    thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert thought == "I wonder."
    assert "".join(delta.content or "" for delta in deltas) == "Tokyo."


THOUGHT = "<think>I wonder about that.</think>\nTokyo."


def tokens_of_thought(rows: list[Any]) -> int:
    """Counted one by one, from the log probabilities of an answer that is THOUGHT."""
    first, last = THOUGHT.index(">") + 1, THOUGHT.index("</")
    begins = [sum(len(row.token) for row in rows[:i]) for i in range(len(rows))]
    assert "".join(row.token for row in rows) == THOUGHT
    return sum(first <= begin < last for begin in begins)


def test_tokens_of_reasoning_are_counted(chat: openai.OpenAI) -> None:
    common: dict[str, Any] = {"model": "m", "messages": QUESTION, "temperature": 0}
    common["extra_body"] = {"response_format": writing(THOUGHT)}
    spelt = chat.chat.completions.create(**common, logprobs=True)
    expected = tokens_of_thought(spelt.choices[0].logprobs.content)
    assert 3 < expected < spelt.usage.completion_tokens
    usage = chat.chat.completions.create(**common).usage
    assert usage.completion_tokens_details.reasoning_tokens == expected
    two = chat.chat.completions.create(**common, n=2).usage
    assert two.completion_tokens_details.reasoning_tokens == 2 * expected
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    chunks = list(chat.chat.completions.create(**common, stream=True, stream_options=options))
    counts = [chunk.usage.completion_tokens_details.reasoning_tokens for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[0] <= 1 < counts[-1] == expected
    plain = {**common, "extra_body": {"response_format": writing("Tokyo.")}}
    usage = chat.chat.completions.create(**plain).usage
    assert usage.completion_tokens_details.reasoning_tokens == 0

    asked: dict[str, Any] = {"model": "m", "input": QUESTION, "temperature": 0}
    asked["extra_body"] = {"text": {"format": writing(THOUGHT)}}
    usage = chat.responses.create(**asked).usage
    # Every count that the client's own type has.
    assert set(usage.model_dump(exclude_none=True)) == set(type(usage).model_fields)
    assert usage.input_tokens_details.cache_write_tokens == 0
    assert usage.output_tokens_details.reasoning_tokens == expected
    last: Any = list(chat.responses.create(**asked, stream=True))[-1]
    assert last.response.usage.output_tokens_details.reasoning_tokens == expected


def test_tokens_of_reasoning_in_messages() -> None:
    answer = Delta(Response("", 9, 3), [], False, 4)
    usage = MessageWording("m").whole([answer])["usage"]
    assert usage["output_tokens_details"] == {"thinking_tokens": 4}
    assert b'"thinking_tokens": 0' in MessageWording("m").step([answer])


def test_reasoning_that_was_cut_counts_to_its_end(chat: openai.OpenAI) -> None:
    """Of a prompt that has opened the reasoning, every token until then is one of it."""
    opened = {"role": "assistant", "content": "<think>"}
    usage = chat.chat.completions.create(
        model="m",
        messages=[*QUESTION, opened],
        max_tokens=7,
        extra_body={"continue_final_message": True, "ignore_eos": True},
    ).usage
    assert usage.completion_tokens_details.reasoning_tokens == usage.completion_tokens == 7


def test_a_conversation_with_calls_reaches_the_template(calling: RunningServer) -> None:
    function = {"name": "weather", "arguments": json.dumps(ARGUMENTS)}
    messages = [
        *QUESTION,
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "Rain."},
    ]
    ids = calling.post("/tokenize", {"messages": messages}).json()["tokens"]
    text = calling.post("/detokenize", {"tokens": ids}).json()["prompt"]
    assert '"arguments": {"city": "Rome", "days": 2}' in text
    assert "<|im_start|>tool\nRain." in text


def test_calls_in_messages(calling: RunningServer) -> None:
    tool: Any = {"name": "weather", "input_schema": SCHEMA}
    common: dict[str, Any] = {"model": "m", "max_tokens": 120, "messages": QUESTION}
    common |= {"tools": [tool], "tool_choice": {"type": "any"}}
    with anthropic.Anthropic(base_url=calling.url, api_key="none", max_retries=0) as claude:
        answer: Any = claude.messages.create(**common)
        assert answer.stop_reason in ("tool_use", "max_tokens")
        call = next(block for block in answer.content if block.type == "tool_use")
        assert call.name == "weather"
        check(call.input)
        with claude.messages.stream(**common) as stream:
            final: Any = stream.get_final_message()
        call = next(block for block in final.content if block.type == "tool_use")
        check(call.input)
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "Rain."}
        spoken = [*QUESTION, {"role": "assistant", "content": final.to_dict()["content"][:1]}]
        counted = claude.messages.count_tokens(
            model="m", messages=[*spoken, {"role": "user", "content": [result]}], tools=[tool]
        )
        assert (
            counted.input_tokens
            > claude.messages.count_tokens(model="m", messages=QUESTION, tools=[tool]).input_tokens
        )


def test_calls_and_reasoning_in_ollama(calling: RunningServer) -> None:
    with ollama.Client(host=calling.url) as client:
        schema = {"type": "object", "properties": {"name": {"const": "weather"}}}
        spoken = client.chat("m", QUESTION, tools=[TOOL], options={"num_predict": 4})
        assert not spoken.message.tool_calls
        assert client.chat("m", QUESTION, format=schema, options={"num_predict": 30}).done
        assert {"tools", "thinking"} <= set(client.show("m").capabilities)


def test_calls_in_responses(chat: openai.OpenAI) -> None:
    tool: Any = {"type": "function", **FUNCTION, "strict": True}
    common: dict[str, Any] = {"model": "m", "input": "Where?", "tools": [tool]}
    common |= {"tool_choice": "required", "max_output_tokens": 120}
    answer: Any = chat.responses.create(**common)
    call = next(item for item in answer.output if item.type == "function_call")
    assert call.name == "weather"
    check(json.loads(call.arguments))
    sent: list[Any] = list(chat.responses.create(**common, stream=True))
    assert [event.sequence_number for event in sent] == list(range(len(sent)))
    done = next(e for e in sent if e.type == "response.function_call_arguments.done")
    pieces = [
        event.delta
        for event in sent
        if event.type == "response.function_call_arguments.delta" and event.item_id == done.item_id
    ]
    assert "".join(pieces) == done.arguments
    check(json.loads(done.arguments))
    begun = [event.item.id for event in sent if event.type == "response.output_item.added"]
    ended = [event.item.id for event in sent if event.type == "response.output_item.done"]
    assert begun == ended == [item.id for item in sent[-1].response.output]
    history: Any = [
        {"role": "user", "content": "Where?"},
        {"type": "function_call", "call_id": "1", "name": "weather", "arguments": done.arguments},
        {"type": "function_call_output", "call_id": "1", "output": "Rain."},
    ]
    for place, field in ((1, "name"), (1, "call_id"), (2, "call_id"), (2, "output")):
        item = {name: value for name, value in history[place].items() if name != field}
        short = [*history[:place], item, *history[place + 1 :]]
        with pytest.raises(openai.BadRequestError) as caught:
            chat.responses.create(model="m", input=short, max_output_tokens=1)
        assert caught.value.param == f"input[{place}].{field}"
    told = chat.responses.create(model="m", input=history, max_output_tokens=1)
    plain = chat.responses.create(model="m", input="Where?", max_output_tokens=1)
    assert told.usage.input_tokens > plain.usage.input_tokens


@pytest.mark.parametrize("stream", [True, False])
def test_a_call_that_was_cut_off_is_not_said_to_be_complete(stream: bool) -> None:
    """A client would make it."""
    first = [ToolCallStart(0, "a"), ToolCallDelta(0, "{}"), ToolCallEnd(0, True)]
    second = [ToolCallStart(1, "b"), ToolCallDelta(1, '{"x": '), ToolCallEnd(1, False)]
    piece = Response("", 1, 1, finish_reason="length")
    wording = ResponseWording(ResponseRequest(model="m", input="x"))
    answer = Delta(piece, [*first, *second], True)
    if stream:
        told = events(wording.step([answer]).decode())
        done = [event["item"] for event in told if event["type"] == "response.output_item.done"]
        output = told[-1]["response"]["output"]
        assert done == output
    else:
        output = wording.whole([answer])["output"]
    assert [item["status"] for item in output] == ["completed", "incomplete"]


def test_arguments_of_any_depth_are_told() -> None:
    """Ollama's and Anthropic's clients get objects; what Python cannot read stays text."""
    deep = '{"x": ' + "[" * 100_000
    call = [ToolCallStart(0, "a"), ToolCallDelta(0, deep), ToolCallEnd(0, False)]
    answer = Delta(Response("", 1, 1, finish_reason="length"), call, True)
    (block,) = MessageWording("m").whole([answer])["content"]
    assert block["input"] == {"arguments": deep}
    assert called("a", deep)["arguments"] == {"arguments": deep}


@pytest.mark.parametrize(
    ("param", "change"),
    [
        ("tool_choice", {"tool_choice": "required"}),
        ("tool_choice", {"tools": [TOOL], "tool_choice": {"function": {"name": "other"}}}),
        ("tools[0].function.name", {"tools": [{"function": {"name": "a b"}}]}),
        ("tools[1].function.name", {"tools": [TOOL, TOOL]}),
        ("tools[0].type", {"tools": [{"type": "web_search", "function": FUNCTION}]}),
        (
            "response_format",
            {"tools": [TOOL], "tool_choice": "required", "response_format": writing("x")},
        ),
    ],
)
def test_wrong_tools(calling: RunningServer, param: str, change: dict[str, Any]) -> None:
    answer = calling.post("/v1/chat/completions", {"model": "m", "messages": QUESTION, **change})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


STRICT: Any = {"type": "function", "function": {**FUNCTION, "strict": True}}


@pytest.fixture
def compiled(calling_pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The response formats that are compiled."""
    guides, made = calling_pipe.runtime.guides, []
    compile_format = guides.compile

    def note(response_format: Any) -> Any:
        made.append(response_format)
        return compile_format(response_format)

    monkeypatch.setattr(guides, "compile", note)
    return made


@pytest.mark.parametrize("parser", ["hermes", "llama3", "pythonic", "gpt-oss"])
@pytest.mark.parametrize("strict", [True, False, None])
def test_strict_takes_effect(
    calling_pipe: Pipeline, compiled: list[Any], strict: Any, parser: str
) -> None:
    """In every interface that has it, though nothing forces a call."""
    function = {**FUNCTION, "strict": strict}
    asked: dict[str, Any] = {"model": "m", "messages": QUESTION, "max_tokens": 8}
    form = OutputFormat(parser, None)
    expected = Toolset.of([STRICT], "auto").response_format(form) if strict else None
    with running_server(calling_pipe, ServerConfig("m", port=0, tool_call_parser=parser)) as server:
        for path, tool, body in (
            ("chat/completions", {"type": "function", "function": function}, asked),
            ("responses", {"type": "function", **function}, {"model": "m", "input": "Where?"}),
            ("messages", {"name": "weather", "input_schema": SCHEMA, "strict": strict}, asked),
        ):
            compiled.clear()
            room = {} if "max_tokens" in body else {"max_output_tokens": 8}
            answer = server.post(f"/v1/{path}", {**body, **room, "tools": [tool]})
            assert answer.status_code == 200
            assert bool(compiled) == bool(strict)
            assert all(form == expected for form in compiled)


@pytest.mark.parametrize(
    ("parser", "schema", "param"),
    [
        ("hermes", {"type": "array", "uniqueItems": True}, "uniqueItems"),
        ("llama3", {"type": "array", "uniqueItems": True}, "uniqueItems"),
        ("gpt-oss", {"$ref": "#/$defs/none"}, "$ref"),
        ("glm", {"type": "string", "pattern": "a+"}, ".properties.a.pattern"),
        ("pythonic", {"type": "array", "items": 5}, "items"),
    ],
)
def test_a_schema_that_cannot_be_kept_is_named_by_its_tool(
    calling_pipe: Pipeline, parser: str, schema: Any, param: str
) -> None:
    parameters = {"type": "object", "properties": {"a": schema}}
    function = {"name": "f", "parameters": parameters, "strict": True}
    body: dict[str, Any] = {"model": "m", "messages": QUESTION, "max_tokens": 100}
    body["tools"] = [OTHER, {"type": "function", "function": function}]
    with running_server(calling_pipe, ServerConfig("m", port=0, tool_call_parser=parser)) as server:
        for stream in (False, True):
            answer = server.post("/v1/chat/completions", {**body, "stream": stream})
            assert answer.status_code == 400
            error = answer.json()["error"]
            assert error["param"].startswith("tools[1].function.parameters")
            assert param in error["message"]
            assert "response_format" not in error["message"]


def test_what_messages_have_no_words_for_is_refused(calling: RunningServer) -> None:
    tool: Any = {"name": "weather", "input_schema": SCHEMA}
    call: Any = {"type": "tool_use", "id": "1", "name": "weather", "input": ARGUMENTS}
    thought: Any = {"type": "thinking", "thinking": "Hm.", "signature": ""}
    said: Any = {"type": "text", "text": "It"}

    def fault(content: Any, *turns: Any) -> str:
        messages = [*turns, {"role": "assistant", "content": content}]
        body = {"model": "m", "max_tokens": 2, "tools": [tool], "messages": messages}
        answer = calling.post("/v1/messages", body)
        return "" if answer.status_code == 200 else str(answer.json()["error"]["message"])

    assert fault([said], *QUESTION) == ""
    assert "messages[1].content: expected text only" in fault([said, call], *QUESTION)
    assert "messages[1].content: expected text only" in fault([thought, said], *QUESTION)
    cited = {"type": "text", "text": "It", "citations": [{"type": "char_location"}]}
    assert "messages[1].content[0].citations: not supported" in fault([cited], *QUESTION)
    for harmless in ([], None):
        assert fault([{**cited, "citations": harmless}], *QUESTION) == ""
    result = {"type": "tool_result", "tool_use_id": "1", "content": [cited]}
    turns = [*QUESTION, {"role": "assistant", "content": [call]}]
    found = fault("It", *turns, {"role": "user", "content": [result]})
    assert "messages[2].content[0].content[0].citations: not supported" in found


def test_a_result_that_failed_says_so() -> None:
    def told(**more: Any) -> str:
        result = {"type": "tool_result", "tool_use_id": "1", "content": "no such city", **more}
        turn = {"role": "user", "content": [result]}
        body = MessageRequest.model_validate({"model": "m", "max_tokens": 1, "messages": [turn]})
        return str(body.dialogue().messages[0]["content"])

    assert told() == told(is_error=False) == "no such city"
    assert told(is_error=True) == "Error: no such city"


def test_a_model_without_tools_says_so(server: RunningServer) -> None:
    body = {"model": "smollm2", "messages": QUESTION, "tools": [TOOL]}
    answer = server.post("/v1/chat/completions", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "tools"
