# SPDX-License-Identifier: Apache-2.0
"""Grammars of answers that call functions, for every format of ``manymind.parsers``: what the
format's parser reads as a call follows the function's schema, and other text is free.

Where words that stand nowhere else begin a call, the grammar is a structural tag. Llama 3's and
Python's calls are whole answers that begin as others may, and gpt-oss's are messages among others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from manymind.guided.lark import Spelling, as_regex, quoted
from manymind.guided.structural_tags import Structure, read_structure

# How a call is written: before and after its arguments, and what begins it; nothing where that
# begins other texts as well.
_CALLS: Mapping[str, tuple[str, str, str]] = {
    "deepseek": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>%s\n```json\n",
        "\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "<｜tool▁calls▁begin｜>",
    ),
    "deepseek_v31": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>%s<｜tool▁sep｜>",
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "<｜tool▁calls▁begin｜>",
    ),
    "deepseek_v32": (
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="%s">\n',
        "</｜DSML｜invoke>\n</｜DSML｜function_calls>",
        "<｜DSML｜function_calls>",
    ),
    "glm": ("<tool_call>%s\n", "</tool_call>", "<tool_call>"),
    "gpt-oss": ("<|channel|>commentary to=functions.%s <|constrain|>json<|message|>", "", ""),
    "hermes": ('<tool_call>\n{"name": "%s", "arguments": ', "}\n</tool_call>", "<tool_call>"),
    "internlm": (
        '<|action_start|><|plugin|>\n{"name": "%s", "parameters": ',
        "}<|action_end|>",
        "<|action_start|>",
    ),
    "llama3": ('{"name": "%s", "parameters": ', "}", ""),
    "mistral": ('[TOOL_CALLS][{"name": "%s", "arguments": ', "}]", "[TOOL_CALLS]"),
    "mistral_args": ("[TOOL_CALLS]%s[ARGS]", "", "[TOOL_CALLS]"),
    "pythonic": ("%s(", ")", ""),
    "qwen": ('<tool_call>\n{"name": "%s", "arguments": ', "}\n</tool_call>", "<tool_call>"),
    "qwen3_coder": (
        "<tool_call>\n<function=%s>\n",
        "</function>\n</tool_call>",
        "<tool_call>",
    ),
}
# The same where the words around calls are left out, as some models do: the format's parser reads
# these as calls, too.
_BARE_CALLS: Mapping[str, tuple[str, str, str]] = {
    "deepseek": (
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>%s\n```json\n",
        "\n```<｜tool▁call▁end｜>",
        "<｜tool▁call▁begin｜>",
    ),
    "deepseek_v31": (
        "<｜tool▁call▁begin｜>%s<｜tool▁sep｜>",
        "<｜tool▁call▁end｜>",
        "<｜tool▁call▁begin｜>",
    ),
    "deepseek_v32": ('<｜DSML｜invoke name="%s">\n', "</｜DSML｜invoke>", "<｜DSML｜invoke"),
    "qwen3_coder": ("<function=%s>\n", "</function>", "<function="),
}
# What stands around each argument, or between two, where they are not a JSON object.
_ARGUMENTS: Mapping[str, Mapping[str, str]] = {
    "deepseek_v32": {
        "parameter_begin": '<｜DSML｜parameter name="{name}" string="{is_string}">',
        "parameter_end": "</｜DSML｜parameter>\n",
    },
    "glm": {
        "parameter_begin": "<arg_key>{name}</arg_key>\n<arg_value>",
        "parameter_end": "</arg_value>\n",
    },
    "pythonic": {"parameter_begin": "{name}=", "parameter_separator": ", "},
    "qwen3_coder": {
        "parameter_begin": "<parameter={name}>\n",
        "parameter_end": "</parameter>\n",
    },
}


class _CallList(NamedTuple):
    """A format in which the whole answer is calls, perhaps behind a word that says so.

    ``sign`` is an expression for what the format's parser begins to read as calls, or might.
    """

    mark: str
    opening: str
    separator: str  # in Lark
    closing: str
    end_mark: str
    sign: str


_SPACE = r"[ \t\r\n]"
_LISTS: Mapping[str, _CallList] = {
    "llama3": _CallList(
        mark="<|python_tag|>",
        opening="",
        separator=r"/;[ \n]?|\n/",
        closing="",
        end_mark="",
        # Another first key begins no call. One with an escape in it may be any.
        sign=rf'\{{{_SPACE}*"((name|arguments|parameters|id|type|function)"|[^"\\]*\\)',
    ),
    "pythonic": _CallList(
        mark="<|python_start|>",
        opening="[",
        separator='", "',
        closing="]",
        end_mark="<|python_end|>",
        sign=r"""\[\s*[A-Za-z_][^\s()\[\]{}"',]*\s*\(""",
    ),
}
_HARMONY_MARKS = tuple(
    f"<|{word}|>" for word in ("start", "channel", "message", "end", "call", "return")
)


