# SPDX-License-Identifier: Apache-2.0
"""Renders conversations with the Jinja chat template of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from manymind.errors import ChatTemplateError

if TYPE_CHECKING:
    from manymind.tokenizer import Tokenizer

MAX_TEMPLATE_CHARACTERS = 1 << 18


class ChatTemplate:
    """A compiled chat template. Immutable; safe to share between threads.

    Args:
        source: Jinja text, trusted with nothing: it runs in a sandbox with bounded time and memory.
        bos_token, eos_token: strings that templates may write.

    Raises ChatTemplateError if ``source`` is too long or does not parse.
    """

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "") -> None:
        from manymind.template_sandbox import ChatTemplateEnvironment

        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise ChatTemplateError(
                f"chat template: expected at most {MAX_TEMPLATE_CHARACTERS} characters, "
                f"found {len(source)}"
            )
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}
        self._environment = ChatTemplateEnvironment()
        try:
            self._template = self._environment.from_string(source)
        except Exception as error:
            raise _template_error("expected a valid Jinja template", error) from error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        documents: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str:
        """The text of a conversation, control tokens and BOS included.

        Encode it with ``add_special_tokens=False, parse_special=True``.

        Args:
            messages: mappings with "role", "content" and whatever else the template reads.
            add_generation_prompt: end with the header of the assistant's answer.
            tools, documents: JSON schemas of functions, and texts, for templates that take them.
            variables: further variables of the template, e.g. ``enable_thinking``.

        Raises ChatTemplateError if the template refuses the messages, fails or exceeds its budget.
        """
        self._environment.start_rendering()
        try:
            return self._template.render(
                messages=[_plain(message) for message in messages],
                tools=_plain(tools),
                documents=_plain(documents),
                add_generation_prompt=add_generation_prompt,
                **self._tokens,
                **{name: _plain(value) for name, value in variables.items()},
            )
        except Exception as error:
            raise _template_error("these messages cannot be rendered", error) from error


def load_chat_template(source: str | None, tokenizer: Tokenizer) -> ChatTemplate | None:
    """The template ``source`` with the tokenizer's special tokens; None without source.

    Raises ChatTemplateError if ``source`` does not parse.
    """
    if source is None:
        return None
    return ChatTemplate(source, tokenizer.bos_token, tokenizer.eos_token)


def _template_error(problem: str, error: Exception) -> ChatTemplateError:
    line = getattr(error, "lineno", None)
    where = f" (line {line})" if line is not None else ""
    detail = str(error) or type(error).__name__
    return ChatTemplateError(f"chat template: {problem}{where}: {detail[:500]}")


def _plain(value: Any) -> Any:
    """``value`` rebuilt from JSON types: methods of richer objects are none of a template's
    business.

    Anything else becomes its type's name in angle brackets.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return f"<{type(value).__name__}>"
