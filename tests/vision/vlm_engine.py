# SPDX-License-Identifier: Apache-2.0
"""The native engine fed with prepared conversations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from exact_engine import EXACT
from vlm_cases import Conversation

from manymind import EngineConfig, _turbomind
from manymind.chat_template import load_chat_template
from manymind.checkpoint import open_checkpoint
from manymind.media_input import MediaInput, PreparedItem, assemble
from manymind.models import load_model
from manymind.native import start_engine
from manymind.tokenizer import load_tokenizer
from manymind.vision.rgb import to_rgb


class VlmEngine:
    """An engine, and what turns conversations into its inputs."""

    def __init__(self, folder: Path, native: _turbomind.Engine, checkpoint: Any) -> None:
        vision = load_model(checkpoint).vision
        assert vision is not None
        self.native = native
        self.vision = vision
        self.tokenizer = load_tokenizer(checkpoint)
        template = load_chat_template(checkpoint.chat_template, self.tokenizer)
        assert template is not None
        self.template = template
        source = vision.prompt.video_template
        self.video_template = load_chat_template(source, self.tokenizer) if source else template

    def prepare(self, conversation: Conversation) -> tuple[list[int], MediaInput]:
        alone = len(conversation.images) == 1 or not self.vision.prompt.alone_differs
        items = []
        for message in conversation.messages:
            for item in message["content"]:
                if item["type"] == "image":
                    rules: Any = self.vision.preprocessor
                    prepare = rules.image if alone else rules.one_of_several
                    items.append(PreparedItem(prepare(to_rgb(item["image"]))))
                elif item["type"] == "video":
                    frames = [to_rgb(frame) for frame in item["video"]]
                    video = self.vision.preprocessor.video(frames, item["fps"])  # type: ignore[attr-defined]
                    items.append(PreparedItem(video, is_video=True))
        messages = [
            {
                **message,
                "content": [
                    {key: item[key] for key in ("type", "text") if key in item}
                    for item in message["content"]
                ],
            }
            for message in conversation.messages
        ]
        template = self.video_template if conversation.videos else self.template
        segments = template.render_segments(messages)
        return assemble(segments, items, self.vision.prompt, self.tokenizer)

    def submit(self, ids: list[int], media: MediaInput | None, **fields: Any) -> int:
        params = _turbomind.SamplingParams()
        for name, value in fields.items():
            setattr(params, name, value)
        return self.native.submit(ids, params, media)

    def finish(self) -> tuple[list[int], np.ndarray | None, int]:
        """Tokens, logits and cached tokens of the one request that runs."""
        tokens: list[int] = []
        rows: list[np.ndarray] = []
        while True:
            for output in self.native.poll(1000):
                if output.error is not None:
                    raise output.error
                tokens += output.token_ids
                block = output.take_logits()
                if block is not None:
                    rows.append(block)
                if output.finished:
                    return tokens, np.concatenate(rows) if rows else None, output.cached_tokens

    def run(
        self, ids: list[int], media: MediaInput | None, **fields: Any
    ) -> tuple[list[int], np.ndarray | None, int]:
        self.submit(ids, media, **fields)
        return self.finish()


@contextmanager
def vlm_engine(folder: Path, **fields: Any) -> Iterator[VlmEngine]:
    with open_checkpoint(folder) as checkpoint:
        native, _ = start_engine(checkpoint, EngineConfig(**{**EXACT, **fields}))
        yield VlmEngine(folder, native, checkpoint)
        native.stop()
