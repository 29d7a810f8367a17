# SPDX-License-Identifier: Apache-2.0
"""Rendered chats against transformers, for templates that use what published ones use."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from golden_data import golden_texts
from reference_text import CONVERSATIONS, render_reference

from manymind.chat_template import ChatTemplate
from manymind.errors import ChatTemplateError

TEMPLATES = {
    path.stem: path.read_text() for path in (Path(__file__).parent / "templates").glob("*.jinja")
}
TEMPLATES["smollm2"] = golden_texts()["smollm2_template"]

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": 'Weather <now> & "here"',
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"n": 2, "city": "Köln"}}}
ALL_CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    **CONVERSATIONS,
    "parts": [
        {
            "role": "user",
            "content": [
                {"type": "image"},
                {"type": "text", "text": " a "},
                {"type": "text", "text": "b"},
            ],
        }
    ],
    "tool call": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\n", "tool_calls": [CALL]},
        {"role": "tool", "content": '{"t": 21}'},
        {"role": "tool", "content": "again"},
        {"role": "assistant", "content": "<think>\nso\n</think>\n\n21 degrees"},
    ],
    "wrong order": [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
    "two calls": [{"role": "assistant", "content": "", "tool_calls": [CALL, CALL]}],
}


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("conversation", ALL_CONVERSATIONS)
@pytest.mark.parametrize("with_tools", [False, True])
def test_equals_transformers(template: str, conversation: str, with_tools: bool) -> None:
    messages = ALL_CONVERSATIONS[conversation]
    tools = [TOOL] if with_tools else None
    for prompt, extra in ((True, {}), (False, {"date": "1 May 2026", "enable_thinking": False})):
        variables = {"add_generation_prompt": prompt, "tools": tools, **extra}
        try:
            expected = render_reference(
                TEMPLATES[template],
                copy.deepcopy(messages),
                bos_token="<s>",
                eos_token="</s>",
                **variables,
            )
        except Exception:
            with pytest.raises(ChatTemplateError):
                ChatTemplate(TEMPLATES[template], "<s>", "</s>").render(messages, **variables)
            continue
        found = ChatTemplate(TEMPLATES[template], "<s>", "</s>").render(messages, **variables)
        assert found == expected
