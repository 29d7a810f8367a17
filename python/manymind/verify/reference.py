# SPDX-License-Identifier: Apache-2.0
"""What the CPU answered in float32, and what differs from it by more than rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    Logits: TypeAlias = list[np.ndarray[Any, Any]]

Answers: TypeAlias = "list[list[list[int]]]"  # per prompt the different answers it got

# Largest difference of logits, as a share of the CPU's largest: rounding of the dtype, with room
# for another order of addition. Matrix units that shorten float32 mantissas miss the first one.
BOUNDS = {"float32": 1e-4, "bfloat16": 6e-2}
# In bfloat16 one row of a hundred may differ by more: the row behind a first token that draws all
# attention does so in a deep model, in other engines' bfloat16 as well.
_ROWS_PER_OUTLIER = 100
_OUTLIER = 4  # times the bound


class Reference:
    """Tokens of each prompt's answer, and logits of all positions but the last."""

    def __init__(self, answers: Answers, logits: Logits, count: int) -> None:
        self.tokens = [list(seen[0]) for seen in answers]
        self.logits = logits
        self._count = count  # of tokens per answer

    def _bound(self, index: int, dtype: str) -> float:
        return BOUNDS[dtype] * max(1.0, float(abs(self.logits[index]).max()))

    def _common(self, index: int, tokens: list[int]) -> int:
        """How many tokens are the CPU's."""
        pairs = zip(self.tokens[index], tokens, strict=False)
        return next((at for at, (a, b) in enumerate(pairs) if a != b), self._count)

    def wrong_tokens(self, found: Answers, dtype: str) -> str:
        """What is wrong with answers, or nothing.

        A token may differ only where the CPU's logits of both are closer than the bound allows to
        tell apart; what follows it has another context and is not compared.
        """
        for index, answers in enumerate(found):
            for tokens in answers:
                if len(tokens) != self._count:
                    return f"prompt {index}: expected {self._count} tokens, found {len(tokens)}"
                at = self._common(index, tokens)
                if at == self._count:
                    continue
                rows = self.logits[index]
                row = rows[len(rows) - self._count + at]
                margin = float(row[self.tokens[index][at]] - row[tokens[at]])
                if margin > 2 * self._bound(index, dtype):
                    return f"prompt {index}, token {at}: {margin:.3g} less likely than the CPU's"
        return ""

    def wrong_logits(self, found: Answers, logits: Logits, dtype: str) -> str:
        """The same for the first answers' logits, as far as their contexts are the CPU's."""
        for index, rows in enumerate(logits):
            expected = self.logits[index]
            if rows.shape != expected.shape:
                return f"prompt {index}: expected logits {expected.shape}, found {rows.shape}"
            # The row that chose the first differing token is the last with the same context.
            at = min(self._common(index, found[index][0]), self._count - 1)
            count = len(rows) - self._count + at + 1
            errors = abs(rows[:count] - expected[:count]).max(axis=1)
            bound = self._bound(index, dtype)
            outliers = count // _ROWS_PER_OUTLIER if dtype != "float32" else 0
            error = float(sorted(errors)[-1 - outliers])
            worst = float(errors.max())
            if not (error <= bound and worst <= _OUTLIER * bound):  # NaN, too
                return (
                    f"prompt {index}: expected an error of at most {bound:.3g}, found {worst:.3g}"
                )
        return ""
