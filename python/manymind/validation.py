# SPDX-License-Identifier: Apache-2.0
"""Checks of settings: each raises InvalidParameterError that names the field, what was expected and
what was found.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TypeGuard

from manymind.errors import InvalidParameterError

INT32_MAX = 2**31 - 1


def require(condition: bool, name: str, expected: str, found: object) -> None:
    """Raises unless condition holds."""
    if not condition:
        raise InvalidParameterError(f"{name}: expected {expected}, found {found!r}")


def is_int(value: object) -> TypeGuard[int]:
    """True for an integer that is not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def require_int(name: str, value: object, minimum: int, maximum: int = INT32_MAX) -> None:
    """An integer in [minimum, maximum]."""
    expected = f"an integer >= {minimum}"
    if maximum != INT32_MAX or (is_int(value) and value > maximum):
        expected = f"an integer in [{minimum}, {maximum}]"
    require(is_int(value) and minimum <= value <= maximum, name, expected, value)


def require_number(name: str, value: object, low: float, high: float) -> None:
    """A finite number in [low, high]."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    require(number and low <= value <= high, name, f"a number in [{low}, {high}]", value)  # type: ignore[operator]


def require_bool(name: str, value: object) -> None:
    """True or False, and nothing that merely looks like it."""
    require(isinstance(value, bool), name, "a bool", value)


def require_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """One of ``choices``."""
    require(value in choices, name, f"one of {', '.join(map(repr, choices))}", value)


def require_strings(name: str, value: object) -> None:
    """None or a collection of non-empty strings; a bare string is a likely mistake for one."""
    valid = value is None or (
        isinstance(value, Iterable)
        and not isinstance(value, (str, bytes))
        and all(isinstance(word, str) and word for word in value)
    )
    require(valid, name, "a list of non-empty strings", value)


def require_token_ids(name: str, value: object) -> None:
    """None or a collection of integers >= 0."""
    valid = value is None or (
        isinstance(value, Iterable)
        and not isinstance(value, (str, bytes))
        and all(is_int(item) and 0 <= item <= INT32_MAX for item in value)
    )
    require(valid, name, "a list of token ids", value)


def require_token_weights(name: str, value: object) -> None:
    """None or a mapping of token ids to numbers; minus infinity is one."""
    valid = value is None or (
        isinstance(value, Mapping)
        and all(is_int(key) and 0 <= key <= INT32_MAX for key in value)
        and all(_is_weight(weight) for weight in value.values())
    )
    require(valid, name, "a mapping of token ids to numbers", value)


def _is_weight(value: object) -> bool:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and not math.isnan(value)
        and value != math.inf
    )
