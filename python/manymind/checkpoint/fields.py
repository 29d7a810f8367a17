# SPDX-License-Identifier: Apache-2.0
"""Typed access to untrusted configuration values."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from manymind.errors import CheckpointError

MAX_INTEGER = 2**31 - 1


class Fields:
    """Reads ``values[prefix + name]`` with a checked type. A null value counts as absent.

    A getter without default raises CheckpointError if the field is absent; every getter raises it
    on a wrong type or range.
    """

    def __init__(self, values: Mapping[str, Any], prefix: str = "") -> None:
        self._values = values
        self._prefix = prefix

    def __contains__(self, name: str) -> bool:
        return self._values.get(self._prefix + name) is not None

    def integer(
        self, name: str, default: int | None = None, *, low: int = 1, high: int = MAX_INTEGER
    ) -> int:
        value = self._get(name, default)
        if type(value) is not int or not low <= value <= high:
            raise self.error(name, f"an integer from {low} to {high}", value)
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._get(name, default)
        # Compared before it is converted: an integer may be too large for a float.
        if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
            raise self.error(name, "a finite number", value)
        return float(value)

    def positive(self, name: str, default: float | None = None) -> float:
        value = self.number(name, default)
        if value <= 0:
            raise self.error(name, "a positive number", value)
        return value

    def boolean(self, name: str, default: bool | None = None) -> bool:
        value = self._get(name, default)
        if type(value) is not bool:
            raise self.error(name, "a boolean", value)
        return value

    def string(self, name: str, default: str | None = None) -> str:
        value = self._get(name, default)
        if type(value) is not str:
            raise self.error(name, "a string", value)
        return value

    def sequence(self, name: str) -> list[Any]:
        """A JSON list, or a GGUF array as a list."""
        value = self._get(name, None)
        if hasattr(value, "tolist"):
            value = value.tolist()
        if type(value) is not list:
            raise self.error(name, "a list", value)
        return value

    def raw(self, name: str) -> Any:
        """The value as it is; None if it is absent."""
        return self._values.get(self._prefix + name)

    def nested(self, name: str) -> Fields:
        """The object ``name``; empty if it is absent."""
        value = self._get(name, {})
        if not isinstance(value, dict):
            raise self.error(name, "an object", value)
        return Fields(value)

    def token_ids(self, name: str) -> tuple[int, ...]:
        """One id or a list of ids; empty if the field is absent."""
        if name not in self:
            return ()
        value = self._get(name, None)
        ids = value if isinstance(value, list) else [value]
        if any(type(item) is not int or not 0 <= item <= MAX_INTEGER for item in ids):
            raise self.error(name, "a token id or a list of them", value)
        return tuple(ids)

    def error(self, name: str, expected: str, found: object) -> CheckpointError:
        return CheckpointError(self._prefix + name, expected, found)

    def _get(self, name: str, default: Any) -> Any:
        value = self._values.get(self._prefix + name)
        if value is not None:
            return value
        if default is None:
            raise self.error(name, "a value", "nothing")
        return default
