# SPDX-License-Identifier: Apache-2.0
"""Canonical weights of a decoder and how they are bound to the tensors of a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from manymind.checkpoint import TensorSource
from manymind.errors import CheckpointError
from manymind.models.config import DecoderConfig, LayerConfig

ROWS, COLUMNS = 0, 1

_LAYER_NAME = re.compile(r"layers\.(\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class WeightSource:
    """A weight under its canonical name, ready for the core.

    ``data`` holds ``shape`` row-major in ``format``: a matrix [out_features, in_features] as it
    lies in the file, or a norm or bias as float32. ``shard_axis`` is the axis tensor parallelism
    splits (0 rows, 1 columns, None: each rank holds all).
    """

    name: str
    format: str
    shape: tuple[int, ...]
    data: memoryview
    shard_axis: int | None


@dataclass(frozen=True)
class SourceNames:
    """Where a family's weights are in a checkpoint.

    Attributes:
        stems: canonical name -> source name without ".weight" or ".bias"; per-layer entries leave
            out the prefix "layers.{i}." on the left and contain "{i}" on the right. Weights that
            share a source are its rows, in the order q, k, v or gate, up.
        norm_offset: added to norm weights at load (1 where a file stores gains as differences from
            1).
        ignored: patterns of tensors that a file may hold though the decoder does not read them.
    """

    stems: Mapping[str, str]
    norm_offset: float = 0.0
    ignored: tuple[str, ...] = ()

    def source_name(self, canonical: str) -> str:
        stem = canonical.removesuffix(".bias")
        suffix = ".weight" if stem == canonical else ".bias"
        match = _LAYER_NAME.fullmatch(stem)
        if match is None:
            return self.stems[stem] + suffix
        return self.stems[match[2]].replace("{i}", match[1]) + suffix


@dataclass(frozen=True, slots=True)
class _Slot:
    """What the decoder expects under a canonical name."""

    shape: tuple[int, ...]
    shard_axis: int | None = None


@dataclass
class Weights(Mapping[str, WeightSource]):
    """Canonical name -> WeightSource. Conversions happen on access, one weight at a time."""

    _sources: dict[str, tuple[TensorSource, _Slot]]
    _norm_offset: float = field(default=0.0)

    def __len__(self) -> int:
        return len(self._sources)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __getitem__(self, name: str) -> WeightSource:
        source, slot = self._sources[name]
        format_name, data = source.format, source.data
        if len(slot.shape) == 1:
            offset = self._norm_offset if name.endswith("norm") else 0.0
            format_name, data = "f32", _float32_vector(source, offset)
        return WeightSource(name, format_name, slot.shape, data, slot.shard_axis)


def bind_weights(
    config: DecoderConfig,
    tensors: Mapping[str, TensorSource],
    names: SourceNames,
    used_elsewhere: Collection[str] = (),
) -> Weights:
    """Finds every weight of ``config`` in ``tensors``.

    used_elsewhere: tensors that are not the decoder's.
    Raises CheckpointError naming the tensor if one is missing, has another shape, or is not used by
    the decoder.
    """
    bound: dict[str, tuple[TensorSource, _Slot]] = {}
    used = set(used_elsewhere)
    for source_name, slots in _slots_by_source(config, names).items():
        parts = _split_rows(source_name, tensors.get(source_name), list(slots.values()))
        bound |= {name: (part, slots[name]) for name, part in zip(slots, parts, strict=True)}
        used.add(source_name)
    ignored = re.compile("|".join(names.ignored) or r"(?!)")
    extra = [name for name in tensors if name not in used and not ignored.fullmatch(name)]
    if extra:
        shown = ", ".join(sorted(extra)[:5])
        raise CheckpointError(
            "tensors", "none that the decoder does not use", f"{len(extra)}: {shown}"
        )
    return Weights(bound, names.norm_offset)


def _slots_by_source(config: DecoderConfig, names: SourceNames) -> dict[str, dict[str, _Slot]]:
    """Source name -> canonical names that are its rows, nearly always one, with their slots."""
    grouped: dict[str, dict[str, _Slot]] = {}
    for canonical, slot in _slots(config).items():
        grouped.setdefault(names.source_name(canonical), {})[canonical] = slot
    return grouped


def _split_rows(name: str, source: TensorSource | None, slots: list[_Slot]) -> list[TensorSource]:
    """The parts of the tensor ``name`` that fill ``slots``, as views."""
    rows = sum(slot.shape[0] for slot in slots)
    shape = (rows, *slots[0].shape[1:])
    if source is None:
        raise CheckpointError(name, f"a tensor of shape {shape}", "none")
    if source.shape != shape:
        raise CheckpointError(f"shape of {name}", shape, source.shape)
    if len(shape) == 1 and source.format not in ("f32", "f16", "bf16"):
        raise CheckpointError(f"format of {name}", "f32, f16 or bf16", source.format)
    if len(slots) == 1:
        return [source]
    parts, begin, row = [], 0, len(source.data) // rows
    for slot in slots:
        end = begin + slot.shape[0] * row
        parts.append(replace(source, shape=slot.shape, data=source.data[begin:end]))
        begin = end
    return parts


def _slots(config: DecoderConfig) -> dict[str, _Slot]:
    hidden, vocab = config.hidden_size, config.vocab_size
    slots = {"embed_tokens": _Slot((vocab, hidden), ROWS)}
    for index, layer in enumerate(config.layers):
        for name, slot in _layer_slots(layer, hidden).items():
            slots[f"layers.{index}.{name}"] = slot
    slots["final_norm"] = _Slot((hidden,))
    if not config.tie_word_embeddings:
        slots["lm_head"] = _Slot((vocab, hidden), ROWS)
    return slots


def _layer_slots(layer: LayerConfig, hidden: int) -> dict[str, _Slot]:
    attention, ffn = layer.attention, layer.ffn
    query = attention.num_heads * attention.head_dim
    key_value = attention.num_kv_heads * attention.head_dim
    inner = ffn.intermediate_size
    slots = {
        "attn_norm": _Slot((hidden,)),
        "q_proj": _Slot((query, hidden), ROWS),
        "k_proj": _Slot((key_value, hidden), ROWS),
        "v_proj": _Slot((key_value, hidden), ROWS),
        "o_proj": _Slot((hidden, query), COLUMNS),
        "ffn_norm": _Slot((hidden,)),
        "gate_proj": _Slot((inner, hidden), ROWS),
        "up_proj": _Slot((inner, hidden), ROWS),
        "down_proj": _Slot((hidden, inner), COLUMNS),
    }
    if attention.qkv_bias:
        slots["q_proj.bias"] = _Slot((query,), ROWS)
        slots["k_proj.bias"] = slots["v_proj.bias"] = _Slot((key_value,), ROWS)
    if attention.o_bias:
        slots["o_proj.bias"] = _Slot((hidden,))
    if attention.qk_norm:
        slots["q_norm"] = slots["k_norm"] = _Slot((attention.head_dim,))
    if layer.post_attention_norm:
        slots["post_attn_norm"] = _Slot((hidden,))
    if layer.post_ffn_norm:
        slots["post_ffn_norm"] = _Slot((hidden,))
    if ffn.bias:
        slots["gate_proj.bias"] = slots["up_proj.bias"] = _Slot((inner,), ROWS)
        slots["down_proj.bias"] = _Slot((hidden,))
    return slots


def _float32_vector(source: TensorSource, offset: float) -> memoryview:
    """``source`` + ``offset`` as float32 bytes: the file's own bytes where nothing changes."""
    if source.format == "f32" and offset == 0.0:
        return source.data
    # Not at the top: a GGUF file never needs numpy, whose import takes longer than all the rest.
    import numpy as np

    if source.format == "bf16":
        values = (np.frombuffer(source.data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(source.data, np.float16 if source.format == "f16" else np.float32)
    return memoryview((values.astype(np.float32) + np.float32(offset)).tobytes())
