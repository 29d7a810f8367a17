# SPDX-License-Identifier: Apache-2.0
"""Under the grammar of a strict function, what a format's parser reads as a call of it fits its
schema, whichever way it is written; other functions and other text are free.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from manymind import GenerationConfig, Pipeline
from manymind.errors import InvalidParameterError
from manymind.parsers import (
    TOOL_PARSERS,
    OutputFormat,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    joined,
)
from manymind.server.call_grammars import CallRules, call_grammar
from manymind.server.errors import ApiError
from manymind.server.tools import Toolset

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"enum": [1, 2]}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
STRICT: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": SCHEMA, "strict": True},
}
OTHER: Any = {"type": "function", "function": {"name": "clock"}}
TOOLS = Toolset.of([STRICT, OTHER], "auto")

# A call of each format; "@" stands for the argument ``days``, which follows: as it has to be, of a
# wrong type, and with an argument behind it that the function does not have.
_JSON = ('"days": 2', '"days": "2"', '"days": 2, "hour": 1')
_CITY = '{"city": "Rome", @}'
_QWEN = "<parameter={}>\n{}\n</parameter>\n"
_GLM = "<arg_key>{}</arg_key>\n<arg_value>{}</arg_value>\n"
_DSML = '<｜DSML｜parameter name="{}" string="{}">{}</｜DSML｜parameter>\n'
_FENCED = f"function<｜tool▁sep｜>weather\n```json\n{_CITY}\n```"
_HERMES = f'<tool_call>\n{{"name": "weather", "arguments": {_CITY}}}\n</tool_call>'
CALLS: dict[str, tuple[str, tuple[str, str, str]]] = {
    "deepseek": (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{_FENCED}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        _JSON,
    ),
    "deepseek_v31": (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{_CITY}"
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        _JSON,
    ),
    "deepseek_v32": (
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="weather">\n'
        + _DSML.format("city", "true", "Rome")
        + "@</｜DSML｜invoke>\n</｜DSML｜function_calls>",
        (
            _DSML.format("days", "false", "2"),
            _DSML.format("days", "true", "two"),
            _DSML.format("days", "false", "2") + _DSML.format("hour", "false", "1"),
        ),
    ),
    "glm": (
        f"<tool_call>weather\n{_GLM.format('city', 'Rome')}@</tool_call>",
        (
            _GLM.format("days", "2"),
            _GLM.format("days", "two"),
            _GLM.format("days", "2") + _GLM.format("hour", "1"),
        ),
    ),
    "gpt-oss": (
        "<|channel|>analysis<|message|>Rome, then.<|end|><|start|>assistant"
        f"<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{_CITY}",
        _JSON,
    ),
    "hermes": (_HERMES, _JSON),
    "internlm": (
        "Let me see.\n"
        f'<|action_start|><|plugin|>\n{{"name": "weather", "parameters": {_CITY}}}<|action_end|>',
        _JSON,
    ),
    "llama3": (f'{{"name": "weather", "parameters": {_CITY}}}', _JSON),
    "mistral": (f'[TOOL_CALLS][{{"name": "weather", "arguments": {_CITY}}}]', _JSON),
    "mistral_args": (f"[TOOL_CALLS]weather[ARGS]{_CITY}", _JSON),
    "pythonic": ('[weather(city="Rome", @)]', ("days=2", 'days="2"', "days=2, hour=1")),
    "qwen": (_HERMES, _JSON),
    "qwen3_coder": (
        f"<tool_call>\n<function=weather>\n{_QWEN.format('city', 'Rome')}@"
        "</function>\n</tool_call>",
        (
            _QWEN.format("days", "2"),
            _QWEN.format("days", "two"),
            _QWEN.format("days", "2") + _QWEN.format("hour", "1"),
        ),
    ),
}
LLAMA3 = CALLS["llama3"][0].replace("@", _JSON[0])
PYTHONIC = '[weather(city="Rome", days=2)]'
FINAL = "<|channel|>final<|message|>"


def taken(pipe: Pipeline, response_format: Any, text: str) -> bool:
    """Whether the grammar lets a model write the text, and end there."""
    guide = pipe.runtime.guides.compile(response_format).clone()
    try:
        ids = pipe.runtime.tokenizer.encode(text, parse_special=True)
        return all(guide.accept(token, 1000) for token in ids) and guide.draws_to_end == 1
    except InvalidParameterError:  # of a token that the grammar does not allow
        return False


def calls_in(form: OutputFormat, text: str, prompt: str = "") -> list[tuple[str, Any]]:
    """Name and arguments of the calls that the format's parser finds."""
    parser = form.parser([STRICT, OTHER], prompt)
    events = joined(parser.push(text) + parser.finish())
    names = [event.name for event in events if isinstance(event, ToolCallStart)]
    arguments = [event.arguments for event in events if isinstance(event, ToolCallDelta)]
    assert all(event.complete for event in events if isinstance(event, ToolCallEnd))
    return list(zip(names, map(json.loads, arguments), strict=True))


