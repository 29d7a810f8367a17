# SPDX-License-Identifier: Apache-2.0
"""Renders conversations with the Jinja chat template of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from manymind.errors import ChatTemplateError
from manymind.tokenizer.literals import LiteralSplitter

if TYPE_CHECKING:
    from manymind.tokenizer import Segment, Tokenizer

MAX_TEMPLATE_CHARACTERS = 1 << 18

# Stand around control tokens in messages while a template is rendered: Unicode noncharacters, which
# are reserved for such internal use.
_BEGIN, _END = "\ufdd0", "\ufdd1"


class ChatTemplate:
    """A compiled chat template. Immutable; safe to share between threads.

    Args:
        source: Jinja text, trusted with nothing: it runs in a sandbox with bounded time and memory.
        bos_token, eos_token: strings that templates may write.
        control_tokens: strings that mean nothing special when a message contains them; see
            ``render_segments``.

    Raises ChatTemplateError if ``source`` is too long or does not parse.
    """

    def __init__(
        self,
        source: str,
        bos_token: str = "",
        eos_token: str = "",
        control_tokens: Iterable[str] = (),
    ) -> None:
        from manymind.template_sandbox import ChatTemplateEnvironment

        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise ChatTemplateError(
                f"chat template: expected at most {MAX_TEMPLATE_CHARACTERS} characters, "
                f"found {len(source)}"
            )
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._control_tokens = [token for token in control_tokens if token]
        numbered = {token: index for index, token in enumerate(self._control_tokens)}
        self._control_splitter = LiteralSplitter(numbered)
        self._environment = ChatTemplateEnvironment(unescaped=_BEGIN + _END)
        try:
            self._template = self._environment.from_string(source)
        except Exception as error:
            raise _template_error("expected a valid Jinja template", error) from error

    @cached_property
    def variables(self) -> frozenset[str]:
        """Names that the template reads and does not set itself."""
        from jinja2.meta import find_undeclared_variables

        return frozenset(find_undeclared_variables(self._environment.parse(self.source)))

    def render(self, messages: Sequence[Mapping[str, Any]], **variables: Any) -> str:
        """The text of a conversation; arguments and errors are those of ``render_segments``."""
        return "".join(text for text, _ in self.render_segments(messages, **variables))

    def render_segments(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> list[Segment]:
        """A conversation for ``Tokenizer.encode_segments``: control tokens and BOS included.

        A control token that a message contains is a segment of its own, not to be parsed: nobody
        can end his turn or speak as the system by writing "<|im_end|>". The rest is one segment.

        Args:
            messages: mappings with "role", "content" and whatever else the template reads.
            add_generation_prompt: end with the header of the assistant's answer.
            tools, documents: JSON schemas of functions, and texts, for templates that take them.
            variables: further variables of the template, e.g. ``enable_thinking``.

        Raises ChatTemplateError if the template refuses the messages, fails or exceeds its budget.
        """
        self._environment.start_rendering()
        try:
            text = self._template.render(
                messages=[self._guarded(message) for message in messages],
                tools=self._guarded(tools),
                documents=self._guarded(documents),
                add_generation_prompt=add_generation_prompt,
                **self._tokens,
                **{name: self._guarded(value) for name, value in variables.items()},
            )
        except Exception as error:
            raise _template_error("these messages cannot be rendered", error) from error
        return self._cut(text)

    def _guarded(self, value: Any) -> Any:
        """``value`` rebuilt from JSON types, with its control tokens between marks.

        Methods of richer objects are none of a template's business: anything else becomes its
        type's name in angle brackets.
        """
        if value is None or type(value) in (bool, int, float):
            return value
        if isinstance(value, str):
            return self._marked(str(value))
        for kind in (int, float):
            if isinstance(value, kind):
                return kind(value)
        if isinstance(value, Mapping):
            return {self._guarded(key): self._guarded(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._guarded(item) for item in value]
        return f"<{type(value).__name__}>"

    def _marked(self, text: str) -> str:
        if _BEGIN in text or _END in text:
            text = text.replace(_BEGIN, "").replace(_END, "")
        parts = self._control_splitter.split(text)
        return "".join(
            part if isinstance(part, str) else f"{_BEGIN}{self._control_tokens[part]}{_END}"
            for part in parts
        )

    def _cut(self, text: str) -> list[Segment]:
        """Takes the marks out of a rendered text.

        A template may have separated the two marks of a token, so one is enough; a mark without
        token still keeps the texts on its sides from joining into one.
        """
        if _BEGIN not in text and _END not in text:
            return [(text, True)]
        segments: list[Segment] = []
        position = 0
        for match in self._marked_token.finditer(text):
            segments.append((text[position : match.start()], True))
            segments.append((match.group().strip(_BEGIN + _END), False))
            position = match.end()
        segments.append((text[position:], True))
        return [segment for segment in segments if segment[0]]

    @cached_property
    def _marked_token(self) -> re.Pattern[str]:
        longest_first = sorted(self._control_tokens, key=len, reverse=True)
        tokens = "|".join(map(re.escape, longest_first)) or "(?!)"
        return re.compile(f"{_BEGIN}(?:{tokens}){_END}?|(?:{tokens}){_END}|[{_BEGIN}{_END}]")


def load_chat_template(source: str | None, tokenizer: Tokenizer) -> ChatTemplate | None:
    """The template ``source`` with the tokenizer's special tokens; None without source.

    Raises ChatTemplateError if ``source`` does not parse.
    """
    if source is None:
        return None
    return ChatTemplate(source, tokenizer.bos_token, tokenizer.eos_token, tokenizer.control_tokens)


def _template_error(problem: str, error: Exception) -> ChatTemplateError:
    line = getattr(error, "lineno", None)
    where = f" (line {line})" if line is not None else ""
    detail = str(error) or type(error).__name__
    return ChatTemplateError(f"chat template: {problem}{where}: {detail[:500]}")
