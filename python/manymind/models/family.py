# SPDX-License-Identifier: Apache-2.0
"""What the model families share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from manymind.models.config import AttentionConfig, DecoderConfig, FfnConfig, LayerConfig
from manymind.models.weights import SourceNames

if TYPE_CHECKING:
    from manymind.models.vision_family import VisionSource

MAX_LAYERS = 1024
# Each dimension of a head has its rotary frequency before a weight can contradict their number.
MAX_HEAD_DIM = 1 << 14


@dataclass(frozen=True)
class ModelSource:
    """What a family makes of a checkpoint: the decoder, where its weights are, and its eyes."""

    config: DecoderConfig
    names: SourceNames
    vision: VisionSource | None = None


@dataclass(frozen=True)
class Dimensions:
    """Sizes that every dense decoder has, whichever kind of checkpoint states them."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context_length: int
    norm_eps: float

    @property
    def default_scale(self) -> float:
        """1/sqrt(head_dim) (Vaswani et al. 2017)."""
        return float(self.head_dim**-0.5)


def windowed_layers(
    attention: AttentionConfig, ffn: FfnConfig, windows: Iterable[int]
) -> tuple[LayerConfig, ...]:
    """Equal layers apart from the attention window of each (0 = full)."""
    return tuple(LayerConfig(replace(attention, window=window), ffn) for window in windows)
