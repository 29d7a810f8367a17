# SPDX-License-Identifier: Apache-2.0
"""A loaded model: native engine, tokenizer, chat template and the thread that carries outputs."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from manymind.answers import Answer
from manymind.config import ChatTemplateConfig, EngineConfig, GenerationConfig
from manymind.description import describe
from manymind.dispatcher import OutputDispatcher
from manymind.errors import InvalidParameterError
from manymind.fetch import resolve_model
from manymind.guided import GuideCompiler
from manymind.output_text import TextAssembler
from manymind.prompts import Prompt, as_messages
from manymind.sampling import listed, sampling_params
from manymind.validation import require

if TYPE_CHECKING:
    from manymind import _turbomind
    from manymind.chat_template import ChatTemplate
    from manymind.checkpoint import Checkpoint
    from manymind.tokenizer import Tokenizer


@dataclass(frozen=True)
class TextSide:
    """What turns prompts into token ids and back; ``system`` is the default system message."""

    tokenizer: Tokenizer
    template: ChatTemplate | None
    system: str | None


class Runtime:
    """Everything one loaded model needs; shared by all calls. Made by ``load``."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        engine: _turbomind.Engine,
        memory_plan: dict[str, Any],
        text: TextSide,
        max_batch_size: int,
    ) -> None:
        self.engine = engine
        self.memory_plan = memory_plan
        self.tokenizer = text.tokenizer
        self.template = text.template
        self.dispatcher = OutputDispatcher(engine)
        self.guides = GuideCompiler(text.tokenizer, engine.vocab_size)
        self.description = describe(checkpoint)
        self._system = text.system
        self._max_batch_size = max_batch_size
        self._checkpoint = checkpoint

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        config: EngineConfig,
        template_config: ChatTemplateConfig,
        log_level: str | None = None,
    ) -> Runtime:
        """Opens the checkpoint and starts the engine; a thread beside it prepares tokenizer and
        chat template meanwhile.
        """
        from manymind.checkpoint import open_checkpoint
        from manymind.native import start_engine

        with contextlib.ExitStack() as on_failure:
            checkpoint = on_failure.enter_context(open_checkpoint(resolve_model(model)))
            with ThreadPoolExecutor(1) as beside:
                text = beside.submit(_load_text_side, checkpoint, template_config)
                engine, memory_plan = start_engine(checkpoint, config, log_level)
                on_failure.callback(engine.stop)
                sequences = config.max_batch_size
                runtime = cls(checkpoint, engine, memory_plan, text.result(), sequences)
            on_failure.pop_all()
        return runtime

    def encode_prompt(self, prompt: Prompt, use_template: bool = True) -> list[int]:
        """Token ids of a prompt: rendered by the chat template, or the text itself if there is no
        template.
        """
        if isinstance(prompt, str) and (self.template is None or not use_template):
            # A caller who declines the template may have rendered one himself.
            return self.tokenizer.encode(prompt, parse_special=not use_template)
        return self.encode_chat(prompt)

    def encode_chat(self, prompt: Prompt, prefill: str = "", **template_options: Any) -> list[int]:
        """Token ids of a conversation, and of ``prefill``, with which its answer begins;
        ``template_options`` are those of ``ChatTemplate.render_segments``.

        Raises InvalidParameterError for a model without chat template.
        """
        if self.template is None:
            raise InvalidParameterError(
                "prompts: expected a str, found messages: this model has no chat template"
            )
        messages = as_messages(prompt, self._system)
        segments = self.template.render_segments(messages, **template_options)
        return self.tokenizer.encode_segments([*segments, *([(prefill, False)] if prefill else [])])

    def sampling_params(self, config: GenerationConfig) -> _turbomind.SamplingParams:
        """The engine's parameters for one request; raises InvalidParameterError."""
        config.validate()
        most = self._max_batch_size
        require(config.n <= most, "n", f"at most max_batch_size ({most})", config.n)
        eos = self.tokenizer.eos_token_ids
        return sampling_params(config, eos, self._encode_word, self.guides)

    def new_answer(self, config: GenerationConfig, index: int, choice: int = 0) -> Answer:
        """An empty answer, the ``choice``-th to prompt number ``index``."""
        decoder = self.tokenizer.incremental_decoder(config.skip_special_tokens)
        stop_words = tuple(listed(config.stop_words))
        text = TextAssembler(decoder, stop_words, config.include_stop_str_in_output)
        return Answer(text, index, choice)

    def close(self) -> None:
        """Stops engine and threads and unmaps the checkpoint."""
        self.engine.stop()
        self.dispatcher.close()
        self._checkpoint.close()

    def _encode_word(self, word: str) -> list[int]:
        return self.tokenizer.encode(word, add_special_tokens=False)


def _load_text_side(checkpoint: Checkpoint, config: ChatTemplateConfig) -> TextSide:
    from manymind.chat_template import load_chat_template
    from manymind.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(checkpoint)
    config.validate()
    source = config.chat_template or checkpoint.chat_template
    return TextSide(tokenizer, load_chat_template(source, tokenizer), config.system)
