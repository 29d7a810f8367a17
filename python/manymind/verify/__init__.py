# SPDX-License-Identifier: Apache-2.0
"""Repeats on a device what was tested without one, each part in a process of its own."""
