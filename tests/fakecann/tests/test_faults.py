# SPDX-License-Identifier: Apache-2.0
"""Injected faults, and mistakes that users of other engines have met on real hardware."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from cann import Cann, refused
from cases import Call, In, Many
from cases_transformer import calls


def exp(device: Cann, stream: int | None = None) -> None:
    values = device.tensor(np.ones(4), "f32")
    device.enqueue(stream, "Exp", values, values)


def call_of(op: str, profile: str = "a2") -> Call:
    return next(call for call in calls(profile) if call.op == op)


def test_the_nth_call_of_a_function_fails(device: Cann) -> None:
    device.configure(faults="call=aclrtMalloc:3:207001")
    device.malloc(64)
    device.malloc(64)
    assert "injected" in refused(207001, lambda: device.malloc(64))
    device.malloc(64)


def test_the_nth_task_fails_asynchronously_and_once(device: Cann) -> None:
    device.configure(schedule="lazy", faults="task=2:507014")
    stream = device.stream()
    for _ in range(3):
        exp(device, stream)
    assert "task Exp" in refused(507014, lambda: device.synchronize(stream))
    device.synchronize(stream)


def test_a_stream_may_stop_at_its_first_failure(device: Cann) -> None:
    stream, values = device.stream(), device.tensor(np.ones(4), "f32")
    device.check(device.acl.aclrtSetStreamFailureMode(ctypes.c_void_p(stream), ctypes.c_uint64(1)))
    device.configure(schedule="lazy", faults="task=1:507015")
    for _ in range(2):
        device.enqueue(stream, "Exp", values, values)
    for _ in range(2):
        refused(507015, lambda: device.synchronize(stream))
    assert (device.read(values) == 1).all()


def test_a_lost_device_answers_nothing_until_it_is_reset(device: Cann) -> None:
    device.configure(faults="lost=1")
    exp(device)
    exp(device)
    refused(507899, lambda: device.synchronize(None))
    refused(507899, lambda: device.malloc(64))
    device.check(device.acl.aclrtResetDevice(0))
    device.set_device(0)
    device.configure(faults="")
    exp(device)
    device.synchronize(None)


def test_memory_and_events_can_be_short(device: Cann) -> None:
    device.configure(faults=f"memory=1000;events={device.live('events') + 1}")
    device.malloc(500)
    refused(207001, lambda: device.malloc(500))
    device.event()
    refused(207007, device.event)


def test_a_fault_that_does_not_exist_is_refused(device: Cann) -> None:
    for text in ("cal=x:1:1", "call=aclrtMalloc", "memory"):
        refused(107000, lambda text=text: device.configure(faults=text))


# What users of other engines met; the numbers are issues of vllm-ascend.


def test_bf16_on_310p(device: Cann) -> None:
    """#6490, #9294."""
    arguments, _ = call_of("RmsNorm").build(device)
    device.configure(profile="310p")
    assert "bf16" in refused(161002, lambda: device.plan("RmsNorm", *arguments))


def test_a_half_precision_scale_of_a_quantised_product(device: Cann) -> None:
    """#12907."""
    call = call_of("QuantMatmulV4").having(scale=In(np.ones(32), "f16"))
    arguments, _ = call.build(device)
    text = refused(161002, lambda: device.plan(call.op, *arguments))
    assert "dtype scale: u64 i64 f32 bf16" in text


@pytest.mark.parametrize("block", [0, 24, 256])
def test_a_block_size_outside_the_contract(device: Cann, block: int) -> None:
    """#13853: silently wrong on the device, refused here."""
    call = next(each for each in calls("a2") if each.arguments.get("blockSize"))
    arguments, _ = call.having(blockSize=block).build(device)
    assert "block" in refused(161002, lambda: device.plan(call.op, *arguments))


def test_a_block_size_that_fits_the_cache_and_not_the_document(device: Cann) -> None:
    call = next(each for each in calls("a2") if each.arguments.get("blockSize"))
    heads = call.arguments["key"].items[0].values.shape[-1]
    cache = Many((In(np.zeros((9, 24, heads)), "bf16"),))
    arguments, _ = call.having(blockSize=24, key=cache, value=cache).build(device)
    assert "multiple of 16" in refused(161002, lambda: device.plan(call.op, *arguments))


def test_block_ids_outside_the_cache(device: Cann) -> None:
    """Stale block tables: #3444, #4649."""
    call = next(each for each in calls("a2") if each.arguments.get("blockSize"))
    table = call.arguments["blockTable"].values.copy()
    table[0, 0] = 9
    arguments, _ = call.having(blockTable=In(table, "i32")).build(device)
    device.enqueue(None, call.op, *arguments)
    assert "block 9 of 9" in refused(507015, lambda: device.synchronize(None))


def test_a_weight_transposed_twice_gives_other_numbers(device: Cann) -> None:
    """#12226, #13012."""
    square = np.arange(1600.0).reshape(40, 40) % 7
    left, right = In(np.ones((3, 40)) * np.arange(40), "bf16"), In(square, "bf16")
    base = Call("Matmul", {"self": left, "mat2": right, "out": In(np.zeros((3, 40)), "bf16")})
    turned = base.having(mat2=In(square, "bf16", shape=(40, 40), strides=(1, 40)))
    results = []
    for each in (base, turned):
        arguments, tensors = each.build(device)
        device.run("Matmul", *arguments)
        results.append(device.read(tensors["out"]))
    assert np.abs(results[0] - results[1]).max() > 1


def test_an_operator_newer_than_the_installation_is_missing_by_name(device: Cann) -> None:
    """vllm#8054: the resolver must meet a symbol that is not there."""
    assert not hasattr(device.opapi, "aclnnFusedInferAttentionScoreV9")
    device.configure(profile="950")
    arguments, _ = call_of("FusedInferAttentionScoreV3").build(device)
    refused(361001, lambda: device.plan("FusedInferAttentionScoreV3", *arguments))
