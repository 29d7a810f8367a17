# SPDX-License-Identifier: Apache-2.0
"""Every operator against numpy in double precision, on every profile."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import pytest
from cann import SIGNATURES, Cann, Tensor
from cases import Call
from cases_transformer import calls

PROFILES = ("a2", "a2-8.5", "a3", "310p", "950")
# Relative to the largest element: a rounding of the result, and of sums that cancel.
TOLERANCE = {"f32": 1e-5, "f16": 2e-3, "bf16": 1.2e-2}


def check(device: Cann, call: Call) -> None:
    arguments, tensors = call.build(device)
    device.run(call.op, *arguments)
    compare(device, call, tensors)


def first_output(declared: Sequence[str]) -> int:
    """Outputs come last, except those that are inputs as well."""
    return declared.index("aclTensor") if "aclTensor" in declared else len(declared)


def compare(device: Cann, call: Call, tensors: dict[str, Tensor]) -> None:
    for name, expected in call.expected.items():
        found = np.asarray(device.read(tensors[name]), np.float64).reshape(-1)
        wanted = np.asarray(expected, np.float64).reshape(-1)
        bound = TOLERANCE.get(tensors[name].dtype, 0) * max(1.0, float(np.abs(wanted).max()))
        assert found.shape == wanted.shape, (call.op, name)
        assert np.abs(found - wanted).max() <= bound, (call.op, name, found, wanted)


@pytest.mark.parametrize("profile", PROFILES)
def test_operators_give_what_numpy_gives(device: Cann, profile: str) -> None:
    device.configure(profile=profile)
    for call in calls(profile):
        check(device, call)


@pytest.mark.parametrize("schedule", ["lazy", "random:11"])
def test_operators_under_other_schedules(device: Cann, schedule: str) -> None:
    device.configure(schedule=schedule)
    for call in calls("a2")[::3]:
        check(device, call)


def test_every_operator_has_a_case() -> None:
    covered = {call.op for profile in PROFILES for call in calls(profile)}
    assert covered == set(SIGNATURES)


def test_every_operator_runs_again_at_other_addresses(device: Cann) -> None:
    """Where its tensors stand among them all, those left out counted."""
    for call in calls("a2"):
        declared = SIGNATURES[call.op].declared
        if any(kind in ("FakeIns", "aclTensorList") for kind in declared):
            continue  # how a list that is left out counts, no document says
        output = first_output(declared)
        if output == 0 or "FakeIn" in declared[output:]:
            continue  # nor at which of its positions a tensor that is updated takes its address
        (first, described), (_, others) = call.build(device), call.build(device)
        size, executor = device.plan(call.op, *first)
        assert device.nnop.aclSetAclOpExecutorRepeatable(ctypes.c_void_p(executor)) == 0
        names = [
            name
            for name, kind in zip(SIGNATURES[call.op].names, declared, strict=True)
            if kind in ("FakeIn", "aclTensor")
        ]
        for position, name in enumerate(names):
            if name in described:
                device.rebind(executor, position, described[name], others[name])
                device.spoil(described[name])  # what was described is not to be read
        workspace = device.malloc(max(size, 1))
        device.launch(call.op, workspace, size, executor, None)
        device.synchronize(None)
        assert device.nnop.aclDestroyAclOpExecutor(ctypes.c_void_p(executor)) == 0
        compare(device, call, others)


def test_results_repeat_bit_by_bit(device: Cann) -> None:
    call = next(call for call in calls("a2") if call.op == "Matmul")
    results = []
    for _ in range(2):
        arguments, tensors = call.build(device)
        device.run(call.op, *arguments)
        results.append(device.read(tensors["out"]))
    assert (results[0] == results[1]).all()
