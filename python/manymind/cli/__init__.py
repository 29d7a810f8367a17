# SPDX-License-Identifier: Apache-2.0
"""The command ``manymind``.

Exit status: 0 done, 1 an error (one line on stderr), 2 a command line that does not parse, 130
interrupted.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from manymind.cli import commands
from manymind.errors import ManymindError

_COMMANDS: dict[str, Any] = {
    "chat": commands.chat,
    "check_env": commands.check_env,
    "models": commands.models,
    "serve": commands.serve,
    "verify_ascend": commands.verify_ascend,
    "bench": {
        "throughput": commands.throughput,
        "latency": commands.latency,
        "serve": commands.bench_serve,
    },
}
_INTERRUPTED = 130
_FLAG = re.compile(r"--|-[A-Za-z]")  # what fire takes for the next flag, and not for a value


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command and exits."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        sys.exit(_run(arguments))
    except BrokenPipeError:
        # The reader of a pipe has gone. Python flushes stdout once more at exit, which must not
        # fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _run(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        from manymind import __version__

        print(f"manymind {__version__}")
        return 0
    try:
        for command in _parse(arguments):
            command()
    except BrokenPipeError:
        raise
    except (ManymindError, OSError) as error:
        print(f"manymind: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def _require_values(arguments: Sequence[str]) -> None:
    """Exits at a flag that takes a text and was given none: fire would hand over "True"."""
    entry: Any = _COMMANDS
    for word in arguments:
        if not isinstance(entry, dict):
            break
        entry = entry.get(word, {})
    texts = {} if isinstance(entry, dict) else _text_parameters(entry)
    for argument, following in itertools.pairwise([*arguments, "--"]):
        name = argument.lstrip("-").replace("-", "_")
        if argument.startswith("-") and name in texts and _FLAG.match(following):
            print(f"ERROR: {argument}: expected a value, found none", file=sys.stderr)
            sys.exit(2)


def _parse(arguments: list[str]) -> list[Callable[[], None]]:
    """The command to run, or nothing if a group's help was shown.

    It runs only after the whole line was understood: fire looks at surplus arguments, such as a
    misspelt flag, after it has called the function.
    """
    import fire
    from fire import decorators

    _require_values(arguments)

    # Fire's help lists the attributes of a function, its own mark among them unless it is private.
    decorators.FIRE_METADATA = "_FIRE_METADATA"

    parsed: list[Callable[[], None]] = []

    def deferred(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {name: deferred(inner) for name, inner in entry.items()}

        @functools.wraps(entry)
        def remember(*args: Any, **kwargs: Any) -> None:
            parsed.append(functools.partial(entry, *args, **kwargs))

        return decorators.SetParseFns(**_text_parameters(entry))(remember)

    fire.Fire(deferred(_COMMANDS), command=arguments, name="manymind")
    return parsed


def _text_parameters(command: Callable[..., None]) -> dict[str, type[str]]:
    """Parameters to be taken as typed; fire reads any other one as a Python literal."""
    parameters = inspect.signature(command).parameters.values()
    return {item.name: str for item in parameters if item.annotation in ("str", "str | None")}
