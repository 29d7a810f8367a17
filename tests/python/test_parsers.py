# SPDX-License-Identifier: Apache-2.0
"""Tool calls and reasoning of every format; no event depends on the pieces a text comes in.

The answers are written as each model's documentation or chat template writes them.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manymind.errors import InvalidParameterError
from manymind.parsers import (
    TOOL_PARSERS,
    Event,
    OutputFormat,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    joined,
    output_format,
)

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "tags": {"type": "array"},
                },
            },
        },
    },
    {"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}},
]


def parse(
    format_name: str | None, pieces: list[str], reasoning: str | None = None, prompt: str = ""
) -> list[Event]:
    parser = OutputFormat(format_name, reasoning).parser(TOOLS, prompt)
    events = [event for piece in pieces for event in parser.push(piece)]
    return joined(events + parser.finish())


def call(index: int, name: str, arguments: Any, complete: bool = True) -> list[Event]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return [ToolCallStart(index, name), ToolCallDelta(index, text), ToolCallEnd(index, complete)]


WEATHER = {"city": 'Köln }]\\n"x"', "days": 3}
WEATHER_TEXT = json.dumps(WEATHER, ensure_ascii=False)
TIME: dict[str, Any] = {}


class Case(NamedTuple):
    name: str
    format: str | None
    text: str
    events: list[Event]
    reasoning: str | None = None
    prompt: str = ""


BOTH = [*call(0, "get_weather", WEATHER), *call(1, "get_time", TIME)]
CASES = [
    Case("plain", None, "Hello <think> there.\n", [TextDelta("Hello <think> there.\n")]),
    Case(
        "reasoning",
        None,
        "<think>\nLet me </thin think.\n</think>\n\nThe answer: 4 < 5.",
        [ReasoningDelta("Let me </thin think."), TextDelta("The answer: 4 < 5.")],
        "think",
    ),
    Case(
        "reasoning opened by the prompt",
        "hermes",
        "Hm.\n</think>\n\nHi",
        [ReasoningDelta("Hm."), TextDelta("Hi")],
        "think",
        "<|im_start|>assistant\n<think>\n",
    ),
    Case(
        "reasoning that never ends",
        None,
        "<think>And so on",
        [ReasoningDelta("And so on")],
        "think",
    ),
    Case(
        "mistral reasoning",
        "mistral",
        "[THINK]Hm.[/THINK]4",
        [ReasoningDelta("Hm."), TextDelta("4")],
        "mistral",
    ),
    Case(
        "hermes",
        "hermes",
        "<think>A tool.</think>I look.\n<tool_call>\n"
        f'{{"name": "get_weather", "arguments": {WEATHER_TEXT}}}\n</tool_call>\n<tool_call>\n'
        '{"name": "get_time", "arguments": {}}\n</tool_call>',
        [ReasoningDelta("A tool."), TextDelta("I look."), *BOTH],
        "think",
    ),
    Case(
        "hermes, arguments first and as a string",
        "hermes",
        f'<tool_call>{{"arguments": {json.dumps(WEATHER_TEXT)}, "name": "get_weather"}}</tool_call>'
        '<tool_call>{"name": "get_time"}</tool_call> Done',
        [*BOTH, TextDelta(" Done")],
    ),
    Case(
        "hermes, no call after all",
        "hermes",
        'Write <tool_call> then {"a": 1}.',
        [TextDelta('Write <tool_call> then {"a": 1}.')],
    ),
    Case(
        "hermes, cut within",
        "hermes",
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Kö',
        call(0, "get_weather", '{"city": "Kö', complete=False),
    ),
    Case(
        "qwen3_coder",
        "qwen3_coder",
        "Sure.\n<tool_call>\n<function=get_weather>\n<parameter=city>\n"
        f"{WEATHER['city']}\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n"
        "</tool_call>\n<tool_call>\n<function=get_time>\n</function>\n</tool_call>",
        [TextDelta("Sure."), *BOTH],
    ),
    Case(
        "qwen3_coder, cut and untyped",
        "qwen3_coder",
        "<function=get_weather>\n<parameter=days>\nsoon\n</parameter>\n<parameter=x>\n7\n"
        "</parameter>\n<parameter=city>\nBer",
        call(0, "get_weather", {"days": "soon", "x": "7"}, complete=False),
    ),
    Case(
        "glm",
        "glm",
        "<think>Hm</think>\nI look.\n<tool_call>get_weather\n<arg_key>city</arg_key>\n"
        f"<arg_value>{WEATHER['city']}</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>3</arg_value>\n</tool_call>\n<tool_call>get_time\n</tool_call>",
        [ReasoningDelta("Hm"), TextDelta("I look."), *BOTH],
        "think",
    ),
    Case(
        "llama3",
        "llama3",
        f'{{"name": "get_weather", "parameters": {WEATHER_TEXT}}}; '
        '{"name": "get_time", "parameters": {}}',
        BOTH,
    ),
    Case(
        "llama3, python tag",
        "llama3",
        '<|python_tag|>{"type": "function", "name": "get_time", "parameters": {}}',
        call(0, "get_time", TIME),
    ),
    Case(
        "llama3, JSON that is no call",
        "llama3",
        ' {"answer": {"name": "x", "parameters": 1}}',
        [TextDelta(' {"answer": {"name": "x", "parameters": 1}}')],
    ),
    Case(
        "pythonic",
        "pythonic",
        "[get_weather(city='Köln }]\\\\n\"x\"', days=3), get_time()]",
        BOTH,
    ),
    Case(
        "pythonic, tags and JSON's words",
        "pythonic",
        "I look.<|python_start|>[get_weather(city=\"it's\", days=-1, tags=[true, None, {'a': (1,)}]"
        ")]<|python_end|>",
        [
            TextDelta("I look."),
            *call(0, "get_weather", {"city": "it's", "days": -1, "tags": [True, None, {"a": [1]}]}),
        ],
    ),
    Case(
        "pythonic, JSON's escapes",
        "pythonic",
        r'[get_weather(city="\ud83d\ude00\/\\/\u00e9\"\n", tags={"\ud83d\ude00": "\ud83d"})]',
        call(0, "get_weather", {"city": '\U0001f600/\\/é"\n', "tags": {"\U0001f600": "\ufffd"}}),
    ),
    Case(
        "pythonic, a list that is none of calls",
        "pythonic",
        "[1, f(x=2)] and [get_time()]",
        [TextDelta("[1, f(x=2)] and [get_time()]")],
    ),
    Case(
        "pythonic, no values",
        "pythonic",
        "[get_time(x=__import__('os'))]",
        [TextDelta("[get_time(x=__import__('os'))]")],
    ),
    Case("pythonic, cut", "pythonic", "[get_time(x=1", [TextDelta("[get_time(x=1")]),
    Case(
        "mistral, a list",
        "mistral",
        f'[TOOL_CALLS] [{{"name": "get_weather", "arguments": {WEATHER_TEXT}}}, '
        '{"name": "get_time", "arguments": {}, "id": "VvvODy9mT"}]',
        BOTH,
    ),
    Case(
        "mistral, named",
        "mistral",
        f"I look.[TOOL_CALLS]get_weather[ARGS]{WEATHER_TEXT}"
        "[TOOL_CALLS]get_time[CALL_ID]VvvODy9mT[ARGS]{}",
        [TextDelta("I look."), *BOTH],
    ),
    Case(
        "internlm",
        "internlm",
        "I look.<|action_start|><|plugin|>\n"
        f'{{"name": "get_weather", "parameters": {WEATHER_TEXT}}}<|action_end|>\n'
        '<|action_start|> <|plugin|>{"name": "get_time", "parameters": {}}<|action_end|>\n',
        [TextDelta("I look."), *BOTH],
    ),
    Case(
        "deepseek v3",
        "deepseek",
        "I look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n"
        f"```json\n{WEATHER_TEXT}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function"
        "<｜tool▁sep｜>get_time\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        [TextDelta("I look."), *BOTH],
    ),
    Case(
        "deepseek v3.1",
        "deepseek",
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{WEATHER_TEXT}"
        "<｜tool▁call▁end｜><｜tool▁call▁begin｜>get_time<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
        "<｜tool▁calls▁end｜>",
        BOTH,
    ),
    Case(
        "deepseek v3.2",
        "deepseek_v32",
        'Hm.</think>I look.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">\n'
        f'<｜DSML｜parameter name="city" string="true">{WEATHER["city"]}</｜DSML｜parameter>\n'
        '<｜DSML｜parameter name="days" string="false">3</｜DSML｜parameter>\n'
        '</｜DSML｜invoke>\n<｜DSML｜invoke name="get_time">\n</｜DSML｜invoke>\n'
        "</｜DSML｜function_calls>",
        [ReasoningDelta("Hm."), TextDelta("I look."), *BOTH],
        "think",
        "<｜Assistant｜><think>",
    ),
    Case(
        "gpt-oss",
        "gpt-oss",
        "<|channel|>analysis<|message|>I need a tool.<|end|><|start|>assistant<|channel|>"
        "commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary "
        f"to=functions.get_weather <|constrain|>json<|message|>{WEATHER_TEXT}<|call|>"
        "<|start|>assistant to=functions.get_time<|channel|>commentary<|message|>{}",
        [ReasoningDelta("I need a tool."), TextDelta("I look."), *BOTH],
    ),
    Case(
        "gpt-oss, final",
        "gpt-oss",
        "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final"
        "<|message|>4 <|is| it.<|return|>",
        [ReasoningDelta("Easy."), TextDelta("4 <|is| it.")],
    ),
    Case(
        "gpt-oss, cut within a call",
        "gpt-oss",
        '<|channel|>commentary to=functions.get_weather <|message|>{"city": "B',
        call(0, "get_weather", '{"city": "B', complete=False),
    ),
]
IDS = [case.name for case in CASES]


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    ends = [*sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_events(case: Case) -> None:
    assert parse(case.format, [case.text], case.reasoning, case.prompt) == case.events


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_events_come_as_soon_as_they_are_certain(case: Case) -> None:
    """Character by character; what is held back is never more than a marker or a name."""
    parser = OutputFormat(case.format, case.reasoning).parser(TOOLS, case.prompt)
    assert parse(case.format, list(case.text), case.reasoning, case.prompt) == case.events
    shown = [event for character in case.text for event in parser.push(character)]
    if case.format in ("hermes", "mistral", "internlm", "gpt-oss") and "cut" in case.name:
        assert joined(shown) == case.events[:-1]


@pytest.mark.parametrize("case", CASES, ids=IDS)
@given(cuts=st.lists(st.integers(0, 10_000), max_size=12))
@settings(max_examples=60, deadline=None)
def test_no_cut_changes_the_events(case: Case, cuts: list[int]) -> None:
    pieces = pieces_of(case.text, cuts)
    assert parse(case.format, pieces, case.reasoning, case.prompt) == case.events


# Words of all formats, broken and mixed.
WORDS = sorted(
    {word for case in CASES for word in case.text.replace(">", "> ").split(" ") if len(word) < 40}
)
GARBAGE = st.lists(st.sampled_from([*WORDS, "{", "}", '"', "[", "]", "<", " ", "\n", "\\"])).map(
    "".join
)


@pytest.mark.parametrize("name", [*TOOL_PARSERS, None])
@given(text=GARBAGE, cuts=st.lists(st.integers(0, 10_000), max_size=8), opened=st.booleans())
@settings(max_examples=150, deadline=None)
def test_garbage_gives_the_same_events_in_any_pieces(
    name: str | None, text: str, cuts: list[int], opened: bool
) -> None:
    prompt = "<think>" if opened else ""
    whole = parse(name, [text], "think", prompt)
    assert parse(name, pieces_of(text, cuts), "think", prompt) == whole
    starts = [event.index for event in whole if isinstance(event, ToolCallStart)]
    ends = [event.index for event in whole if isinstance(event, ToolCallEnd)]
    assert starts == ends == list(range(len(starts)))


@given(text=st.text(), name=st.sampled_from(list(TOOL_PARSERS)))
@settings(max_examples=100, deadline=None)
def test_text_without_markers_stays_as_it_is(text: str, name: str) -> None:
    if any(marker in text for marker in TOOL_PARSERS[name].call_markers):
        return
    assert parse(name, [text]) == ([TextDelta(text)] if text else [])


@given(
    arguments=st.dictionaries(
        st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists), max_size=4
    ),
    indent=st.sampled_from([None, 2]),
)
@settings(max_examples=30, deadline=None)
def test_any_json_arguments_arrive(arguments: dict[str, Any], indent: int | None) -> None:
    written = json.dumps(arguments, indent=indent)
    text = f'<tool_call>{{"name": "f", "arguments": {written}}}</tool_call>'
    assert parse("hermes", [text]) == call(0, "f", written)


TEMPLATES = [
    ("{{ '<|channel|>final<|message|>' }}", "gpt-oss", None),
    ("{{ '<think>' }}</think><tool_call>\n{'name': ...}", "hermes", "think"),
    ("<tool_call>\n<function=x>\n<parameter=y>", "qwen3_coder", None),
    ("<tool_call>x\n<arg_key></think>", "glm", "think"),
    ("<｜tool▁call▁begin｜>function<｜tool▁sep｜>\n```json", "deepseek", None),
    ("<｜tool▁call▁begin｜>", "deepseek_v31", None),
    ("<｜DSML｜invoke", "deepseek_v32", None),
    ("[TOOL_CALLS]", "mistral", None),
    ("[TOOL_CALLS]name[ARGS]", "mistral_args", None),
    ("<|python_start|>", "pythonic", None),
    ("<|action_start|>", "internlm", None),
    ("<|python_tag|>", "llama3", None),
    (
        'Respond in the format {"name": function name, "parameters": dictionary of argument name '
        "and its value}.",
        "llama3",
        None,
    ),
    ("{{ messages[0].content }}", None, None),
    (None, None, None),
]


@pytest.mark.parametrize(("template", "tools", "reasoning"), TEMPLATES)
def test_the_template_tells_the_format(
    template: str | None, tools: str | None, reasoning: str | None
) -> None:
    found = output_format(template)
    assert (found.tools, found.reasoning) == (tools, reasoning)
    assert found.needs_special_tokens == (tools is not None or reasoning is not None)


def test_names_override_the_template_and_are_checked() -> None:
    assert output_format("[TOOL_CALLS]", tools="qwen", reasoning="think") == OutputFormat(
        "qwen", "think"
    )
    assert output_format("[TOOL_CALLS]", tools=None).tools is None
    with pytest.raises(InvalidParameterError, match="tool_call_parser: expected one of"):
        output_format(None, tools="gpt2")
    with pytest.raises(InvalidParameterError, match="reasoning_parser: expected one of"):
        output_format(None, reasoning="hard")


def test_without_tools_nothing_is_a_call() -> None:
    text = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    parser = OutputFormat("hermes", None).parser()
    assert joined(parser.push(text) + parser.finish()) == [TextDelta(text)]


@pytest.mark.parametrize(
    "case", [case for case in CASES if any(isinstance(e, ReasoningDelta) for e in case.events)]
)
def test_where_the_reasoning_stands(case: Case) -> None:
    """Whatever the pieces, the spans are the reasoning with the white space around it."""
    for pieces in ([case.text], list(case.text)):
        parser = OutputFormat(case.format, case.reasoning).parser(TOOLS, case.prompt)
        for piece in pieces:
            parser.push(piece)
            assert all(begin <= end <= len(case.text) for begin, end in parser.reasoning_spans)
        parser.finish()
        shown = [case.text[begin:end].strip() for begin, end in parser.reasoning_spans]
        assert shown == [e.text for e in case.events if isinstance(e, ReasoningDelta)]
