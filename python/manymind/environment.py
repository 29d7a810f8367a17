# SPDX-License-Identifier: Apache-2.0
"""The only place that reads environment variables.

``MANYMIND_HOME``       folder for fetched models; default ``~/.cache/manymind``
``MANYMIND_LOG_LEVEL``  ``debug``, ``info``, ``warning`` (default) or ``error``
``MANYMIND_API_KEY``    the key that clients of ``manymind serve`` have to bring
"""

from __future__ import annotations

import os
from pathlib import Path

from manymind.errors import InvalidParameterError

LOG_LEVELS = ("debug", "info", "warning", "error")


def home_folder() -> Path:
    """Folder in which fetched models are kept; not created here."""
    value = os.environ.get("MANYMIND_HOME")
    return Path(value).expanduser() if value else Path.home() / ".cache" / "manymind"


def api_key() -> str | None:
    """The server's key, if one is set."""
    return os.environ.get("MANYMIND_API_KEY") or None


def log_level() -> str:
    """The log level asked for; raises InvalidParameterError on an unknown one."""
    value = os.environ.get("MANYMIND_LOG_LEVEL", "warning").lower()
    if value not in LOG_LEVELS:
        raise InvalidParameterError(
            f"MANYMIND_LOG_LEVEL: expected one of {', '.join(LOG_LEVELS)}, found {value!r}"
        )
    return value
