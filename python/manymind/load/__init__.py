# SPDX-License-Identifier: Apache-2.0
"""A load on any server with OpenAI's interface, and what it measured."""
