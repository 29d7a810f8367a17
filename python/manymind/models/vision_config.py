# SPDX-License-Identifier: Apache-2.0
"""The typed description of a vision encoder; ``vision/encoder/encoder_config.h`` has the same
fields, says what they mean and checks them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from manymind.models.config import RopeConfig

NormKind = Literal["layer_norm", "rms_norm"]
EncoderActivation = Literal["silu", "gelu_tanh", "gelu_erf", "quick_gelu", "relu"]


@dataclass(frozen=True)
class ProjectorConfig:
    """From encoder rows to embeddings: [norm,] join merge_size neighbours, [norm,] one linear, or
    two with an activation.

    Attributes:
        merge_size: rows that become one.
        average: they are averaged; else they stand side by side.
        norm_after_merge: the norm sees joined rows.
        hidden_size: between two linears; 0 = there is one.
    """

    merge_size: int = 1
    average: bool = False
    norm: bool = False
    norm_after_merge: bool = False
    norm_kind: NormKind = "layer_norm"
    norm_eps: float = 1e-6
    hidden_size: int = 0
    activation: EncoderActivation = "gelu_erf"
    bias: bool = True


@dataclass(frozen=True)
class EncoderConfig:
    """A vision transformer and what projects its patches into a decoder's embeddings.

    Attributes:
        patch_dim: values of a patch: channels * frames * height * width.
        out_hidden_size: of the decoder.
        gated: the feed-forward network is gated.
        pre_norm, post_norm: norms before the first and after the last layer.
        qk_norm: RMS norm over all heads of q and of k together.
        table_rows: of the learned position table; 0 = none.
        rope: rotary positions; its pairs turn by the axes none, row and column of the patch.
        full_layers: layers that attend beyond a window; empty = all do.
        deepstack_layers: layers whose outputs are projected, too, for the decoder's first layers.
        newline: there is an embedding that ends a row of patches.
    """

    patch_dim: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    out_hidden_size: int
    norm_kind: NormKind = "layer_norm"
    norm_eps: float = 1e-6
    activation: EncoderActivation = "gelu_tanh"
    gated: bool = False
    patch_bias: bool = False
    qkv_bias: bool = True
    o_bias: bool = True
    ffn_bias: bool = True
    pre_norm: bool = False
    post_norm: bool = False
    qk_norm: bool = False
    table_rows: int = 0
    rope: RopeConfig | None = None
    full_layers: tuple[int, ...] = ()
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    deepstack_layers: tuple[int, ...] = ()
    deepstack: ProjectorConfig = field(default_factory=ProjectorConfig)
    newline: bool = False
