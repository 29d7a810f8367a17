// SPDX-License-Identifier: Apache-2.0
//
// Every function that the Ascend plug-in declares has, in the emulator, the same type. Wrong is what does not compile.
#include <type_traits>

#include "acl/types.h"
// After it: both name the same types, one as C.
#include "abi/hccl.h"
#include "abi/nnop.h"
#include "abi/ops.h"
#include "abi/runtime.h"

namespace {

// Top-level const does not make another type; the plug-in's short names of parameters.
using Tensor = const aclTensor*;
using OutTensor = aclTensor*;
using Tensors = const aclTensorList*;
using OutTensors = aclTensorList*;
using Scalar = const aclScalar*;
using Ints = const aclIntArray*;

template <typename... Arguments>
using Plan = int(Arguments..., uint64_t*, aclOpExecutor**);
using Launch = int(void*, uint64_t, aclOpExecutor*, aclrtStream);

#define ASCEND_SYMBOL(need, result, name, parameters) \
  static_assert(std::is_same_v<decltype(::name), result parameters>, #name);
#define ASCEND_OP(need, name, ...)                                                                    \
  static_assert(std::is_same_v<decltype(::aclnn##name##GetWorkspaceSize), Plan<__VA_ARGS__>>, #name); \
  static_assert(std::is_same_v<decltype(::aclnn##name), Launch>, #name);
#include "acl/hccl_symbols.h"
#include "acl/meta_symbols.h"
#include "acl/op_symbols.h"
#include "acl/runtime_symbols.h"

}  // namespace

int main() { return 0; }
