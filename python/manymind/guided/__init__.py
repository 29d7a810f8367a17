# SPDX-License-Identifier: Apache-2.0
"""Structured output: a response format becomes a guide that the engine draws by.

Grammars are matched by llguidance (Earley's algorithm over derivatives of regular expressions),
which the native engine calls without Python; this package says what the grammar is. It does without
llguidance until the first request that has a response format.
"""

from __future__ import annotations

from manymind.guided.compiler import GuideCompiler
from manymind.guided.formats import RESPONSE_FORMATS, Grammar, grammar_of, is_constrained

__all__ = ["RESPONSE_FORMATS", "Grammar", "GuideCompiler", "grammar_of", "is_constrained"]
