// SPDX-License-Identifier: Apache-2.0
#include "ops.h"

namespace turbomind::cuda {
namespace {

// One function per op; a template so that `requires` looks the name up in Ops.
#define TM_CUDA_WORKSPACE(name)                                                           \
  template <class Ops>                                                                    \
  size_t workspace_of_##name(Context& context, const void* args) {                        \
    if constexpr (requires { &Ops::name##_workspace; }) {                                 \
      return Ops::name##_workspace(context, *static_cast<const tm_##name##_args*>(args)); \
    } else {                                                                              \
      static_cast<void>(context), static_cast<void>(args);                                \
      return 0;                                                                           \
    }                                                                                     \
  }
TM_ALL_OPS(TM_CUDA_WORKSPACE)
#undef TM_CUDA_WORKSPACE

}  // namespace

size_t Context::workspace_size(tm_op_id op, const void* args) {
  switch (op) {
#define TM_CUDA_CASE(name) \
  case TM_OP_##name:       \
    return workspace_of_##name<CudaOps>(*this, args);
    TM_ALL_OPS(TM_CUDA_CASE)
#undef TM_CUDA_CASE
    default:
      throw abi::Error(TM_INVALID_ARGUMENT,
                       "op: expected one of tm_op_id, found " + std::to_string(static_cast<int>(op)));
  }
}

}  // namespace turbomind::cuda
