# SPDX-License-Identifier: Apache-2.0
"""How much a model is to think, in each interface's words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anthropic
import ollama
import openai
import pytest
from serving import QUESTION, RunningServer, running_server

from manymind import ChatTemplateConfig, EngineConfig, pipeline
from manymind.chat_template import ChatTemplate
from manymind.parsers import OutputFormat
from manymind.server.config import ServerConfig
from manymind.server.errors import ApiError
from manymind.server.thinking import thinking_variables

SWITCH = "{% if enable_thinking is defined and not enable_thinking %}Off.{% endif %}"
LEVELS = "{{ reasoning_effort | default('medium') }}"
# Prompts tell by their length what the template was told.
TEMPLATE = """
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor %}<|im_start|>assistant
{% if enable_thinking is defined %}{{ "So think of it." if enable_thinking else "No." }}{% endif %}
</think>"""


def variables(source: str, reasoning: str | None, wanted: bool | str | None) -> dict[str, Any]:
    service: Any = SimpleNamespace(
        runtime=SimpleNamespace(template=ChatTemplate(source)),
        output_format=OutputFormat(None, reasoning),
    )
    return thinking_variables(service, wanted, "effort")


@pytest.mark.parametrize(
    ("source", "reasoning", "wanted", "expected"),
    [
        (SWITCH, "think", None, {}),
        (SWITCH, "think", True, {"enable_thinking": True}),
        (SWITCH, "think", False, {"enable_thinking": False}),
        (SWITCH, "think", "none", {"enable_thinking": False}),
        ("{% if thinking %}{% endif %}", "think", True, {"thinking": True}),
        ("{{ 'thinking' }}", "think", True, {}),
        (LEVELS, "think", "high", {"reasoning_effort": "high"}),
        (LEVELS, "think", "none", {"reasoning_effort": "none"}),
        ("plain", "think", True, {}),
        ("plain", None, False, {}),
        ("plain", None, "none", {}),
    ],
)
def test_what_a_template_is_told(
    source: str, reasoning: str | None, wanted: bool | str | None, expected: dict[str, Any]
) -> None:
    assert variables(source, reasoning, wanted) == expected


@pytest.mark.parametrize(
    ("source", "reasoning", "wanted", "message"),
    [
        (SWITCH, "think", "high", "whether to think, not how much"),
        ("plain", "think", False, "always thinks"),
        ("plain", "think", "none", "always thinks"),
        ("plain", None, True, "does not think"),
        ("plain", None, "low", "does not think"),
    ],
)
def test_what_it_cannot_be_told_is_refused(
    source: str, reasoning: str | None, wanted: bool | str, message: str
) -> None:
    with pytest.raises(ApiError, match=rf"effort: .*{message}") as caught:
        variables(source, reasoning, wanted)
    assert (caught.value.status, caught.value.param) == (400, "effort")


@pytest.fixture(scope="module")
def thinking(smollm2_path: Path) -> Iterator[RunningServer]:
    config = EngineConfig(session_len=256)
    template = ChatTemplateConfig(chat_template=TEMPLATE)
    with (
        pipeline(smollm2_path, config, template) as pipe,
        running_server(pipe, ServerConfig("m", port=0)) as server,
    ):
        yield server


def test_every_interface_tells_the_template(thinking: RunningServer) -> None:
    gpt = openai.OpenAI(base_url=f"{thinking.url}/v1", api_key="none", max_retries=0)
    claude = anthropic.Anthropic(base_url=thinking.url, api_key="none", max_retries=0)
    llama = ollama.Client(host=thinking.url)

    def chat(**more: Any) -> int:
        answer = gpt.chat.completions.create(model="m", messages=QUESTION, max_tokens=1, **more)
        return answer.usage.prompt_tokens

    def response(**more: Any) -> int:
        asked = QUESTION[0]["content"]
        answer = gpt.responses.create(model="m", input=asked, max_output_tokens=1, **more)
        return answer.usage.input_tokens

    def message(**more: Any) -> int:
        return claude.messages.count_tokens(model="m", messages=QUESTION, **more).input_tokens

    def local(**more: Any) -> int:
        return llama.chat("m", QUESTION, options={"num_predict": 1}, **more).prompt_eval_count

    def local_prompt(**more: Any) -> int:
        asked, options = QUESTION[0]["content"], {"num_predict": 1}
        return llama.generate("m", asked, options=options, **more).prompt_eval_count

    with gpt, claude, llama:
        plain = chat()
        off = chat(extra_body={"chat_template_kwargs": {"enable_thinking": False}})
        on = chat(extra_body={"chat_template_kwargs": {"enable_thinking": True}})
        assert plain < off < on
        assert chat(reasoning_effort="none") == off
        assert response() == plain
        assert response(reasoning={"effort": "none"}) == off
        assert message() == plain
        assert message(thinking={"type": "disabled"}) == off
        assert message(thinking={"type": "adaptive"}) == on
        assert local() == local_prompt() == plain
        assert local(think=False) == local_prompt(think=False) == off
        assert local(think=True) == local_prompt(think=True) == on


@pytest.mark.parametrize(
    ("path", "name", "body"),
    [
        (
            "/v1/chat/completions",
            "reasoning_effort",
            {"messages": QUESTION, "reasoning_effort": "high"},
        ),
        ("/v1/responses", "reasoning.effort", {"input": "a", "reasoning": {"effort": "high"}}),
        ("/v1/responses", "reasoning.summary", {"input": "a", "reasoning": {"summary": "auto"}}),
        (
            "/v1/messages",
            "thinking.type: Input should be 'disabled' or 'adaptive'",
            {
                "messages": QUESTION,
                "max_tokens": 9,
                "thinking": {"type": "enabled", "budget_tokens": 4},
            },
        ),
        ("/api/chat", "think", {"messages": QUESTION, "think": "high"}),
        ("/api/generate", "think", {"prompt": "a", "raw": True, "think": True}),
    ],
)
def test_a_refusal_names_the_parameter(
    thinking: RunningServer, path: str, name: str, body: dict[str, Any]
) -> None:
    answer = thinking.post(path, {"model": "m", **body})
    assert answer.status_code == 400
    error = answer.json()["error"]
    message = error if isinstance(error, str) else error["message"]
    assert message.startswith(name)
