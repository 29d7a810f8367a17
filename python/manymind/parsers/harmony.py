# SPDX-License-Identifier: Apache-2.0
"""gpt-oss: OpenAI's harmony format (https://github.com/openai/harmony, docs/format.md).

An answer is a sequence of messages, each with a channel, perhaps a recipient, and a body:
``<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...<|return|>``.
The prompt ends with ``<|start|>assistant``.
"""

from __future__ import annotations

import json
import re
from typing import ClassVar

from manymind.parsers.base import OutputParser
from manymind.parsers.reader import MalformedError, Reading

_MESSAGE = "<|message|>"
_BODY_ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>")
_RECIPIENT = re.compile(r"to=(?:functions\.)?([^\s<]+)")


class HarmonyParser(OutputParser):
    """``analysis`` is reasoning, a message to a recipient is a call, all else is text."""

    call_markers: ClassVar[tuple[str, ...]] = ("<|channel|>", "<|start|>")

    def read_call(self, marker: str) -> Reading[None]:
        while marker in self.call_markers:
            self.reader.mark()
            try:
                header = yield from self.reader.read_until(_MESSAGE)
            except MalformedError:
                self.reader.rewind()
                self.emit_text(marker)
                return
            self.reader.release()
            marker = yield from self._read_message(header)

    def _read_message(self, header: str) -> Reading[str]:
        """A message's body; returns the token that ended it."""
        recipient = _RECIPIENT.search(header)
        if recipient is not None:
            return (yield from self._read_tool_call(recipient[1]))
        channel = header.rpartition("<|channel|>")[2].strip()
        if channel.startswith("analysis"):
            begin = self.reader.place
            return (yield from self.copy_reasoning(begin, _BODY_ENDS, self.emit_reasoning))
        return (yield from self.reader.copy_until(_BODY_ENDS, self.emit_text))

    def _read_tool_call(self, name: str) -> Reading[str]:
        index = self.start_call(name)
        parts: list[str] = []

        def emit(text: str) -> None:
            parts.append(text)
            self.emit_arguments(index, text)

        end = yield from self.reader.copy_until(_BODY_ENDS, emit)
        # The token that ends a call ends the answer, too, and is not in its text.
        self.end_call(index, complete=bool(end) or _is_json("".join(parts)))
        return end


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
