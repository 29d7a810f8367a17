# SPDX-License-Identifier: Apache-2.0
"""Parts shared by the benchmark runner and the engine adapters."""