@pytest.mark.parametrize("name", sorted(TOOL_PARSERS))
def test_a_strict_call_fits_its_schema_in_every_format(smollm2: Pipeline, name: str) -> None:
    form = OutputFormat(name, None)
    grammar = TOOLS.response_format(form)
    text, (right, wrong, unknown) = CALLS[name]
    call = text.replace("@", right)
    assert calls_in(form, call) == [("weather", {"city": "Rome", "days": 2})]
    assert taken(smollm2, grammar, call)
    for other in (wrong, unknown, ""):
        assert not taken(smollm2, grammar, text.replace("@", other)), other
    assert not taken(smollm2, grammar, call.replace("Rome", "Oslo"))
    assert not taken(smollm2, grammar, call.replace("weather", "whether"))
    # A function that is not strict takes anything, and nothing.
    for other in (right, wrong, unknown):
        clock = text.replace("weather", "clock").replace("@", other)
        assert taken(smollm2, grammar, clock), clock
        assert [called for called, _ in calls_in(form, clock)] == ["clock"]


@pytest.mark.parametrize(
    ("name", "before", "behind"),
    [
        ("deepseek", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
        ("deepseek_v31", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
        ("deepseek_v32", "<｜DSML｜function_calls>\n", "\n</｜DSML｜function_calls>"),
        ("qwen3_coder", "<tool_call>\n", "\n</tool_call>"),
    ],
)
def test_a_call_without_the_words_around_calls_fits_its_schema(
    smollm2: Pipeline, name: str, before: str, behind: str
) -> None:
    form = OutputFormat(name, None)
    grammar = TOOLS.response_format(form)
    text, (right, wrong, unknown) = CALLS[name]
    bare = text.removeprefix(before).removesuffix(behind)
    assert len(bare) == len(text) - len(before) - len(behind)
    for begin in ("", "I look.\n", text.replace("@", right) + "\n"):
        call = begin + bare.replace("@", right)
        assert calls_in(form, call)[-1] == ("weather", {"city": "Rome", "days": 2})
        assert taken(smollm2, grammar, call)
        for other in (wrong, unknown):
            assert calls_in(form, begin + bare.replace("@", other))
            assert not taken(smollm2, grammar, begin + bare.replace("@", other))


@pytest.mark.parametrize("name", sorted(TOOL_PARSERS))
def test_other_text_is_free_in_every_format(smollm2: Pipeline, name: str) -> None:
    form = OutputFormat(name, None)
    grammar = TOOLS.response_format(form)
    begin = FINAL if name == "gpt-oss" else ""
    for text in ("Hello.", "", "a < b, [1, 2] and {3}.\n", "weather(3)", 'a {"name": "weather"}'):
        assert taken(smollm2, grammar, begin + text), text
        assert not calls_in(form, begin + text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("llama3", '{"answer": 42}'),
        ("llama3", "{"),
        ("llama3", '\n{"named": 1}'),
        ("llama3", f"Such as {LLAMA3.replace('Rome', 'Oslo')}"),
        ("pythonic", "[1, 2, weather]"),
        ("pythonic", "[a](b) is a link."),
        ("pythonic", "[weather"),
        ("pythonic", "See [weather(1)]."),
        ("gpt-oss", f"<|channel|>analysis<|message|>a to=b<|end|><|start|>assistant{FINAL}c to=d"),
        ("gpt-oss", f"<|channel|>commentary<|message|>I look.<|end|><|start|>assistant{FINAL}"),
    ],
)
def test_text_that_begins_like_a_call_is_free(smollm2: Pipeline, name: str, text: str) -> None:
    form = OutputFormat(name, None)
    assert taken(smollm2, TOOLS.response_format(form), text)
    assert not calls_in(form, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("llama3", f"\n{LLAMA3}"),
        ("llama3", f"<|python_tag|>{LLAMA3}"),
        ("llama3", f"{LLAMA3}; {LLAMA3}"),
        ("llama3", f"{LLAMA3}\n{LLAMA3}"),
        ("pythonic", f"\n{PYTHONIC}"),
        ("pythonic", f"<|python_start|>{PYTHONIC}<|python_end|>"),
        ("pythonic", '[weather(city="Rome", days=2), weather(city="Paris", days=1), clock()]'),
    ],
)
def test_strict_calls_of_whole_answers(smollm2: Pipeline, name: str, text: str) -> None:
    form = OutputFormat(name, None)
    grammar = TOOLS.response_format(form)
    assert taken(smollm2, grammar, text)
    assert calls_in(form, text)[0] == ("weather", {"city": "Rome", "days": 2})
    assert not taken(smollm2, grammar, text.replace("Rome", "Oslo"))
    one = Toolset.of([STRICT, OTHER], "auto", single=True).response_format(form)
    assert taken(smollm2, one, text) == (len(calls_in(form, text)) == 1)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("llama3", '{ "name": "weather", "parameters": {}}'),
        ("llama3", '{"n\\u0061me": "weather", "parameters": {}}'),
        ("llama3", '{"type": "function", "name": "weather", "parameters": {}}'),
        ("llama3", '{"parameters": {}, "name": "weather"}'),
        ("llama3", '<|python_tag|> {"name": "weather", "arguments": {}}'),
        ("llama3", LLAMA3 + '{"name": "weather", "arguments": {}}'),
        ("pythonic", "[ weather(days=3)]"),
        ("pythonic", "[weather (days=3)]"),
        ("pythonic", "Well: <|python_start|>[weather(days=3)]"),
        ("pythonic", "[clock(), weather(days=3)]"),
        ("gpt-oss", '<|channel|>commentary to=weather<|message|>{"days": 3}'),
        ("gpt-oss", '<|start|>assistant to=weather<|channel|>commentary<|message|>{"days": 3}'),
        ("gpt-oss", f'{FINAL}a<|start|>assistant to=weather<|message|>{{"days": 3}}'),
    ],
)
def test_another_spelling_of_a_call_is_no_way_around(
    smollm2: Pipeline, name: str, text: str
) -> None:
    form = OutputFormat(name, None)
    assert "weather" in [called for called, _ in calls_in(form, text)]
    assert not taken(smollm2, TOOLS.response_format(form), text)


