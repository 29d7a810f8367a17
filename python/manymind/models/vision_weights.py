# SPDX-License-Identifier: Apache-2.0
"""The canonical weights of an encoder, taken from the tensors of a checkpoint."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from manymind.checkpoint import TensorSource
from manymind.errors import CheckpointError
from manymind.models.weights import WeightSource

Shape = tuple[int, ...]
FloatArray = npt.NDArray[np.float32]


class NamedWeights(Mapping[str, WeightSource]):
    """Canonical name -> WeightSource, filled by a family. Shapes are checked when a weight is
    named, conversions happen on access.

    Every method that names a tensor raises CheckpointError if it is missing or of another shape.
    """

    def __init__(
        self, tensors: Mapping[str, TensorSource], prefixes: Sequence[str], canonical: str
    ) -> None:
        """prefixes: what may stand before the families' names; the first that occurs is taken.
        canonical: what stands before canonical names.
        """
        self._tensors = tensors
        self._canonical = canonical
        self._weights: dict[str, Callable[[], WeightSource]] = {}
        self.used: set[str] = set()
        found = [prefix for prefix in prefixes if any(name.startswith(prefix) for name in tensors)]
        if not found:
            raise CheckpointError("tensors", f"some that begin with {prefixes[0]}", "none")
        self.prefix = found[0]

    def __len__(self) -> int:
        return len(self._weights)

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __getitem__(self, name: str) -> WeightSource:
        return self._weights[name]()

    def has(self, name: str) -> bool:
        """Whether the checkpoint has the tensor."""
        return self.prefix + name in self._tensors

    def ignore(self, pattern: str) -> None:
        """Tensors below the prefix that the encoder does not need."""
        expression = re.compile(re.escape(self.prefix) + pattern)
        self.used |= {name for name in self._tensors if expression.fullmatch(name)}

    def matrix(self, canonical: str, name: str, shape: Shape) -> None:
        """A matrix; the axes of a convolution after the first count as one."""
        source = self._take(name, shape)
        flat = (shape[0], math.prod(shape[1:]))
        self._add(canonical, source.format, flat, lambda: source.data)

    def vector(self, canonical: str, name: str, size: int, offset: float = 0.0) -> None:
        """A norm weight or bias as float32, plus ``offset``."""
        source = self._take(name, (size,))
        self._add_float(canonical, (size,), lambda: as_float32(source) + np.float32(offset))

    def linear(self, canonical: str, name: str, shape: Shape, bias: bool = True) -> None:
        """``name``.weight and, with bias, ``name``.bias."""
        self.matrix(canonical, f"{name}.weight", shape)
        if bias:
            self.vector(f"{canonical}.bias", f"{name}.bias", shape[0])

    def norm(self, canonical: str, name: str, size: int, bias: bool = True) -> None:
        """``name``.weight and, with bias, ``name``.bias."""
        self.vector(canonical, f"{name}.weight", size)
        if bias:
            self.vector(f"{canonical}.bias", f"{name}.bias", size)

    def split_qkv(self, canonical: str, name: str, size: int) -> None:
        """q, k and v from one matrix [3 * size, size] and one bias; ``canonical`` ends in a dot."""
        weight = self._take(f"{name}.weight", (3 * size, size))
        bias = self._take(f"{name}.bias", (3 * size,))
        rows = size * weight.row_bytes
        for index, part in enumerate("qkv"):
            data = weight.data[index * rows : (index + 1) * rows]
            self._add(f"{canonical}{part}_proj", weight.format, (size, size), _constant(data))
            self._add_float(
                f"{canonical}{part}_proj.bias",
                (size,),
                partial(_slice, bias, index * size, size),
            )

    def computed(
        self,
        canonical: str,
        shape: Shape,
        sources: Mapping[str, Shape],
        compute: Callable[..., FloatArray],
    ) -> None:
        """A weight of ``shape`` that is a function of tensors (name -> shape), passed as float32 in
        their order and shapes. Kept in the first tensor's format, as float32 if that is a vector.
        """
        taken = [(self._take(name, size), size) for name, size in sources.items()]

        def value() -> FloatArray:
            return compute(*(as_float32(source).reshape(size) for source, size in taken))

        if len(shape) == 1:
            self._add_float(canonical, shape, value)
            return
        kind = taken[0][0].format
        self._add(canonical, kind, shape, lambda: as_format(value(), kind))

    def _take(self, name: str, shape: Shape) -> TensorSource:
        name = self.prefix + name
        source = self._tensors.get(name)
        if source is None:
            raise CheckpointError(name, f"a tensor of shape {shape}", "none")
        if source.shape != shape:
            raise CheckpointError(f"shape of {name}", shape, source.shape)
        self.used.add(name)
        return source

    def _add(self, canonical: str, kind: str, shape: Shape, data: Callable[[], Any]) -> None:
        name = self._canonical + canonical
        self._weights[name] = lambda: WeightSource(name, kind, shape, memoryview(data()), None)

    def _add_float(self, canonical: str, shape: Shape, values: Callable[[], FloatArray]) -> None:
        self._add(canonical, "f32", shape, lambda: as_bytes(values()))


class VisionWeights(NamedWeights):
    """Those of a vision encoder."""

    def __init__(self, tensors: Mapping[str, TensorSource], prefixes: Sequence[str]) -> None:
        super().__init__(tensors, prefixes, "vision.")


def as_float32(source: TensorSource) -> FloatArray:
    """The values of a float tensor, flat."""
    if source.format == "bf16":
        bits = np.frombuffer(source.data, np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32)
    kind = np.float16 if source.format == "f16" else np.float32
    return np.frombuffer(source.data, kind).astype(np.float32)


def as_format(values: FloatArray, kind: str) -> memoryview:
    """``values`` as bytes of a float format, rounded to nearest even."""
    values = np.ascontiguousarray(values, np.float32)
    if kind == "f32":
        return as_bytes(values)
    if kind == "f16":
        return as_bytes(values.astype(np.float16))
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
    return as_bytes(rounded.astype(np.uint16))


def as_bytes(values: npt.NDArray[Any]) -> memoryview:
    """The memory of an array, copied only if it has gaps."""
    return memoryview(np.ascontiguousarray(values).reshape(-1).view(np.uint8))  # type: ignore[arg-type]


def _slice(source: TensorSource, begin: int, count: int) -> FloatArray:
    return as_float32(source)[begin : begin + count]


def _constant(data: memoryview) -> Callable[[], memoryview]:
    return lambda: data
