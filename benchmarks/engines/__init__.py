# SPDX-License-Identifier: Apache-2.0
"""One adapter per engine; each runs as its own process and speaks `harness.protocol`."""
