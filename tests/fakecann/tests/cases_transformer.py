# SPDX-License-Identifier: Apache-2.0
"""Valid calls of the operators that transformers are made of, and the list of all calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from cases import (
    Call,
    In,
    Ints,
    Many,
    copies,
    elementwise,
    format_cast,
    full_precision_matrices,
    indices,
    masked,
    matrices,
    noise,
    out,
    reductions,
    rng,
    rounded,
    sigmoid,
    softmax,
)


def quantised(half: str) -> list[Call]:
    x1, x2 = rng().integers(-128, 128, (3, 64)), rng().integers(-128, 128, (64, 32))
    scale, bias = np.abs(noise((32,), "f32", 1e-3)), rng().integers(-500, 500, 32)
    bits = scale.astype(np.float32).view(np.uint32).astype(np.uint64)
    x, shape = noise((3, 64), half), (64, 32)
    weight, w_scale, w_offset = (
        rng().integers(-8, 8, shape),
        noise((2, 32), half, 0.1),
        noise((2, 32), half),
    )
    spread = [np.repeat(each, 32, axis=0) for each in (w_scale, w_offset)]
    added = noise((32,), "f16")
    top = np.abs(x).max(1, keepdims=True)
    levels = np.round(x * 127 / top)
    integers = {
        "x1": In(x1, "i8"),
        "x2": In(x2, "i8"),
        "bias": In(bias, "i32"),
        "out": out((3, 32), half),
    }
    weights = {
        "x": In(x, half),
        "antiquantScale": In(w_scale, half),
        "antiquantOffset": In(w_offset, half),
        "antiquantGroupSize": 32,
        "bias": In(added, "f32" if half == "bf16" else "f16"),
        "y": out((3, 32), half),
    }
    expected = {"y": x @ ((weight + spread[1]) * spread[0]) + added}
    calls = [
        Call(
            "DynamicQuant",
            {"x": In(x, half), "y": out((3, 64), "i8"), "scale": out((3,), "f32")},
            {"y": levels, "scale": top[:, 0] / 127},
        ),
        Call("WeightQuantBatchMatmulV2", {**weights, "weight": In(weight, "i8")}, expected),
        Call(
            "QuantMatmulV4",
            {**integers, "scale": In(bits, "u64") if half == "f16" else In(scale, "f32")},
            {"out": (x1 @ x2 + bias) * scale},
        ),
    ]
    return calls


def quantised_beyond_310p(half: str) -> list[Call]:
    """Per-token scales and 4-bit weights."""
    base = {call.op: call for call in quantised(half)}
    matmul, weight = base["QuantMatmulV4"], base["WeightQuantBatchMatmulV2"]
    token = np.abs(noise((3,), "f32"))
    scale = np.abs(noise((32,), "f32", 1e-3))
    values = weight.arguments["weight"].values
    named = {name: matmul.arguments[name] for name in ("x1", "x2", "bias", "out")}
    return [
        replace(
            matmul.having(scale=In(scale, "f32"), pertokenScale=In(token, "f32")),
            expected={"out": matmul.expected["out"] * token[:, None]},
        ),
        Call(
            "QuantMatmulV5",
            {**named, "x1Scale": In(token, "f32"), "x2Scale": In(scale, "f32")},
            {"out": matmul.expected["out"] * token[:, None]},
        ),
        Call(
            "QuantMatmulV5",
            {**named, "x2Scale": matmul.arguments["scale"]},
            matmul.expected,
        ),
        replace(weight.having(weight=In(values, "i4")), expected=weight.expected),
    ]


def layers(half: str) -> list[Call]:
    x, second, gamma, beta = (
        noise((3, 64), half),
        noise((3, 64), half),
        noise((64,), half),
        noise((64,), half),
    )
    total = rounded(x + second, half)

    def norm(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inverse = 1 / np.sqrt((values**2).mean(1, keepdims=True) + 1e-5)
        return values * inverse * gamma, inverse

    (y, rstd), (summed, sum_rstd) = norm(x), norm(total)
    mean, inverse = x.mean(1, keepdims=True), 1 / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    wide = noise((2, 256), half)
    normed = {
        "gamma": In(gamma, half),
        "epsilon": 1e-5,
        "y": out((3, 64), half),
        "rstd": out((3, 1), "f32"),
    }
    return [
        Call("RmsNorm", {"x": In(x, half), **normed}, {"y": y, "rstd": rstd}),
        Call(
            "AddRmsNorm",
            {"x1": In(x, half), "x2": In(second, half), **normed, "x": out((3, 64), half)},
            {"x": total, "y": summed, "rstd": sum_rstd},
        ),
        Call(
            "LayerNorm",
            {
                "input": In(x, half),
                "normalized_shape": Ints((64,)),
                "weight": In(gamma, half),
                "bias": In(beta, half),
                "epsilon": 1e-5,
                "out": out((3, 64), half),
                "mean": out((3, 1), half),
                "rstd": out((3, 1), half),
            },
            {"out": (x - mean) * inverse * gamma + beta, "mean": mean, "rstd": inverse},
        ),
        Call(
            "SwiGlu",
            {"x": In(wide, half), "dim": -1, "out": out((2, 128), half)},
            {"out": wide[:, :128] * sigmoid(wide[:, :128]) * wide[:, 128:]},
        ),
    ]


def turn(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    low, high = np.split(x, 2, axis=-1)
    return x * cos + np.concatenate([-high, low], axis=-1) * sin


def rotations(half: str, mode: int = 0) -> list[Call]:
    x, angle = noise((1, 4, 3, 64), half), rng().uniform(0, 6, (1, 4, 1, 64))
    cos, sin = rounded(np.cos(angle), half), rounded(np.sin(angle), half)
    q, k, wide = (
        noise((1, 4, 3, 128), half),
        noise((1, 4, 1, 128), half),
        rng().uniform(0, 6, (1, 4, 1, 128)),
    )
    wide_cos, wide_sin = rounded(np.cos(wide), half), rounded(np.sin(wide), half)
    tables = {
        "cos": In(wide_cos, half),
        "sin": In(wide_sin, half),
        "layout": 1,
        "rotaryMode": "half",
    }
    return [
        Call(
            "RotaryPositionEmbedding",
            {
                "x": In(x, half),
                "cos": In(cos, half),
                "sin": In(sin, half),
                "mode": 0,
                "out": out(x.shape, half),
            },
            {"out": turn(x, cos, sin)},
        ),
        Call(
            "ApplyRotaryPosEmbV2",
            {"query": In(q, half), "key": In(k, half), **tables},
            {"query": turn(q, wide_cos, wide_sin), "key": turn(k, wide_cos, wide_sin)},
        ),
    ]


def paged_writes(half: str) -> list[Call]:
    k, v, slots = noise((3, 2, 16), half), noise((3, 2, 16), half, 2.0), np.array([5, 0, 17])
    cache = np.full((3, 8, 2, 16), 77.0)
    keys, values = cache.copy(), cache.copy()
    keys.reshape(24, 2, 16)[slots], values.reshape(24, 2, 16)[slots] = k, v
    call = Call(
        "ScatterPaKvCache",
        {
            "key": In(k, half),
            "keyCache": In(cache, half),
            "slotMapping": In(slots, "i32"),
            "value": In(v, half),
            "valueCache": In(cache, half),
            "cacheMode": "Norm",
            "scatterMode": "None",
        },
        {"keyCache": keys, "valueCache": values},
    )
    blocks = {"keyCache": keys, "valueCache": values}
    in_nz = {name: np.moveaxis(each.reshape(3, 8, 2, 16), 1, 2) for name, each in blocks.items()}
    nz_cache = In(np.full((3, 2, 8, 16), 77), half)
    return [
        call,
        replace(
            call.having(keyCache=nz_cache, valueCache=nz_cache, cacheMode="PA_NZ"), expected=in_nz
        ),
    ]


MASK = np.triu(np.ones((2048, 2048), np.int8), 1)


def attend(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float, sees: Callable[[int, int], bool]
) -> np.ndarray:
    """[rows, heads, dim] of queries over [context, kv heads, dim]; sees(row, position)."""
    result, group = np.zeros((*q.shape[:2], v.shape[2])), q.shape[1] // k.shape[1]
    allowed = np.array([[sees(i, j) for j in range(len(k))] for i in range(len(q))])
    for head in range(q.shape[1]):
        scores = q[:, head] @ k[:, head // group].T * scale
        result[:, head] = softmax(np.where(allowed, scores, -np.inf)) @ v[:, head // group]
    return result


class Mixture:
    """Three sequences, chunks and single rows, over contexts packed and in blocks."""

    rows, contexts = (3, 1, 4), (20, 33, 4)
    table = np.array([[4, 2, 7], [1, 8, 3], [6, -1, -1]])  # the last sequence has no third block

    def __init__(self, half: str, dim: int, block: int) -> None:
        self.half, self.scale, self.block = half, dim**-0.5, block
        tokens = sum(self.contexts)
        self.q = noise((sum(self.rows), 4, dim), half)
        self.k, self.v = noise((tokens, 2, dim), half), noise((tokens, 2, dim), half, 0.7)
        self.starts = np.cumsum((0, *self.contexts))

    def paged(self, source: np.ndarray) -> np.ndarray:
        """The cache's blocks; what no sequence owns is not a number."""
        cache = np.full((9, self.block, source[0].size), np.nan)
        for b, context in enumerate(self.contexts):
            for s in range(context):
                cache[self.table[b, s // self.block], s % self.block] = source[
                    self.starts[b] + s
                ].reshape(-1)
        return cache

    def expected(self, sees: Callable[[int, int, int], bool]) -> np.ndarray:
        """sees(row, position, positions before the first row)."""
        parts, first = [], 0
        for b, count in enumerate(self.rows):
            there, shift = slice(self.starts[b], self.starts[b + 1]), self.contexts[b] - count
            chunk = self.q[first : first + count]
            visible = partial(lambda i, j, s: sees(i, j, s), s=shift)
            parts.append(attend(chunk, self.k[there], self.v[there], self.scale, visible))
            first += count
        return np.concatenate(parts)

    def arguments(self) -> dict[str, Any]:
        return {
            "query": In(self.q, self.half),
            "key": Many((In(self.k, self.half),)),
            "value": Many((In(self.v, self.half),)),
            "actualSeqLengths": Ints(tuple(int(n) for n in np.cumsum(self.rows))),
            "actualSeqLengthsKv": Ints(tuple(int(n) for n in np.cumsum(self.contexts))),
            "numHeads": 4,
            "numKeyValueHeads": 2,
            "scaleValue": self.scale,
            "inputLayout": "TND",
            "preTokens": 2147483647,
            "nextTokens": 2147483647,
            "attentionOut": out(self.q.shape, self.half),
            "softmaxLse": out((1,), "f32"),
        }

    def paging(self) -> dict[str, Any]:
        return {
            "key": Many((In(self.paged(self.k), self.half),)),
            "value": Many((In(self.paged(self.v), self.half),)),
            "blockTable": In(self.table, "i32"),
            "blockSize": self.block,
            "actualSeqLengthsKv": Ints(self.contexts),
        }


FIA = [f"FusedInferAttentionScoreV{version}" for version in (2, 3, 4)]


def attentions(half: str, dim: int = 128, block: int = 16) -> list[Call]:
    mixture = Mixture(half, dim, block)
    base, blocks = mixture.arguments(), mixture.paging()
    causal = {"attenMask": In(MASK, "bool"), "sparseMode": 3}
    band = {"attenMask": In(MASK, "i8"), "sparseMode": 4, "preTokens": 9, "nextTokens": 0}
    right_down = mixture.expected(lambda i, j, s: j <= i + s)
    banded = mixture.expected(lambda i, j, s: i + s - 9 <= j <= i + s)
    return [
        Call(FIA[1], base, {"attentionOut": mixture.expected(lambda i, j, s: True)}),
        Call(FIA[0], {**base, **causal}, {"attentionOut": right_down}),
        *(Call(op, {**base, **blocks, **causal}, {"attentionOut": right_down}) for op in FIA),
        Call(FIA[1], {**base, **blocks, **band}, {"attentionOut": banded}),
    ]


def dense_attentions(half: str, dim: int = 128) -> list[Call]:
    """Whole batches in the three layouts that have a batch axis."""
    dense, found = noise((2, 5, 4, dim), half), []
    scale = dim**-0.5
    whole = np.stack([attend(part, part, part, scale, lambda i, j: True) for part in dense])
    for layout in ("BSND", "BNSD", "BSH"):
        lay = partial(laid_out, layout=layout)
        shaped = In(lay(dense), half)
        arguments = {
            "query": shaped,
            "key": Many((shaped,)),
            "value": Many((shaped,)),
            "numHeads": 4,
            "numKeyValueHeads": 4,
            "scaleValue": scale,
            "inputLayout": layout,
            "attentionOut": out(lay(dense).shape, half),
            "softmaxLse": out((1,), "f32"),
        }
        found += [Call(op, arguments, {"attentionOut": lay(whole)}) for op in FIA]
    return found


def laid_out(x: np.ndarray, layout: str) -> np.ndarray:
    """[batch, tokens, heads, dim] in another order."""
    if layout == "BSH":
        return x.reshape(*x.shape[:2], -1)
    return np.ascontiguousarray(x.transpose(0, 2, 1, 3)) if layout == "BNSD" else x


def experts(half: str) -> list[Call]:
    logits = noise((5, 8), half)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :2]
    weights = np.take_along_axis(softmax(logits), order, 1)
    routing = {
        "x": In(logits, half),
        "k": 2,
        "y": out((5, 2), half),
        "expertIdx": out((5, 2), "i32"),
    }
    asked = {"renorm": 0, "softmaxResultFlag": True, "softmaxOut": out((5, 8), "f32")}
    shares = weights / weights.sum(1, keepdims=True)
    return [
        Call("MoeGatingTopKSoftmaxV2", {**routing, "renorm": 1}, {"y": shares, "expertIdx": order}),
        Call(
            "MoeGatingTopKSoftmaxV2",
            {**routing, **asked},
            {"y": weights, "expertIdx": order, "softmaxOut": softmax(logits)},
        ),
    ]


