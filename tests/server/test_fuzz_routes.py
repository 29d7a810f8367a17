# SPDX-License-Identifier: Apache-2.0
"""Every route, fuzzed from the server's own OpenAPI document: whatever comes, the answer is none of
5xx, has a documented status and type, and refuses what the document does not allow.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core import NOT_SET
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    status_code_conformance,
)
from serving import RunningServer, running_server

from manymind import EngineConfig, pipeline
from manymind.server.config import ServerConfig

POSTS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/api/generate",
    "/api/chat",
    "/api/embed",
    "/api/embeddings",
    "/api/show",
    "/abort_request",
    "/tokenize",
    "/detokenize",
)
EXAMPLES = 10  # of each kind for a route with a body
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    negative_data_rejection,
]
INTERDEPENDENT = {"tools", "tool_choice", "response_format", "stream_options", "logit_bias"}
INTERDEPENDENT |= {"top_logprobs", "prompt_logprobs", "min_tokens", "n", "structured_outputs"}
INTERDEPENDENT |= {"allowed_token_ids", "stop_token_ids", "bad_words"}
# What /tokenize takes beside messages only.
OF_CHATS = {"messages", "add_generation_prompt", "chat_template_kwargs", "continue_final_message"}
OF_CHATS |= {"reasoning_effort", "parallel_tool_calls"}
MODES = list(GenerationMode)


@pytest.fixture(scope="module")
def short(smollm2_path: Path) -> Iterator[RunningServer]:
    """A server whose answers end soon, whatever is asked for."""
    config = EngineConfig(session_len=96, max_batch_size=4)
    with (
        pipeline(smollm2_path, config) as pipe,
        running_server(pipe, ServerConfig("smollm2", port=0)) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def operations(short: RunningServer) -> dict[tuple[str, str], Any]:
    """Method and path -> operation."""
    schema = schemathesis.openapi.from_dict(short.get("/openapi.json").json())
    found = [result.ok() for result in schema.get_all_operations()]
    return {(operation.method.lower(), operation.path): operation for operation in found}


def fuzz(short: RunningServer, operation: Any, mode: GenerationMode, examples: int) -> list[int]:
    """The statuses of the answers; raises where one fails a check."""
    statuses: list[int] = []

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        # What fails is shown as it is: making it smaller takes minutes.
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        body = case.body
        # Another model is a 404 that hides everything behind it.
        model = body.get("model") if body is not NOT_SET and isinstance(body, dict) else None
        if isinstance(model, str) and 0 < len(model) <= 256:
            body["model"] = "smollm2"
            if mode is GenerationMode.POSITIVE and len(statuses) % 2:
                simplify(body)
                if operation.path == "/tokenize":
                    for name in OF_CHATS & body.keys():
                        del body[name]
                    body["prompt"] = "Hi"
        answer = case.call(base_url=short.url, session=session, timeout=60)
        case.validate_response(answer, checks=CHECKS)
        statuses.append(answer.status_code)

    with requests.Session() as session:
        run()
    return statuses


def simplify(body: dict[str, Any]) -> None:
    """What random values of some fields ask for seldom fits together, nor with the template: every
    other body goes without them.
    """
    for name in INTERDEPENDENT & body.keys():
        del body[name]
    if isinstance(body.get("prompt"), list):
        body["prompt"] = "Hi"
    for message in body.get("messages") or ():
        message["content"] = "Hi"


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.value)
@pytest.mark.parametrize("path", POSTS)
def test_bodies(short: RunningServer, operations: Any, path: str, mode: GenerationMode) -> None:
    statuses = fuzz(short, operations["post", path], mode, EXAMPLES)
    # Valid bodies get past the first check; of the others none does.
    assert (200 in statuses) == (mode is GenerationMode.POSITIVE), statuses


def test_other_routes(short: RunningServer, operations: Any) -> None:
    others = {key: item for key, item in operations.items() if key[0] != "post"}
    assert len(others) >= 9
    for operation in others.values():
        fuzz(short, operation, GenerationMode.POSITIVE, 10)


def test_every_route_is_fuzzed(operations: Any) -> None:
    assert {path for method, path in operations if method == "post"} == set(POSTS)
    assert {method for method, _ in operations} == {"get", "post"}


def test_other_methods_are_refused(short: RunningServer, operations: Any) -> None:
    allowed: dict[str, set[str]] = {}
    for method, path in operations:
        allowed.setdefault(path, set()).add(method)
    with httpx.Client(base_url=short.url) as client:
        for path, methods in allowed.items():
            for method in {"get", "post", "put", "patch", "delete", "trace"} - methods:
                answer = client.request(method.upper(), path.replace("{name}", "x"))
                assert answer.status_code == 405, (method, path)
