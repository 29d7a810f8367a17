# SPDX-License-Identifier: Apache-2.0
"""Bounds on what a chat template may compute, checked before it is computed.

Every check raises jinja2's SecurityError.
"""

from __future__ import annotations

import re
import time
from collections.abc import ItemsView, KeysView, Mapping, ValuesView
from types import BuiltinMethodType
from typing import Any

from jinja2.exceptions import SecurityError

MAX_STEPS = 1_000_000  # loop items and calls
MAX_CHARACTERS = 16_000_000  # of any value, and of all text written
MAX_ALLOCATION = 256_000_000  # characters and list places of all values computed on the way
MAX_SECONDS = 5.0
_MAX_INTEGER_BITS = 4096
_CHARACTERS_PER_PLACE = 8  # of a list: the size of a pointer
_CHARACTERS_PER_VALUE = 32  # of a number, or of a container's brackets and separators
_PADDING_METHODS = {"center", "ljust", "rjust", "zfill", "expandtabs"}
_PERCENT_FIELD = re.compile(r"%(?:\([^)]*\))?[^a-zA-Z%]*")
_LONG_WIDTH = re.compile(r"\d{4}|[{*]")  # in a format specification


class Budget:
    """What one rendering may still use.

    One operation takes a fraction of a second at most, as the sizes of its operands are bounded;
    the clock is read at each that may take longer than reading it.
    """

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.characters = MAX_CHARACTERS
        self.allocation = MAX_ALLOCATION
        self.deadline = time.monotonic() + MAX_SECONDS

    def charge_steps(self, count: int) -> None:
        self.steps -= count
        if self.steps < 0:
            raise SecurityError(f"expected at most {MAX_STEPS} loop items and calls, found more")
        self._check_clock()

    def charge_value(self, value: Any) -> None:
        """Charges the memory of a value that was just computed, without walking it."""
        if isinstance(value, str):
            self.allocation -= len(value)
        elif isinstance(value, (list, tuple, dict)):
            self.allocation -= len(value) * _CHARACTERS_PER_PLACE
        if self.allocation < 0:
            raise SecurityError(
                f"expected values of at most {MAX_ALLOCATION} characters together, found more"
            )
        self._check_clock()

    def _check_clock(self) -> None:
        if time.monotonic() > self.deadline:
            raise SecurityError(f"expected at most {MAX_SECONDS} seconds, found more")

    def charge_characters(self, count: int) -> None:
        self.characters -= count
        if self.characters < 0:
            raise SecurityError(f"expected at most {MAX_CHARACTERS} characters, found more")


def measure(value: Any, limit: int) -> int:
    """An upper estimate of the characters of ``str(value)``; stops soon after ``limit``.

    Values other than text count generously: walking them is what takes time.
    """
    total, pending = 0, [value]
    while pending and total <= limit:
        item = pending.pop()
        if isinstance(item, str):
            total += len(item)
            continue
        total += _CHARACTERS_PER_VALUE
        if isinstance(item, Mapping):
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, (list, tuple, set, KeysView, ValuesView, ItemsView)):
            pending.extend(item)
    return total


def check_size(*values: Any, limit: int = MAX_CHARACTERS) -> None:
    """Raises SecurityError if the text of all ``values`` would be too long."""
    if measure(values, limit) > limit:
        raise SecurityError(f"expected values of at most {limit} characters, found more")


def check_product(count: int, size: int, extra: int = 0) -> None:
    if count * size + extra > MAX_CHARACTERS:
        raise SecurityError(f"expected values of at most {MAX_CHARACTERS} characters, found more")


def check_operator(operator: str, left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        bits = {
            "*": left.bit_length() + right.bit_length(),
            "**": left.bit_length() * abs(right),
        }
        if bits.get(operator, 0) > _MAX_INTEGER_BITS:
            raise SecurityError(f"expected integers of at most {_MAX_INTEGER_BITS} bits")
    elif operator == "+":
        if isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
            check_size(left, right)
    elif operator == "*":
        for sequence, count in ((left, right), (right, left)):
            if isinstance(sequence, (str, list, tuple)) and isinstance(count, int):
                check_product(max(count, 0), measure(sequence, MAX_CHARACTERS))
    elif operator == "%" and isinstance(left, str):
        _check_fields(left, _PERCENT_FIELD.findall(left), right)


def check_method(method: BuiltinMethodType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    owner, name = method.__self__, method.__name__
    if not isinstance(owner, (str, dict, list, tuple)):
        raise SecurityError(f"{name}: expected a method of a str, dict, list or tuple")
    if not isinstance(owner, str):
        return
    if name in _PADDING_METHODS:
        widths = [value for value in (*args, *kwargs.values()) if isinstance(value, int)]
        check_product(max(owner.count("\t"), 1), max(widths, default=8), len(owner))
    elif name == "join" and args:
        check_join(args[0], owner)
    elif name == "replace" and len(args) >= 2:
        check_replace(owner, args[0], args[1])
    elif name in ("translate", "maketrans"):
        raise SecurityError(f"{name}: expected another method of str")


def check_join(items: Any, separator: str) -> None:
    if not isinstance(items, (str, list, tuple, dict)):
        raise SecurityError("join: expected a list or a text")
    size = measure(items, MAX_CHARACTERS)
    check_product(len(items), len(separator), size)


def check_replace(text: Any, old: Any, new: Any) -> None:
    if isinstance(text, str) and isinstance(old, str) and isinstance(new, str):
        check_product(text.count(old), len(new), len(text))


def check_format(template: str, arguments: Any) -> None:
    """The arguments of ``str.format``."""
    fields = re.findall(r"\{[^}]*", template)
    _check_fields(template, [field.partition(":")[2] for field in fields], arguments)


def _check_fields(template: str, fields: list[str], arguments: Any) -> None:
    if any(_LONG_WIDTH.search(field) for field in fields):
        raise SecurityError("expected plain fields in a format string, found widths")
    check_product(len(fields), measure(arguments, MAX_CHARACTERS), len(template))
