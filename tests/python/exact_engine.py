# SPDX-License-Identifier: Apache-2.0
"""Settings of engines whose numbers are compared: float32 throughout."""

from __future__ import annotations

from typing import Any

# On the back end that pytest's --backend names, if any (tests/conftest.py).
EXACT: dict[str, Any] = {
    "compute_dtype": "float32",
    "kv_cache_dtype": "float32",
    "max_batch_size": 4,
}
