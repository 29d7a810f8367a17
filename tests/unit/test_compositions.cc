// SPDX-License-Identifier: Apache-2.0
//
// The default compositions, run on the CPU plug-in with its optional slots taken away, against the reference.
#include <dlfcn.h>

#include <thread>
#include <vector>

#include "reference/ops.h"
#include "support/test.h"
#include "turbomind/ops/ops.h"

namespace turbomind {
namespace {

using reference::Values;

// The CPU plug-in, as a backend that offers required ops only.
const Plugin& required_only() {
  static tm_op_api op;
  static tm_backend_api api;
  static const std::unique_ptr<const Plugin> plugin = [] {
    void* library = dlopen(TM_PLUGIN_CPU, RTLD_NOW | RTLD_LOCAL);
    check(library != nullptr, ErrorCode::kInternal, "the CPU plug-in cannot be loaded");
    const auto entry = reinterpret_cast<tm_backend_get_api_fn>(dlsym(library, TM_BACKEND_ENTRY));
    const tm_backend_api* table = nullptr;
    check(entry(nullptr, TM_ABI_MAJOR, &table) == TM_OK, ErrorCode::kInternal, "the CPU plug-in refuses this core");
    api = *table;
    op = *table->op;
#define TM_TAKE_AWAY(name) op.name = nullptr;
    TM_OPTIONAL_OPS(TM_TAKE_AWAY)
#undef TM_TAKE_AWAY
    api.op = &op;
    return Plugin::from_table(api, "cpu without optional ops");
  }();
  return *plugin;
}

// Host-accessible tensors on a device of the plug-in.
struct Fixture {
  Fixture()
      : device(required_only(), 0, {{"num_threads", "1"}}),
        stream(device),
        workspace(device, stream),
        ops(device, stream, workspace) {
    device.set_thread();
  }

  // Values in [-1, 1), another sequence for each seed.
  Tensor tensor(std::initializer_list<int64_t> shape, int seed) {
    const Tensor view = make_tensor(static_cast<void*>(nullptr), TM_F32, shape);
    buffers.emplace_back(device, nbytes(view));
    const Tensor result = make_tensor(buffers.back().data(), TM_F32, shape);
    auto* data = static_cast<float*>(result.data);
    for (int64_t i = 0; i < num_elements(result); ++i) {
      data[i] = static_cast<float>((i * 37 + seed * 101) % 64 - 32) / 32;
    }
    return result;
  }

  Device device;
  Stream stream;
  Workspace workspace;
  Ops ops;
  std::vector<Buffer> buffers;
};

Values values(const Tensor& tensor) {
  const auto* data = static_cast<const float*>(tensor.data);
  return Values(data, data + num_elements(tensor));
}

void expect_values(const Tensor& found, const Values& expected) {
  const Values result = values(found);
  EXPECT_EQ(result.size(), expected.size());
  for (size_t i = 0; i < result.size(); ++i) EXPECT_NEAR(result[i], expected.at(i), 2e-5);
}

TEST(add_rms_norm_is_an_addition_and_a_norm) {
  Fixture f;
  const Tensor x = f.tensor({3, 20}, 1);
  const Tensor residual = f.tensor({3, 20}, 2);
  const Tensor weight = f.tensor({20}, 3);
  Values sum = values(x);
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += values(residual)[i];
  f.ops.add_rms_norm({.x = x, .residual = residual, .weight = weight, .eps = 1e-5f, .out = x});
  f.stream.synchronize();
  expect_values(residual, sum);
  expect_values(x, reference::rms_norm(sum, values(weight), 1e-5));
}

TEST(linear_gated_activation_is_two_linears_and_a_product) {
  Fixture f;
  const Tensor x = f.tensor({5, 32}, 1);
  const Tensor gate_bias = f.tensor({12}, 4);
  const Tensor out = f.tensor({5, 12}, 0);
  std::vector<PackedWeight> packed;
  std::vector<Values> matrices;
  for (const int seed : {2, 3}) {
    const Tensor matrix = f.tensor({12, 32}, seed);
    const tm_weight_part part{.data = matrix.data, .rows = 12, .row_stride_bytes = 128};
    packed.emplace_back(f.device, f.stream,
                        tm_weight_desc{.format = TM_WEIGHT_F32,
                                       .compute = TM_COMPUTE_FLOAT32,
                                       .rows = 12,
                                       .cols = 32,
                                       .parts = &part,
                                       .num_parts = 1},
                        nullptr);
    matrices.push_back(values(matrix));
  }
  f.ops.linear_gated_activation({.x = x,
                                 .gate = packed[0].handle(),
                                 .up = packed[1].handle(),
                                 .gate_bias = gate_bias,
                                 .kind = TM_ACTIVATION_SILU,
                                 .out = out});
  f.stream.synchronize();
  Values expected = reference::linear(values(x), matrices[0], values(gate_bias), 32, TM_ACTIVATION_SILU);
  const Values up = reference::linear(values(x), matrices[1], {}, 32, TM_ACTIVATION_NONE);
  for (size_t i = 0; i < up.size(); ++i) expected[i] *= up[i];
  expect_values(out, expected);
}

// One sequence of three tokens, the whole of its context, in a pool of one block.
struct Chunk {
  static constexpr int64_t kTokens = 3;
  static constexpr int64_t kDim = 32;

