# SPDX-License-Identifier: Apache-2.0
"""A conversation: its messages are sent again each turn, and the prefix cache makes that cheap."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from manymind.config import Response
from manymind.prompts import Prompt, is_messages, picture_content


@dataclass
class Session:
    """History of one conversation as OpenAI messages, and the last response."""

    history: list[dict[str, Any]] = field(default_factory=list)
    response: Response | None = None

    def close(self) -> None:
        """Forgets the conversation; nothing else is held."""
        self.history = []
        self.response = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def messages_with(self, prompt: Prompt) -> list[dict[str, Any]]:
        """The history followed by a new turn."""
        return [*self.history, *_as_turn(prompt)]

    def append(self, prompt: Prompt, answer: str) -> None:
        """Records a turn and its answer."""
        self.history = [*self.messages_with(prompt), {"role": "assistant", "content": answer}]


def _as_turn(prompt: Prompt) -> list[dict[str, Any]]:
    if is_messages(prompt):
        return [dict(message) for message in prompt]  # type: ignore[arg-type]
    if isinstance(prompt, tuple):
        return [{"role": "user", "content": picture_content(*prompt)}]
    return [{"role": "user", "content": prompt}]
