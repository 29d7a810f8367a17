# SPDX-License-Identifier: Apache-2.0
"""What a parser finds in an answer, in the order of the text.

Consecutive deltas of one kind are one delta cut somewhere; ``joined`` puts them together, after
which the events of a text do not depend on the pieces it came in.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class TextDelta:
    """More of what the user is to read."""

    text: str


@dataclass(frozen=True)
class ReasoningDelta:
    """More of what the model thought."""

    text: str


@dataclass(frozen=True)
class ToolCallStart:
    """A call begins; ``index`` counts the calls of an answer from 0."""

    index: int
    name: str


@dataclass(frozen=True)
class ToolCallDelta:
    """More of the call's arguments, a JSON object as text."""

    index: int
    arguments: str


@dataclass(frozen=True)
class ToolCallEnd:
    """No more arguments come. ``complete`` is False if the answer ended, or broke its format,
    within the call.
    """

    index: int
    complete: bool


Event: TypeAlias = "TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta | ToolCallEnd"


def joined(events: Iterable[Event]) -> list[Event]:
    """The events with consecutive deltas of one kind put together."""
    result: list[Event] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, TextDelta) and isinstance(last, TextDelta):
            result[-1] = TextDelta(last.text + event.text)
        elif isinstance(event, ReasoningDelta) and isinstance(last, ReasoningDelta):
            result[-1] = ReasoningDelta(last.text + event.text)
        elif isinstance(event, ToolCallDelta) and isinstance(last, ToolCallDelta):
            result[-1] = ToolCallDelta(last.index, last.arguments + event.arguments)
        else:
            result.append(event)
    return result