  explicit Chunk(Fixture& f)
      : pool(f.device, f.device.kv_pool_bytes(kSpec, 1)),
        plan(f.device, {.max_tokens = kTokens, .max_seqs = 1, .max_blocks_per_seq = 1, .block_size = 16}) {
    f.stream.memset(pool.data(), 0, pool.bytes());
    const int32_t cu[] = {0, kTokens};
    const int32_t lens[] = {kTokens};
    const int32_t table[] = {0};
    plan.update(f.stream, {.num_seqs = 1,
                           .num_tokens = kTokens,
                           .cu_seqlens_q = cu,
                           .context_lens = lens,
                           .block_table = table,
                           .block_table_stride = 1,
                           .max_q_len = kTokens});
  }
  tm_kv_pool kv() const { return {.data = pool.data(), .num_blocks = 1, .spec = kSpec}; }

  static constexpr tm_kv_spec kSpec{
      .num_kv_heads = 1, .head_dim_k = kDim, .head_dim_v = kDim, .block_size = 16, .dtype = TM_F32};
  Buffer pool;
  Plan plan;
};

Values normed_and_rotated(const Tensor& x, const Tensor& weight, const Tensor& cos_sin) {
  Values result = reference::rms_norm(values(x), values(weight), 1e-6);
  reference::rope({.num_tokens = x.shape[0],
                   .heads = x.shape[1],
                   .dim = x.shape[2],
                   .rotary_dim = x.shape[2],
                   .style = TM_ROPE_NEOX,
                   .positions = {0, 1, 2},
                   .cos_sin = values(cos_sin)},
                  result);
  return result;
}

// Causal attention of two query heads over one kv head.
Values causal_attention(const Values& q, const Values& keys, const Values& stored, double scale) {
  Values out(q.size());
  reference::AttendedRow row;
  for (int64_t t = 0; t < Chunk::kTokens; ++t) {
    row.keys.push_back(keys.data() + t * Chunk::kDim);
    row.values.push_back(stored.data() + t * Chunk::kDim);
    reference::attend({.q_heads = 2, .kv_heads = 1, .dim_k = Chunk::kDim, .dim_v = Chunk::kDim, .scale = scale},
                      q.data() + t * 2 * Chunk::kDim, row, out.data() + t * 2 * Chunk::kDim);
  }
  return out;
}

TEST(qk_norm_rope_kv_write_leaves_q_rotated_and_the_cache_filled) {
  Fixture f;
  const Chunk chunk(f);
  const Tensor q = f.tensor({Chunk::kTokens, 2, Chunk::kDim}, 1);
  const Tensor k = f.tensor({Chunk::kTokens, 1, Chunk::kDim}, 2);
  const Tensor v = f.tensor({Chunk::kTokens, 1, Chunk::kDim}, 3);
  const Tensor q_weight = f.tensor({Chunk::kDim}, 4);
  const Tensor k_weight = f.tensor({Chunk::kDim}, 5);
  const Tensor cos_sin = f.tensor({Chunk::kTokens, Chunk::kDim}, 6);
  const Tensor out = f.tensor({Chunk::kTokens, 2, Chunk::kDim}, 0);
  const Buffer ids(f.device, sizeof(int32_t) * Chunk::kTokens);
  const Tensor positions = make_tensor(ids.data(), TM_I32, {Chunk::kTokens});
  for (int32_t i = 0; i < Chunk::kTokens; ++i) static_cast<int32_t*>(positions.data)[i] = i;
  const Values rotated_q = normed_and_rotated(q, q_weight, cos_sin);
  const Values keys = normed_and_rotated(k, k_weight, cos_sin);

  const tm_rope_args rope_args{
      .q = q, .k = k, .positions = positions, .cos_sin = cos_sin, .rotary_dim = Chunk::kDim, .style = TM_ROPE_NEOX};
  f.ops.qk_norm_rope_kv_write({.rope = rope_args,
                               .q_norm_weight = q_weight,
                               .k_norm_weight = k_weight,
                               .norm_eps = 1e-6f,
                               .kv_write = {.k = k, .v = v, .kv = chunk.kv(), .plan = chunk.plan.handle()}});
  f.ops.attention({.q = q, .kv = chunk.kv(), .plan = chunk.plan.handle(), .scale = 0.2f, .out = out});
  f.stream.synchronize();
  expect_values(q, rotated_q);
  expect_values(out, causal_attention(rotated_q, keys, values(v), 0.2));
}

TEST(all_reduce_add_rms_norm_sums_over_ranks_first) {
  Fixture first;
  Fixture second;
  const CommId id = Comm::unique_id(first.device);
  const auto run_rank = [&](Fixture& f, int rank) {
    Comm comm(f.device, id, rank, 2);
    const Tensor x = f.tensor({2, 16}, 10 + rank);
    const Tensor residual = f.tensor({2, 16}, 1);
    const Tensor weight = f.tensor({16}, 2);
    const Tensor out = f.tensor({2, 16}, 0);
    Values sum = values(residual);
    const Values shares[] = {values(f.tensor({2, 16}, 10)), values(f.tensor({2, 16}, 11))};
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += shares[0][i] + shares[1][i];
    f.ops.all_reduce_add_rms_norm(
        {.comm = comm.handle(), .norm = {.x = x, .residual = residual, .weight = weight, .eps = 1e-5f, .out = out}});
    f.stream.synchronize();
    expect_values(residual, sum);
    expect_values(out, reference::rms_norm(sum, values(weight), 1e-5));
  };
  std::thread other([&] {
    second.device.set_thread();
    run_rank(second, 1);
  });
  run_rank(first, 0);
  other.join();
}

}  // namespace
}  // namespace turbomind
