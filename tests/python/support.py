# SPDX-License-Identifier: Apache-2.0
"""Helpers of the tests beside it."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import TypeVar

Test = TypeVar("Test", bound=Callable[..., None])


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Returns when ``condition`` holds; fails if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


class FieldCoverage:
    """Decorator of tests: the fields of a configuration that a test is about. Each must occur in
    the test itself, so that a field is not covered by a list alone.
    """

    def __init__(self) -> None:
        self.fields: set[str] = set()

    def __call__(self, *fields: str) -> Callable[[Test], Test]:
        def decorate(test: Test) -> Test:
            _, _, text = inspect.getsource(test).partition(")\n")  # after this decorator
            for field in fields:
                assert field in text, f"{test.__name__} says nothing of {field}"
            self.fields.update(fields)
            return test

        return decorate
