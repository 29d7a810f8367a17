# SPDX-License-Identifier: Apache-2.0
"""A loaded model: native engine, tokenizer, chat template and the thread that carries outputs."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from manymind.answers import Answer
from manymind.config import ChatTemplateConfig, EngineConfig, GenerationConfig
from manymind.dispatcher import OutputDispatcher
from manymind.errors import EngineError
from manymind.fetch import resolve_model
from manymind.output_text import TextAssembler
from manymind.prompts import Prompt, as_messages
from manymind.sampling import sampling_params

if TYPE_CHECKING:
    from manymind import _turbomind
    from manymind.chat_template import ChatTemplate
    from manymind.checkpoint import Checkpoint
    from manymind.tokenizer import Tokenizer


class Runtime:
    """Everything one loaded model needs; shared by all calls. Made by ``load``."""

    def __init__(
        self,
        engine: _turbomind.Engine,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        template_config: ChatTemplateConfig,
        checkpoint: Checkpoint,
    ) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.template = template
        self.dispatcher = OutputDispatcher(engine)
        self._template_config = template_config
        self._checkpoint = checkpoint

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        config: EngineConfig,
        template_config: ChatTemplateConfig,
        log_level: str | None = None,
    ) -> Runtime:
        """Opens the checkpoint, builds the tokenizer beside packing the weights, and starts the
        engine.
        """
        from manymind.checkpoint import open_checkpoint
        from manymind.native import start_engine

        checkpoint = open_checkpoint(resolve_model(model))
        try:
            with ThreadPoolExecutor(1) as beside:
                tokenizer = beside.submit(_load_tokenizer, checkpoint)
                engine = start_engine(checkpoint, config, log_level)
                try:
                    template = _load_template(checkpoint, template_config, tokenizer.result())
                except BaseException:
                    engine.stop()
                    raise
            return cls(engine, tokenizer.result(), template, template_config, checkpoint)
        except BaseException:
            checkpoint.close()
            raise

    def encode_prompt(self, prompt: Prompt, use_template: bool = True) -> list[int]:
        """Token ids of a prompt: rendered by the chat template, or the text itself if there is no
        template.
        """
        if isinstance(prompt, str) and (self.template is None or not use_template):
            return self.tokenizer.encode(prompt)
        if self.template is None:
            raise EngineError(
                "this model has no chat template: expected a str prompt, found messages"
            )
        messages = as_messages(prompt, self._template_config.system)
        text = self.template.render(messages, add_generation_prompt=True)
        return self.tokenizer.encode(text, add_special_tokens=False, parse_special=True)

    def sampling_params(self, config: GenerationConfig) -> _turbomind.SamplingParams:
        """The engine's parameters for one request."""
        return sampling_params(config, self.tokenizer.eos_token_ids, self._encode_word)

    def new_answer(self, config: GenerationConfig, index: int) -> Answer:
        """An empty answer to prompt number ``index``."""
        decoder = self.tokenizer.incremental_decoder(config.skip_special_tokens)
        stop_words = tuple(config.stop_words or ())
        return Answer(TextAssembler(decoder, stop_words, config.include_stop_str_in_output), index)

    def close(self) -> None:
        """Stops engine and threads and unmaps the checkpoint."""
        self.engine.stop()
        self.dispatcher.close()
        self._checkpoint.close()

    def _encode_word(self, word: str) -> list[int]:
        return self.tokenizer.encode(word, add_special_tokens=False)


def _load_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    from manymind.tokenizer import load_tokenizer

    return load_tokenizer(checkpoint)


def _load_template(
    checkpoint: Checkpoint, config: ChatTemplateConfig, tokenizer: Tokenizer
) -> ChatTemplate | None:
    from manymind.chat_template import load_chat_template

    return load_chat_template(config.chat_template or checkpoint.chat_template, tokenizer)
