// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "support/null_backend.h"
#include "support/test.h"
#include "turbomind/ops/ops.h"

namespace turbomind {
namespace {

struct Fixture {
  explicit Fixture(const Config& config = {}, Ops::Mode mode = Ops::Mode::kRun)
      : null(TM_PLUGIN_NULL),
        device(null.plugin(), 0, config),
        stream(device),
        workspace(device, stream),
        ops(device, stream, workspace, mode) {}

  Tensor tensor(std::initializer_list<int64_t> shape, DType dtype = TM_F32) {
    const Tensor view = make_tensor(static_cast<void*>(nullptr), dtype, shape);
    buffers.emplace_back(device, nbytes(view) + 1);
    return make_tensor(buffers.back().data(), dtype, shape);
  }

  test::NullBackend null;
  Device device;
  Stream stream;
  Workspace workspace;
  Ops ops;
  std::vector<Buffer> buffers;
};

TEST(wrong_arguments_are_named_with_expected_and_found) {
  Fixture f;
  const Tensor x = f.tensor({3, 8});
  const Tensor weight = f.tensor({8});
  f.ops.rms_norm({.x = x, .weight = weight, .eps = 1e-5f, .out = x});
  EXPECT_EQ(f.null.count("rms_norm"), 1);
  EXPECT_ERROR(f.ops.rms_norm({.x = x, .weight = f.tensor({7}), .out = x}), ErrorCode::kInvalidArgument,
               "rms_norm: weight: expected f32 [8] with contiguous rows, found f32 [7]");
  EXPECT_ERROR(f.ops.rms_norm({.x = x, .out = x}), ErrorCode::kInvalidArgument, "found nothing");
  EXPECT_ERROR(f.ops.rms_norm({.x = x, .weight = weight, .out = f.tensor({4, 8})}), ErrorCode::kInvalidArgument,
               "rms_norm: out: expected f32 [3, 8], found f32 [4, 8]");
  EXPECT_ERROR(f.ops.rms_norm({.x = f.tensor({3, 8}, TM_BF16), .weight = weight, .out = x}),
               ErrorCode::kInvalidArgument, "an activation dtype of the backend");
  EXPECT_EQ(f.null.count("rms_norm"), 1);
}

TEST(linear_checks_every_output) {
  Fixture f;
  const Tensor x = f.tensor({2, 4});
  EXPECT_ERROR(f.ops.linear({.x = x, .num_weights = 5}), ErrorCode::kInvalidArgument, "num_weights: expected 1 to 4");
  EXPECT_ERROR(f.ops.linear({.x = x, .num_weights = 1, .out = {f.tensor({2, 4})}}), ErrorCode::kInvalidArgument,
               "linear: weight: expected a handle");
}

TEST(attention_checks_heads_against_the_pool) {
  Fixture f;
  const Plan plan(f.device, {.max_tokens = 4, .max_seqs = 1, .max_blocks_per_seq = 1, .block_size = 4});
  const Tensor pool = f.tensor({16});
  const tm_kv_pool kv{pool.data, 1, {.num_kv_heads = 2, .head_dim_k = 8, .head_dim_v = 8, .block_size = 4}};
  const Tensor q = f.tensor({1, 3, 8});
  EXPECT_ERROR(f.ops.attention({.q = q, .kv = kv, .plan = plan.handle(), .out = q}), ErrorCode::kInvalidArgument,
               "attention: q: expected a multiple of the kv heads");
  const int32_t pairs[] = {0, 1};
  EXPECT_ERROR(f.ops.kv_copy_blocks({.kv = kv, .pairs = pairs, .num_pairs = 1}), ErrorCode::kInvalidArgument,
               "block ids of the pool, found 1");
}

TEST(an_op_that_only_some_models_need_is_refused_by_name_where_it_is_missing) {
  Fixture f;
  const Tensor x = f.tensor({2, 8});
  EXPECT(!f.ops.offered(TM_OP_softcap));
  EXPECT_ERROR(f.ops.softcap({.x = x, .cap = 30, .out = x}), ErrorCode::kUnsupported,
               "softcap: the null backend does not offer this op");
  EXPECT_ERROR(f.ops.softcap({.x = x, .cap = 0, .out = x}), ErrorCode::kInvalidArgument, "softcap: cap");
}

TEST(zero_rows_need_no_data) {
  Fixture f;
  const Tensor empty = make_tensor(static_cast<void*>(nullptr), TM_F32, {0, 8});
  f.ops.add({.a = empty, .b = empty, .out = empty});
  EXPECT_EQ(f.null.count("add"), 1);
}

TEST(optional_ops_run_as_compositions) {
  Fixture f;
  EXPECT(!f.ops.offered(TM_OP_add_rms_norm));
  EXPECT(f.ops.offered(TM_OP_rms_norm));
  const Tensor x = f.tensor({2, 4});
  const Tensor weight = f.tensor({4});
  f.ops.add_rms_norm({.x = x, .residual = f.tensor({2, 4}), .weight = weight, .eps = 1e-5f, .out = x});
  EXPECT_EQ(f.null.count("add"), 1);
  EXPECT_EQ(f.null.count("rms_norm"), 1);

  const std::vector<float> values(16);
  const tm_weight_part part{.data = values.data(), .rows = 4, .row_stride_bytes = 16};
  const tm_weight_desc desc{.format = TM_WEIGHT_F32, .rows = 4, .cols = 4, .parts = &part, .num_parts = 1};
  const PackedWeight packed(f.device, f.stream, desc, nullptr);
  f.ops.linear_gated_activation(
      {.x = x, .gate = packed.handle(), .up = packed.handle(), .kind = TM_ACTIVATION_SILU, .out = f.tensor({2, 4})});
  EXPECT_EQ(f.null.count("linear"), 1);
  EXPECT_EQ(f.null.count("gated_activation"), 1);
  EXPECT_EQ(f.ops.peak_workspace_bytes(), 512u);
}

TEST(measuring_runs_nothing) {
  Fixture f({}, Ops::Mode::kMeasure);
  Arena arena;
  const Tensor x = arena.allocate("x", TM_F32, {2, 4});
  f.ops.add({.a = x, .b = x, .out = x});
  EXPECT_EQ(f.null.count("add"), 0);
}

TEST(a_failing_op_throws_the_backends_words) {
  Fixture f;
  const Tensor x = f.tensor({2, 4});
  f.null.fail("add", 1, TM_DEVICE_ERROR);
  EXPECT_ERROR(f.ops.add({.a = x, .b = x, .out = x}), ErrorCode::kDevice, "null backend: add: injected fault in add");
  f.ops.add({.a = x, .b = x, .out = x});
}

TEST(op_names_follow_the_contract) {
  EXPECT_EQ(std::string(op_name(TM_OP_embedding)), "embedding");
  EXPECT_EQ(std::string(op_name(TM_OP_all_reduce_add_rms_norm)), "all_reduce_add_rms_norm");
}

}  // namespace
}  // namespace turbomind
