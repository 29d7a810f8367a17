# SPDX-License-Identifier: Apache-2.0
"""Tools that a request offers to the model, in OpenAI's terms."""

from __future__ import annotations

import keyword
import re
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from manymind.errors import InvalidParameterError
from manymind.parsers import REASONING_MARKS, OutputFormat
from manymind.server.call_grammars import CallRules, call_grammar
from manymind.server.errors import ApiError
from manymind.server.messages import RequestModel

if TYPE_CHECKING:
    from manymind.guided import GuideCompiler

_SECONDS_TO_EXPLAIN = 1.0  # after which no further schema is tried
_ANY_OBJECT = {"type": "object"}
_NO_ARGUMENTS = {"type": "object", "properties": {}}


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
    """

    definitions: Sequence[Mapping[str, Any]] = ()
    forced: Sequence[str] = ()
    single: bool = False

    @staticmethod
    def of(
        definitions: Sequence[Mapping[str, Any]],
        choice: str | None,
        single: bool = False,
    ) -> Toolset:
        """choice: None or "auto", "none", "required", or "=" and a name.

        Raises ApiError 400 for a choice among tools that are not there, and for two of one name.
        """
        names = [str(item["function"]["name"]) for item in definitions]
        for index, name in enumerate(names):
            if name in names[:index]:
                place = f"tools[{index}].function.name"
                message = f"{place}: expected a name of its own, found {name!r} a second time"
                raise ApiError(400, message, "invalid_value", place)
        if choice in (None, "auto"):
            return Toolset(definitions, single=single)
        if choice == "none":
            return Toolset()
        wanted = names if choice == "required" else [str(choice)[1:]]
        if not wanted or not set(wanted) <= set(names):
            message = f"tool_choice: expected one of the tools {names}, found {choice!r}"
            raise ApiError(400, message, "invalid_value", "tool_choice")
        return Toolset(definitions, wanted, single)

    def check(self, form: OutputFormat, response_format: Mapping[str, Any] | None) -> None:
        """Raises ApiError 400 if a model of this output format cannot do what is asked."""
        if not self.definitions:
            return
        if form.tools is None:
            message = "tools: not supported by this model: its chat template knows no tools"
            raise ApiError(400, message, "unsupported_parameter", "tools")
        if form.tools == "pythonic":
            self._check_names()
        if self.forced and response_format is not None and response_format.get("type") != "text":
            message = "response_format: not supported with a tool that has to be called"
            raise ApiError(400, message, "unsupported_parameter", "response_format")

    def _check_names(self) -> None:
        """Raises ApiError 400 for names that cannot stand in a call of Python, where a call has to
        be written as its function says.
        """
        for index, item in enumerate(self.definitions):
            function = item["function"]
            if not self._keeps(function):
                continue
            where = f"tools[{index}].function"
            properties = (function.get("parameters") or {}).get("properties")
            names = [(f"{where}.name", function["name"])]
            for name in properties if isinstance(properties, Mapping) else ():
                names.append((f"{where}.parameters.properties", name))
            for place, name in names:
                # The name of a function may be one of a module's.
                parts = name.split(".") if place.endswith(".name") else [name]
                for part in parts:
                    if not _is_identifier(part):
                        message = f"{place}: expected an identifier of Python, as this model "
                        message += f"writes calls, found {part!r}"
                        raise ApiError(400, message, "invalid_value", place)

    def _keeps(self, function: Mapping[str, Any]) -> bool:
        """Whether the arguments of its calls have to follow its schema."""
        return function["name"] in self.forced if self.forced else bool(function.get("strict"))

    def response_format(
        self,
        form: OutputFormat,
        control_ids: Mapping[str, int] = MappingProxyType({}),
        prompt: str = "",
    ) -> dict[str, Any] | None:
        """The grammar of a forced call, whose arguments follow the function's schema, or of text
        with calls in it, if a function is strict; None where nothing is to be kept.

        control_ids: the model's control tokens; prompt: its end, see ``OutputFormat.parser``.
        """
        written = self._written(form)
        if not any(map(self._keeps, written)):
            return None
        schemas = {
            function["name"]: (function.get("parameters") or _NO_ARGUMENTS)
            if self._keeps(function)
            else _ANY_OBJECT
            for function in written
        }
        thinking = None if form.reasoning is None else REASONING_MARKS[form.reasoning]
        rules = CallRules(
            schemas, bool(self.forced), self.single, thinking, form.is_reasoning_after(prompt)
        )
        try:
            return call_grammar(str(form.tools), rules, control_ids)
        except InvalidParameterError as error:
            raise self._in_terms_of_tools(form, error) from error

    def explain(self, form: OutputFormat, guides: GuideCompiler, error: Exception) -> Exception:
        """Why ``response_format`` made no grammar, in terms of the tools: the error of the first
        schema that cannot be kept by itself, which names its keyword.
        """
        deadline = time.monotonic() + _SECONDS_TO_EXPLAIN
        for place, item in enumerate(self.definitions):
            if time.monotonic() > deadline:
                break
            schema = item["function"].get("parameters")
            if not schema or not self._keeps(item["function"]):
                continue
            try:
                guides.compile({"type": "json_schema", "json_schema": {"schema": schema}})
            except InvalidParameterError as found:
                where = f"tools[{place}].function.parameters"
                words = str(found).replace("response_format.json_schema.schema", where)
                return InvalidParameterError(words.replace("response_format.json_schema", where))
        return self._in_terms_of_tools(form, error)

    def _in_terms_of_tools(self, form: OutputFormat, error: Exception) -> Exception:
        written = list({function["name"]: function for function in self._written(form)}.values())
        functions = [item["function"] for item in self.definitions]

        def where(match: re.Match[str]) -> str:
            # All functions stand there once for each spelling of calls.
            function = written[int(match[1]) % len(written)]
            return f"tools[{functions.index(function)}].function.parameters"

        words = re.sub(r"response_format\.structures\[(\d+)\]\.schema", where, str(error))
        return InvalidParameterError(re.sub(r"^response_format\.\w+", "tools", words))

    def _written(self, form: OutputFormat) -> list[Mapping[str, Any]]:
        """The functions of which calls may be written under a grammar."""
        functions = [item["function"] for item in self.definitions if form.tools is not None]
        return [
            function
            for function in functions
            if self._keeps(function) or (not self.forced and _can_be_called(form, function))
        ]


def _can_be_called(form: OutputFormat, function: Mapping[str, Any]) -> bool:
    """Whether the format has words for a call of it."""
    return form.tools != "pythonic" or all(map(_is_identifier, function["name"].split(".")))


def _is_identifier(name: str) -> bool:
    """Whether the name can stand in a call of Python, which takes other spellings of a character
    for the same name.
    """
    plain = unicodedata.normalize("NFKC", name) == name
    return plain and name.isidentifier() and not keyword.iskeyword(name)
