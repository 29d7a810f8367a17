# SPDX-License-Identifier: Apache-2.0
"""Tools that a request offers to the model, in OpenAI's terms."""

from __future__ import annotations

import keyword
import unicodedata
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from manymind.parsers import REASONING_MARKS, OutputFormat
from manymind.server.errors import ApiError
from manymind.server.messages import RequestModel

# How a call is written: before and after its arguments, and what begins it.
_CALLS = {
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
    "gpt-oss": (
        "<|channel|>commentary to=functions.%s <|constrain|>json<|message|>",
        "",
        "<|channel|>",
    ),
    "hermes": ('<tool_call>\n{"name": "%s", "arguments": ', "}\n</tool_call>", "<tool_call>"),
    "internlm": (
        '<|action_start|><|plugin|>\n{"name": "%s", "parameters": ',
        "}<|action_end|>",
        "<|action_start|>",
    ),
    "llama3": ('{"name": "%s", "parameters": ', "}", '{"name": "'),
    "mistral": ('[TOOL_CALLS][{"name": "%s", "arguments": ', "}]", "[TOOL_CALLS]"),
    "mistral_args": ("[TOOL_CALLS]%s[ARGS]", "", "[TOOL_CALLS]"),
    "pythonic": ("[%s(", ")]", "["),
    "qwen3_coder": (
        "<tool_call>\n<function=%s>\n",
        "</function>\n</tool_call>",
        "<tool_call>",
    ),
}
_CALLS["qwen"] = _CALLS["hermes"]
# What stands around each argument, or between two, where they are not a JSON object.
_ARGUMENTS = {
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
# Where text after a call would be part of it, or further calls are not looked for in it.
_ENDS_WITH_CALL = frozenset(("gpt-oss", "pythonic"))
_ANY_OBJECT = {"type": "object"}
# What begins a call in these begins other texts as well, so a call can be kept to a schema only
# where it is all that may be written.
_UNMARKED = frozenset(("gpt-oss", "llama3", "pythonic"))


class Function(RequestModel):
    """A function that the model may call."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")
    description: str | None = Field(None, max_length=65536)
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(RequestModel):
    """A tool; functions are the only kind."""

    type: Literal["function"] = "function"
    function: Function


class NamedFunction(RequestModel):
    """The name of a function."""

    name: str = Field(max_length=128)


class NamedTool(RequestModel):
    """The choice of one tool."""

    type: Literal["function"] = "function"
    function: NamedFunction


class ToolParameters(RequestModel):
    """``tools`` and ``tool_choice``, for the interfaces that spell them as chat completions do."""

    tools: list[Tool] | None = Field(None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None

    def toolset(self) -> Toolset:
        """What the model is offered."""
        choice: str | None
        if isinstance(self.tool_choice, NamedTool):
            choice = f"={self.tool_choice.function.name}"
        else:
            choice = self.tool_choice
        definitions = [tool.model_dump(exclude_none=True) for tool in self.tools or ()]
        return Toolset.of(definitions, choice, self.parallel_tool_calls is False)


@dataclass(frozen=True)
class Toolset:
    """Tools and what the model has to do with them.

    Attributes:
        definitions: OpenAI's.
        forced: names of the functions of which one has to be called; empty: none has to be.
        single: of the calls in an answer, only the first is wanted.
        insists: a function that is ``strict`` is refused where its calls cannot be kept to its
            schema, rather than taken as one that is not.
    """

    definitions: Sequence[Mapping[str, Any]] = ()
    forced: Sequence[str] = ()
    single: bool = False
    insists: bool = True

    @staticmethod
    def of(
        definitions: Sequence[Mapping[str, Any]],
        choice: str | None,
        single: bool = False,
        insists: bool = True,
    ) -> Toolset:
        """choice: None or "auto", "none", "required", or "=" and a name.

        Raises ApiError 400 for a choice among tools that are not there.
        """
        names = [str(item["function"]["name"]) for item in definitions]
        if choice in (None, "auto"):
            return Toolset(definitions, single=single, insists=insists)
        if choice == "none":
            return Toolset()
        wanted = names if choice == "required" else [str(choice)[1:]]
        if not wanted or not set(wanted) <= set(names):
            message = f"tool_choice: expected one of the tools {names}, found {choice!r}"
            raise ApiError(400, message, "invalid_value", "tool_choice")
        return Toolset(definitions, wanted, single)

    @property
    def strict(self) -> list[int]:
        """Places of the functions whose arguments have to follow their schema."""
        functions = [item["function"] for item in self.definitions]
        return [place for place, function in enumerate(functions) if function.get("strict")]

    def check(
        self,
        form: OutputFormat,
        response_format: Mapping[str, Any] | None,
        control_tokens: Container[str] = (),
    ) -> None:
        """Raises ApiError 400 if a model of this output format, with these control tokens, cannot
        do what is asked.
        """
        if not self.definitions:
            return
        if form.tools is None:
            message = "tools: not supported by this model: its chat template knows no tools"
            raise ApiError(400, message, "unsupported_parameter", "tools")
        if self.forced and form.tools == "pythonic":
            self._check_names()
        if self.forced and response_format is not None and response_format.get("type") != "text":
            message = "response_format: not supported with a tool that has to be called"
            raise ApiError(400, message, "unsupported_parameter", "response_format")
        marked = _marks_calls(form, control_tokens)
        if self.strict and self.insists and not self.forced and not marked:
            where = f"tools[{self.strict[0]}].function.strict"
            message = f"{where}: not supported by this model unless tool_choice forces a call: "
            message += "other text cannot be told from the beginning of one"
            raise ApiError(400, message, "unsupported_parameter", where)

    def _check_names(self) -> None:
        """Raises ApiError 400 for names that cannot stand in a call of Python."""
        for index, item in enumerate(self.definitions):
            function = item["function"]
            where = f"tools[{index}].function"
            names = [(f"{where}.name", part) for part in function["name"].split(".")]
            parameters = function.get("parameters") or {}
            properties = parameters.get("properties")
            for name in properties if isinstance(properties, Mapping) else ():
                names.append((f"{where}.parameters.properties", name))
            for place, name in names if function["name"] in self.forced else ():
                # Python takes other spellings of a character for the same name.
                plain = unicodedata.normalize("NFKC", name) == name
                if not (plain and name.isidentifier()) or keyword.iskeyword(name):
                    message = f"{place}: expected an identifier of Python, as this model writes "
                    message += f"calls, found {name!r}"
                    raise ApiError(400, message, "invalid_value", place)

    def response_format(
        self, form: OutputFormat, control_tokens: Container[str] = ()
    ) -> dict[str, Any] | None:
        """The grammar of a forced call, whose arguments follow the function's schema, or of text
        with calls in it, if a function is strict; None where nothing is to be kept.
        """
        if not self.forced and not (self.strict and _marks_calls(form, control_tokens)):
            return None
        begin, end, trigger = _CALLS[str(form.tools)]
        structures = [
            {
                "begin": begin % item["function"]["name"],
                "schema": self._schema(item["function"]),
                "end": end,
                **_ARGUMENTS.get(str(form.tools), {}),
            }
            for item in self.definitions
            if not self.forced or item["function"]["name"] in self.forced
        ]
        return {
            "type": "structural_tag",
            "structures": structures,
            "triggers": [trigger],
            "at_least_one": bool(self.forced),
            "stop_after_first": self.single or form.tools in _ENDS_WITH_CALL,
        }

    def _schema(self, function: Mapping[str, Any]) -> Mapping[str, Any]:
        kept = self.forced or function.get("strict")
        return (function.get("parameters") if kept else None) or _ANY_OBJECT


def _marks_calls(form: OutputFormat, control_tokens: Container[str]) -> bool:
    """Whether text that is no call may stand beside calls under a grammar, thoughts included: it
    may hold no control token but those of calls.
    """
    marks = () if form.reasoning is None else REASONING_MARKS[form.reasoning]
    return form.tools not in _UNMARKED and not any(mark in control_tokens for mark in marks)
