# SPDX-License-Identifier: Apache-2.0
"""Log probabilities in OpenAI's two forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from manymind.tokenizer import Tokenizer

Row = Mapping[int, float]  # the chosen token first, then the likeliest ones


def chat_logprobs(tokenizer: Tokenizer, rows: Sequence[Row], top: int) -> list[dict[str, Any]]:
    """``logprobs.content`` of a chat completion: one entry per token."""
    return [
        {
            **_entry(tokenizer, *next(iter(row.items()))),
            "top_logprobs": [_entry(tokenizer, *item) for item in likeliest(row, top)],
        }
        for row in rows
    ]


def _entry(tokenizer: Tokenizer, token_id: int, logprob: float) -> dict[str, Any]:
    data = tokenizer.tokens.token_bytes(token_id, False)
    text = data.decode("utf-8", "replace")
    return {"token": text, "logprob": _finite(logprob), "bytes": list(data)}


def likeliest(row: Row, count: int) -> list[tuple[int, float]]:
    """The ``count`` likeliest tokens of a row, which may hold the chosen one besides them."""
    return sorted(row.items(), key=lambda item: -item[1])[:count]


def _finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI writes -9999 for what cannot happen."""
    return max(logprob, -9999.0)


def prompt_logprobs(
    tokenizer: Tokenizer, rows: Sequence[Row], top: int
) -> list[dict[str, dict[str, Any]] | None]:
    """vLLM's ``prompt_logprobs``: per token of the prompt the token itself and the ``top``
    likeliest ones by id; none for the first, before which nothing stands. The rank of a token that
    is not among the likeliest is not known.
    """
    entries: list[dict[str, dict[str, Any]] | None] = [None]
    for row in rows:
        ranks = {token_id: place for place, (token_id, _) in enumerate(likeliest(row, top), 1)}
        chosen = next(iter(row))
        entries.append(
            {
                str(token_id): {
                    "logprob": _finite(row[token_id]),
                    "rank": ranks.get(token_id),
                    "decoded_token": _entry(tokenizer, token_id, 0.0)["token"],
                }
                for token_id in dict.fromkeys((chosen, *ranks))
            }
        )
    return entries


class CompletionLogprobs:
    """The four lists of a completion's ``logprobs``; offsets count characters of its text."""

    def __init__(self, tokenizer: Tokenizer, top: int) -> None:
        self._tokenizer = tokenizer
        self._top = top
        self._offset = 0

    def extend(
        self, token_ids: Sequence[int], rows: Sequence[Row | None]
    ) -> dict[str, list[Any] | None]:
        """Entries of the next tokens; a row of None stands for a token nothing is known about."""
        texts = [self._text(token_id) for token_id in token_ids]
        offsets = []
        for text in texts:
            offsets.append(self._offset)
            self._offset += len(text)
        chosen = [
            None if row is None else _finite(row[token_id])
            for token_id, row in zip(token_ids, rows, strict=True)
        ]
        alternatives = [None if row is None else self._alternatives(row) for row in rows]
        return {
            "text_offset": offsets,
            "token_logprobs": chosen,
            "tokens": texts,
            "top_logprobs": alternatives if self._top else None,
        }

    def _alternatives(self, row: Row) -> dict[str, float]:
        return {
            self._text(token_id): _finite(value) for token_id, value in likeliest(row, self._top)
        }

    def _text(self, token_id: int) -> str:
        data = self._tokenizer.tokens.token_bytes(token_id, False)
        try:
            return data.decode()
        except UnicodeDecodeError:
            # Part of a character: OpenAI spells the bytes out.
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
