# SPDX-License-Identifier: Apache-2.0
"""One emulator a process; each test starts with its defaults."""

from __future__ import annotations

import pytest
from cann import Cann, cann


@pytest.fixture
def device() -> Cann:
    """The emulator in its default state."""
    client = cann()
    client.acl.fakecannConfigure(b"FAULTS", b"")
    for number in range(8):
        client.check(client.acl.aclrtResetDevice(number))
    client.configure(profile="a2", schedule="immediate", wait_ms=2000, memory_mb=2048, workspace="")
    client.set_device(0)
    return client
