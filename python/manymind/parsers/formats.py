# SPDX-License-Identifier: Apache-2.0
"""Which format a model writes tool calls and reasoning in: by name, or from its chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from manymind.parsers.base import THINK, OutputParser, Tool
from manymind.parsers.harmony import HarmonyParser
from manymind.parsers.json_calls import (
    HermesParser,
    InternLmParser,
    Llama3Parser,
    MistralParser,
)
from manymind.parsers.pythonic_calls import PythonicParser
from manymind.parsers.tagged_calls import (
    DeepSeekDsmlParser,
    DeepSeekParser,
    GlmParser,
    Qwen3CoderParser,
)
from manymind.validation import require_choice

# Formats of tool calls; several names may mean one.
TOOL_PARSERS: Mapping[str, type[OutputParser]] = MappingProxyType(
    {
        "deepseek": DeepSeekParser,
        "deepseek_v31": DeepSeekParser,
        "deepseek_v32": DeepSeekDsmlParser,
        "glm": GlmParser,
        "gpt-oss": HarmonyParser,
        "hermes": HermesParser,
        "internlm": InternLmParser,
        "llama3": Llama3Parser,
        "mistral": MistralParser,
        "mistral_args": MistralParser,
        "pythonic": PythonicParser,
        "qwen": HermesParser,
        "qwen3_coder": Qwen3CoderParser,
    }
)
REASONING_MARKS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"think": THINK, "mistral": ("[THINK]", "[/THINK]")}
)

# Words of a template and the format they mean; the first line whose words are all there decides.
_SIGNS = (
    (("<|channel|>",), "gpt-oss"),
    (("｜DSML｜",), "deepseek_v32"),
    (("<｜tool▁call▁begin｜>", "```json"), "deepseek"),
    (("<｜tool▁call▁begin｜>",), "deepseek_v31"),
    (("[TOOL_CALLS]", "[ARGS]"), "mistral_args"),
    (("[TOOL_CALLS]",), "mistral"),
    (("<|action_start|>",), "internlm"),
    (("<parameter=",), "qwen3_coder"),
    (("<arg_key>",), "glm"),
    (("<tool_call>",), "hermes"),
    (("<|python_start|>",), "pythonic"),
    (("<|python_tag|>",), "llama3"),
    (('"parameters": dictionary of argument name',), "llama3"),
)


@dataclass(frozen=True)
class OutputFormat:
    """How a model writes what is not plain text.

    Attributes:
        tools: a name of TOOL_PARSERS, or None if the model is not known to call tools.
        reasoning: a name of REASONING_MARKS, or None.
    """

    tools: str | None
    reasoning: str | None

    @property
    def needs_special_tokens(self) -> bool:
        """True if a parser has to see special tokens (``skip_special_tokens=False``)."""
        return self.tools is not None or self.reasoning is not None

    def parser(self, tools: Sequence[Tool] = (), prompt: str = "") -> OutputParser:
        """A parser for one answer.

        tools: OpenAI's definitions; without any, calls are not looked for. prompt: the rendered
        prompt, or its end: it may have opened the reasoning already.
        """
        marks = None if self.reasoning is None else REASONING_MARKS[self.reasoning]
        # Harmony is made of messages even where there are no tools.
        wanted = self.tools is not None and (bool(tools) or self.tools == "gpt-oss")
        kind = TOOL_PARSERS[self.tools] if wanted and self.tools is not None else OutputParser
        return kind(tools, marks, self.is_reasoning_after(prompt))

    def is_reasoning_after(self, prompt: str) -> bool:
        """Whether the prompt has opened the reasoning."""
        if self.reasoning is None:
            return False
        return prompt.rstrip().endswith(REASONING_MARKS[self.reasoning][0])


def output_format(
    chat_template: str | None, tools: str | None = "auto", reasoning: str | None = "auto"
) -> OutputFormat:
    """The format of a model. "auto": what its chat template shows; None: not parsed.

    Raises InvalidParameterError for a name that is not known.
    """
    require_choice("tool_call_parser", tools, (None, "auto", *TOOL_PARSERS))
    require_choice("reasoning_parser", reasoning, (None, "auto", *REASONING_MARKS))
    template = chat_template or ""
    if tools == "auto":
        found = (name for signs, name in _SIGNS if all(sign in template for sign in signs))
        tools = next(found, None)
    if reasoning == "auto":
        marks = REASONING_MARKS.items()
        reasoning = next((name for name, (_, end) in marks if end in template), None)
    return OutputFormat(tools, reasoning)
