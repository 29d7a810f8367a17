# SPDX-License-Identifier: Apache-2.0
"""How much a model is to think before it answers: what the interfaces call ``reasoning_effort``,
``reasoning``, ``thinking`` and ``think`` are variables of its chat template.
"""

from __future__ import annotations

from typing import Any, Literal

from manymind.server.errors import ApiError
from manymind.server.service import Service

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]

# Names of a switch in templates: Qwen 3 and GLM, DeepSeek V3.1.
_SWITCHES = ("enable_thinking", "thinking")
_LEVELS = "reasoning_effort"  # gpt-oss


def thinking_variables(service: Service, wanted: bool | str | None, name: str) -> dict[str, Any]:
    """The template's variables for what is wanted.

    wanted: None leaves it to the template, False and "none" want no thinking, True some, any other
    word so much. name: of the parameter, for errors.

    Raises ApiError 400 for what this model's template cannot be told.
    """
    if wanted is None:
        return {}
    template = service.runtime.template
    known: frozenset[str] = frozenset() if template is None else template.variables
    if isinstance(wanted, str) and _LEVELS in known:
        return {_LEVELS: wanted}
    off = wanted in (False, "none")
    thinks = service.output_format.reasoning is not None or service.output_format.tools == "gpt-oss"
    if off or wanted is True:
        for switch in _SWITCHES:
            if switch in known:
                return {switch: not off}
        if off != thinks:
            return {}
    says = "always thinks" if thinks else "does not think"
    if any(switch in known for switch in _SWITCHES):
        says = "can be told whether to think, not how much"
    message = f"{name}: {wanted!r} is not supported by this model, which {says}"
    raise ApiError(400, message, "unsupported_parameter", name)
