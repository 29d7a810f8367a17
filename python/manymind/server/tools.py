# SPDX-License-Identifier: Apache-2.0
"""Tools that a request offers to the model, in OpenAI's terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field

from manymind.parsers import OutputFormat
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
    "qwen3_coder": (
        "<tool_call>\n<function=%s>\n",
        "</function>\n</tool_call>",
        "<tool_call>",
    ),
}
_CALLS["qwen"] = _CALLS["hermes"]
# What stands around each argument where they are not JSON.
_ARGUMENTS = {
    "deepseek_v32": (
        '<｜DSML｜parameter name="{name}" string="{is_string}">',
        "</｜DSML｜parameter>\n",
    ),
    "glm": ("<arg_key>{name}</arg_key>\n<arg_value>", "</arg_value>\n"),
    "qwen3_coder": ("<parameter={name}>\n", "</parameter>\n"),
}
# Where text after a call would be part of it.
_ENDS_WITH_CALL = frozenset(("gpt-oss",))
_ANY_OBJECT = {"type": "object"}


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
    parallel_tool_calls: Any = None

    # A grammar that allows one call only does not exist for every format.
    unsupported: ClassVar[dict[str, tuple[object, ...]]] = {"parallel_tool_calls": (True,)}

    def toolset(self) -> Toolset:
        """What the model is offered."""
        choice: str | None
        if isinstance(self.tool_choice, NamedTool):
            choice = f"={self.tool_choice.function.name}"
        else:
            choice = self.tool_choice
        definitions = [tool.model_dump(exclude_none=True) for tool in self.tools or ()]
        return Toolset.of(definitions, choice)


@dataclass(frozen=True)
class Toolset:
    """Tools and what the model has to do with them.

    Attributes:
        definitions: OpenAI's.
        forced: names of the functions of which one has to be called; empty: none has to be.
    """

    definitions: Sequence[Mapping[str, Any]] = ()
    forced: Sequence[str] = ()

    @staticmethod
    def of(definitions: Sequence[Mapping[str, Any]], choice: str | None) -> Toolset:
        """choice: None or "auto", "none", "required", or "=" and a name.

        Raises ApiError 400 for a choice among tools that are not there.
        """
        names = [str(item["function"]["name"]) for item in definitions]
        if choice in (None, "auto"):
            return Toolset(definitions)
        if choice == "none":
            return Toolset()
        wanted = names if choice == "required" else [str(choice)[1:]]
        if not wanted or not set(wanted) <= set(names):
            message = f"tool_choice: expected one of the tools {names}, found {choice!r}"
            raise ApiError(400, message, "invalid_value", "tool_choice")
        return Toolset(definitions, wanted)

    def check(self, form: OutputFormat, response_format: Mapping[str, Any] | None) -> None:
        """Raises ApiError 400 if a model of this output format cannot do what is asked."""
        if not self.definitions:
            return
        if form.tools is None:
            message = "tools: not supported by this model: its chat template knows no tools"
            raise ApiError(400, message, "unsupported_parameter", "tools")
        if self.forced and form.tools not in _CALLS:
            message = f"tool_choice: only auto and none with tool calls of format {form.tools}"
            raise ApiError(400, message, "unsupported_parameter", "tool_choice")
        if self.forced and response_format is not None and response_format.get("type") != "text":
            message = "response_format: not supported with a tool that has to be called"
            raise ApiError(400, message, "unsupported_parameter", "response_format")

    def response_format(self, form: OutputFormat) -> dict[str, Any] | None:
        """The grammar of a forced call; its arguments follow the function's schema."""
        if not self.forced:
            return None
        begin, end, trigger = _CALLS[str(form.tools)]
        tags = {}
        if form.tools in _ARGUMENTS:
            tags = dict(
                zip(("parameter_begin", "parameter_end"), _ARGUMENTS[form.tools], strict=True)
            )
        structures = [
            {
                "begin": begin % item["function"]["name"],
                "schema": item["function"].get("parameters") or _ANY_OBJECT,
                "end": end,
                **tags,
            }
            for item in self.definitions
            if item["function"]["name"] in self.forced
        ]
        return {
            "type": "structural_tag",
            "structures": structures,
            "triggers": [trigger],
            "at_least_one": True,
            "stop_after_first": form.tools in _ENDS_WITH_CALL,
        }
