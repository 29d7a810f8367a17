// SPDX-License-Identifier: Apache-2.0
//
// Rotary position embedding (Su et al. 2021, arXiv:2104.09864) and the writing of keys and values into paged caches.
#include <cstring>
#include <set>

#include "abi/ops.h"
#include "nnop/call.h"
#include "nnop/number.h"

namespace fakecann {
namespace {

constexpr int64_t kHalf = 0;
constexpr int64_t kInterleave = 1;

// x * cos + turned(x) * sin, where `turned` swaps the two halves, or each pair, and negates the first of them.
std::vector<float> rotate(const std::vector<float>& x, const std::vector<float>& cos, const std::vector<float>& sin,
                          int64_t columns, int64_t mode) {
  std::vector<float> out(x.size());
  const int64_t half = columns / 2;
  for (size_t row = 0; row < x.size(); row += static_cast<size_t>(columns)) {
    for (int64_t i = 0; i < columns; ++i) {
      const bool is_first = mode == kHalf ? i < half : i % 2 == 0;
      const int64_t other = mode == kHalf ? (is_first ? i + half : i - half) : (is_first ? i + 1 : i - 1);
      const float turned = is_first ? -x[row + other] : x[row + other];
      out[row + i] = x[row + i] * cos[row + i] + turned * sin[row + i];
    }
  }
  return out;
}

void rotate_in_place(const Bound& bound, int x, int cos, int sin, int64_t mode) {
  const Dims& dims = bound.view(x).dims;
  bound.put(x, rotate(bound.floats(x), bound.floats(cos, dims), bound.floats(sin, dims), dims.back(), mode));
}

void require_table(const Call& call, const View& x, const View& table) {
  call.require(table.rank() == x.rank() && table.dim(-1) == x.dim(-1), "cos and sin have the rank and head size of x");
  for (int axis = 0; axis < x.rank(); ++axis) {
    call.require(table.dims[axis] == x.dims[axis] || table.dims[axis] == 1, "cos and sin broadcast to x");
  }
}

// Copies token t's heads to the slot's place. Norm: [blocks, block, heads, dim]; PA_NZ: [blocks, heads * dim / c0,
// block, c0].
void write_cache(const Bound& bound, int from, int cache, int slots, bool is_nz) {
  const View &source = bound.view(from), &target = bound.view(cache);
  const std::vector<int64_t> where = bound.integers(slots);
  const int64_t size = bits_of(source.dtype) / 8, heads = source.dim(1), dim = source.dim(2);
  const int64_t block = is_nz ? target.dim(2) : target.dim(1), limit = target.dim(0) * block, c0 = target.dim(3);
  const int64_t run = !is_nz && source.strides[2] == 1 ? dim : 1;  // elements that lie together on both sides
  const DataRule within = bound.rule("slots lie within the cache"), once = bound.rule("a slot is written once");
  std::set<int64_t> taken;
  for (size_t t = 0; t < where.size(); ++t) {
    const int64_t slot = where[t];
    within.require(slot >= 0 && slot < limit, "slot " + std::to_string(slot) + " of " + std::to_string(limit));
    once.require(taken.insert(slot).second, "slot " + std::to_string(slot) + " again");
    for (int64_t i = 0; i < heads * dim; i += run) {
      const int64_t at = is_nz ? ((slot / block * target.dim(1) + i / c0) * block + slot % block) * c0 + i % c0
                               : slot * heads * dim + i;
      const int64_t read =
          static_cast<int64_t>(t) * source.strides[0] + i / dim * source.strides[1] + i % dim * source.strides[2];
      std::memcpy(bound.bytes(cache) + at * size, bound.bytes(from) + read * size, static_cast<size_t>(run * size));
    }
  }
}

void require_cache(const Call& call, int from, int cache, bool is_nz) {
  const View &source = call.view(from), &target = call.view(cache);
  const int64_t row = source.dim(1) * source.dim(2);
  if (is_nz) {
    call.require(target.dim(1) * target.dim(3) == row && target.dim(3) * bits_of(target.dtype) == 256,
                 "a PA_NZ cache is [blocks, heads * dim / last, block, last] with 32 bytes in last");
  } else {
    call.require(target.dim(2) == source.dim(1) && target.dim(3) == source.dim(2),
                 "a Norm cache is [blocks, block, heads, dim]");
  }
}

}  // namespace
}  // namespace fakecann

using namespace fakecann;  // NOLINT: the exported names are global

FAKECANN_OP(RotaryPositionEmbedding, FakeIn x, FakeIn cos, FakeIn sin, int64_t mode, aclTensor* out) {
  return plan("RotaryPositionEmbedding", workspace_size, executor, [&](Call& call) {
    const int a = call.in("x", x), c = call.in("cos", cos), s = call.in("sin", sin), y = call.out("out", out);
    call.attribute("mode", mode);
    call.check();
    require_table(call, call.view(a), call.view(c));
    call.run([=](const Bound& bound) {
      const Dims& dims = bound.view(a).dims;
      bound.put(y, rotate(bound.floats(a), bound.floats(c, dims), bound.floats(s, dims), dims.back(), mode));
    });
  });
}

FAKECANN_OP(ApplyRotaryPosEmbV2, aclTensor* query, aclTensor* key, FakeIn cos, FakeIn sin, int64_t layout,
            char* rotaryMode) {
  return plan("ApplyRotaryPosEmbV2", workspace_size, executor, [&](Call& call) {
    const int q = call.out("query", query), k = call.out("key", key), c = call.in("cos", cos), s = call.in("sin", sin);
    call.attribute("layout", layout);
    const bool is_half = call.attribute("rotaryMode", rotaryMode) == "half";
    call.check();
    call.require(call.view(c).dim(-2) == 1, "cos and sin have one head");
    require_table(call, call.view(q), call.view(c));
    require_table(call, call.view(k), call.view(c));
    call.run([=](const Bound& bound) {
      rotate_in_place(bound, q, c, s, is_half ? kHalf : kInterleave);
      rotate_in_place(bound, k, c, s, is_half ? kHalf : kInterleave);
    });
  });
}

FAKECANN_OP(ScatterPaKvCache, FakeIn key, aclTensor* keyCache, FakeIn slotMapping, FakeIn value, aclTensor* valueCache,
            FakeIn compressLens, FakeIn compressSeqOffset, FakeIn seqLens, char* cacheMode, char* scatterMode,
            FakeInts strides, FakeInts offsets) {
  return plan("ScatterPaKvCache", workspace_size, executor, [&](Call& call) {
    const int k = call.in("key", key), kc = call.out("keyCache", keyCache), s = call.in("slotMapping", slotMapping);
    const int v = call.in("value", value), vc = call.out("valueCache", valueCache);
    call.in("compressLens", compressLens);
    call.in("compressSeqOffset", compressSeqOffset);
    call.in("seqLens", seqLens);
    const bool is_nz = call.attribute("cacheMode", cacheMode) == "PA_NZ";
    call.attribute("scatterMode", scatterMode);
    call.array("strides", strides);
    call.array("offsets", offsets);
    call.check();
    require_cache(call, k, kc, is_nz);
    require_cache(call, v, vc, is_nz);
    call.require(call.view(s).count() == call.view(k).dim(0), "slotMapping has one slot for each token");
    call.run([=](const Bound& bound) {
      write_cache(bound, k, kc, s, is_nz);
      write_cache(bound, v, vc, s, is_nz);
    });
  });
}
