# SPDX-License-Identifier: Apache-2.0
"""What all interfaces share: admission, work beside the event loop, and the engine's streams."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from manymind.async_call import AnswerStream
from manymind.config import GenerationConfig, RequestTimes, Response
from manymind.embedding_runtime import EmbeddingEngine, EmbeddingRuntime
from manymind.errors import (
    BackendError,
    InvalidParameterError,
    QueueFullError,
    RequestTimeoutError,
)
from manymind.guided import GuideCompiler, is_constrained
from manymind.parsers import output_format
from manymind.prompts import has_media, web_media
from manymind.runtime import Runtime
from manymind.server.config import ServerConfig
from manymind.server.errors import ApiError, retry_later
from manymind.server.fair_threads import FairThreads, client_of, server_of
from manymind.server.keys import ApiKey, Quotas, Reservation
from manymind.server.record import LatencySink, RequestRecord

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from manymind import _turbomind

T = TypeVar("T")
_RATE_WINDOW = 60.0  # seconds over which the rate of answers is averaged
_GRAMMARS_AT_ONCE = 2  # that are compiled
_PICTURED_AT_ONCE = 4  # prompts whose pictures are prepared
# Prompts whose pictures are fetched, of one client, and of these from one server.
_FETCHES_AT_ONCE = 64
_FETCHES_OF_A_CLIENT = 16
_FETCHES_FROM_A_SERVER = 8


class Service:
    """One loaded model as the HTTP interfaces use it. Belongs to one event loop."""

    def __init__(self, runtime: Runtime | EmbeddingRuntime, config: ServerConfig) -> None:
        self.runtime = runtime
        self.config = config
        self.created = int(time.time())
        self.draining = False
        self.active = 0
        self.device_lost = False
        template = runtime.template.source if runtime.template else None
        self.output_format = output_format(
            template, config.tool_call_parser, config.reasoning_parser
        )
        self._quotas = Quotas(config.keys)
        self._workers = ThreadPoolExecutor(config.workers, thread_name_prefix="manymind-text")
        # Of its own: one grammar can take seconds, in which everybody's prompts would wait.
        self._compilers = ThreadPoolExecutor(_GRAMMARS_AT_ONCE, thread_name_prefix="manymind-guide")
        # So can pictures, and what is fetched as long as its server likes.
        self._pictured = ThreadPoolExecutor(_PICTURED_AT_ONCE, "manymind-pictured")
        self._fetchers = FairThreads(_FETCHES_AT_ONCE, "manymind-fetching")
        self._rate = _Rate()
        self.tell_latency: LatencySink = lambda *_: None
        self._admitted: dict[int, RequestRecord] = {}

    @property
    def max_tokens(self) -> int:
        """Longest sequence, prompt and answer together."""
        return int(self.runtime.memory_plan["max_sequence_len"])

    @property
    def embedding_engine(self) -> EmbeddingEngine | None:
        """Of a model that makes embeddings only."""
        return self.runtime.engine if isinstance(self.runtime, EmbeddingRuntime) else None

    def room_after(self, prompt: Sequence[int]) -> int:
        """Most tokens that an answer to ``prompt`` can have; at least 1, so that the engine words
        the refusal of one that does not fit.
        """
        return max(1, self.max_tokens - len(prompt))

    def check_model(self, name: str) -> None:
        """Raises ApiError 404 unless ``name`` is the served model; Ollama's clients add a tag."""
        if name.removesuffix(":latest") != self.config.served_name:
            message = f"model: expected {self.config.served_name!r}, found {name!r}"
            raise ApiError(404, message, "model_not_found", "model")

    def admit(self, record: RequestRecord) -> None:
        """Lets a request in, to be counted until ``release``.

        Raises ApiError: 503 while draining or without a device, 429 where a limit is reached.
        """
        if self.device_lost:
            raise ApiError(503, "the device is lost, this server must be restarted", "device_lost")
        if self.draining:
            raise retry_later(503, "this server is shutting down", "draining", 1)
        if self.active >= self.config.limits.max_concurrent_requests:
            raise retry_later(429, "too many requests at once", "busy", self.expected_wait())
        self._quotas.admit(record.key)
        self.active += 1
        self._admitted[id(record)] = record
        record.generates = True
        record.tell = self.tell_latency

    def release(self, record: RequestRecord) -> None:
        """The request's answer is sent, or never will be."""
        if record.generates:
            self.active -= 1
            del self._admitted[id(record)]
            self._quotas.release(record.key)
            if record.times:
                self._rate.add()

    def abort(self, key: ApiKey | None, request_ids: Container[str] | None) -> int:
        """Ends requests of the same key by their ids, or all; returns how many."""
        mine = [record for record in self._admitted.values() if record.key == key]
        ended = [item for item in mine if request_ids is None or item.request_id in request_ids]
        for record in ended:
            record.aborted = True
            if record.abort is not None:
                record.abort(_aborted())
        return len(ended)

    def expected_wait(self) -> float:
        """Seconds until a place is likely to be free: half of what runs, at the present rate."""
        rate = self._rate.per_second()
        return min(60.0, max(1.0, self.active / 2 / rate)) if rate else 1.0

    async def beside(self, work: Callable[[], T]) -> T:
        """Runs ``work`` on a thread for text, so that the event loop stays free."""
        return await asyncio.get_running_loop().run_in_executor(self._workers, work)

    async def encode(
        self,
        record: RequestRecord,
        work: Callable[[], T],
        messages: Sequence[Mapping[str, Any]] = (),
    ) -> T:
        """Renders and tokenises prompts beside the loop; ``messages`` may bring pictures, for which
        prompts without any do not wait.
        """
        pictured = self.runtime.media is not None and has_media(messages)
        start = time.monotonic()
        try:
            if pictured and (urls := web_media(messages)):
                client = client_of(record)
                shares = {
                    f"{client}\x00{server_of(urls[0])}": _FETCHES_FROM_A_SERVER,
                    client: _FETCHES_OF_A_CLIENT,
                }
                return await self._fetchers.run(shares, work)
            threads = self._pictured if pictured else self._workers
            return await asyncio.get_running_loop().run_in_executor(threads, work)
        finally:
            end = time.monotonic()
            record.preprocess += end - start
            record.stages.append(("preprocess", start, end))

    @asynccontextmanager
    async def generate(
        self, record: RequestRecord, prompts: Sequence[Sequence[int]], config: GenerationConfig
    ) -> AsyncIterator[Generation]:
        """Sends the prompts to the engine; leaving the context cancels what still runs."""
        runtime = self._decoder()
        config = self._tenant_config(record, config)
        record.choices = config.n * len(prompts)
        record.max_tokens = config.max_new_tokens
        if record.choices > self.config.limits.max_choices:
            expected = f"n * prompts of at most {self.config.limits.max_choices}"
            raise ApiError(400, f"n: expected {expected}, found {record.choices}", "too_many", "n")
        configs = [config] * len(prompts)
        params = await self._sampling_params(record, runtime, configs)
        prompt_tokens = sum(map(len, prompts))
        answers = sum(min(self.room_after(ids), config.max_new_tokens) for ids in prompts)
        with ExitStack() as running:
            reservation = self._quotas.reserve(
                record.key, prompt_tokens, prompt_tokens + config.n * answers
            )
            running.callback(reservation.settle)
            try:
                stream = running.enter_context(AnswerStream(runtime, prompts, configs, params))
            except QueueFullError as error:
                raise retry_later(429, str(error), "queue_full", self.expected_wait()) from error
            except BackendError:
                # The engine takes nothing any more: opening its device again has failed.
                self.device_lost = True
                raise
            generation = Generation(stream, record, reservation)
            record.settle = generation.settle
            if record.aborted:
                raise _aborted()
            record.abort = stream.abort
            yield generation

    async def _sampling_params(
        self, record: RequestRecord, runtime: Runtime, configs: Sequence[GenerationConfig]
    ) -> list[_turbomind.SamplingParams]:
        """The engine's parameters of requests with the same configuration."""
        config = configs[0]

        def make() -> list[_turbomind.SamplingParams]:
            return runtime.sampling_params(configs)

        response_format = config.response_format
        if response_format is not None and is_constrained(response_format):
            return await self._guided(record, runtime, response_format, make)
        # Those of a plain request take less time than its turn on a thread.
        if len(configs) == 1 and not config.bad_words:
            return make()
        return await self.beside(make)

    @property
    def control_ids(self) -> Mapping[str, int]:
        """The model's control tokens that can stand within an answer."""
        return self._decoder().guides.control_ids

    async def compile(
        self,
        record: RequestRecord,
        response_format: Mapping[str, Any],
        explain: Callable[[GuideCompiler, Exception], Exception],
    ) -> None:
        """Compiles a grammar that the server made itself, for ``generate`` to find; ``explain``
        says why that failed in the client's terms.
        """
        runtime = self._decoder()

        def make() -> _turbomind.TokenGuide:
            try:
                return runtime.guides.compile(response_format)
            except InvalidParameterError as error:
                raise explain(runtime.guides, error) from error

        await self._guided(record, runtime, response_format, make)

    async def _guided(
        self,
        record: RequestRecord,
        runtime: Runtime,
        response_format: Mapping[str, Any],
        make: Callable[[], T],
    ) -> T:
        """What ``make`` returns; it waits for other grammars only where it compiles one."""

        def make_if_kept() -> T | None:
            return make() if runtime.guides.keeps(response_format) else None

        start = time.monotonic()
        try:
            made = await self.beside(make_if_kept)
            if made is None:
                made = await asyncio.get_running_loop().run_in_executor(self._compilers, make)
            return made
        finally:
            end = time.monotonic()
            record.grammar += end - start
            record.stages.append(("grammar", start, end))

    async def embed(self, record: RequestRecord, ids: list[list[int]]) -> npt.NDArray[np.float32]:
        """Vectors of texts from an encoder; a client that leaves before its turn takes none.

        Raises RequestTimeoutError, and what the engine raises.
        """
        assert self.embedding_engine is not None
        record.choices = len(ids)
        tokens = sum(map(len, ids))
        limit = self.config.request_timeout
        reservation = self._quotas.reserve(record.key, tokens, tokens)
        submitted = self.embedding_engine.submit(ids)
        reservation.use(tokens)
        try:
            embedded = await asyncio.wait_for(asyncio.wrap_future(submitted), limit or None)
        except asyncio.TimeoutError:
            message = f"timeout: expected the request to end within {limit} s"
            raise RequestTimeoutError(message) from None
        except BackendError:
            self.device_lost = self.embedding_engine.device_lost
            raise
        finally:
            # What left before its turn, or failed, costs nothing.
            if submitted.cancel() or (submitted.done() and submitted.exception() is not None):
                reservation.use(-tokens)
            reservation.settle()
            if submitted.cancelled() or not submitted.done() or submitted.exception() is not None:
                end = time.monotonic()
                times = RequestTimes(submitted.arrival, submitted.started, 0.0, end)
                record.times.append(times)
                record.reasons.append("abort" if record.gone else "error")
        record.prompt_tokens = record.begun_prompt_tokens = tokens
        record.times.append(embedded.times)
        record.reasons.append("stop")
        return embedded.rows

    def cache_salt(self, record: RequestRecord, wanted: str) -> str:
        """What tells the cached prefixes and pictures of a key, and in it of the salt that a client
        wants, from all others'.
        """
        return wanted if record.key is None else f"{record.key.name}\x00{wanted}"

    def _decoder(self) -> Runtime:
        """Raises ApiError 400 for a model that makes embeddings only."""
        if isinstance(self.runtime, EmbeddingRuntime):
            message = "model: expected one that writes, this model makes embeddings only"
            raise ApiError(400, message, "unsupported_model", "model")
        return self.runtime

    def close(self) -> None:
        """Ends the threads."""
        self._fetchers.close()
        for threads in (self._workers, self._compilers, self._pictured):
            threads.shutdown(wait=False, cancel_futures=True)

    def _tenant_config(self, record: RequestRecord, config: GenerationConfig) -> GenerationConfig:
        """A key's cached prefixes are its own, its turn comes by its weight and its own use of the
        engine, and its priority has a ceiling.
        """
        limit = self.config.request_timeout
        timeout = min(config.timeout or limit, limit) if limit else config.timeout
        key = record.key
        if key is None:
            return replace(config, timeout=timeout or None)
        return replace(
            config,
            timeout=timeout or None,
            priority=min(config.priority or key.priority, key.priority),
            tenant=key.name,
            tenant_weight=key.weight,
            cache_salt=self.cache_salt(record, config.cache_salt),
        )


