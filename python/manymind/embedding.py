# SPDX-License-Identifier: Apache-2.0
"""``embedding_pipeline()``: vectors of texts, from an encoder or a decoder."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from types import NoneType, TracebackType
from typing import TYPE_CHECKING

from manymind.api import Pipeline, pipeline
from manymind.config import EngineConfig
from manymind.embedding_runtime import EmbeddingRuntime, is_encoder
from manymind.pooling import POOLING_CONFIG, last_token_rows
from manymind.validation import require_strings, require_type

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Rows = npt.NDArray[np.float32]


def embedding_pipeline(
    model_path: str | os.PathLike[str],
    backend_config: EngineConfig | None = None,
    log_level: str | None = None,
) -> EmbeddingPipeline:
    """Loads a model that makes vectors of texts.

    An encoder (BERT) pools as its folder says; of a decoder, it is the last hidden state of the
    last token. Raises as ``pipeline``.
    """
    require_type("model_path", model_path, (str, os.PathLike))
    require_type("backend_config", backend_config, (EngineConfig, NoneType))
    require_type("log_level", log_level, (str, NoneType))
    config = backend_config or EngineConfig()
    if is_encoder(model_path):
        return EmbeddingPipeline(EmbeddingRuntime.load(model_path, config, log_level))
    return EmbeddingPipeline(pipeline(model_path, config, log_level=log_level))


class EmbeddingPipeline:
    """Embeds texts on one engine. Safe to use from several threads; a context manager."""

    def __init__(self, source: EmbeddingRuntime | Pipeline) -> None:
        self._source = source
        self._close = weakref.finalize(self, source.close)

    def __call__(self, texts: str | Sequence[str]) -> Rows:
        """float32 [hidden_size] for a text, [texts, hidden_size] for a list; of length 1.

        Raises InvalidParameterError, PromptTooLongError.
        """
        single = isinstance(texts, str)
        items = [texts] if isinstance(texts, str) else list(texts)
        require_strings("texts", items)
        rows = self._embed(items)
        if not single:
            return rows
        first: Rows = rows[0]
        return first

    def _embed(self, texts: list[str]) -> Rows:
        if isinstance(self._source, EmbeddingRuntime):
            ids = [self._source.tokenizer.encode(text) for text in texts]
            return self._source.engine.submit(ids).result().rows
        if not texts:
            import numpy as np

            return np.empty((0, self._source.runtime.hidden_size), np.float32)
        encode = self._source.runtime.tokenizer.encode
        answers = self._source.generate([encode(text) for text in texts], POOLING_CONFIG)
        return last_token_rows(answers)

    def close(self) -> None:
        """Stops the engine and releases the model. Idempotent."""
        self._close()

    def __enter__(self) -> EmbeddingPipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
