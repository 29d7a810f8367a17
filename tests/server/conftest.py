# SPDX-License-Identifier: Apache-2.0
"""A server on the model that all tests share, and the clients people use."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from serving import RunningServer, running_server

from manymind import Pipeline
from manymind.server.config import ServerConfig


@pytest.fixture(scope="session")
def server(smollm2: Pipeline) -> Iterator[RunningServer]:
    """Default settings; a test that needs others starts its own with ``running_server``."""
    with running_server(smollm2, ServerConfig("smollm2", port=0)) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made
