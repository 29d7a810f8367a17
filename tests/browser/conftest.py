# SPDX-License-Identifier: Apache-2.0
"""A browser without a screen, and a server to look at."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from manymind import Pipeline, pipeline
from manymind.server.config import ServerConfig

sys.path.append(str(Path(__file__).parents[1] / "server"))
from serving import RunningServer, running_server

# Chromium calls its maker's hosts unless told not to; as root it has no sandbox.
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--window-size=1280,860",
)


@pytest.fixture(scope="session")
def server(smollm2: Pipeline) -> Iterator[RunningServer]:
    with running_server(smollm2, ServerConfig("smollm2", port=0)) as running:
        yield running


@pytest.fixture(scope="session")
def seeing() -> Iterator[RunningServer]:
    """With the model that comes with the package and sees."""
    with (
        pipeline("tiny-vlm") as pipe,
        running_server(pipe, ServerConfig("tiny-vlm", port=0)) as running,
    ):
        yield running


@pytest.fixture
def browser() -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = Chrome(options, Service("/usr/bin/chromedriver"))
        driver.set_page_load_timeout(30)
        yield driver
        driver.quit()
