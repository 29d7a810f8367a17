# SPDX-License-Identifier: Apache-2.0
"""The forms a prompt may have: str, OpenAI messages, or lists of those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from manymind.errors import InvalidParameterError

Message: TypeAlias = Mapping[str, Any]
Prompt: TypeAlias = "str | Sequence[Message]"

_ROLES = ("system", "user", "assistant", "tool", "developer")


def is_messages(value: object) -> bool:
    """True for a non-empty list of OpenAI messages."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, (str, bytes))
        and len(value) > 0
        and all(isinstance(item, Mapping) for item in value)
    )


def split_prompts(prompts: object) -> tuple[list[Prompt], bool]:
    """One prompt or a list of prompts as a list, and whether it was a single one."""
    if isinstance(prompts, str) or is_messages(prompts):
        return [prompts], True  # type: ignore[list-item]
    if isinstance(prompts, Sequence) and not isinstance(prompts, bytes):
        for index, prompt in enumerate(prompts):
            if not (isinstance(prompt, str) or is_messages(prompt)):
                raise _unexpected(f"prompts[{index}]", prompt)
        return list(prompts), False
    raise _unexpected("prompts", prompts)


def as_messages(prompt: Prompt, system: str | None) -> list[dict[str, Any]]:
    """The prompt as text-only chat messages, with the default system message in front if it has
    none.
    """
    if isinstance(prompt, str):
        messages: list[dict[str, Any]] = [{"role": "user", "content": prompt}]
    else:
        messages = [_checked(index, message) for index, message in enumerate(prompt)]
    if system is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return messages


def _checked(index: int, message: Message) -> dict[str, Any]:
    role = message.get("role")
    if role not in _ROLES:
        raise InvalidParameterError(
            f"messages[{index}].role: expected one of {', '.join(_ROLES)}, found {role!r}"
        )
    return {**message, "content": _text_content(index, message.get("content"))}


def _text_content(index: int, content: object) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise _unexpected(f"messages[{index}].content", content)
    texts: list[str] = []
    for item in content:
        if not isinstance(item, Mapping) or item.get("type") != "text":
            kind = item.get("type") if isinstance(item, Mapping) else item
            raise InvalidParameterError(
                f"messages[{index}].content: expected text items only, found {kind!r}; "
                "this model takes no other media"
            )
        texts.append(str(item.get("text", "")))
    return "".join(texts)


def _unexpected(name: str, value: object) -> InvalidParameterError:
    return InvalidParameterError(
        f"{name}: expected a str, a non-empty list of messages, or a list of those, "
        f"found {type(value).__name__}"
    )
