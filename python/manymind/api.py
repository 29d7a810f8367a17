# SPDX-License-Identifier: Apache-2.0
"""``pipeline()``: a model ready to answer, in LMDeploy's shape."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from types import NoneType, TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from manymind.call import Call
from manymind.config import ChatTemplateConfig, EngineConfig, GenerationConfig, Response
from manymind.dispatcher import Subscription
from manymind.lmdeploy_fields import CALL, CHAT, PIPELINE, STREAM, require_neutral
from manymind.prompts import Prompt, split_prompts
from manymind.runtime import PendingPrompt, Runtime
from manymind.session import Session
from manymind.validation import is_int, require, require_bool, require_token_ids, require_type

if TYPE_CHECKING:
    from manymind import _turbomind
    from manymind.media_side import VisionConfig

Outputs: TypeAlias = "list[_turbomind.Output]"
GenConfigs: TypeAlias = "GenerationConfig | Sequence[GenerationConfig] | None"
_PROGRESS_THRESHOLD = 16


def pipeline(
    model_path: str | os.PathLike[str],
    backend_config: EngineConfig | None = None,
    chat_template_config: ChatTemplateConfig | None = None,
    log_level: str | None = None,
    vision_config: VisionConfig | None = None,
    **others: Any,
) -> Pipeline:
    """Loads a model: a folder of a Hugging Face checkpoint, a ``.gguf`` file or a short name.

    log_level: "debug", "info", "warning", "error" or "critical" (which shows errors, too), in any
    case; None takes MANYMIND_LOG_LEVEL. vision_config: how a model that sees takes in pictures.
    others: LMDeploy's further parameters, at values that ask for nothing. Raises
    InvalidParameterError, FetchError, CheckpointError, UnsupportedModelError, BackendError or
    OutOfMemoryError.
    """
    require_neutral("pipeline", others, PIPELINE)
    require_type("model_path", model_path, (str, os.PathLike))
    require_type("backend_config", backend_config, (EngineConfig, NoneType))
    require_type("chat_template_config", chat_template_config, (ChatTemplateConfig, NoneType))
    require_type("log_level", log_level, (str, NoneType))
    runtime = Runtime.load(
        model_path,
        backend_config or EngineConfig(),
        chat_template_config or ChatTemplateConfig(),
        log_level,
        _with_local_files(vision_config),
    )
    return Pipeline(runtime)


class Pipeline:
    """Answers prompts on one engine. Safe to use from several threads; a context manager."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        # Also runs when the pipeline is dropped without close() and at exit, before threads are
        # torn down.
        self._close = weakref.finalize(self, runtime.close)

    def __call__(self, prompts: Any, gen_config: GenConfigs = None, **options: Any) -> Any:
        """Same as ``infer``."""
        return self.infer(prompts, gen_config, **options)

    def infer(
        self,
        prompts: Any,
        gen_config: GenConfigs = None,
        do_preprocess: bool = True,
        use_tqdm: bool | None = None,
        **others: Any,
    ) -> Any:
        """Answers prompts: a str, OpenAI messages, or a list of those; for a model that sees also a
        pair of a text and a picture or a list of pictures, in either order (see ``load_image``).

        gen_config: one for all or one per prompt. do_preprocess=False sends a str as it is, without
        the chat template. use_tqdm None: a progress bar on a terminal from 16 prompts on. others:
        LMDeploy's further parameters, at values that ask for nothing. Returns a Response for a
        single prompt, a list for a list; with n > 1 each element is the list of its n responses.
        Raises InvalidParameterError, PromptTooLongError; a request that fails in the engine raises
        its error after the others are done.
        """
        require_neutral("infer", others, CALL)
        if use_tqdm is not None:
            require_bool("use_tqdm", use_tqdm)
        items, single = split_prompts(prompts)
        ids = self._encode_later(items, do_preprocess)
        answers = self._run(ids, self._configs(gen_config, len(ids)), use_tqdm)
        return answers[0] if single else answers

    def batch_infer(self, prompts: Any, gen_config: GenConfigs = None, **options: Any) -> Any:
        """LMDeploy's former name of ``infer``."""
        return self.infer(prompts, gen_config, **options)

    def generate(
        self, input_ids: Collection[Collection[int]], gen_config: GenConfigs = None
    ) -> list[Any]:
        """Like ``infer`` for prompts given as token ids: lists of integers, or numpy arrays."""
        ids = _checked_ids(input_ids)
        return self._run(ids, self._configs(gen_config, len(ids)), False)

    def stream_infer(
        self, prompts: Any, gen_config: GenConfigs = None, do_preprocess: bool = True, **others: Any
    ) -> Iterator[Response]:
        """Yields what each step adds: ``text`` is the new piece, ``index`` the prompt's place in
        the list.

        The last piece of a prompt has its finish_reason. Leaving the iterator early cancels what is
        running. Raises as ``infer``, after the last piece.
        """
        require_neutral("stream_infer", others, STREAM)
        items, _ = split_prompts(prompts)
        configs = self._configs(gen_config, len(items))
        _require_one_answer(configs)
        ids = self._encode_later(items, do_preprocess)
        with _synchronous_call(self.runtime, ids, configs) as (call, outputs):
            while call.open:
                yield from call.absorb(outputs.get())
            call.raise_error()

    def chat(
        self,
        prompt: Any,
        session: Session | None = None,
        gen_config: GenerationConfig | None = None,
        **others: Any,
    ) -> Session:
        """One turn of a conversation; returns the session with ``response`` and ``history``
        updated.
        """
        require_neutral("chat", others, CHAT)
        require_type("session", session, (Session, NoneType))
        require_type("gen_config", gen_config, (GenerationConfig, NoneType))
        _require_one_answer([gen_config] if gen_config else [])
        session = session or self.session()
        session.response = self.infer(session.messages_with(prompt), gen_config)
        session.append(prompt, session.response.text)
        return session

    @property
    def has_chat_template(self) -> bool:
        """False for a base model: a str prompt is continued as it is."""
        return self.runtime.template is not None

    def session(self) -> Session:
        """A new, empty conversation."""
        return Session()

    def get_ppl(self, input_ids: Collection[int] | Collection[Collection[int]]) -> list[float]:
        """Mean cross entropy, in nats, of each token sequence after its first token.

        Raises InvalidParameterError for a sequence of fewer than two tokens.
        """
        single = isinstance(input_ids, Collection) and any(map(is_int, input_ids))
        batch = _checked_ids([input_ids] if single else input_ids)
        for ids in batch:
            require(len(ids) >= 2, "input_ids", "at least 2 tokens", ids)
        config = GenerationConfig(max_new_tokens=0, prompt_logprobs=0)
        return [_cross_entropy(answer) for answer in self.generate(batch, config)]

    @property
    def memory_plan(self) -> dict[str, Any]:
        """Where the memory of a device goes: bytes per purpose, KV blocks, longest sequence."""
        return self.runtime.memory_plan

    def stats(self) -> dict[str, Any]:
        """The engine's counters: running, waiting, KV use, cache hits, tokens, steps."""
        return self.runtime.engine.stats()

    def close(self) -> None:
        """Stops the engine; what is running is cancelled. May be called twice."""
        self._close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def async_infer(
        self, prompts: Any, gen_config: GenConfigs = None, do_preprocess: bool = True
    ) -> Any:
        """``infer`` for asyncio: text is made on other threads, and the event loop is woken once
        per engine step.
        """
        from manymind.async_call import AnswerStream

        items, single = split_prompts(prompts)
        configs = self._configs(gen_config, len(items))
        ids, params = await self._prepare_beside(items, configs, do_preprocess)
        with AnswerStream(self.runtime, ids, configs, params) as stream:
            answers = await stream.results()
        return answers[0] if single else answers

    async def async_stream_infer(
        self, prompts: Any, gen_config: GenConfigs = None, do_preprocess: bool = True
    ) -> AsyncIterator[Response]:
        """``stream_infer`` for asyncio; a task that is cancelled cancels its requests."""
        from manymind.async_call import AnswerStream

        items, _ = split_prompts(prompts)
        configs = self._configs(gen_config, len(items))
        _require_one_answer(configs)
        ids, params = await self._prepare_beside(items, configs, do_preprocess)
        with AnswerStream(self.runtime, ids, configs, params) as stream:
            while pieces := await stream.next():
                for piece in pieces:
                    yield piece
            stream.raise_error()

    async def _prepare_beside(
        self, items: Sequence[Prompt], configs: Sequence[GenerationConfig], do_preprocess: bool
    ) -> tuple[list[list[int]], list[_turbomind.SamplingParams]]:
        import asyncio

        def work() -> tuple[list[list[int]], list[_turbomind.SamplingParams]]:
            return self._encode(items, do_preprocess), self.runtime.sampling_params(configs)

        return await asyncio.to_thread(work)

    def _encode_later(
        self, items: Sequence[Prompt], do_preprocess: bool
    ) -> list[list[int] | PendingPrompt]:
        require_bool("do_preprocess", do_preprocess)
        return [self.runtime.encode_later(prompt, do_preprocess) for prompt in items]

    def _encode(self, items: Sequence[Prompt], do_preprocess: bool) -> list[list[int]]:
        require_bool("do_preprocess", do_preprocess)
        return [self.runtime.encode_prompt(prompt, do_preprocess) for prompt in items]

    def _run(
        self,
        ids: Sequence[Sequence[int] | PendingPrompt],
        configs: list[GenerationConfig],
        use_tqdm: bool | None,
    ) -> list[Any]:
        running = _synchronous_call(self.runtime, ids, configs)
        progress = _Progress(sum(config.n for config in configs), use_tqdm)
        with running as (call, outputs), progress as advance:
            while call.open:
                finished = [p for p in call.absorb(outputs.get()) if p.finish_reason is not None]
                advance(len(finished))
            return call.results()

    @staticmethod
    def _configs(gen_config: GenConfigs, count: int) -> list[GenerationConfig]:
        if gen_config is None:
            return [GenerationConfig()] * count
        if isinstance(gen_config, GenerationConfig):
            return [gen_config] * count
        valid = isinstance(gen_config, Sequence) and all(
            isinstance(config, GenerationConfig) for config in gen_config
        )
        require(valid, "gen_config", "a GenerationConfig or a list of them", gen_config)
        expected = f"one or {count} (one per prompt)"
        require(len(gen_config) == count, "gen_config", expected, len(gen_config))
        return list(gen_config)


