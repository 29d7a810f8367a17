# SPDX-License-Identifier: Apache-2.0
"""Checks of settings: each raises InvalidParameterError that names the field, what was expected and
what was found.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from typing import Any, TypeGuard

from manymind.errors import InvalidParameterError

INT32_MAX = 2**31 - 1


def require(condition: bool, name: str, expected: str, found: object) -> None:
    """Raises unless condition holds."""
    if not condition:
        raise InvalidParameterError(f"{name}: expected {expected}, found {reprlib.repr(found)}")


def require_type(name: str, value: object, kind: type | tuple[type, ...]) -> None:
    """An instance of ``kind``."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    expected = " or ".join("None" if item is type(None) else item.__name__ for item in kinds)
    if not isinstance(value, kinds):
        raise InvalidParameterError(f"{name}: expected {expected}, found {reprlib.repr(value)}")


def is_int(value: object) -> TypeGuard[int]:
    """True for an integer, of numpy's too, that is not a bool."""
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def is_number(value: object) -> TypeGuard[float]:
    """True for a real number, of numpy's too, that is not a bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def require_int(name: str, value: object, minimum: int, maximum: int = INT32_MAX) -> None:
    """An integer in [minimum, maximum]."""
    expected = f"an integer >= {minimum}"
    if maximum != INT32_MAX or (is_int(value) and value > maximum):
        expected = f"an integer in [{minimum}, {maximum}]"
    require(is_int(value) and minimum <= value <= maximum, name, expected, value)


def require_number(name: str, value: object, low: float, high: float) -> None:
    """A finite number in [low, high]."""
    require(is_number(value) and low <= value <= high, name, f"a number in [{low}, {high}]", value)


def require_bool(name: str, value: object) -> None:
    """True or False, and nothing that merely looks like it."""
    require(isinstance(value, bool), name, "a bool", value)


def require_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """One of ``choices``, which are strings or None."""
    known = (value is None or isinstance(value, str)) and value in choices
    require(known, name, f"one of {', '.join(map(repr, choices))}", value)


def require_strings(name: str, value: object) -> None:
    """None or a collection of non-empty strings; a bare string is a likely mistake for one."""
    valid = value is None or _is_list_of(value, lambda word: isinstance(word, str) and bool(word))
    require(valid, name, "a list of non-empty strings", value)


def require_token_ids(name: str, value: object) -> None:
    """None or a collection of integers >= 0."""
    valid = value is None or _is_list_of(value, _is_token_id)
    require(valid, name, "a list of token ids", value)


def require_token_weights(name: str, value: object) -> None:
    """None or a mapping of token ids to numbers; minus infinity is one."""
    valid = value is None or (
        isinstance(value, Mapping)
        and all(_is_token_id(key) for key in value)
        and all(_is_weight(weight) for weight in value.values())
    )
    require(valid, name, "a mapping of token ids to numbers", value)


def _is_list_of(value: object, is_item: Callable[[Any], bool]) -> bool:
    # An iterator would be empty after this look at it.
    return (
        isinstance(value, Collection)
        and not isinstance(value, (str, bytes, Mapping))
        and all(is_item(item) for item in value)
    )


def _is_token_id(value: object) -> bool:
    return is_int(value) and 0 <= value <= INT32_MAX


def _is_weight(value: object) -> bool:
    return is_number(value) and not math.isnan(value) and value != math.inf
