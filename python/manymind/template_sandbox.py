# SPDX-License-Identifier: Apache-2.0
"""A Jinja environment for chat templates from untrusted files.

Jinja's own sandbox keeps a template away from Python's internals; this one also bounds its time and
memory. A template can loop, recurse and build text, so loop items, calls and characters are charged
against budgets, and operations whose result can be far larger than their operands are checked
before they run.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
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

from manymind.template_limits import (
    MAX_CHARACTERS,
    Budget,
    check_format,
    check_join,
    check_method,
    check_operator,
    check_product,
    check_replace,
    check_size,
    measure,
)

# These handle one character after the other, in Python.
_SLOW_FILTERS = ("title", "urlencode")
_MAX_SLOW_CHARACTERS = 1_000_000
_FILTERS = {
    *("abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float"),
    *("indent", "int", "items", "join", "last", "length", "list", "lower", "map", "max", "min"),
    *("reject", "rejectattr", "replace", "reverse", "round", "safe", "select", "selectattr"),
    *("sort", "string", "title", "trim", "unique", "upper", "urlencode"),
}


class _MeteredCode(CodeGenerator):
    """Generates code that reports loops, text and the results of what may take time to the
    environment."""

    def visit_For(self, node: nodes.For, frame: Frame) -> None:  # noqa: N802 (Jinja's naming)
        if node.recursive:
            self.fail("expected no recursive loop", node.lineno)
        node.iter = _environment_call("metered_items", node.iter)
        super().visit_For(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.visit(_environment_call("concatenate", *node.nodes), frame)

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802
        self._write_metered("computed", super().visit_Compare, node, frame)

    def visit_Filter(self, node: nodes.Filter, frame: Frame) -> None:  # noqa: N802
        self._write_metered("computed", super().visit_Filter, node, frame)

    def visit_Test(self, node: nodes.Test, frame: Frame) -> None:  # noqa: N802
        self._write_metered("computed", super().visit_Test, node, frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        self._write_metered("computed", super().visit_Getitem, node, frame)

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        self._write_metered("checked_value", super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        self._write_metered("checked_value", super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx == "load":
            self._write_metered("checked_value", super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def _write_metered(
        self, method: str, visit: Callable[[Any, Frame], None], node: Any, frame: Frame
    ) -> None:
        self.write(f"environment.{method}(")
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

    def __init__(self, unescaped: str = "") -> None:
        """``unescaped``: characters of the basic plane that ``tojson`` never writes as escapes."""
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", _GenerationTag],
            finalize=_finalize,
            optimized=False,  # constants are computed when rendering, on its budget
        )
        self._escapes = {f"\\u{ord(character):04x}": character for character in unescaped}
        self._local = threading.local()  # .budget of the rendering on this thread
        self.filters = {name: self.filters[name] for name in _FILTERS}
        for name in ("join", "replace", "indent", "string", *_SLOW_FILTERS):
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
        self._local.budget = Budget()

    @property
    def budget(self) -> Budget:
        """The budget of this thread; constant folding at compile time has one too."""
        if not hasattr(self._local, "budget"):
            self.start_rendering()
        budget: Budget = self._local.budget
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

    def computed(self, value: Any) -> Any:
        """The result of an operation, charged."""
        self.budget.charge_value(value)
        return value

    def checked_value(self, value: Any) -> Any:
        """A list, dict or tuple that the template builds, if it is not too large: a container of
        two references to the one before it doubles what comparing it costs.
        """
        check_size(value)
        return self.computed(value)

    def concatenate(self, *values: Any) -> Any:
        """The operator ``~``."""
        check_size(*values)
        return self.computed("".join(map(str, values)))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        check_operator(operator, left, right)
        return self.computed(super().call_binop(context, operator, left, right))

    def call_filter(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """A filter that ``map`` applies to an item."""
        return self.computed(super().call_filter(name, *args, **kwargs))

    def call_test(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """A test that ``select`` and its kin apply to an item."""
        return self.computed(super().call_test(name, *args, **kwargs))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        __self.budget.charge_steps(1)
        if isinstance(__obj, BuiltinMethodType):
            if __obj.__name__ == "join" and len(args) == 1:
                args = (__self._materialized(args[0]),)
            check_method(__obj, args, kwargs)
        return __self.computed(super().call(__context, __obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Any:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        def checked(*args: Any, **kwargs: Any) -> Any:
            check_format(value.__self__, [args, kwargs])
            return wrapped(*args, **kwargs)

        return checked

    def _materialized(self, items: Any) -> Any:
        """Items whose number is known, of what may be a generator."""
        if isinstance(items, (str, list, tuple, dict)):
            return items
        return list(self.metered_items(items))

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
        text = json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )
        for escape, character in self._escapes.items() if ensure_ascii else ():
            text = text.replace(escape, character)
        return text


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


def _guarded_filter(environment: ChatTemplateEnvironment, name: str, original: Any) -> Any:
    """``original`` with its arguments checked; keeps what Jinja marked it to be passed."""

    def check(value: Any, *args: Any, **kwargs: Any) -> Any:
        if name == "join":
            value = environment._materialized(value)
            check_join(value, str(args[0] if args else kwargs.get("d", "")))
        elif name == "replace":
            old, new = [*args, kwargs.get("old", ""), kwargs.get("new", "")][:2]
            check_replace(str(value), str(old), str(new))
        elif name == "indent":
            width = args[0] if args else kwargs.get("width", 4)
            width = len(width) if isinstance(width, str) else int(width)
            check_product(str(value).count("\n") + 1, width, len(str(value)))
        else:
            check_size(
                value, limit=_MAX_SLOW_CHARACTERS if name in _SLOW_FILTERS else MAX_CHARACTERS
            )
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
