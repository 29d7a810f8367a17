// SPDX-License-Identifier: Apache-2.0
#include "context.h"
#include "ops.h"

namespace turbomind::ascend {

size_t Context::workspace_size(tm_op_id op, const void* args) {
  Launch counting(*this);
  switch (op) {
#define TM_ASCEND_CASE(name)                                        \
  case TM_OP_##name:                                                \
    compose(counting, *static_cast<const tm_##name##_args*>(args)); \
    return counting.used();
    TM_ASCEND_OPS(TM_ASCEND_CASE)
#undef TM_ASCEND_CASE
    default:
      throw abi::Error(TM_INVALID_ARGUMENT, "op: expected one that the ascend backend offers, found " +
                                                std::to_string(static_cast<int>(op)));
  }
}

View contiguous_copy(Launch& launch, const View& view) {
  if (view.contiguous() && reinterpret_cast<uintptr_t>(view.data) % 32 == 0 && !launch.counting()) return view;
  View copy = view;
  copy.data = launch.take(view.type, {view.size()}).data;
  int64_t stride = 1;
  for (int i = view.rank - 1; i >= 0; --i) {
    copy.stride[static_cast<size_t>(i)] = stride;
    stride *= view.dim(i);
  }
  launch.copy(copy, view);
  return copy;
}

const Plan& paged_plan_arg(const tm_plan* handle, const tm_kv_spec& spec) {
  const Plan& plan = plan_arg(handle);
  require(plan.num_seqs() == 0 || plan.has_blocks(), "plan", "context_lens and block_table");
  require(plan.num_seqs() == 0 || plan.limits().block_size == spec.block_size, "plan", "the pool's block_size");
  return plan;
}

}  // namespace turbomind::ascend
