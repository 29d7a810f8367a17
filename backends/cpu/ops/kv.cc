// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "ops.h"
#include "ops/kv_view.h"
#include "ops/rope.h"
#include "ops/row_loop.h"
#include "plan.h"

namespace turbomind::cpu {
namespace {

// Stores one head's vector of one token: element d goes to base + d * stride.
template <class T>
void store_strided(const float* x, int64_t dim, void* base, int64_t stride) {
  T* to = static_cast<T*>(base);
  for (int64_t d = 0; d < dim; ++d) {
    if constexpr (std::is_same_v<T, float>) to[d * stride] = x[d];
    if constexpr (std::is_same_v<T, F16>) to[d * stride] = to_f16(x[d]);
    if constexpr (std::is_same_v<T, Bf16>) to[d * stride] = to_bf16(x[d]);
  }
}

// Symmetric, scale = max|x| / 127. A NaN or an infinity gives a NaN scale, so that it is not lost.
float quantize_strided(const float* x, int64_t dim, int8_t* to, int64_t stride) {
  float largest = 0.0f;
  bool finite = true;
  for (int64_t d = 0; d < dim; ++d) {
    largest = std::max(largest, std::fabs(x[d]));
    finite = finite && std::isfinite(x[d]);
  }
  if (!finite) largest = std::numeric_limits<float>::quiet_NaN();
  const float inverse = finite && largest > 0.0f ? 127.0f / largest : 0.0f;
  for (int64_t d = 0; d < dim; ++d) to[d * stride] = static_cast<int8_t>(std::lrintf(finite ? x[d] * inverse : 0.0f));
  return largest / 127.0f;
}

void store_vector(const KvHeadView& view, uint8_t* block, int64_t place, bool is_k, const float* x) {
  const int64_t dim = is_k ? view.dim_k : view.dim_v;
  const int64_t stride = is_k ? view.block_size : 1;
  const int64_t first = is_k ? place : place * dim;
  uint8_t* base = block + (is_k ? 0 : view.v_offset) + first * static_cast<int64_t>(dtype_bytes(view.dtype));
  switch (view.dtype) {
    case TM_F16:
      return store_strided<F16>(x, dim, base, stride);
    case TM_BF16:
      return store_strided<Bf16>(x, dim, base, stride);
    case TM_I8: {
      auto* scales = reinterpret_cast<float*>(block + view.scale_offset) + (is_k ? 0 : view.block_size);
      scales[place] = quantize_strided(x, dim, reinterpret_cast<int8_t*>(base), stride);
      return;
    }
    default:
      return store_strided<float>(x, dim, base, stride);
  }
}

// Where each token row of a plan is stored.
struct TokenPlace {
  int64_t block;
  int64_t place;
};

std::vector<TokenPlace> token_places(const Plan& plan, int64_t block_size) {
  std::vector<TokenPlace> places;
  places.reserve(static_cast<size_t>(plan.num_tokens()));
  for (int64_t seq = 0; seq < plan.num_seqs(); ++seq) {
    for (int64_t row = plan.cu_seqlens_q()[seq]; row < plan.cu_seqlens_q()[seq + 1]; ++row) {
      const int64_t position = plan.position(seq, row);
      places.push_back({plan.block_table(seq)[position / block_size], position % block_size});
    }
  }
  return places;
}

// The heads of one pool, and the writing of one token's k and v into them.
class KvWriter {
 public:
  explicit KvWriter(const tm_kv_write_args& args)
      : k_(rows_arg(args.k, "k")), v_(rows_arg(args.v, "v")), num_heads_(args.kv.spec.num_kv_heads) {
    for (int64_t head = 0; head < num_heads_; ++head) views_.push_back(kv_head_view(args.kv, head));
    places_ = token_places(*abi::as<const Plan>(args.plan), args.kv.spec.block_size);
  }

  int64_t num_tokens() const { return static_cast<int64_t>(places_.size()); }
  int64_t elements_per_token() const { return num_heads_ * (k_.cols + v_.cols); }

  void write(int64_t token) const {
    const auto [block, place] = places_[token];
    for (int64_t head = 0; head < num_heads_; ++head) {
      const KvHeadView& view = views_[head];
      auto* at = const_cast<uint8_t*>(view.pool) + block * view.block_bytes;
      store_vector(view, at, place, true, k_.row(token * num_heads_ + head));
      store_vector(view, at, place, false, v_.row(token * num_heads_ + head));
    }
  }

 private:
  Rows k_;
  Rows v_;
  int64_t num_heads_;
  std::vector<KvHeadView> views_;
  std::vector<TokenPlace> places_;
};

}  // namespace

void CpuOps::kv_write(Stream& stream, const tm_kv_write_args& args, const tm_workspace&) {
  const KvWriter writer(args);
  for_rows(stream, writer.num_tokens(), writer.elements_per_token(), [&](int64_t token) { writer.write(token); });
}

void CpuOps::qk_norm_rope_kv_write(Stream& stream, const tm_qk_norm_rope_kv_write_args& args, const tm_workspace&) {
  const KvWriter writer(args.kv_write);
  const RopeRows rope(args.rope);
  const Rows q = rows_arg(args.rope.q, "q");
  const Rows k = rows_arg(args.rope.k, "k");
  const float* q_weight = vector_arg<float>(args.q_norm_weight, "q_norm_weight");
  const float* k_weight = vector_arg<float>(args.k_norm_weight, "k_norm_weight");
  const KernelTable& kernels = stream.kernels();
  const auto prepare = [&](const Rows& rows, int64_t token, const float* weight, const float* angles) {
    for (int64_t head = 0; head < rows.inner; ++head) {
      float* x = rows.row(token * rows.inner + head);
      if (weight) kernels.norm.rms_norm(x, weight, args.norm_eps, rows.cols, x);
      rope.rotate(kernels.elementwise, angles, x);
    }
  };
  for_rows(stream, q.outer, q.inner * q.cols + writer.elements_per_token(), [&](int64_t token) {
    std::vector<float> scratch;
    const float* angles = rope.angles(token, scratch);
    prepare(q, token, q_weight, angles);
    prepare(k, token, k_weight, angles);
    if (token < writer.num_tokens()) writer.write(token);
  });
}

void CpuOps::kv_copy_blocks(Stream&, const tm_kv_copy_blocks_args& args, const tm_workspace&) {
  const int64_t bytes = kv_head_view(args.kv, 0).block_bytes;
  auto* data = static_cast<uint8_t*>(args.kv.data);
  for (int64_t i = 0; i < args.num_pairs; ++i) {
    const int64_t from = args.pairs[2 * i];
    const int64_t to = args.pairs[2 * i + 1];
    require(from >= 0 && from < args.kv.num_blocks && to >= 0 && to < args.kv.num_blocks, "pairs",
            "blocks below " + std::to_string(args.kv.num_blocks));
    if (from != to) std::memcpy(data + to * bytes, data + from * bytes, static_cast<size_t>(bytes));
  }
}

}  // namespace turbomind::cpu
