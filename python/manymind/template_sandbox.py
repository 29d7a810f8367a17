# SPDX-License-Identifier: Apache-2.0
"""A Jinja environment for chat templates from untrusted files.

Jinja's own sandbox keeps a template away from Python's internals; this one also bounds its time and
memory. A template can loop, recurse and build text, so loop items, calls and characters are charged
against budgets, and operations whose result can be far larger than their operands are checked
before they run.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    ValuesView,
)
from datetime import datetime
from types import BuiltinMethodType
from typing import Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError, nodes, pass_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

MAX_STEPS = 1_000_000  # loop items and calls
MAX_CHARACTERS = 16_000_000  # of any value, and of all text written
MAX_SECONDS = 5.0
_MAX_INTEGER_BITS = 4096
_STEPS_PER_CLOCK_CHECK = 1024

_FILTERS = {
    *("abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float"),
    *("indent", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min"),
    *("reject", "rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr"),
    *("sort", "string", "title", "trim", "unique", "upper", "urlencode"),
}
_PADDING_METHODS = {"center", "ljust", "rjust", "zfill", "expandtabs"}
_CHARACTERS_PER_VALUE = 32  # of a number, or of a container's brackets and separators
_LONG_WIDTH = re.compile(r"\d{4}|[{*]")  # in a format specification


class _Budget:
    """What one rendering may still use."""

    def __init__(self) -> None:
        self.steps = MAX_STEPS
        self.characters = MAX_CHARACTERS
        self.deadline = time.monotonic() + MAX_SECONDS

    def charge_steps(self, count: int) -> None:
        before, self.steps = self.steps, self.steps - count
        if self.steps < 0:
            raise SecurityError(f"expected at most {MAX_STEPS} loop items and calls, found more")
        crossed = before // _STEPS_PER_CLOCK_CHECK != self.steps // _STEPS_PER_CLOCK_CHECK
        if crossed and time.monotonic() > self.deadline:
            raise SecurityError(f"expected at most {MAX_SECONDS} seconds, found more")

    def charge_characters(self, count: int) -> None:
        self.characters -= count
        if self.characters < 0:
            raise SecurityError(f"expected at most {MAX_CHARACTERS} characters, found more")


class _MeteredCode(CodeGenerator):
    """Generates code that reports loops and text to the environment."""

    def visit_For(self, node: nodes.For, frame: Frame) -> None:  # noqa: N802 (Jinja's naming)
        if node.recursive:
            self.fail("expected no recursive loop", node.lineno)
        node.iter = _environment_call("metered_items", node.iter)
        super().visit_For(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.visit(_environment_call("concatenate", *node.nodes), frame)

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        self._write_checked(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        self._write_checked(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx == "load":
            self._write_checked(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def _write_checked(self, visit: Callable[[Any, Frame], None], node: Any, frame: Frame) -> None:
        # A container of two references to the one before it doubles what comparing it costs.
        self.write("environment.checked_value(")
        visit(node, frame)
        self.write(")")

    def _output_const_repr(self, group: Iterable[Any]) -> str:
        return f"environment.metered_text({''.join(map(str, group))!r})"


class ChatTemplateEnvironment(ImmutableSandboxedEnvironment):
    """Compiles and runs chat templates with the conventions of Hugging Face's.

    Those are: trimmed blocks, loop controls, ``{% generation %}`` (transparent here), ``tojson``
    without HTML escapes, ``raise_exception`` and ``strftime_now``.
    """

    code_generator_class = _MeteredCode
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _GenerationTag],
            finalize=_finalize,
        )
        self._local = threading.local()  # .budget of the rendering on this thread
        self.filters = {name: self.filters[name] for name in _FILTERS}
        for name in ("join", "replace", "indent", "string"):
            self.filters[name] = _guarded_filter(self, name, self.filters[name])
        self.filters["tojson"] = self._to_json
        for name in ("lipsum", "cycler", "joiner"):
            del self.globals[name]
        self.globals["dict"] = _make_dict
        self.globals["namespace"] = _TemplateNamespace
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    def start_rendering(self) -> None:
        """Gives this thread's next rendering a fresh budget."""
        self._local.budget = _Budget()

    @property
    def budget(self) -> _Budget:
        """The budget of this thread; constant folding at compile time has one too."""
        if not hasattr(self._local, "budget"):
            self.start_rendering()
        budget: _Budget = self._local.budget
        return budget

    def metered_items(self, items: Any) -> Any:
        """The iterable of a loop, charged."""
        if hasattr(items, "__len__"):
            self.budget.charge_steps(len(items) + 1)
            return items
        return self._metered_iterator(items)

    def metered_text(self, text: str) -> str:
        """Literal text of the template, charged each time it is written."""
        self.budget.charge_characters(len(text))
        return text

    def checked_value(self, value: Any) -> Any:
        """A list, dict or tuple that the template builds, if it is not too large."""
        check_size(value)
        return value

    def concatenate(self, *values: Any) -> str:
        """The operator ``~``."""
        check_size(*values)
        return "".join(map(str, values))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _check_operator(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        __self.budget.charge_steps(1)
        if isinstance(__obj, BuiltinMethodType):
            _check_method(__obj, args, kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Any:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def checked(*args: Any, **kwargs: Any) -> Any:
            template: str = value.__self__
            fields = re.findall(r"\{[^}]*", template)
            if any(_LONG_WIDTH.search(field.partition(":")[2]) for field in fields):
                raise SecurityError("expected plain fields in a format string, found widths")
            size = measure([args, kwargs], MAX_CHARACTERS)
            _check_product(len(fields), size, len(template))
            return wrapped(*args, **kwargs)

        return checked

    def _metered_iterator(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.budget.charge_steps(1)
            yield item

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        check_size(value)
        if indent is not None and not 0 <= int(indent) <= 16:
            raise SecurityError(f"tojson: expected an indent from 0 to 16, found {indent}")
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )


class _TemplateNamespace(Namespace):
    """``namespace()``: its text does not spell out its attributes, whose size nothing bounds."""

    def __repr__(self) -> str:
        return "<namespace>"


class _GenerationTag(Extension):
    """``{% generation %}`` marks assistant text for training; at inference its body is just
    text."""

    tags = {"generation"}  # noqa: RUF012 (declared so by Jinja)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


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


def check_size(*values: Any) -> None:
    """Raises SecurityError if the text of all ``values`` would be too long."""
    if measure(values, MAX_CHARACTERS) > MAX_CHARACTERS:
        raise SecurityError(f"expected values of at most {MAX_CHARACTERS} characters, found more")


@pass_context
def _finalize(context: Context, value: Any) -> Any:
    """Charges each value that is written."""
    size = measure(value, MAX_CHARACTERS)
    environment = context.environment
    assert isinstance(environment, ChatTemplateEnvironment)
    environment.budget.charge_characters(size)
    return value


def _environment_call(method: str, *args: nodes.Node) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method), list(args), [], None, None)


