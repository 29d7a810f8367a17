# SPDX-License-Identifier: Apache-2.0
"""The typed description of a decoder-only transformer; ``src/turbomind/models/decoder_config.h``
has the same fields.

Every class checks itself when it is made and raises CheckpointError naming the field.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from manymind.errors import CheckpointError

RopeStyle = Literal["neox", "interleaved"]
Activation = Literal["silu", "gelu_tanh"]


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position embedding (Su et al. 2021, RoFormer).

    Attributes:
        dim: rotated dimensions of a head, even.
        style: "neox" rotates (x[i], x[i + dim/2]), "interleaved" rotates (x[2i], x[2i + 1]).
        inv_freq: radians per position, float64, length dim / 2; context scaling is already applied.
        attention_factor: multiplies cos and sin (YaRN; else 1).
        mrope_section: pairs that turn by the position in time, height and width; all 0 = one
            position.
        mrope_interleaved: the axes take turns instead of following one another.
    """

    dim: int
    style: RopeStyle
    inv_freq: tuple[float, ...]
    attention_factor: float = 1.0
    mrope_section: tuple[int, int, int] = (0, 0, 0)
    mrope_interleaved: bool = False

    def __post_init__(self) -> None:
        _check(self.dim > 0 and self.dim % 2 == 0, "rope.dim", "a positive even number", self.dim)
        _check(
            self.style in ("neox", "interleaved"), "rope.style", "neox or interleaved", self.style
        )
        _check(
            len(self.inv_freq) == self.dim // 2,
            "rope.inv_freq",
            f"{self.dim // 2} values",
            len(self.inv_freq),
        )
        finite = all(math.isfinite(value) and value >= 0 for value in self.inv_freq)
        _check(finite, "rope.inv_freq", "finite values from 0", self.inv_freq)
        _check_positive("rope.attention_factor", self.attention_factor)
        pairs = sum(self.mrope_section)
        valid = min(self.mrope_section) >= 0 and pairs in (0, self.dim // 2)
        _check(valid, "mrope_section", f"counts that add up to {self.dim // 2}", self.mrope_section)


@dataclass(frozen=True)
class AttentionConfig:
    """Grouped-query attention of one layer.

    Attributes:
        scale: multiplies query-key products.
        window: positions a query sees, its own included; 0 = all before it.
        softcap: scores become softcap * tanh(scores / softcap); 0 = off.
        qk_norm: RMS norm over each head of q and k before the rotation.
        rope: index into ``DecoderConfig.ropes``.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    window: int = 0
    softcap: float = 0.0
    qkv_bias: bool = False
    o_bias: bool = False
    qk_norm: bool = False
    rope: int = 0

    def __post_init__(self) -> None:
        for name in ("num_heads", "num_kv_heads", "head_dim", "scale"):
            _check_positive(f"attention.{name}", getattr(self, name))
        _check(
            self.num_heads % self.num_kv_heads == 0,
            "attention.num_kv_heads",
            f"a divisor of num_heads ({self.num_heads})",
            self.num_kv_heads,
        )
        _check(self.window >= 0, "attention.window", "0 or more", self.window)
        _check_not_negative("attention.softcap", self.softcap)


@dataclass(frozen=True)
class FfnConfig:
    """Gated feed-forward network: down(activation(gate(x)) * up(x))."""

    intermediate_size: int
    activation: Activation = "silu"
    bias: bool = False

    def __post_init__(self) -> None:
        _check_positive("ffn.intermediate_size", self.intermediate_size)
        known = self.activation in ("silu", "gelu_tanh")
        _check(known, "ffn.activation", "silu or gelu_tanh", self.activation)


@dataclass(frozen=True)
class LayerConfig:
    """One decoder layer. Norms before attention and FFN always exist; those after them, inside the
    residual, are optional."""

    attention: AttentionConfig
    ffn: FfnConfig
    post_attention_norm: bool = False
    post_ffn_norm: bool = False


@dataclass(frozen=True)
class DecoderConfig:
    """A decoder-only transformer.

    Attributes:
        context_length: positions the model was trained or scaled for.
        embed_scale: multiplies token embeddings.
        tie_word_embeddings: the embedding matrix is also the output head; there is no ``lm_head``
            weight.
        logit_softcap: as ``AttentionConfig.softcap``, on the logits.
        eos_token_ids: any of these ends an answer.
        num_deepstack: first layers to whose outputs pictures add a vector of their own.
        bidirectional_media: the tokens of a picture see each other, also those after them.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    context_length: int
    norm_eps: float
    ropes: tuple[RopeConfig, ...]
    layers: tuple[LayerConfig, ...]
    embed_scale: float = 1.0
    tie_word_embeddings: bool = False
    logit_softcap: float = 0.0
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()
    num_deepstack: int = 0
    bidirectional_media: bool = False

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "context_length", "norm_eps", "embed_scale"):
            _check_positive(name, getattr(self, name))
        _check_not_negative("logit_softcap", self.logit_softcap)
        _check(len(self.layers) > 0, "layers", "at least one", 0)
        for index, layer in enumerate(self.layers):
            rope = layer.attention.rope
            field = f"layers[{index}].attention"
            _check(0 <= rope < len(self.ropes), f"{field}.rope", f"below {len(self.ropes)}", rope)
            head_dim, dim = layer.attention.head_dim, self.ropes[rope].dim
            _check(dim <= head_dim, f"{field}.head_dim", f"at least rope.dim ({dim})", head_dim)


def _check(condition: bool, field: str, expected: str, found: Any) -> None:
    if not condition:
        raise CheckpointError(field, expected, found)


def _check_positive(field: str, value: float) -> None:
    _check(math.isfinite(value) and value > 0, field, "a positive number", value)


def _check_not_negative(field: str, value: float) -> None:
    _check(math.isfinite(value) and value >= 0, field, "0 or more", value)
