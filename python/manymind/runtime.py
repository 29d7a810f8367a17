# SPDX-License-Identifier: Apache-2.0
"""A loaded model: native engine, tokenizer, chat template and the thread that carries outputs."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Sequence
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
from manymind.prompts import Prompt, as_media_messages, as_messages, has_media
from manymind.sampling import TextRules, listed, sampling_params, text_rules
from manymind.validation import require

if TYPE_CHECKING:
    from manymind import _turbomind
    from manymind.chat_template import ChatTemplate
    from manymind.checkpoint import Checkpoint
    from manymind.media_side import MediaSide, VisionConfig
    from manymind.tokenizer import Tokenizer


@dataclass(frozen=True)
class TextSide:
    """What turns prompts into token ids and back; ``system`` is the default system message,
    ``video_template`` that of conversations with videos, where they have another."""

    tokenizer: Tokenizer
    template: ChatTemplate | None
    system: str | None
    media: MediaSide | None = None
    video_template: ChatTemplate | None = None


@dataclass(frozen=True)
class PendingPrompt:
    """A prompt with pictures, which are loaded when its turn comes."""

    runtime: Runtime
    prompt: Prompt

    def encode(self) -> list[int]:
        return self.runtime.encode_chat(self.prompt)


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
        self._video_template = text.video_template
        self.media = text.media  # None for a model that sees nothing
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
        vision_config: VisionConfig | None = None,
    ) -> Runtime:
        """Opens the checkpoint and starts the engine; a thread beside it prepares tokenizer and
        chat template meanwhile.

        Without limits in ``vision_config``, prompts may not name local files as pictures.
        """
        from manymind.checkpoint import open_checkpoint
        from manymind.native import start_engine

        with contextlib.ExitStack() as on_failure:
            checkpoint = on_failure.enter_context(open_checkpoint(resolve_model(model)))
            with ThreadPoolExecutor(1) as beside:
                text = beside.submit(_load_text_side, checkpoint, template_config, vision_config)
                engine, memory_plan = start_engine(checkpoint, config, log_level, vision_config)
                on_failure.callback(engine.stop)
                sequences = config.max_batch_size
                runtime = cls(checkpoint, engine, memory_plan, text.result(), sequences)
            on_failure.pop_all()
        return runtime

    @functools.cached_property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        from manymind.models import load_model

        return load_model(self._checkpoint).config.hidden_size

    def encode_prompt(self, prompt: Prompt, use_template: bool = True) -> list[int]:
        """Token ids of a prompt: rendered by the chat template, or the text itself if there is no
        template.
        """
        if isinstance(prompt, str) and (self.template is None or not use_template):
            # A caller who declines the template may have rendered one himself.
            return self.tokenizer.encode(prompt, parse_special=not use_template)
        return self.encode_chat(prompt)

    def encode_later(self, prompt: Prompt, use_template: bool = True) -> list[int] | PendingPrompt:
        """As ``encode_prompt``, but a prompt with pictures waits until it is sent: those of a long
        list need not be in memory at once."""
        if self.media is not None and has_media(prompt):
            return PendingPrompt(self, prompt)
        return self.encode_prompt(prompt, use_template)

    def encode_chat(
        self, prompt: Prompt, prefill: str = "", cache_salt: str = "", **template_options: Any
    ) -> list[int]:
        """Token ids of a conversation, and of ``prefill``, with which its answer begins; its
        pictures are looked up among those that were prepared with the same ``cache_salt``;
        ``template_options`` are those of ``ChatTemplate.render_segments``.

        Raises InvalidParameterError for a model without chat template.
        """
        if self.template is None:
            raise InvalidParameterError(
                "prompts: expected a str, found messages: this model has no chat template"
            )
        begun = [(prefill, False)] if prefill else []
        if self.media is None:
            messages = as_messages(prompt, self._system)
            segments = self.template.render_segments(messages, **template_options)
            return self.tokenizer.encode_segments([*segments, *begun])
        messages, sources = as_media_messages(prompt, self._system)
        has_video = any(source.kind == "video" for source in sources)
        template = self._video_template if has_video and self._video_template else self.template
        segments = template.render_segments(messages, **template_options)
        return self.media.encode([*segments, *begun], sources, self.tokenizer, cache_salt)

    def sampling_params(
        self, configs: Sequence[GenerationConfig]
    ) -> list[_turbomind.SamplingParams]:
        """The engine's parameters of each request; raises InvalidParameterError.

        A configuration that many requests share is checked, its words tokenised and its response
        format compiled, once. The latter two take their time: not for an event loop.
        """
        eos = self.tokenizer.eos_token_ids
        known: dict[int, TextRules] = {}
        params = []
        for config in configs:
            if id(config) not in known:
                known[id(config)] = self._text_rules(config)
            params.append(sampling_params(config, eos, known[id(config)]))
        return params

    def new_answer(self, config: GenerationConfig, index: int, choice: int = 0) -> Answer:
        """An empty answer, the ``choice``-th to prompt number ``index``."""
        decoder = self.tokenizer.incremental_decoder(config.skip_special_tokens)
        stop_words = tuple(listed(config.stop_words))
        include, least = config.include_stop_str_in_output, config.min_new_tokens or 0
        text = TextAssembler(decoder, stop_words, include, least)
        return Answer(text, index, choice)

    def close(self) -> None:
        """Stops engine and threads and unmaps the checkpoint."""
        self.engine.stop()
        self.dispatcher.close()
        if self.media is not None:
            self.media.close()
        self._checkpoint.close()

    def _text_rules(self, config: GenerationConfig) -> TextRules:
        config.validate()
        most = self._max_batch_size
        require(config.n <= most, "n", f"at most max_batch_size ({most})", config.n)
        return text_rules(config, self._encode_word, self.guides)

    def _encode_word(self, word: str) -> list[int]:
        return self.tokenizer.encode(word, add_special_tokens=False)


def _load_text_side(
    checkpoint: Checkpoint, config: ChatTemplateConfig, vision_config: VisionConfig | None
) -> TextSide:
    from manymind.chat_template import load_chat_template
    from manymind.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(checkpoint)
    config.validate()
    source = config.chat_template or checkpoint.chat_template
    template = load_chat_template(source, tokenizer)
    media = _load_media(checkpoint, vision_config)
    # A caller's own template is his for videos, too.
    source = media.prompt.video_template if media and not config.chat_template else ""
    video_template = load_chat_template(source, tokenizer) if source else None
    return TextSide(tokenizer, template, config.system, media, video_template)


def _load_media(checkpoint: Checkpoint, config: VisionConfig | None) -> MediaSide | None:
    if checkpoint.kind != "huggingface" or "vision_config" not in checkpoint.config:
        return None
    from manymind.media import MediaLimits
    from manymind.media_side import MediaSide, VisionConfig
    from manymind.models import load_model

    vision = load_model(checkpoint).vision
    config = config or VisionConfig()
    limits = config.limits or MediaLimits(allow_files=False)
    return None if vision is None else MediaSide(vision, config, limits)
