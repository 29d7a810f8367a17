# SPDX-License-Identifier: Apache-2.0
"""torch-npu, compiled by its makers, as a client of the emulator, against torch on the CPU.

It shows what no header here can: that names, the order of arguments, enumerations and layouts are
those that a real client uses. Run by `make test-fakecann-torch-npu`.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_npu
from torch.nn import functional

HALVES = (torch.float16, torch.bfloat16)
DTYPES = (*HALVES, torch.float32)
TOLERANCE = {torch.float16: 1e-2, torch.bfloat16: 6e-2, torch.float32: 1e-4}
Move = Callable[[torch.Tensor], torch.Tensor]

torch.npu.set_compile_mode(jit_compile=False)


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(dtype)


def close(found: Any, wanted: Any, dtype: torch.dtype) -> None:
    """Compares tensors or tuples of them; integers and booleans exactly."""
    if isinstance(wanted, tuple | list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            close(one, other, dtype)
        return
    exact = not wanted.is_floating_point()
    tolerance = 0.0 if exact else TOLERANCE[dtype]
    torch.testing.assert_close(
        found.cpu().double(), wanted.double(), rtol=tolerance, atol=tolerance
    )


def operators(move: Move, dtype: torch.dtype) -> dict[str, Any]:
    """Plain torch operators of the emulator's list, on the device that `move` moves to."""
    x, y = move(noise(3, 5, dtype=dtype)), move(noise(5, dtype=dtype, seed=4))
    w, b = move(noise(7, 5, dtype=dtype, seed=5)), move(noise(7, dtype=dtype, seed=6))
    rows, at = move(torch.tensor([2, 0, 2])), move(torch.tensor([[0, 1], [2, 3], [4, 0]]))
    batch, weights = move(noise(2, 3, 5, dtype=dtype)), move(noise(2, 5, 7, dtype=dtype, seed=7))
    unary = ["exp", "tanh", "sigmoid", "round", "relu", "neg", "abs", "sin", "cos", "floor"]
    results = {name: getattr(torch, name)(x) for name in unary}
    results |= {
        name: getattr(torch, name)(x.abs() + 1) for name in ("log", "sqrt", "rsqrt", "reciprocal")
    }
    results |= {
        f"{name}_": getattr(torch, name)(x, y)
        for name in ["gt", "ge", "lt", "le", "eq", "ne", "maximum", "minimum"]
    }
    results |= {
        f"{name}_0": getattr(torch, name)(x, 0.5) for name in ["gt", "ge", "lt", "le", "eq", "ne"]
    }
    results |= {
        "add": x + y,
        "add_alpha": torch.add(x, y, alpha=2),
        "sub": torch.sub(x, y, alpha=2),
        "mul": x * y,
        "div": x / (y.abs() + 1),
        "adds": x + 2,
        "subs": x - 2,
        "muls": x * 1.5,
        "divs": x / 4,
        "pow": torch.pow(x, 2),
        "clamp": torch.clamp(x, min=-0.5, max=0.5),
        "where": torch.where(x > 0, x, y),
        "masked_fill": x.masked_fill(x > 0, -1.0),
        "silu": functional.silu(x),
        # aclnnGelu is the approximation, and what torch-npu calls whichever is asked for.
        "gelu": functional.gelu(x, approximate="tanh"),
        "linear": functional.linear(x, w),
        "linear_bias": functional.linear(x, w, b),
        "mm": torch.mm(x, w.t()),
        "matmul": torch.matmul(x, w.t()),
        "bmm": torch.bmm(batch, weights),
    }
    return results | rows_and_copies(x, y, rows, at)