def _aborted() -> ApiError:
    # A status that clients' libraries do not try again after.
    return ApiError(499, "this request was aborted", "aborted")


class Generation:
    """A stream whose progress is put on record and on account."""

    def __init__(
        self, stream: AnswerStream, record: RequestRecord, reservation: Reservation
    ) -> None:
        self._stream = stream
        self._record = record
        self._reservation = reservation
        self._begun: set[int] = set()

    async def next(self) -> list[Response]:
        """The next pieces; empty at the end. Raises the error of a request that failed."""
        pieces = await self._stream.next()
        self._record.observe(pieces)
        self._account(pieces)
        for piece in pieces:
            if piece.finish_reason == "error":
                self._stream.raise_error()
            if piece.finish_reason == "cancelled":
                raise ApiError(503, "the server stopped this request", "cancelled")
        return pieces

    async def answers(self) -> list[list[Response]]:
        """Waits for the end; the n answers to each prompt."""
        while await self.next():
            pass
        groups = await self._stream.results()
        return [group if isinstance(group, list) else [group] for group in groups]

    async def settle(self) -> None:
        """Waits until the engine has let go of every answer; puts on record how far they came."""
        pieces = await self._stream.remaining()
        self._account(pieces)
        self._record.observe_end(pieces)

    def _account(self, pieces: Sequence[Response]) -> None:
        for piece in pieces:
            self._reservation.use(len(piece.token_ids))
            # A prompt whose turn did not come costs nothing.
            begun = piece.times is not None and piece.times.first_scheduled > 0
            if begun and piece.index not in self._begun:
                self._begun.add(piece.index)
                self._reservation.use(piece.input_token_len)


class _Rate:
    """Answers per second of late, by exponential decay."""

    def __init__(self) -> None:
        self._count = 0.0
        self._updated = time.monotonic()

    def add(self) -> None:
        self._decay()
        self._count += 1

    def per_second(self) -> float:
        self._decay()
        return self._count / _RATE_WINDOW

    def _decay(self) -> None:
        now = time.monotonic()
        self._count *= math.exp((self._updated - now) / _RATE_WINDOW)
        self._updated = now
