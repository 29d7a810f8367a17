# SPDX-License-Identifier: Apache-2.0
"""``manymind chat``: one answer, or a conversation."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from manymind.api import Pipeline, pipeline
from manymind.cli.vision_flags import refuse_without_pictures, vision_config
from manymind.config import ChatTemplateConfig, EngineConfig, GenerationConfig
from manymind.errors import ManymindError

if TYPE_CHECKING:
    from manymind.config import Response
    from manymind.prompts import Prompt

_HELP = "/new starts a new conversation, /exit or Ctrl-D ends it, Ctrl-C stops an answer."


@dataclass(frozen=True)
class ChatOptions:
    """The flags of the command."""

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    repetition_penalty: float
    seed: int | None
    system: str | None
    backend: str
    num_threads: int
    session_len: int
    vision: Mapping[str, Any]  # flags that were given

    def generation_config(self) -> GenerationConfig:
        """Greedy at temperature 0."""
        return GenerationConfig(
            max_new_tokens=self.max_new_tokens,
            do_sample=self.temperature != 0,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            repetition_penalty=self.repetition_penalty,
            random_seed=self.seed,
        )

    def engine_config(self) -> EngineConfig:
        """One conversation needs one sequence."""
        return EngineConfig(
            backend=self.backend,
            num_threads=self.num_threads,
            session_len=self.session_len,
            max_batch_size=1,
        )


def run(model: str, prompt: str | None, image: str | None, options: ChatOptions) -> None:
    """Answers ``prompt`` about ``image``, or reads prompts from the terminal, the first of which is
    about it."""
    config = options.generation_config()
    template = ChatTemplateConfig(system=options.system)
    vision = vision_config(options.vision, local_files=True)
    with pipeline(model, options.engine_config(), template, vision_config=vision) as pipe:
        refuse_without_pictures(pipe.runtime, options.vision)
        if prompt is None:
            _converse(pipe, model, image, config)
        else:
            _answer(pipe, _with_image(prompt, image), config)


def _with_image(text: str, image: str | None) -> Prompt:
    return text if image is None else (text, image)


def _converse(pipe: Pipeline, model: str, image: str | None, config: GenerationConfig) -> None:
    print(f"{model} is ready. {_HELP}", file=sys.stderr)
    if not pipe.has_chat_template:
        print("It has no chat template: it continues each text on its own.", file=sys.stderr)
    session = pipe.session()
    for line in _lines():
        if line == "/exit":
            return
        if line == "/new":
            session = pipe.session()
            continue
        try:
            if pipe.has_chat_template:
                turn = line if session.history else _with_image(line, image)
                session.append(turn, _interruptible(pipe, session.messages_with(turn), config))
            else:
                _interruptible(pipe, _with_image(line, image), config)
        except ManymindError as error:
            print(f"error: {error}", file=sys.stderr)


def _lines() -> Iterator[str]:
    """Non-empty lines from the terminal, with line editing where there is one."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (input() uses it once it is loaded)
    prompt = "\n> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(prompt).strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            print(f"\n{_HELP}", file=sys.stderr)
            continue
        if line:
            yield line


def _interruptible(pipe: Pipeline, prompt: Prompt, config: GenerationConfig) -> str:
    """The text shown until the answer was complete or Ctrl-C stopped it."""
    shown: list[str] = []
    try:
        _answer(pipe, prompt, config, shown)
    except KeyboardInterrupt:
        print("\n[stopped]", file=sys.stderr)
    return "".join(shown)


def _answer(
    pipe: Pipeline, prompt: Prompt, config: GenerationConfig, shown: list[str] | None = None
) -> None:
    """Streams an answer to stdout, then one line of figures to stderr."""
    asked = time.monotonic()
    for piece in pipe.stream_infer(prompt, config):
        sys.stdout.write(piece.text)
        sys.stdout.flush()
        if shown is not None:
            shown.append(piece.text)
    print(flush=True)  # before the figures where both streams end in one file
    print(_figures(piece, asked), file=sys.stderr)


def _figures(last: Response, asked: float) -> str:
    """By the engine's clock, as one piece may hold the tokens of many steps. ``last`` piece of the
    answer; ``asked``: when, in seconds of ``time.monotonic()``.
    """
    tokens, times = last.generate_token_len, last.times
    assert times is not None
    if times.first_token == 0:
        return f"[{tokens} tokens]"
    text = f"[{tokens} tokens, first after {times.first_token - asked:.3f} s"
    # The token that ended the answer was drawn, too, but is not counted as one of it.
    later = tokens if last.finish_reason == "stop" else tokens - 1
    if later > 0 and times.finish > times.first_token:
        text += f", then {later / (times.finish - times.first_token):.1f} tokens/s"
    return text + "]"
