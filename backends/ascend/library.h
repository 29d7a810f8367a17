// SPDX-License-Identifier: Apache-2.0
//
// CANN's libraries, found when the plug-in is first asked for anything. Nothing of CANN is linked: every function is a
// pointer in one of these tables, filled by name. Old and new releases spread the same functions over libraries of
// different names; whichever has a function serves it.
#pragma once

#include <string>

#include "acl/types.h"

namespace turbomind::ascend {

// A required function is missing: the plug-in is not usable. An optional one is NULL then, and what needs it takes
// another way or is refused by name.
struct Runtime {
#define ASCEND_SYMBOL(need, result, name, parameters) result(*name) parameters = nullptr;
#include "acl/meta_symbols.h"
#include "acl/runtime_symbols.h"
#undef ASCEND_SYMBOL
};

// Whether steps can be captured: all optional functions of graphs are there, not only some.
inline bool has_graphs(const Runtime& acl) {
  return acl.aclmdlRICaptureBegin && acl.aclmdlRICaptureEnd && acl.aclmdlRIExecuteAsync && acl.aclmdlRIDestroy &&
         acl.aclmdlRICaptureTaskGrpBegin && acl.aclmdlRICaptureTaskGrpEnd && acl.aclmdlRICaptureTaskUpdateBegin &&
         acl.aclmdlRICaptureTaskUpdateEnd;
}

struct Hccl {
#define ASCEND_SYMBOL(need, result, name, parameters) result(*name) parameters = nullptr;
#include "acl/hccl_symbols.h"
#undef ASCEND_SYMBOL
};

// One aclnn operator: the first call checks the arguments and says how much scratch memory the second wants, which
// enqueues the work.
template <class... Parameters>
struct Operator {
  const char* name;
  int (*prepare)(Parameters..., uint64_t* workspace_bytes, aclOpExecutor** executor) = nullptr;
  int (*run)(void* workspace, uint64_t workspace_bytes, aclOpExecutor* executor, aclrtStream stream) = nullptr;

  bool available() const { return prepare != nullptr && run != nullptr; }
};

namespace parameter {
using Tensor = const aclTensor*;
using OutTensor = aclTensor*;
using Tensors = const aclTensorList*;
using OutTensors = aclTensorList*;
using Scalar = const aclScalar*;
using Ints = const aclIntArray*;
}  // namespace parameter

struct Operators {
  using Tensor = parameter::Tensor;
  using OutTensor = parameter::OutTensor;
  using Tensors = parameter::Tensors;
  using OutTensors = parameter::OutTensors;
  using Scalar = parameter::Scalar;
  using Ints = parameter::Ints;
#define ASCEND_OP(need, Name, ...) Operator<__VA_ARGS__> Name{"aclnn" #Name};
#include "acl/op_symbols.h"
#undef ASCEND_OP
};

struct Library {
  Runtime runtime;
  Operators op;
  std::string reason;  // empty: usable
};

// Opened once; stays open, as plug-ins do.
const Library& library();
// Throws abi::Error (TM_UNSUPPORTED) naming what is missing.
const Hccl& hccl();

}  // namespace turbomind::ascend
