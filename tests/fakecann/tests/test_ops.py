# SPDX-License-Identifier: Apache-2.0
"""Every operator against numpy in double precision, on every profile."""

from __future__ import annotations

import numpy as np
import pytest
from cann import SIGNATURES, Cann
from cases import Call
from cases_transformer import calls

PROFILES = ("a2", "a2-8.5", "a3", "310p", "950")
# Relative to the largest element: a rounding of the result, and of sums that cancel.
TOLERANCE = {"f32": 1e-5, "f16": 2e-3, "bf16": 1.2e-2}


def check(device: Cann, call: Call) -> None:
    arguments, tensors = call.build(device)
    device.run(call.op, *arguments)
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


def test_results_repeat_bit_by_bit(device: Cann) -> None:
    call = next(call for call in calls("a2") if call.op == "Matmul")
    results = []
    for _ in range(2):
        arguments, tensors = call.build(device)
        device.run(call.op, *arguments)
        results.append(device.read(tensors["out"]))
    assert (results[0] == results[1]).all()
