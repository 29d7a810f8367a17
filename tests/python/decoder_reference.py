# SPDX-License-Identifier: Apache-2.0
"""A decoder in plain numpy (float64), driven by DecoderConfig: what the configuration means.

Weights are dequantised by the gguf package. Used to check configurations and weight bindings
against the logits of transformers without the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gguf
import numpy as np

from manymind.models import AttentionConfig, DecoderConfig, LayerConfig, RopeConfig, WeightSource

Array = np.ndarray[Any, np.dtype[np.float64]]


def dequantize(format_name: str, shape: Sequence[int], data: memoryview) -> Array:
    """Values of a tensor in one of the checkpoint formats."""
    kind = gguf.GGMLQuantizationType[format_name.removeprefix("gguf_").upper()]
    if format_name == "f32":
        values = np.frombuffer(data, np.float32)
    elif format_name == "f16":
        values = np.frombuffer(data, np.float16)
    else:
        rows = np.frombuffer(data, np.uint8).reshape(*shape[:-1], -1)
        values = gguf.dequantize(rows, kind)
    return values.astype(np.float64).reshape(tuple(shape))


def decoder_logits(
    config: DecoderConfig, weights: Mapping[str, WeightSource], ids: Sequence[int]
) -> Array:
    """Logits [len(ids), vocab_size]."""
    values = {
        name: dequantize(weight.format, weight.shape, weight.data)
        for name, weight in weights.items()
    }
    hidden = values["embed_tokens"][list(ids)] * config.embed_scale
    for index, layer in enumerate(config.layers):
        prefix = f"layers.{index}."
        part = {n.removeprefix(prefix): v for n, v in values.items() if n.startswith(prefix)}
        rope = config.ropes[layer.attention.rope]
        hidden = _layer(layer, rope, part, hidden, config.norm_eps)
    hidden = _rms_norm(hidden, values["final_norm"], config.norm_eps)
    head = values["embed_tokens" if config.tie_word_embeddings else "lm_head"]
    return _softcap(hidden @ head.T, config.logit_softcap)


def _layer(
    layer: LayerConfig, rope: RopeConfig, part: dict[str, Array], hidden: Array, eps: float
) -> Array:
    normed = _rms_norm(hidden, part["attn_norm"], eps)
    attended = _attention(layer.attention, rope, part, normed, eps)
    if layer.post_attention_norm:
        attended = _rms_norm(attended, part["post_attn_norm"], eps)
    hidden = hidden + attended
    normed = _rms_norm(hidden, part["ffn_norm"], eps)
    gate, up = _linear(normed, part, "gate_proj"), _linear(normed, part, "up_proj")
    out = _linear(_activation(gate, layer.ffn.activation) * up, part, "down_proj")
    if layer.post_ffn_norm:
        out = _rms_norm(out, part["post_ffn_norm"], eps)
    return hidden + out


def _attention(
    config: AttentionConfig, rope: RopeConfig, part: dict[str, Array], x: Array, eps: float
) -> Array:
    count, dim = len(x), config.head_dim
    query = _linear(x, part, "q_proj").reshape(count, config.num_heads, dim)
    key = _linear(x, part, "k_proj").reshape(count, config.num_kv_heads, dim)
    value = _linear(x, part, "v_proj").reshape(count, config.num_kv_heads, dim)
    if config.qk_norm:
        query = _rms_norm(query, part["q_norm"], eps)
        key = _rms_norm(key, part["k_norm"], eps)
    query, key = _rotate(query, rope), _rotate(key, rope)
    group = config.num_heads // config.num_kv_heads
    key, value = np.repeat(key, group, axis=1), np.repeat(value, group, axis=1)
    scores = _softcap(np.einsum("qhd,khd->hqk", query, key) * config.scale, config.softcap)
    distance = np.arange(count)[:, None] - np.arange(count)[None, :]
    visible = (distance >= 0) & ((distance < config.window) | (config.window == 0))
    scores = np.where(visible, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("hqk,khd->qhd", weights, value).reshape(count, -1)
    return _linear(mixed, part, "o_proj")


def _rotate(x: Array, rope: RopeConfig) -> Array:
    """Rotates the first ``rope.dim`` dimensions of x [tokens, heads, head_dim] by position."""
    angles = np.arange(len(x))[:, None] * np.array(rope.inv_freq)[None, :]
    cos = np.cos(angles)[:, None, :] * rope.attention_factor
    sin = np.sin(angles)[:, None, :] * rope.attention_factor
    half, result = rope.dim // 2, x.copy()
    if rope.style == "neox":
        first, second = slice(0, half), slice(half, rope.dim)
    else:
        first, second = slice(0, rope.dim, 2), slice(1, rope.dim, 2)
    result[..., first] = x[..., first] * cos - x[..., second] * sin
    result[..., second] = x[..., second] * cos + x[..., first] * sin
    return result


def _linear(x: Array, part: dict[str, Array], name: str) -> Array:
    return x @ part[name].T + part.get(f"{name}.bias", 0.0)


def _rms_norm(x: Array, gain: Array, eps: float) -> Array:
    result: Array = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * gain
    return result


def _activation(x: Array, name: str) -> Array:
    if name == "silu":
        return x / (1 + np.exp(-x))
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _softcap(x: Array, cap: float) -> Array:
    return cap * np.tanh(x / cap) if cap else x
