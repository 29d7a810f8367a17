// SPDX-License-Identifier: Apache-2.0
#include "ops.h"
#include "ops/kv.h"
#include "ops/rope.h"
#include "ops/row_ranges.h"

namespace turbomind::cpu {
namespace {

void norm_heads(const NormKernels& kernels, const Heads<float>& x, int64_t row, const float* weight, float eps) {
  if (!weight) return;
  for (int64_t head = 0; head < x.heads; ++head) {
    kernels.rms_norm(x.head(row, head), weight, eps, x.dim, x.head(row, head));
  }
}

}  // namespace

void CpuOps::qk_norm_rope_kv_write(Stream& stream, const tm_qk_norm_rope_kv_write_args& args, const tm_workspace&) {
  const Rotation rotation(stream, args.rope);
  const KvWriter writer(stream, args.kv_write);
  const float* q_weight = vector_arg<float>(args.q_norm_weight, "q_norm_weight");
  const float* k_weight = vector_arg<float>(args.k_norm_weight, "k_norm_weight");
  const NormKernels& norm = stream.kernels().norm;
  const int64_t cost = 3 * rotation.row_cost() + writer.row_cost();
  for_row_ranges(stream.pool(), rotation.q().rows, cost, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      norm_heads(norm, rotation.q(), row, q_weight, args.norm_eps);
      norm_heads(norm, rotation.k(), row, k_weight, args.norm_eps);
      rotation.rotate_row(row);
    }
    writer.store(std::min(begin, writer.num_tokens()), std::min(end, writer.num_tokens()));
  });
}

}  // namespace turbomind::cpu
