# SPDX-License-Identifier: Apache-2.0
"""Mutations: calls valid but for one thing. Every rule of every contract must refuse some."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cann import DTYPES, ND, NZ, SIGNATURES, Cann, CannError, Tensor, refused
from cases import Call, In, Many
from cases_transformer import calls

PROFILES = ("a2", "a2-8.5", "a3", "310p", "950")
CODES = {161001, 161002, 361001}
SIZES = (1, 8, 33, 300, 2000, 70000)
NUMBERS = (-1, 0, 1, 2, 3, 4, 5, 7, 99, 2000)


def reshaped(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Other ranks and other sizes."""
    yield ()
    yield (int(np.prod(shape)),)
    yield (1, *shape)
    yield (1,) * (9 - len(shape)) + shape
    yield shape[1:]
    for axis in range(len(shape)):
        for size in SIZES:
            yield (*shape[:axis], size, *shape[axis + 1 :])


def descriptions(argument: In, tensor: Tensor) -> Iterator[dict[str, Any]]:
    """What differs from the valid description in one thing."""
    base = {"shape": argument.view_shape(), "dtype": argument.dtype, "layout": argument.layout}
    base |= {"strides": argument.strides, "storage": argument.storage}
    for dtype in DTYPES:
        yield {**base, "dtype": dtype}
    for shape in reshaped(tensor.shape):
        yield {**base, "shape": shape, "strides": None, "storage": None}
    yield {**base, "layout": NZ if argument.layout == ND else ND}
    yield {**base, "strides": [2 * stride + 1 for stride in range(len(tensor.shape))]}


def other_values(device: Cann, declared: str, value: Any, tensor: Tensor | None) -> Iterator[Any]:
    """Wrong, or at least other, values of one argument."""
    if isinstance(value, In) and tensor is not None:
        for description in descriptions(value, tensor):
            yield device.describe(tensor.address, **description)
        yield 0
    elif isinstance(value, Many) and tensor is not None:
        for description in descriptions(value.items[0], tensor):
            yield device.list_of([device.describe(tensor.address, **description)])
        yield device.list_of([])
        yield 0
    elif isinstance(value, str):
        yield from ("", "TND", "BSND", "BNSD", "BSH", "SBH", "half", "interleave", "Norm", "none")
    elif declared in ("int64_t", "int8_t", "int", "aclDataType"):
        yield from (number for number in NUMBERS if declared != "int8_t" or number < 128)
    elif value is not None and declared in ("FakeScalar", "FakeInts"):
        yield 0
    elif value is None:
        yield from optional_values(device, declared)


def optional_values(device: Cann, declared: str) -> Iterator[Any]:
    """An argument where there was none."""
    some = [device.tensor(np.ones(4), dtype) for dtype in ("f16", "f32", "i16")]
    if declared in ("FakeIn", "aclTensor"):
        yield from some
    elif declared in ("FakeIns", "aclTensorList"):
        yield device.list_of([some[0].handle])
    elif declared == "FakeInts":
        yield device.ints([1])


def distinct(profile: str) -> list[Call]:
    """One call of each operator and of what its rules tell apart."""
    kept: dict[tuple[Any, ...], Call] = {}
    for call in calls(profile):
        details = [
            call.arguments.get(name) for name in ("inputLayout", "cubeMathType", "blockSize")
        ]
        halves = ["x"] if call.op == "WeightQuantBatchMatmulV2" else []
        kept.setdefault((call.op, *details, *(call.arguments[name].dtype for name in halves)), call)
    return list(kept.values())


def mutate(device: Cann, call: Call) -> int:
    """Tries every mutation of the call in phase 1; how many were refused."""
    arguments, tensors = call.build(device)
    signature, count = SIGNATURES[call.op], 0
    device.plan(call.op, *arguments)  # valid as it stands
    for position, (name, declared) in enumerate(
        zip(signature.names, signature.declared, strict=True)
    ):
        for value in other_values(device, declared, call.arguments.get(name), tensors.get(name)):
            changed = [*arguments[:position], value, *arguments[position + 1 :]]
            try:
                device.plan(call.op, *changed)
            except CannError as error:
                if error.code not in CODES:
                    raise
                count += 1
    return count


@pytest.mark.parametrize("profile", PROFILES)
def test_every_rule_of_every_contract_refuses_what_breaks_it(device: Cann, profile: str) -> None:
    device.configure(profile=profile)
    for call in distinct(profile):
        assert mutate(device, call) > 0, call.op
    everything = {call.op: call for other in PROFILES for call in calls(other)}
    for op in set(everything) - {call.op for call in calls(profile)}:
        arguments, _ = everything[op].build(device)
        refused(361001, lambda op=op, arguments=arguments: device.plan(op, *arguments))
    silent = device.rules() - device.refusals()
    assert not silent, sorted(silent)


@pytest.mark.parametrize("op", ["Matmul", "RmsNorm", "FusedInferAttentionScoreV3"])
def test_a_refusal_names_the_rule_the_document_and_what_it_found(device: Cann, op: str) -> None:
    call = next(each for each in calls("a2") if each.op == op)
    arguments, _ = call.build(device)
    wrong = device.tensor(np.ones((3, 4)), "i64")
    text = refused(161002, lambda: device.plan(op, wrong, *arguments[1:]))
    assert f"aclnn{op} on a2" in text
    assert ".md" in text
    assert "=i64[3,4]" in text


def test_a_null_output_or_executor_is_a_null_parameter(device: Cann) -> None:
    values = device.tensor(np.ones(4), "f32")
    assert device.opapi.aclnnExpGetWorkspaceSize(None, None, None, None) == 161001
    device.plan("Exp", values, values)
