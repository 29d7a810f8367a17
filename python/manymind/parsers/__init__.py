# SPDX-License-Identifier: Apache-2.0
"""Tool calls and reasoning, found in an answer while it is being written.

``output_format(template).parser(tools, prompt)`` makes a parser for one answer; it turns pieces of
text into events that do not depend on where the pieces end.
"""

from __future__ import annotations

from manymind.parsers.base import OutputParser
from manymind.parsers.events import (
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    joined,
)
from manymind.parsers.formats import (
    REASONING_MARKS,
    TOOL_PARSERS,
    OutputFormat,
    output_format,
)

__all__ = [
    "REASONING_MARKS",
    "TOOL_PARSERS",
    "Event",
    "OutputFormat",
    "OutputParser",
    "ReasoningDelta",
    "TextDelta",
    "ToolCallDelta",
    "ToolCallEnd",
    "ToolCallStart",
    "joined",
    "output_format",
]
