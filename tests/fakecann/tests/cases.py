# SPDX-License-Identifier: Apache-2.0
"""A valid call of each operator with what it must give, computed by numpy in doubles.

cases_transformer.py has the rest, and the list of them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from cann import ND, NZ, SIGNATURES, Cann, Tensor, from_storage, to_storage


@dataclass(frozen=True)
class In:
    """A tensor argument; as an output its contents before the call."""

    values: Any
    dtype: str
    shape: tuple[int, ...] | None = None
    strides: tuple[int, ...] | None = None
    layout: int = ND
    storage: tuple[int, ...] | None = None

    def view_shape(self) -> tuple[int, ...]:
        return self.shape if self.shape is not None else np.asarray(self.values).shape


def out(shape: Sequence[int], dtype: str) -> In:
    """An output, full of a number that no result has."""
    return In(np.full(tuple(shape), 77), dtype)


@dataclass(frozen=True)
class Scalar:
    value: float
    dtype: str = "f32"


@dataclass(frozen=True)
class Ints:
    values: tuple[int, ...]


@dataclass(frozen=True)
class Many:
    items: tuple[In, ...]


@dataclass(frozen=True)
class Call:
    """An operator, its arguments by name, and the outputs by name."""

    op: str
    arguments: dict[str, Any]
    expected: dict[str, np.ndarray] = field(default_factory=dict)

    def build(self, device: Cann) -> tuple[list[Any], dict[str, Tensor]]:
        """Arguments in the order of the signature; the tensors by name."""
        tensors: dict[str, Tensor] = {}
        unknown = set(self.arguments) - set(SIGNATURES[self.op].names)
        assert not unknown, (self.op, unknown)
        values = [
            self._make(device, name, self.arguments.get(name), tensors)
            for name in SIGNATURES[self.op].names
        ]
        defaults = zip(SIGNATURES[self.op].types, values, strict=True)
        return [
            0 if value is None and kind.__name__ not in ("c_void_p", "c_char_p") else value
            for kind, value in defaults
        ], tensors

    def _make(self, device: Cann, name: str, value: Any, tensors: dict[str, Tensor]) -> Any:
        if isinstance(value, In):
            description = {
                "shape": value.view_shape(),
                "strides": value.strides,
                "layout": value.layout,
                "storage": value.storage,
            }
            tensors[name] = device.tensor(value.values, value.dtype, **description)
            return tensors[name]
        if isinstance(value, Scalar):
            return device.scalar(value.value, value.dtype)
        if isinstance(value, Ints):
            return device.ints(value.values)
        if isinstance(value, Many):
            made = [self._make(device, name, item, tensors).handle for item in value.items]
            return device.list_of(made)
        return value

    def having(self, **changes: Any) -> Call:
        return replace(self, arguments={**self.arguments, **changes})


def rounded(values: Any, dtype: str) -> np.ndarray:
    """What a tensor of the dtype holds of values."""
    return np.asarray(from_storage(to_storage(values, dtype), dtype), dtype=np.float64)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def noise(shape: Sequence[int], dtype: str, scale: float = 1.0) -> np.ndarray:
    return rounded(rng().standard_normal(tuple(shape)) * scale, dtype)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(math.erf)(x)


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


UNARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Exp": np.exp,
    "Neg": np.negative,
    "Abs": np.abs,
    "Sin": np.sin,
    "Cos": np.cos,
    "Tanh": np.tanh,
    "Round": np.round,
    "Floor": np.floor,
    "Sigmoid": sigmoid,
    "Silu": lambda x: x * sigmoid(x),
    "Gelu": lambda x: gelu_tanh(x),
    "Relu": lambda x: np.maximum(x, 0),
    "LogicalNot": lambda x: x == 0,
}
POSITIVE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Log": np.log,
    "Sqrt": np.sqrt,
    "Rsqrt": lambda x: 1 / np.sqrt(x),
    "Reciprocal": lambda x: 1 / x,
}
COMPARISONS = {
    "Eq": np.equal,
    "Ne": np.not_equal,
    "Lt": np.less,
    "Le": np.less_equal,
    "Gt": np.greater,
    "Ge": np.greater_equal,
}
BINARY: dict[str, Callable[..., np.ndarray]] = {
    "Mul": np.multiply,
    "Div": np.divide,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
}
LOGICAL = {"LogicalAnd": np.logical_and, "LogicalOr": np.logical_or}
BITWISE = {
    "BitwiseAndTensor": np.bitwise_and,
    "BitwiseOrTensor": np.bitwise_or,
    "BitwiseXorTensor": np.bitwise_xor,
}


def elementwise(half: str) -> list[Call]:
    x, y = noise((3, 5), half), noise((5,), half, 2.0)
    x[0, 0] = y[0]
    calls = [
        Call(op, {"self": In(x, half), "out": out(x.shape, half)}, {"out": function(x)})
        for op, function in UNARY.items()
    ]
    calls += [
        Call(
            op,
            {"self": In(abs(x) + 1, half), "out": out(x.shape, half)},
            {"out": function(rounded(abs(x) + 1, half))},
        )
        for op, function in POSITIVE.items()
    ]
    pair = {"self": In(x, half), "other": In(y, half)}
    calls += [
        Call(op, {**pair, "out": out(x.shape, half)}, {"out": f(x, y)}) for op, f in BINARY.items()
    ]
    calls += [
        Call(op, {**pair, "out": out(x.shape, "bool")}, {"out": f(x, y)})
        for op, f in LOGICAL.items()
    ]
    for name, function in COMPARISONS.items():
        calls.append(
            Call(f"{name}Tensor", {**pair, "out": out(x.shape, "bool")}, {"out": function(x, y)})
        )
        single = {"self": In(x, half), "other": Scalar(float(y[0])), "out": out(x.shape, "bool")}
        calls.append(Call(f"{name}Scalar", single, {"out": function(x, y[0])}))
    whole, other = rng().integers(0, 200, (3, 5)), rng().integers(0, 200, (1, 5))
    whole_pair = {"self": In(whole, "i64"), "other": In(other, "i64"), "out": out((3, 5), "i64")}
    calls += [Call(op, whole_pair, {"out": f(whole, other)}) for op, f in BITWISE.items()]
    for name, function in BITWISE.items():
        single = {"self": In(whole, "i64"), "other": Scalar(77, "i64"), "out": out((3, 5), "i64")}
        op = name.replace("Tensor", "Scalar")
        calls.append(Call(op, single, {"out": function(whole, 77)}))
    one = {"self": In(x, half), "out": out(x.shape, half)}
    calls += [
        Call("GeluV2", {**one, "approximate": 1}, {"out": gelu_tanh(x)}),
        Call("GeluV2", {**one, "approximate": 0}, {"out": 0.5 * x * (1 + erf(x / math.sqrt(2)))}),
        Call(
            "Clamp", {**one, "low": Scalar(-0.5), "high": Scalar(0.5)}, {"out": x.clip(-0.5, 0.5)}
        ),
        Call("Clamp", {**one, "low": Scalar(-0.5)}, {"out": x.clip(-0.5, None)}),
        Call("Adds", {**one, "other": Scalar(2.0), "alpha": Scalar(3.0)}, {"out": x + 6}),
        Call("Subs", {**one, "other": Scalar(2.0), "alpha": Scalar(3.0)}, {"out": x - 6}),
        Call("Muls", {**one, "other": Scalar(1.5)}, {"out": x * 1.5}),
        Call("Divs", {**one, "other": Scalar(4.0)}, {"out": x / 4}),
        Call("PowTensorScalar", {**one, "exponent": Scalar(2.0)}, {"out": x**2}),
        Call("Add", {**pair, "alpha": Scalar(2.0), "out": out(x.shape, half)}, {"out": x + 2 * y}),
        Call("Sub", {**pair, "alpha": Scalar(2.0), "out": out(x.shape, half)}, {"out": x - 2 * y}),
        Call("InplaceAdd", {**pair, "alpha": Scalar(1.0)}, {"self": x + y}),
    ]
    return calls


def masked(half: str) -> list[Call]:
    x, y = noise((3, 5), half), noise((5,), half, 2.0)
    pair = {"self": In(x, half), "other": In(y, half)}
    mask = np.arange(15).reshape(3, 5) % 2 == 0
    return [
        Call(
            "SWhere",
            {"condition": In(mask, "bool"), **pair, "out": out(x.shape, half)},
            {"out": np.where(mask, x, y)},
        ),
        Call(
            "InplaceMaskedFillScalar",
            {"self": In(x, half), "mask": In(mask, "bool"), "value": Scalar(-3.0)},
            {"self": np.where(mask, -3.0, x)},
        ),
    ]


def copies(half: str) -> list[Call]:
    x = noise((3, 5), half)
    return [
        Call("Cast", {"self": In(x, half), "dtype": 0, "out": out(x.shape, "f32")}, {"out": x}),
        Call(
            "InplaceCopy",
            {"self": out((2, 3, 5), half), "source": In(x, half)},
            {"self": np.stack([x, x])},
        ),
        Call("InplaceZero", {"self": In(x, half)}, {"self": x * 0}),
        Call("InplaceOne", {"self": In(x, half)}, {"self": x * 0 + 1}),
        Call(
            "InplaceFillScalar", {"self": In(x, half), "value": Scalar(2.5)}, {"self": x * 0 + 2.5}
        ),
        Call(
            "Arange",
            {
                "start": Scalar(2, "i64"),
                "end": Scalar(12, "i64"),
                "step": Scalar(3, "i64"),
                "out": out((4,), "i64"),
            },
            {"out": np.arange(2, 12, 3)},
        ),
        Call(
            "Cat",
            {
                "tensors": Many((In(x, half), In(x[:, :2], half))),
                "dim": -1,
                "out": out((3, 7), half),
            },
            {"out": np.concatenate([x, x[:, :2]], axis=1)},
        ),
    ]


def softmax(x: np.ndarray) -> np.ndarray:
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def reductions(half: str) -> list[Call]:
    x = noise((3, 5), half)
    order = np.argsort(-x, axis=1, kind="stable")
    sorted_x = np.take_along_axis(x, order, 1)
    one, code = {"self": In(x, half), "out": out(x.shape, half)}, {"bf16": 27, "f16": 1}[half]
    down = {"self": In(x, half), "dims": Ints((1,)), "keep_dims": False}
    return [
        Call("ReduceSum", {**down, "dtype": 0, "out": out((3,), "f32")}, {"out": x.sum(1)}),
        Call(
            "Mean",
            {**down, "dtype": code, "keep_dims": True, "out": out((3, 1), half)},
            {"out": x.mean(1, keepdims=True)},
        ),
        Call("Amax", {**down, "out": out((3,), half)}, {"out": x.max(1)}),
        Call(
            "ArgMax",
            {"self": In(x, half), "dim": 0, "keep_dim": False, "out": out((5,), "i64")},
            {"out": x.argmax(0)},
        ),
        Call("Cumsum", {**one, "dim": 1, "dtype": code}, {"out": x.cumsum(1)}),
        Call("Softmax", {**one, "dim": 1}, {"out": softmax(x)}),
        Call("LogSoftmax", {**one, "dim": -1}, {"out": np.log(softmax(x))}),
        Call(
            "Sort",
            {
                "self": In(x, half),
                "stable": True,
                "dim": 1,
                "descending": True,
                "values": out(x.shape, half),
                "indices": out(x.shape, "i64"),
            },
            {"values": sorted_x, "indices": order},
        ),
        Call(
            "Topk",
            {
                "self": In(x, half),
                "k": 2,
                "dim": 1,
                "largest": True,
                "sorted": True,
                "values": out((3, 2), half),
                "indices": out((3, 2), "i64"),
            },
            {"values": sorted_x[:, :2], "indices": order[:, :2]},
        ),
    ]


def indices(half: str) -> list[Call]:
    x, chosen = noise((4, 5), half), np.array([3, 0, 3])
    at = np.array([[0, 1, 2, 3, 0], [3, 3, 1, 0, 2]])
    source = noise((2, 5), half, 3.0)
    added, written, updated = x.copy(), x.copy(), x.copy()
    np.add.at(added, (at, np.arange(5)), source)
    np.put_along_axis(written, at, source, 0)
    updated[[1, 3]] = source
    scattering = {"self": In(x, half), "dim": 0, "index": In(at, "i64"), "source": In(source, half)}
    return [
        Call(
            "IndexSelect",
            {"self": In(x, half), "dim": 0, "index": In(chosen, "i32"), "out": out((3, 5), half)},
            {"out": x[chosen]},
        ),
        Call(
            "Gather",
            {"self": In(x, half), "dim": 0, "index": In(at, "i64"), "out": out((2, 5), half)},
            {"out": np.take_along_axis(x, at, 0)},
        ),
        Call(
            "Embedding",
            {"weight": In(x, half), "indices": In(chosen, "i64"), "out": out((3, 5), half)},
            {"out": x[chosen]},
        ),
        Call("ScatterAdd", {**scattering, "out": out(x.shape, half)}, {"out": added}),
        Call("InplaceScatter", {**scattering, "reduce": 0}, {"self": written}),
        Call(
            "ScatterNdUpdate",
            {"self": In(x, half), "indices": In([[1], [3]], "i64"), "updates": In(source, half)},
            {"self": updated},
        ),
    ]


def to_nz(matrix: np.ndarray, c0: int) -> np.ndarray:
    """[..., rows, columns] as blocks of 16 rows and c0 columns, a column of blocks at a time."""
    rows, columns = matrix.shape[-2:]
    padded = np.zeros(
        (*matrix.shape[:-2], -(-rows // 16) * 16, -(-columns // c0) * c0), matrix.dtype
    )
    padded[..., :rows, :columns] = matrix
    cut = padded.reshape(*matrix.shape[:-2], padded.shape[-2] // 16, 16, padded.shape[-1] // c0, c0)
    return np.ascontiguousarray(np.moveaxis(cut, -2, -4))


def full_precision_matrices() -> list[Call]:
    a, b = noise((2, 3, 40), "f32"), noise((2, 40, 24), "f32", 0.3)

    def call(op: str, x: np.ndarray, y: np.ndarray) -> Call:
        product = x @ y
        result = out(product.shape, "f32")
        arguments = {"self": In(x, "f32"), "mat2": In(y, "f32"), "out": result, "cubeMathType": 1}
        return Call(op, arguments, {"out": product})

    return [call("Matmul", a[0], b[0]), call("Mm", a[0], b[0]), call("BatchMatMul", a, b)]


def matrices(half: str) -> list[Call]:
    a, b = noise((3, 40), half), noise((40, 24), half, 0.3)
    batch_a, batch_b = noise((2, 3, 40), half), noise((2, 40, 24), half, 0.3)
    bias, product = noise((24,), half), a @ b
    both = {"self": In(a, half), "mat2": In(b, half), "out": out((3, 24), half)}
    turned = In(np.ascontiguousarray(b.T), half, shape=(40, 24), strides=(1, 40))
    blocks = to_nz(b, 16)
    stored = In(blocks, half, shape=(40, 24), layout=NZ, storage=blocks.shape)
    turned_blocks = to_nz(np.ascontiguousarray(b.T), 16)
    turned_nz = In(
        turned_blocks, half, shape=(40, 24), strides=(1, 40), layout=NZ, storage=turned_blocks.shape
    )
    square = noise((32, 48), half)
    return [
        Call("Matmul", both, {"out": product}),
        Call("Matmul", {**both, "mat2": turned}, {"out": product}),
        Call("Mm", both, {"out": product}),
        Call(
            "BatchMatMul",
            {"self": In(batch_a, half), "mat2": In(batch_b, half), "out": out((2, 3, 24), half)},
            {"out": batch_a @ batch_b},
        ),
        Call(
            "Addmm",
            {
                "self": In(bias, half),
                "mat1": In(a, half),
                "mat2": In(b, half),
                "beta": Scalar(2.0),
                "alpha": Scalar(0.5),
                "out": out((3, 24), half),
            },
            {"out": 2 * bias + 0.5 * product},
        ),
        Call("MatmulWeightNz", {**both, "mat2": stored}, {"out": product}),
        Call("MatmulWeightNz", {**both, "mat2": turned_nz}, {"out": product}),
        Call("TransMatmulWeight", {"weight": In(square, half)}, {"weight": to_nz(square, 16)}),
    ]


def format_cast(half: str) -> list[Call]:
    x = noise((33, 20), half)
    blocks = to_nz(x, 16)
    target = In(np.full(blocks.shape, 77), half, shape=x.shape, layout=NZ, storage=blocks.shape)
    return [
        Call(
            "NpuFormatCast", {"source": In(x, half), "destination": target}, {"destination": blocks}
        )
    ]
