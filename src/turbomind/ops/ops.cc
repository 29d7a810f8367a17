// SPDX-License-Identifier: Apache-2.0
#include "turbomind/ops/ops.h"

#include <algorithm>

namespace turbomind {

const char* op_name(tm_op_id op) {
  static constexpr const char* kNames[] = {
#define TM_OP_NAME(name) #name,
      TM_ALL_OPS(TM_OP_NAME)
#undef TM_OP_NAME
  };
  return op >= 0 && op < TM_NUM_OPS ? kNames[op] : "unknown op";
}

bool Ops::offered(tm_op_id op) const {
  switch (op) {
#define TM_OP_CASE(name) \
  case TM_OP_##name:     \
    return device_.plugin().op().name != nullptr;
    TM_ALL_OPS(TM_OP_CASE)
#undef TM_OP_CASE
    default:
      return false;
  }
}

tm_workspace Ops::require_workspace(size_t bytes) {
  peak_workspace_bytes_ = std::max(peak_workspace_bytes_, bytes);
  if (mode_ == Mode::kMeasure) return {nullptr, bytes};
  return workspace_.require(bytes);
}

}  // namespace turbomind
