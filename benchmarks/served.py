# SPDX-License-Identifier: Apache-2.0
"""Servers as processes of their own: started, waited for, ended."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_READY_SECONDS = 600.0  # vLLM compiles at its start
_END_SECONDS = 60.0


@contextmanager
def served(
    command: Sequence[str], health: str, log: IO[bytes]
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs ``command`` until the context is left; entered once ``health`` answers 200.

    Raises SystemExit if a server is there already: it would be measured instead.
    """
    if _answers(health):
        raise SystemExit(f"{health}: expected a free port, found a server")
    with subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _wait_until_ready(process, health)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def manymind_command(model: Path, port: int, *flags: str) -> list[str]:
    """``manymind serve`` of this Python."""
    command = [sys.executable, "-m", "manymind", "serve", str(model), f"--port={port}"]
    return [*command, "--served_name=model", "--log_level=warning", *flags]


def _wait_until_ready(process: subprocess.Popen[bytes], health: str) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"{health}: the server ended with status {process.returncode}")
        if _answers(health):
            return
        time.sleep(0.1)
    raise SystemExit(f"{health}: not ready within {_READY_SECONDS:g} s")


def _answers(health: str) -> bool:
    try:
        with urllib.request.urlopen(health, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
