// SPDX-License-Identifier: Apache-2.0
//
// What the CPU plug-in's attention_dense promises beyond the contract: a sequence's bits do not depend on the sequences
// beside it or on the number of threads, on every instruction set this processor has.
#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "support/test.h"
#include "turbomind/ops/ops.h"
#include "turbomind/runtime/registry.h"

namespace turbomind {
namespace {

constexpr int64_t kHeads = 4;
constexpr int64_t kKvHeads = 2;
constexpr int64_t kDim = 40;                                    // neither whole steps of the matrix unit nor a vector
constexpr int64_t kRowFloats = (kHeads + 2 * kKvHeads) * kDim;  // q, k and v of a token
const std::vector<int64_t> kLengths{300, 1, 1100, 33};          // beyond a chunk and beyond a span of positions

std::vector<std::string> instruction_sets() {
  std::vector<std::string> found;
  for (const char* isa : {"portable", "avx2", "avx512", "avx512bf16", "amx"}) {
    try {
      Device(PluginRegistry::instance().load(TM_PLUGIN_CPU), 0, {{"isa", isa}});
      found.push_back(isa);
    } catch (const Error& error) {
      EXPECT(error.code() == ErrorCode::kInvalidArgument);
    }
  }
  return found;
}

// Part of the rows' heads: [tokens, heads, kDim].
Tensor heads(const float* rows, int64_t tokens, int64_t first_head, int64_t count) {
  Tensor tensor = make_tensor(rows + first_head * kDim, TM_F32, {tokens, count, kDim});
  tensor.stride[0] = kRowFloats;
  return tensor;
}

// Of sequences that lie one after the other: [tokens, kHeads, kDim].
std::vector<float> attend(const std::string& isa, const std::string& num_threads, DType product_dtype,
                          const float* rows, const std::vector<int64_t>& lengths) {
  std::vector<int32_t> ends{0};
  int32_t longest = 0;
  for (const int64_t length : lengths) {
    ends.push_back(ends.back() + static_cast<int32_t>(length));
    longest = std::max(longest, static_cast<int32_t>(length));
  }
  const int64_t tokens = ends.back();
  Device device(PluginRegistry::instance().load(TM_PLUGIN_CPU), 0, {{"isa", isa}, {"num_threads", num_threads}});
  device.set_thread();
  Stream stream(device);
  Workspace workspace(device, stream);
  Ops ops(device, stream, workspace);
  Plan plan(device, {.max_tokens = tokens, .max_seqs = static_cast<int64_t>(lengths.size())});
  plan.update(stream, {.num_seqs = static_cast<int64_t>(lengths.size()),
                       .num_tokens = tokens,
                       .cu_seqlens_q = ends.data(),
                       .max_q_len = longest});
  std::vector<float> out(static_cast<size_t>(tokens * kHeads * kDim));
  ops.attention_dense({.q = heads(rows, tokens, 0, kHeads),
                       .k = heads(rows, tokens, kHeads, kKvHeads),
                       .v = heads(rows, tokens, kHeads + kKvHeads, kKvHeads),
                       .plan = plan.handle(),
                       .scale = 0.158f,
                       .out = make_tensor(out.data(), TM_F32, {tokens, kHeads, kDim}),
                       .product_dtype = product_dtype});
  stream.synchronize();
  return out;
}

TEST(cpu_attention_dense_is_the_same_for_every_batch_and_thread_count) {
  int64_t tokens = 0;
  for (const int64_t length : kLengths) tokens += length;
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> rows(static_cast<size_t>(tokens * kRowFloats));
  for (float& x : rows) x = normal(random);
  for (const std::string& isa : instruction_sets()) {
    for (const DType product_dtype : {TM_F32, TM_BF16}) {
      const std::vector<float> batch = attend(isa, "3", product_dtype, rows.data(), kLengths);
      int64_t first = 0;
      for (const int64_t length : kLengths) {
        const std::vector<float> alone = attend(isa, "1", product_dtype, rows.data() + first * kRowFloats, {length});
        EXPECT(std::memcmp(alone.data(), batch.data() + first * kHeads * kDim, alone.size() * sizeof(float)) == 0);
        first += length;
      }
    }
  }
}

}  // namespace
}  // namespace turbomind