@dataclass(frozen=True)
class CallRules:
    """What a grammar of calls has to keep.

    Attributes:
        schemas: of the arguments, by the names of the functions that may be called.
        required: the answer has to be calls.
        single: one call is enough.
        thinking: the marks of a model's reasoning, if it has any.
        in_reasoning: the prompt has opened the reasoning.
    """

    schemas: Mapping[str, Mapping[str, Any]]
    required: bool
    single: bool
    thinking: tuple[str, str] | None = None
    in_reasoning: bool = False


def call_grammar(
    form: str, rules: CallRules, control_ids: Mapping[str, int] = MappingProxyType({})
) -> dict[str, Any]:
    """The response format under which a model writes its calls as they have to be.

    form: a name of TOOL_PARSERS; control_ids: the model's control tokens.
    """
    spellings = [table[form] for table in (_CALLS, _BARE_CALLS) if form in table]
    structures = [
        {"begin": begin % name, "schema": schema, "end": end, **_ARGUMENTS.get(form, {})}
        for begin, end, _ in spellings
        for name, schema in rules.schemas.items()
    ]
    triggers = [trigger for _, _, trigger in spellings if trigger]
    if triggers:
        return {
            "type": "structural_tag",
            "structures": structures,
            "triggers": triggers,
            "at_least_one": rules.required,
            "stop_after_first": rules.single,
            "text_tokens": list(rules.thinking or ()),
        }
    spelling = Spelling(control_ids)
    read = [
        read_structure(item, i, f"response_format.structures[{i}]")
        for i, item in enumerate(structures)
    ]
    if form == "gpt-oss":
        lines = _harmony(read, spelling, rules.required)
    else:
        lines = _call_list(_LISTS[form], read, spelling, rules)
    return {"type": "grammar", "grammar": "\n".join(("%llguidance {}", *lines, ""))}


def _harmony(structures: Sequence[Structure], spelling: Spelling, required: bool) -> list[str]:
    """Messages of any channel, the last of which may be a call."""
    channels = (f"<|channel|>{name}<|message|>" for name in ("analysis", "commentary", "final"))
    calls = (f"{spelling.literal(item.begin)} {item.body}" for item in structures)
    text = spelling.text_without(_HARMONY_MARKS)
    return [
        # No answer is one, as in other formats: it fits into any max_tokens.
        "start: call" if required else "start: (message* (header TEXT | call))?",
        f"message: header text_and_end {spelling.literal('<|start|>assistant')}",
        f"header: {' | '.join(map(spelling.literal, channels))}",
        f"call: {' | '.join(calls)}",
        f"TEXT: {text}",
        _up_to("text_and_end", "TEXT", text, "<|end|>", spelling),
    ]


def _call_list(
    form: _CallList, structures: Sequence[Structure], spelling: Spelling, rules: CallRules
) -> list[str]:
    """Calls, or a text that does not begin as they do."""
    mark, end_mark = (
        f"({spelling.literal(word)})?" if word else "" for word in (form.mark, form.end_mark)
    )
    more = "" if rules.single else f"({form.separator} further)*"
    calls = range(len(structures))
    lines = [
        f"calls: {mark} first {more} {quoted(form.closing)} {end_mark}",
        f"first: {' | '.join(f'FIRST_{i} rest_{i}' for i in calls)}",
        f"further: {' | '.join(f'{quoted(structures[i].begin)} rest_{i}' for i in calls)}",
    ]
    for i, item in enumerate(structures):
        # One terminal: the text that might be meant instead ends where it is complete.
        begin = as_regex(form.opening + item.begin)
        lines.append(f"FIRST_{i}: /{_SPACE}{{0,2}}{begin}/")
        lines += [f"rest_{i}: {item.body} {quoted(item.end)}", *item.rules]
    if rules.required:
        return ["start: calls", *lines]
    text = spelling.text_without([form.mark]) + f" & ~/{_SPACE}*{form.sign}(?s:.*)/"
    if rules.thinking is None:
        return ["start: TEXT | calls", f"TEXT: {text}", *lines]
    begin, end = rules.thinking
    opened = rules.in_reasoning
    control = not opened and spelling.is_control(begin)
    beginning = "" if opened or control else f"{_SPACE}*{as_regex(begin)}"
    thought = spelling.text_without([end], beginning)
    opening = spelling.literal(begin) if control else ""
    return [
        f"start: {opening} thought answer | {opening} THOUGHT{'' if opened else ' | answer'}",
        _up_to("thought", "THOUGHT", f"/{beginning}(?s:.*)/", end, spelling),
        f"THOUGHT: {thought}",
        "answer: TEXT | calls",
        f"TEXT: {text}" + (f" & ~/{beginning}(?s:.*)/" if beginning else ""),
        *lines,
    ]


def _up_to(rule: str, terminal: str, text: str, word: str, spelling: Spelling) -> str:
    """A rule for text and the first such word behind it. terminal: of text without the word."""
    if spelling.has_control(word):
        return f"{rule}: {terminal} {spelling.literal(word)}"
    return f"{rule}[lazy]: ({text}) {quoted(word)}"
