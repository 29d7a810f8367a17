# SPDX-License-Identifier: Apache-2.0
"""Real models for all tests, a core for each worker; and a skipped test is a failure."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from manymind import EngineConfig, Pipeline, pipeline
from manymind.fetch import resolve_model


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", help="where the tests that use exact_engine.EXACT run")


def keep_to_a_core(worker: str, workers: int) -> None:
    """Gives worker ``gw<n>`` of pytest-xdist, and what it starts, one core: engines and torch count
    the cores that they may use, and the spinning threads of two would take each other's time.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) >= workers:
        os.sched_setaffinity(0, {cores[int(worker.removeprefix("gw")) % len(cores)]})


# Here and not in a hook: torch counts cores when it is imported, which other conftest.py files do.
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    keep_to_a_core(os.environ["PYTEST_XDIST_WORKER"], int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))


def pytest_configure(config: pytest.Config) -> None:
    backend = config.getoption("--backend")
    if backend is not None:
        from exact_engine import EXACT

        # A pool of so many blocks: all of a device's memory would be more than these tests look at.
        # They compare bits of different batches, too.
        EXACT.update(backend=backend, num_kv_blocks=64, backend_config={"deterministic": "1"})


def pytest_sessionstart() -> None:
    """In the background of a shell, interrupts are ignored, and children inherit that: the tests of
    Ctrl-C would wait for nothing.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: skipped tests count as failures: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct, Q4_1; fetched once, as a user's command would."""
    return resolve_model("smollm2", progress=False)


@pytest.fixture(scope="session")
def gemma_path() -> Path:
    """Gemma-3-270M, Q4_K_M."""
    return resolve_model("gemma3-270m", progress=False)


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> Iterator[Pipeline]:
    """The engine that most tests share; a test that needs other settings makes its own."""
    with pipeline(smollm2_path, EngineConfig(session_len=2048)) as pipe:
        yield pipe