def _with_local_files(config: VisionConfig | None) -> VisionConfig:
    """The caller of a pipeline may name his own files, unless he says otherwise."""
    from manymind.media import MediaLimits
    from manymind.media_side import VisionConfig

    require_type("vision_config", config, (VisionConfig, NoneType))
    config = config or VisionConfig()
    return config if config.limits else replace(config, limits=MediaLimits())


def _checked_ids(input_ids: Any) -> list[list[int]]:
    valid = isinstance(input_ids, Collection) and not isinstance(input_ids, (str, bytes, Mapping))
    require(valid, "input_ids", "a list of lists of token ids", input_ids)
    batch: list[list[int]] = []
    for index, ids in enumerate(input_ids):
        require(ids is not None, f"input_ids[{index}]", "a list of token ids", ids)
        require_token_ids(f"input_ids[{index}]", ids)
        batch.append(list(map(int, ids)))
    return batch


def _cross_entropy(answer: Response) -> float:
    rows = answer.prompt_logprobs or []
    return -sum(next(iter(row.values())) for row in rows) / len(rows)


def _require_one_answer(configs: Sequence[GenerationConfig]) -> None:
    for config in configs:
        require(config.n == 1, "n", "1 when streaming and in a session", config.n)


@contextlib.contextmanager
def _synchronous_call(
    runtime: Runtime,
    ids: Sequence[Sequence[int] | PendingPrompt],
    configs: Sequence[GenerationConfig],
) -> Iterator[tuple[Call, queue.SimpleQueue[Outputs]]]:
    outputs: queue.SimpleQueue[Outputs] = queue.SimpleQueue()
    params = runtime.sampling_params(configs)
    with Call(runtime, ids, configs, params, Subscription(outputs.put)) as call:
        yield call, outputs


class _Progress:
    """A tqdm bar over finished answers, or nothing."""

    def __init__(self, total: int, enabled: bool | None) -> None:
        wanted = (
            total >= _PROGRESS_THRESHOLD and sys.stderr.isatty() if enabled is None else enabled
        )
        self._bar: Any = None
        if wanted:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="answer")

    def __enter__(self) -> Callable[[int], None]:
        return self._advance

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _advance(self, count: int) -> None:
        if self._bar is not None:
            self._bar.update(count)
