# SPDX-License-Identifier: Apache-2.0
"""``manymind serve``: one model behind the HTTP interfaces that clients already speak.

Needs the extra ``manymind[serve]``. docs/serving.md is the user's guide.
"""