def token_routing(half: str, index: str) -> list[Call]:
    """Pairs of tokens and experts by expert, those of one in the order of the pairs."""
    x, ids = noise((4, 32), half), np.array([[3, 1], [1, 0], [4, 3], [1, 4]])
    order = np.argsort(ids.reshape(-1), kind="stable")
    rows, counts = np.argsort(order), np.bincount(ids.reshape(-1), minlength=6)
    arguments = {
        "x": In(x, half),
        "expertIdx": In(ids, index),
        "expertNum": 6,
        "expandedX": out((8, 32), half),
        "expandedRowIdx": out((8,), "i32"),
        "expertTokensCountOrCumsum": out((6,), "i32"),
        "expertTokensBeforeCapacity": out((6,), "i32"),
    }
    expected = {"expandedX": x[order // 2], "expandedRowIdx": rows}
    return [
        Call(
            "MoeInitRoutingV2",
            {**arguments, "expertTokensCountOrCumsumFlag": flag},
            {**expected, "expertTokensCountOrCumsum": tokens},
        )
        for flag, tokens in ((1, np.cumsum(counts)), (2, counts))
    ]


def expert_products(half: str) -> list[Call]:
    x, weight = noise((6, 32), half), noise((3, 32, 16), half, 0.3)
    ends = np.array([2, 2, 6])
    product = np.concatenate([x[:2] @ weight[0], x[2:] @ weight[2]])
    rows, scales = np.array([3, 0, 5, 1, 4, 2]), np.abs(noise((3, 2), half))
    summed = (x[rows].reshape(3, 2, 32) * scales[..., None]).sum(1)
    return [
        Call(
            "GroupedMatmulV4",
            {
                "x": Many((In(x, half),)),
                "weight": Many((In(weight, half),)),
                "groupList": In(ends, "i64"),
                "splitItem": 3,
                "out": Many((out((6, 16), half),)),
            },
            {"out": product},
        ),
        Call(
            "MoeFinalizeRoutingV2",
            {
                "expandedX": In(x, half),
                "expandedRowIdx": In(rows, "i32"),
                "scales": In(scales, half),
                "dropPadMode": 2,
                "out": out((3, 32), half),
            },
            {"out": summed},
        ),
        Call(
            "MoeFinalizeRoutingV2",
            {
                "expandedX": In(x, half),
                "expandedRowIdx": In(rows, "i32"),
                "dropPadMode": 2,
                "out": out((6, 32), half),
            },
            {"out": x[rows]},
        ),
    ]


def shared_experts(half: str) -> list[Call]:
    """The sum with all that may be added to it; rows by column."""
    x, scales, bias = noise((6, 32), half), np.abs(noise((3, 2), "f32")), noise((4, 32), half)
    rows, ids = np.array([3, 0, 5, 1, 4, 2]), np.array([[0, 3], [2, 1], [3, 3]])
    shared = [noise((3, 32), half, scale) for scale in (0.5, 2.0)]
    scales = rounded(scales, half)
    chosen = x[rows.reshape(2, 3).T] + bias[ids]
    return [
        Call(
            "MoeFinalizeRoutingV2",
            {
                "expandedX": In(x, half),
                "expandedRowIdx": In(rows, "i32"),
                "x1": In(shared[0], half),
                "x2": In(shared[1], half),
                "bias": In(bias, half),
                "scales": In(scales, half),
                "expertIdx": In(ids, "i32"),
                "dropPadMode": 0,
                "out": out((3, 32), half),
            },
            {"out": shared[0] + shared[1] + (chosen * scales[..., None]).sum(1)},
        )
    ]


def calls(profile: str) -> list[Call]:
    """Valid calls of every operator that the profile has."""
    found = full_precision_matrices()
    for half in ("f16",) if profile == "310p" else ("bf16", "f16"):
        found += elementwise(half) + masked(half) + copies(half) + reductions(half) + indices(half)
        found += (
            layers(half)
            + rotations(half)
            + quantised(half)
            + expert_products(half)
            + token_routing(half, "i64" if profile == "950" and half == "f16" else "i32")
            + matrices(half)
        )
        if profile != "310p":
            found += (
                format_cast(half)
                + paged_writes(half)
                + experts(half)
                + shared_experts(half)
                + quantised_beyond_310p(half)
            )
        if profile in ("a2", "a3"):
            found += attentions(half) + attentions(half, 64) + dense_attentions(half)
    if profile == "a2-8.5":
        found += attentions("bf16", block=128) + dense_attentions("bf16")
    return found
