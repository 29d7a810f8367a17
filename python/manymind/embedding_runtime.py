# SPDX-License-Identifier: Apache-2.0
"""A loaded encoder: what ``Runtime`` is for a decoder."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from manymind.config import EngineConfig, RequestTimes
from manymind.description import describe
from manymind.errors import EngineError, InvalidParameterError
from manymind.fetch import resolve_model

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from manymind import _turbomind
    from manymind.checkpoint import Checkpoint
    from manymind.tokenizer import Tokenizer

Ids = Sequence[Sequence[int]]

_COUNTED = (
    "running",
    "requests_finished",
    "requests_failed",
    "requests_cancelled",
    "prompt_tokens",
    "steps",
)
_OF_SEQUENCES = (
    "kv_blocks_total",
    "kv_blocks_used",
    "kv_blocks_cached",
    "cached_tokens",
    "generated_tokens",
    "preemptions",
    "failed_steps",
)


@dataclass(frozen=True)
class Embedded:
    """``rows``: float32 [texts, hidden_size], each of length 1."""

    rows: npt.NDArray[np.float32]
    times: RequestTimes


class PendingEmbedding(Future[Embedded]):
    """Texts on their way.

    Attributes:
        arrival, started: when they were handed over and when their turn came: seconds of
            ``time.monotonic()``; 0 = it did not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.arrival = time.monotonic()
        self.started = 0.0


@dataclass(frozen=True)
class _Request:
    ids: Ids
    future: PendingEmbedding


class EmbeddingRuntime:
    """Embeds texts on a thread of its own, those of several callers together. Made by ``load``."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        embedder: _turbomind.Embedder,
        sizes: dict[str, int],
        tokenizer: Tokenizer,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = None
        self.media = None
        self.description = describe(checkpoint)
        self.hidden_size = sizes["hidden_size"]
        self.engine = EmbeddingEngine(embedder)
        lines = [
            {"name": "weights", "bytes": sizes["weight_bytes"], "detail": ""},
            {"name": "activations", "bytes": sizes["activation_bytes"], "detail": ""},
        ]
        self.memory_plan: dict[str, Any] = {
            "lines": lines,
            "on_host": bool(sizes["on_host"]),
            "max_sequence_len": embedder.max_text_len,
        }
        self._checkpoint = checkpoint

    @classmethod
    def load(
        cls, model: str | os.PathLike[str], config: EngineConfig, log_level: str | None = None
    ) -> EmbeddingRuntime:
        """Raises as ``Runtime.load``."""
        from manymind.checkpoint import open_checkpoint
        from manymind.native import start_embedder
        from manymind.tokenizer import load_tokenizer

        with contextlib.ExitStack() as on_failure:
            checkpoint = on_failure.enter_context(open_checkpoint(resolve_model(model)))
            tokenizer = load_tokenizer(checkpoint)
            embedder, sizes = start_embedder(checkpoint, config, log_level)
            runtime = cls(checkpoint, embedder, sizes, tokenizer)
            on_failure.pop_all()
        return runtime

    def encode_chat(self, *_: Any, **__: Any) -> list[int]:
        """Raises InvalidParameterError: an encoder takes no messages."""
        raise InvalidParameterError("messages: expected a text, this model makes embeddings only")

    def close(self) -> None:
        """Ends the thread and unmaps the checkpoint."""
        self.engine.stop()
        self._checkpoint.close()


class EmbeddingEngine:
    """Gathers what several callers want embedded while the step before is computed."""

    def __init__(self, embedder: _turbomind.Embedder) -> None:
        self._embedder = embedder
        self._waiting: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards _counts and the order of stop and submit
        self._stopped = False
        self._counts = dict.fromkeys(_COUNTED, 0)
        self._thread = threading.Thread(target=self._run, name="manymind-embeddings", daemon=True)
        self._thread.start()

    def submit(self, ids: Ids) -> PendingEmbedding:
        """Embeds the texts; a request that is cancelled before its turn is left out."""
        future = PendingEmbedding()
        with self._lock:
            if self._stopped:
                raise EngineError("the pipeline is closed")
            self._waiting.put(_Request(ids, future))
        return future

    @property
    def device_lost(self) -> bool:
        """For good: it could not be opened again."""
        return self._embedder.is_lost

    def stats(self) -> dict[str, Any]:
        """The counters of ``Engine.stats()``; those of sequences are 0."""
        with self._lock:
            known = dict(self._counts)
        known["computed_tokens"] = known["prompt_tokens"]
        known["waiting"] = self._waiting.qsize()
        known["device_recoveries"] = self._embedder.num_recoveries
        return {**dict.fromkeys(_OF_SEQUENCES, 0), "step_sizes": [], "block_ages": {}, **known}

    def stop(self) -> None:
        """Finishes what has been submitted. Idempotent."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
            self._waiting.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        going = True
        while going:
            first = self._waiting.get()
            going = first is not None
            batch = [first] if first is not None else []
            going = self._gather(batch) and going
            self._embed([item for item in batch if self._begins(item)])

    def _gather(self, batch: list[_Request]) -> bool:
        """Adds what waits to ``batch``, as far as one step holds it; False: it was the last."""
        tokens = sum(map(_num_tokens, batch))
        while batch and tokens < self._embedder.max_tokens:
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                break
            if item is None:
                return False
            batch.append(item)
            tokens += _num_tokens(item)
        return True

    def _begins(self, item: _Request) -> bool:
        begins = item.future.set_running_or_notify_cancel()
        if not begins:
            self._count("requests_cancelled", 1)
        return begins

    def _embed(self, batch: list[_Request]) -> None:
        if not batch:
            return
        self._count("running", len(batch))
        start = time.monotonic()
        for item in batch:
            item.future.started = start
        try:
            rows = self._embedder.embed([text for item in batch for text in item.ids])
        except Exception as error:  # whatever it is, callers must not wait for ever
            self._count("running", -len(batch))
            self._fail(batch, error)
            return
        end = time.monotonic()
        self._count("running", -len(batch))
        self._count("steps", 1)
        self._count("requests_finished", len(batch))
        self._count("prompt_tokens", sum(map(_num_tokens, batch)))
        place = 0
        for item in batch:
            mine = rows[place : place + len(item.ids)]
            place += len(item.ids)
            times = RequestTimes(item.future.arrival, start, end, end)
            item.future.set_result(Embedded(mine, times))

    def _fail(self, batch: list[_Request], error: Exception) -> None:
        """One caller's mistake must not be another's: each is tried by itself."""
        if len(batch) == 1:
            self._count("requests_failed", 1)
            batch[0].future.set_exception(error)
            return
        for item in batch:
            self._embed([item])

    def _count(self, name: str, number: int) -> None:
        with self._lock:
            self._counts[name] += number


def _num_tokens(item: _Request) -> int:
    return sum(map(len, item.ids))


def is_encoder(model: str | os.PathLike[str]) -> bool:
    """Whether the model makes embeddings only; fetches a short name's files."""
    from manymind.checkpoint import open_checkpoint
    from manymind.models.text_encoder import text_encoder_family

    with open_checkpoint(resolve_model(model)) as checkpoint:
        return text_encoder_family(checkpoint) is not None
