# SPDX-License-Identifier: Apache-2.0
"""How pictures and videos stand in the prompt of a family."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from manymind.vision.types import IndexArray, PreparedMedia


@dataclass(frozen=True)
class AxisRule:
    """Positions in time, height and width (Qwen2-VL, arXiv:2409.12191, section 2.1).

    Attributes:
        merge_size: patches of the side of a token.
        positions_per_second: of a video's time axis; 0 = one position per slice.
    """

    merge_size: int
    positions_per_second: float = 0.0


@dataclass(frozen=True)
class MediaPrompt:
    """Attributes:
    image_token, video_token: what a chat template writes for a picture and a video; "" = the
        family has none.
    fill_token: takes the place of one embedding.
    expand_image, expand_video: the text that replaces image_token or video_token.
    axes: set for decoders with positions on three axes.
    alone_differs: a picture that is alone in its prompt is prepared differently.
    video_template: the chat template of conversations with videos; "" = the checkpoint's own.
    """

    image_token: str
    fill_tokens: tuple[str, ...]
    expand_image: Callable[[PreparedMedia], str]
    video_token: str = ""
    expand_video: Callable[[PreparedMedia], str] | None = None
    axes: AxisRule | None = None
    alone_differs: bool = False
    video_template: str = ""


@dataclass(frozen=True)
class MediaSpan:
    """Where one encoder input stands in a prompt, and its grid of patches in time, height and
    width with the time between its slices."""

    begin: int
    num_tokens: int
    grid: tuple[int, int, int]
    seconds_per_slice: float = 0.0


def axis_positions(length: int, spans: Sequence[MediaSpan], rule: AxisRule) -> IndexArray:
    """Positions of a prompt's tokens in time, height and width: int32 [3, length].

    Text moves all three axes; a picture counts up its rows and columns from where the text before
    it ended, and the text after it goes on behind the larger side.
    """
    positions = np.empty((3, length), np.int32)
    index, position = 0, 0
    for span in spans:
        text = span.begin - index
        positions[:, index : span.begin] = position + np.arange(text)
        position += text
        frames, height, width = span.grid
        height, width = height // rule.merge_size, width // rule.merge_size
        cells = np.indices((frames, height, width)).reshape(3, -1)
        if rule.positions_per_second and span.seconds_per_slice:
            # float32, as the reference computes it: the product is cut off, not rounded.
            interval = np.float32(span.seconds_per_slice) * np.float32(rule.positions_per_second)
            cells[0] = (cells[0].astype(np.float32) * interval).astype(np.int64)
        index = span.begin + span.num_tokens
        positions[:, span.begin : index] = position + cells
        position += max(height, width)
    positions[:, index:] = position + np.arange(length - index)
    return positions


def next_position(positions: IndexArray) -> int:
    """Where the first generated token stands, on all three axes."""
    return int(positions.max()) + 1 if math.prod(positions.shape) else 0
