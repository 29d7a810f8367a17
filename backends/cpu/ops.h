// SPDX-License-Identifier: Apache-2.0
//
// Every op this backend offers; an op that is not declared here becomes a NULL slot. An op that needs scratch memory
// declares <op>_workspace(context, args) beside it.
#pragma once

#include "stream.h"

namespace turbomind::cpu {

struct CpuOps {
  // ops/embedding.cc
  static void embedding(Stream&, const tm_embedding_args&, const tm_workspace&);

  // ops/linear.cc
  static void linear(Stream&, const tm_linear_args&, const tm_workspace&);
  static size_t linear_workspace(Context&, const tm_linear_args&);
  static void grouped_linear(Stream&, const tm_grouped_linear_args&, const tm_workspace&);
  static size_t grouped_linear_workspace(Context&, const tm_grouped_linear_args&);
  static void linear_gated_activation(Stream&, const tm_linear_gated_activation_args&, const tm_workspace&);
  static size_t linear_gated_activation_workspace(Context&, const tm_linear_gated_activation_args&);
};

}  // namespace turbomind::cpu
