# SPDX-License-Identifier: Apache-2.0
"""Mutations: calls valid but for one thing. Every rule of every operator must refuse some.

Rules are those of the contracts, those that an operator's code adds about shapes, and those about
the data that it meets; the emulator lists each with the operator that it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cann import DTYPES, ND, NZ, SIGNATURES, Cann, CannError, Tensor, refused
from cases import Call, In, Ints, Many, Scalar
from cases_transformer import FIA, calls

PROFILES = ("a2", "a2-8.5", "a3", "310p", "950")
NULL, INVALID, AI_CORE = 161001, 161002, 507015
NUMBER_TYPES = ("int64_t", "int8_t", "int", "aclDataType")
# Codes that an operator's document gives for shapes that do not meet.
OTHER_CODES = {
    "MoeGatingTopKSoftmaxV2": {561002},
    "MoeInitRoutingV2": {561103},
    "MoeFinalizeRoutingV2": {561103},
}
SIZES = (1, 8, 33, 300, 2000, 70000)
NUMBERS = (-1, 0, 1, 2, 3, 4, 5, 7, 99, 2000)


def reshaped(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Other ranks and other sizes."""
    yield ()
    yield (int(np.prod(shape)),)
    yield (1, *shape)
    yield (2, *shape)
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
        one = device.describe(tensor.address, value.items[0].view_shape(), value.items[0].dtype)
        yield device.list_of([])
        yield device.list_of([one, one])
        yield 0
    elif isinstance(value, str):
        yield from ("", "TND", "BSND", "BNSD", "BSH", "SBH", "half", "interleave", "Norm", "none")
    elif declared in NUMBER_TYPES:
        yield from (number for number in NUMBERS if declared != "int8_t" or number < 128)
    elif isinstance(value, Scalar):
        yield from (device.scalar(number, value.dtype) for number in (0, -1, 99))
        yield 0
    elif isinstance(value, Ints):
        yield from (device.ints(numbers) for numbers in other_numbers(value.values))
        yield 0
    elif declared == "bool":
        yield not value
    elif value is None:
        yield from optional_values(device, declared)


def other_numbers(values: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Fewer, more, falling, beyond what there is."""
    yield ()
    yield values[:-1]
    yield (*values, values[-1])
    yield values[::-1]
    yield (*values[:-1], 9)
    yield (*values[:-1], 70000)


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
            call.arguments.get(name)
            for name in ("inputLayout", "cubeMathType", "blockSize", "cacheMode")
        ]
        dtypes = {
            (name, value.dtype) for name, value in call.arguments.items() if isinstance(value, In)
        }
        kept.setdefault((call.op, *details, frozenset(call.arguments), frozenset(dtypes)), call)
    return list(kept.values())


def may_be_left_out(profile: str) -> set[tuple[str, str]]:
    """Arguments that some valid call does without."""
    return {
        (call.op, name)
        for call in calls(profile)
        for name in SIGNATURES[call.op].names
        if call.arguments.get(name) is None
    }


def expected_codes(op: str, name: str, is_null: bool, optional: set[tuple[str, str]]) -> set[int]:
    """Of a refusal, as the documents have it."""
    if is_null and (op, name) not in optional:
        return {NULL}
    return {INVALID, *OTHER_CODES.get(op, ())}


def refusal(function: Callable[..., Any], *arguments: Any) -> CannError | None:
    try:
        function(*arguments)
    except CannError as error:
        return error
    return None


def mutate(device: Cann, call: Call, optional: set[tuple[str, str]]) -> int:
    """Tries every mutation of the call in phase 1; how many were refused."""
    arguments, tensors = call.build(device)
    signature, count = SIGNATURES[call.op], 0
    device.plan(call.op, *arguments)  # valid as it stands
    for position, (name, declared) in enumerate(
        zip(signature.names, signature.declared, strict=True)
    ):
        is_pointer = declared not in (*NUMBER_TYPES, "bool")
        for value in other_values(device, declared, call.arguments.get(name), tensors.get(name)):
            changed = [*arguments[:position], value, *arguments[position + 1 :]]
            error = refusal(device.plan, call.op, *changed)
            if error is not None:
                is_null = is_pointer and value == 0
                assert error.code in expected_codes(call.op, name, is_null, optional), error.text
                count += 1
    return count


def other_data(values: np.ndarray) -> Iterator[np.ndarray]:
    """Indices that lie outside, come twice or fall; masks that hide something else."""
    if values.dtype == bool or set(np.unique(values)) == {0, 1}:
        yield 1 - values.astype(np.int8)
        return
    for wrong in (-1, 1 << 20, int(values.flat[0])):
        yield np.full_like(values, wrong)
    yield values[::-1]


def mutate_data(device: Cann, call: Call) -> None:
    """Runs the call on other integers: an error of the device, or a result."""
    device.run(call.op, *call.build(device)[0])  # valid as it stands
    for name, value in call.arguments.items():
        if not isinstance(value, In) or value.dtype not in ("i32", "i64", "bool", "i8"):
            continue
        if value.shape is not None:
            continue
        for values in other_data(np.asarray(value.values)):
            changed = {**call.arguments, name: replace(value, values=values)}
            arguments, _ = replace(call, arguments=changed).build(device)
            error = refusal(device.run, call.op, *arguments)
            assert error is None or error.code == AI_CORE, error


def together(profile: str) -> Iterator[tuple[Call, dict[str, Any]]]:
    """What one change cannot break alone, since it breaks something else first."""
    first = {call.op: call for call in reversed(calls(profile))}
    if profile == "310p":
        yield first["SwiGlu"], {"dim": 0, "x": In(np.ones((3, 256)), "f16")}
    for op in (name for name in FIA if name in first):
        own = [call for call in calls(profile) if call.op == op]
        paged = next(call for call in own if "blockSize" in call.arguments)
        half, block = paged.arguments["query"].dtype, paged.arguments["blockSize"]
        cache = Many((In(np.zeros((1, block, 65536)), half),))
        heads = {"numHeads": 512, "numKeyValueHeads": 512}
        rows = In(np.zeros((8, 512, 128)), half)
        yield paged, {**heads, "query": rows, "attentionOut": rows, "key": cache, "value": cache}
        dense = next(call for call in own if call.arguments["inputLayout"] == "BSND")
        many, one = In(np.zeros((1, 2, 65, 32)), half), Many((In(np.zeros((1, 2, 1, 32)), half),))
        heads = {"numHeads": 65, "numKeyValueHeads": 1}
        shapes = {"query": many, "attentionOut": many, "key": one, "value": one}
        yield dense, {**heads, **shapes}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_rule_of_every_operator_refuses_what_breaks_it(device: Cann, profile: str) -> None:
    device.configure(profile=profile)
    optional = may_be_left_out(profile)
    for call in distinct(profile):
        assert mutate(device, call, optional) > 0, call.op
        mutate_data(device, call)
    everything = {call.op: call for other in PROFILES for call in calls(other)}
    assert set(everything) == set(SIGNATURES), "operators without a call to mutate"
    for call, changes in together(profile):
        arguments, _ = call.having(**changes).build(device)
        refused(INVALID, lambda op=call.op, arguments=arguments: device.plan(op, *arguments))
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