def rows_and_copies(
    x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor, at: torch.Tensor
) -> dict[str, Any]:
    """Reductions, orders, indices, copies."""
    return {
        "softmax": torch.softmax(x, -1),
        "log_softmax": torch.log_softmax(x, -1),
        "sum": torch.sum(x, 1),
        "mean": torch.mean(x, 1),
        "amax": torch.amax(x, 1),
        "argmax": torch.argmax(x, 1),
        "cumsum": torch.cumsum(x, 1),
        "sort": tuple(torch.sort(x, dim=1, descending=True, stable=True)),
        "topk": tuple(torch.topk(x, 2)),
        "index_select": torch.index_select(x, 0, rows),
        "gather": torch.gather(x, 1, at),
        "embedding": functional.embedding(rows, x),
        "scatter_add": torch.scatter_add(x, 1, at, x[:, :2]),
        "scatter": x.clone().scatter_(1, at, x[:, :2].contiguous()),
        "cat": torch.cat([x, x], 1),
        "layer_norm": functional.layer_norm(x, (5,), y, y),
        "float": x.float(),
        "half": x.to(torch.float16),
        "integer": x.to(torch.int32),
        "transposed": x.t().contiguous(),
        "strided": x[:, 1::2] * 2,
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_plain_operators(dtype: torch.dtype) -> None:
    found = operators(lambda tensor: tensor.npu(), dtype)
    wanted = operators(lambda tensor: tensor, dtype)
    for name, expected in wanted.items():
        try:
            close(found[name], expected, dtype)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def test_integers_and_booleans() -> None:
    i, j = torch.arange(15).reshape(3, 5), torch.arange(15).flip(0).reshape(3, 5)
    a, b = i.npu(), j.npu()
    pairs = {
        "and_7": (a & 7, i & 7),
        "or_7": (a | 7, i | 7),
        "xor_7": (a ^ 7, i ^ 7),
        "and": (a & b, i & j),
        "or": (a | b, i | j),
        "xor": (a ^ b, i ^ j),
        "add": (a + b, i + j),
        "logical_and": (torch.logical_and(a > 3, b > 5), torch.logical_and(i > 3, j > 5)),
        "logical_or": (torch.logical_or(a > 3, b > 5), torch.logical_or(i > 3, j > 5)),
        "logical_not": (torch.logical_not(a > 3), torch.logical_not(i > 3)),
        "arange": (torch.arange(2, 12, 3, device="npu"), torch.arange(2, 12, 3)),
        "ones": (torch.ones(3, device="npu"), torch.ones(3)),
        "zeros": (torch.zeros(3, device="npu"), torch.zeros(3)),
        "full": (torch.full((3,), 2.5, device="npu"), torch.full((3,), 2.5)),
    }
    for found, wanted in pairs.values():
        close(found, wanted, torch.float32)


@pytest.mark.parametrize("dtype", HALVES)
def test_norms_and_gates(dtype: torch.dtype) -> None:
    x, second, gamma = (
        noise(3, 64, dtype=dtype),
        noise(3, 64, dtype=dtype, seed=4),
        noise(64, dtype=dtype, seed=5),
    )
    y, _ = torch_npu.npu_rms_norm(x.npu(), gamma.npu(), 1e-6)
    close(y, functional.rms_norm(x.float(), (64,), gamma.float(), 1e-6), dtype)
    y, _, total = torch_npu.npu_add_rms_norm(x.npu(), second.npu(), gamma.npu(), 1e-6)
    close(total, x + second, dtype)
    close(y, functional.rms_norm((x + second).float(), (64,), gamma.float(), 1e-6), dtype)
    gate, up = x.float().chunk(2, -1)
    close(torch_npu.npu_swiglu(x.npu()), functional.silu(gate) * up, dtype)


@pytest.mark.parametrize("dtype", HALVES)
def test_rotation_in_place(dtype: torch.dtype) -> None:
    q, k = noise(1, 4, 3, 128, dtype=dtype), noise(1, 4, 1, 128, dtype=dtype, seed=4)
    angle = noise(1, 4, 1, 128, seed=5)
    cos, sin = angle.cos().to(dtype), angle.sin().to(dtype)

    def turned(x: torch.Tensor) -> torch.Tensor:
        low, high = x.float().chunk(2, -1)
        return x.float() * cos.float() + torch.cat([-high, low], -1) * sin.float()

    found = torch_npu.npu_apply_rotary_pos_emb(q.npu(), k.npu(), cos.npu(), sin.npu())
    close(found, (turned(q), turned(k)), dtype)


@pytest.mark.parametrize("dtype", HALVES)
def test_keys_and_values_into_blocks(dtype: torch.dtype) -> None:
    k, v, slots = (
        noise(3, 2, 16, dtype=dtype),
        noise(3, 2, 16, dtype=dtype, seed=4),
        torch.tensor([5, 0, 17]),
    )
    keys, values = (
        torch.zeros(3, 8, 2, 16, dtype=dtype).npu(),
        torch.zeros(3, 8, 2, 16, dtype=dtype).npu(),
    )
    torch_npu.npu_scatter_pa_kv_cache(
        k.npu(), v.npu(), keys, values, slots.int().npu(), cache_mode="Norm"
    )
    for cache, source in ((keys, k), (values, v)):
        expected = torch.zeros(24, 2, 16, dtype=dtype)
        expected[slots] = source
        close(cache.cpu().reshape(24, 2, 16), expected, dtype)


@pytest.mark.parametrize("dtype", HALVES)
def test_mixed_attention_over_blocks(dtype: torch.dtype) -> None:
    rows, contexts, dim = (3, 1), (20, 33), 128
    q = noise(sum(rows), 4, dim, dtype=dtype)
    cache = [noise(6, 16, 2 * dim, dtype=dtype, seed=seed) for seed in (4, 5)]
    table = torch.tensor([[4, 2, 0], [1, 5, 3]], dtype=torch.int32)
    mask = torch.triu(torch.ones(2048, 2048, dtype=torch.bool), 1)
    found, _ = torch_npu.npu_fused_infer_attention_score(
        q.npu(),
        cache[0].npu(),
        cache[1].npu(),
        num_heads=4,
        num_key_value_heads=2,
        input_layout="TND",
        scale=dim**-0.5,
        block_table=table.npu(),
        block_size=16,
        actual_seq_lengths=[3, 4],
        actual_seq_lengths_kv=list(contexts),
        atten_mask=mask.npu(),
        sparse_mode=3,
    )
    expected, first = [], 0
    for count, context, blocks in zip(rows, contexts, table, strict=True):
        k, v = (each[blocks.long()].reshape(-1, 2, dim)[:context].float() for each in cache)
        k, v = (each.repeat_interleave(2, 1).transpose(0, 1) for each in (k, v))
        chunk = q[first : first + count].float().transpose(0, 1)
        visible = torch.tril(torch.ones(count, context, dtype=torch.bool), context - count)
        expected.append(
            functional.scaled_dot_product_attention(chunk, k, v, visible).transpose(0, 1)
        )
        first += count
    close(found, torch.cat(expected), dtype)


@pytest.mark.parametrize("dtype", HALVES)
def test_operators_of_its_own(dtype: torch.dtype) -> None:
    x, updated = noise(3, 64, dtype=dtype), noise(3, 64, dtype=dtype)
    close(torch_npu.npu_gelu(x.npu(), approximate="none"), functional.gelu(x.float()), dtype)
    close(torch_npu.npu_dtype_cast(x.npu(), torch.float32), x.float(), dtype)
    row = noise(1, 64, dtype=dtype, seed=4)
    found = torch_npu.npu_scatter_nd_update_(updated.npu(), torch.tensor([[1]]).npu(), row.npu())
    updated[1] = row[0]
    close(found, updated, dtype)
    cos, sin = noise(1, 4, 1, 64, dtype=dtype, seed=5), noise(1, 4, 1, 64, dtype=dtype, seed=6)
    heads = noise(1, 4, 3, 64, dtype=dtype)
    low, high = heads.float().chunk(2, -1)
    turned = heads.float() * cos.float() + torch.cat([-high, low], -1) * sin.float()
    close(torch_npu.npu_rotary_mul(heads.npu(), cos.npu(), sin.npu()), turned, dtype)


def test_quantised_products() -> None:
    generator = torch.Generator().manual_seed(5)
    x, scale = noise(3, 64, dtype=torch.float16), noise(32, seed=4).abs().half()
    weight = torch.randint(-128, 128, (64, 32), generator=generator, dtype=torch.int8)
    found = torch_npu.npu_weight_quant_batchmatmul(x.npu(), weight.npu(), scale.npu())
    wanted = x.float() @ (weight.float() * scale.float())
    close(found.cpu() / 100, wanted / 100, torch.float16)
    levels, step = torch_npu.npu_dynamic_quant(x.npu())
    largest = x.float().abs().amax(1)
    close(step, largest / 127, torch.float32)
    close(levels.float(), torch.round(x.float() * 127 / largest[:, None]), torch.float32)


def test_a_product_of_int8_codes_with_scales_of_rows_and_columns() -> None:
    generator = torch.Generator().manual_seed(5)
    codes = torch.randint(-128, 128, (3, 64), generator=generator, dtype=torch.int8)
    weight = torch.randint(-128, 128, (64, 32), generator=generator, dtype=torch.int8)
    scale, step = noise(32).abs(), noise(3, seed=4).abs() / 1000  # within float16
    found = torch_npu.npu_quant_matmul(
        codes.npu(),
        weight.npu(),
        scale.npu(),
        pertoken_scale=step.npu(),
        output_dtype=torch.float16,
    )
    close(found, codes.float() @ weight.float() * scale * step[:, None], torch.float16)


def test_products_by_expert_and_their_sum() -> None:
    x, weight = noise(6, 64, dtype=torch.float16), noise(2, 64, 16, dtype=torch.float16, seed=4) / 8
    ends = torch.tensor([2, 6])
    found = torch_npu.npu_grouped_matmul(
        [x.npu()], [weight.npu()], group_list=ends.npu(), split_item=3, group_type=0
    )
    close(found[0], torch.cat([x[:2] @ weight[0], x[2:] @ weight[1]]), torch.float16)
    scales, rows = noise(3, 2, seed=5).half(), torch.tensor([3, 0, 5, 1, 4, 2])
    found = torch_npu.npu_moe_finalize_routing(
        x.npu(), None, None, None, scales.npu(), rows.int().npu(), None, drop_pad_mode=2
    )
    wanted = (x[rows].reshape(3, 2, 64).float() * scales.float()[..., None]).sum(1)
    close(found, wanted, torch.float16)


def test_expert_choice() -> None:
    logits = noise(5, 8, dtype=torch.float16)
    weights, experts, _ = torch_npu.npu_moe_gating_top_k_softmax_v2(logits.npu(), k=2)
    wanted, indices = torch.softmax(logits.float(), -1).topk(2)
    close(weights, wanted, torch.float16)
    close(experts, indices.int(), torch.float16)


def test_routing_to_experts_on_a_310p() -> None:
    """A process of its own: the product does not change while it runs."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("routing_child.py")],
        env={**os.environ, "FAKECANN_PROFILE": "310p"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "MoeInitRoutingV2" in done.stdout.split()


def test_streams_and_events() -> None:
    x, side = noise(64).npu(), torch.npu.Stream()
    done = torch.npu.Event()
    side.wait_stream(torch.npu.current_stream())
    with torch.npu.stream(side):
        y = x * 2
        done.record()
    torch.npu.current_stream().wait_event(done)
    close(y + 1, noise(64) * 2 + 1, torch.float32)


def test_a_captured_graph_replays_on_new_data() -> None:
    weight, x = noise(16, 16, seed=4), noise(4, 16)
    on_device, held = x.npu(), weight.npu()
    torch.matmul(on_device, held)
    torch.npu.synchronize()
    graph = torch.npu.NPUGraph()
    with torch.npu.graph(graph):
        y = torch.matmul(on_device, held) + 1
    for seed in (7, 8):
        fresh = noise(4, 16, seed=seed)
        on_device.copy_(fresh)
        graph.replay()
        torch.npu.synchronize()
        close(y, fresh @ weight + 1, torch.float32)


def test_what_a_contract_forbids_reaches_the_user_of_torch() -> None:
    with pytest.raises(RuntimeError, match="asks for"):
        torch_npu.npu_rms_norm(noise(3, 8).double().npu(), noise(8).double().npu(), 1e-6)


# What torch-npu 2.13 does not call on an A2, and why.
NOT_REACHED = {
    "FusedInferAttentionScoreV3": "V2 is called without a rotary part",
    "FusedInferAttentionScoreV4": "V2 is called without a rotary part",
    "MoeInitRoutingV2": "V3 is called; V2 on a 310P, see the test of it",
    "InplaceAdd": "only where aclnnInplaceAdds, which is not emulated, exists too",
    "MatmulWeightNz": "tensors get the NZ format through the old operator compiler",
    "NpuFormatCast": "tensors get the NZ format through the old operator compiler",
    "TransMatmulWeight": "tensors get the NZ format through the old operator compiler",
    "QuantMatmulV4": "V5 is called",
}


def test_which_operators_the_client_reached() -> None:
    """Runs last: an operator is either reached above or listed with its reason."""
    library = ctypes.CDLL("libnnopbase.so")
    library.fakecannOperatorsUsed.restype = ctypes.c_char_p
    used = set(library.fakecannOperatorsUsed().decode().split())
    declarations = (Path(__file__).parents[1] / "abi/ops.h").read_text(encoding="utf-8")
    declared = set(re.findall(r"^FAKECANN_DECLARE\((\w+)", declarations, re.MULTILINE))
    missed = declared - used
    assert missed == set(NOT_REACHED), sorted(missed)
