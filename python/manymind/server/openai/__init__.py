# SPDX-License-Identifier: Apache-2.0
"""OpenAI's interfaces under ``/v1``."""