def _check_product(count: int, size: int, extra: int = 0) -> None:
    if count * size + extra > MAX_CHARACTERS:
        raise SecurityError(f"expected values of at most {MAX_CHARACTERS} characters, found more")


def _check_operator(operator: str, left: Any, right: Any) -> None:
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
                _check_product(max(count, 0), measure(sequence, MAX_CHARACTERS))
    elif operator == "%" and isinstance(left, str):
        if any(_LONG_WIDTH.search(field) for field in re.findall(r"%[^a-zA-Z%]*", left)):
            raise SecurityError("expected plain fields in a format string, found widths")
        _check_product(left.count("%"), measure(right, MAX_CHARACTERS), len(left))


def _check_method(method: BuiltinMethodType, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    owner, name = method.__self__, method.__name__
    if not isinstance(owner, (str, dict, list, tuple)):
        raise SecurityError(f"{name}: expected a method of a str, dict, list or tuple")
    if not isinstance(owner, str):
        return
    if name in _PADDING_METHODS:
        widths = [value for value in (*args, *kwargs.values()) if isinstance(value, int)]
        _check_product(max(owner.count("\t"), 1), max(widths, default=8), len(owner))
    elif name == "join" and args:
        _check_join(args[0], owner)
    elif name == "replace" and len(args) >= 2:
        _check_replace(owner, args[0], args[1])
    elif name in ("translate", "maketrans"):
        raise SecurityError(f"{name}: expected another method of str")


def _check_join(items: Any, separator: str) -> None:
    if not isinstance(items, (str, list, tuple, dict)):
        raise SecurityError("join: expected a list or a text")
    size = measure(items, MAX_CHARACTERS)
    _check_product(len(items), len(separator), size)


def _check_replace(text: Any, old: Any, new: Any) -> None:
    if isinstance(text, str) and isinstance(old, str) and isinstance(new, str):
        _check_product(text.count(old), len(new), len(text))


def _guarded_filter(environment: ChatTemplateEnvironment, name: str, original: Any) -> Any:
    """``original`` with its arguments checked; keeps what Jinja marked it to be passed."""

    def check(value: Any, *args: Any, **kwargs: Any) -> Any:
        if name == "join" and not isinstance(value, (str, list, tuple, dict)):
            value = list(environment.metered_items(value))
        if name == "join":
            _check_join(value, str(args[0] if args else kwargs.get("d", "")))
        elif name == "replace":
            old, new = [*args, kwargs.get("old", ""), kwargs.get("new", "")][:2]
            _check_replace(str(value), str(old), str(new))
        elif name == "indent":
            width = args[0] if args else kwargs.get("width", 4)
            width = len(width) if isinstance(width, str) else int(width)
            _check_product(str(value).count("\n") + 1, width, len(str(value)))
        else:
            check_size(value)
        return value

    def guarded(*args: Any, **kwargs: Any) -> Any:
        if takes_context:
            first, value, *rest = args
            return original(first, check(value, *rest, **kwargs), *rest, **kwargs)
        value, *rest = args
        return original(check(value, *rest, **kwargs), *rest, **kwargs)

    marker = getattr(original, "jinja_pass_arg", None)
    takes_context = marker is not None
    if takes_context:
        guarded.jinja_pass_arg = marker  # type: ignore[attr-defined]
    return guarded


def _make_dict(*args: Any, **kwargs: Any) -> dict[Any, Any]:
    value = dict(*args, **kwargs)
    check_size(value)
    return value


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(layout: str) -> str:
    if len(layout) > 256:
        raise SecurityError("strftime_now: expected at most 256 characters")
    return datetime.now().strftime(layout)


__all__ = ["ChatTemplateEnvironment", "TemplateError", "TemplateSyntaxError"]
