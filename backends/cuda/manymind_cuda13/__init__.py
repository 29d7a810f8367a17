# SPDX-License-Identifier: Apache-2.0
"""Where the CUDA plug-in lies; ``manymind`` asks through the entry points ``manymind.backends``."""

from __future__ import annotations

from pathlib import Path


def plugin_path() -> Path:
    """The shared library that ``manymind`` loads."""
    return Path(__file__).with_name("libturbomind-cuda.so")