def test_thoughts_stand_before_calls_of_whole_answers(smollm2: Pipeline) -> None:
    form = OutputFormat("llama3", "think")
    wrong = LLAMA3.replace("Rome", "Oslo")
    for prompt, begin in (("", "<think>"), ("", "\n<think>"), ("Answer.<think>", "")):
        grammar = TOOLS.response_format(form, prompt=prompt)
        for thought in ("", "Rome.", wrong):
            text = f"{begin}{thought}</think>\n\n"
            assert taken(smollm2, grammar, begin + thought)
            assert taken(smollm2, grammar, f"{text}Hello.")
            assert taken(smollm2, grammar, text + LLAMA3)
            assert calls_in(form, text + LLAMA3, prompt)
            assert not taken(smollm2, grammar, text + wrong)
    grammar = TOOLS.response_format(form)
    assert taken(smollm2, grammar, LLAMA3)
    assert taken(smollm2, grammar, "No <think> here.")
    assert not taken(smollm2, grammar, wrong)


@pytest.mark.parametrize("name", sorted({*TOOL_PARSERS} - {"gpt-oss"}))
@pytest.mark.parametrize("in_reasoning", [False, True])
def test_marks_of_thoughts_may_be_control_tokens(
    smollm2: Pipeline, name: str, in_reasoning: bool
) -> None:
    """Which are in no text of a grammar unless they are named."""
    begin, end = "<repo_name>", "<file_sep>"
    ids = smollm2.runtime.guides.control_ids
    rules = CallRules({"weather": SCHEMA}, False, False, (begin, end), in_reasoning)
    grammar = call_grammar(name, rules, ids)
    text, (right, wrong, _) = CALLS[name]
    thought = f"{'' if in_reasoning else begin}Hm.{end}"
    assert taken(smollm2, grammar, f"{thought}Hello.")
    assert taken(smollm2, grammar, thought + text.replace("@", right))
    assert not taken(smollm2, grammar, thought + text.replace("@", wrong))
    assert not taken(smollm2, grammar, f"{thought}<filename>")


def test_harmony_of_control_tokens(smollm2: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """As gpt-oss has them: a text may then spell their names."""
    words = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|constrain|>")
    tokens = ("<repo_name>", "<file_sep>", "<filename>", "<gh_stars>", "<issue_start>")
    control = smollm2.runtime.guides.control_ids
    ids = {word: control[token] for word, token in zip(words, tokens, strict=True)}
    grammar = call_grammar("gpt-oss", CallRules({"weather": SCHEMA}, False, False), ids)

    def spelled(text: str) -> str:
        for word, token in zip(words, tokens, strict=True):
            text = text.replace(word, token)
        return text

    text, (right, wrong, _) = CALLS["gpt-oss"]
    assert taken(smollm2, grammar, spelled(text.replace("@", right)))
    assert not taken(smollm2, grammar, spelled(text.replace("@", wrong)))
    assert taken(smollm2, grammar, f"{spelled(FINAL)}That is {FINAL}.")
    assert not taken(smollm2, grammar, f"{spelled(FINAL)}a{spelled(FINAL)}")


def test_a_call_is_made_in_the_time_that_is_left(smollm2: Pipeline) -> None:
    """However few tokens there are, the answer is whole."""
    for name in ("llama3", "pythonic", "gpt-oss"):
        form = OutputFormat(name, None)
        for tools in (TOOLS, Toolset.of([STRICT], "required")):
            grammar = tools.response_format(form)
            least = smollm2.runtime.guides.compile(grammar).draws_to_end
            for room in (0, 5, 40):
                config = GenerationConfig(
                    response_format=grammar,
                    max_new_tokens=least + room,
                    do_sample=True,
                    temperature=1.5,
                    random_seed=room,
                )
                answer = smollm2("Rome?", config)
                assert answer.finish_reason == "stop"  # type: ignore[union-attr]
                calls = calls_in(form, answer.text)  # type: ignore[union-attr]
                assert bool(calls) or tools is TOOLS
                for called, arguments in calls:
                    assert called == "clock" or arguments["days"] in (1, 2)


def test_messages_of_harmony_keep_their_meaning(smollm2: Pipeline) -> None:
    """Reasoning stays reasoning and text stays text under the grammar of harmony."""
    parser = OutputFormat("gpt-oss", None).parser([STRICT])
    text = f"<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant{FINAL}Yes."
    assert taken(smollm2, TOOLS.response_format(OutputFormat("gpt-oss", None)), text)
    assert joined(parser.push(text) + parser.finish()) == [ReasoningDelta("Hm."), TextDelta("Yes.")]


def test_names_that_python_lacks() -> None:
    """Refused where they have to be kept, and out of the grammar where they need not."""
    form = OutputFormat("pythonic", None)
    named: Any = {"type": "function", "function": {"name": "get-weather", "strict": True}}
    with pytest.raises(ApiError, match=r"tools\[0\]\.function\.name: expected an identifier"):
        Toolset.of([named], "auto").check(form, None)
    loose: Any = {"type": "function", "function": {"name": "get-weather"}}
    tools = Toolset.of([loose, STRICT], "auto")
    tools.check(form, None)
    grammar = tools.response_format(form)
    assert grammar is not None
    assert "get-weather" not in grammar["grammar"]
