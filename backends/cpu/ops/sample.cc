// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <vector>

#include "ops.h"
#include "ops/philox.h"
#include "ops/row_loop.h"
#include "ops/workspace.h"

namespace turbomind::cpu {
namespace {

struct RowParams {
  float temperature;
  int64_t top_k;  // 0 = all
  float top_p;
  float min_p;
  double uniform;
};

// Likelier first, ties to the lower id.
struct ByProbability {
  const float* p;
  bool operator()(int32_t a, int32_t b) const { return p[a] > p[b] || (p[a] == p[b] && a < b); }
};

// Draws from the ids in `kept` (ascending), or from all n if it is empty.
int32_t draw(const float* p, const std::vector<int32_t>& kept, int64_t n, double uniform) {
  const int64_t count = kept.empty() ? n : static_cast<int64_t>(kept.size());
  const auto id = [&](int64_t i) { return kept.empty() ? static_cast<int32_t>(i) : kept[i]; };
  double total = 0.0;
  for (int64_t i = 0; i < count; ++i) total += p[id(i)];
  const double target = uniform * total;
  double running = 0.0;
  int32_t last = id(0);
  for (int64_t i = 0; i < count; ++i) {
    running += p[id(i)];
    if (p[id(i)] > 0.0f) last = id(i);
    if (running > target) return id(i);
  }
  return last;
}

// The candidates that may pass top_k: all ids with p >= the k-th largest, likeliest first.
std::vector<int32_t> top_candidates(const float* p, int64_t n, int64_t k) {
  std::vector<int32_t> ids(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) ids[i] = static_cast<int32_t>(i);
  const auto end = ids.begin() + std::min(k, n);
  if (end != ids.end()) std::nth_element(ids.begin(), end - 1, ids.end(), ByProbability{p});
  ids.resize(static_cast<size_t>(end - ids.begin()));
  std::sort(ids.begin(), ids.end(), ByProbability{p});
  return ids;
}

// Ids in descending order of p until their mass reaches top_p of the total; only a prefix of the order is ever sorted.
std::vector<int32_t> nucleus(const float* p, int64_t n, float top_p) {
  double total = 0.0;
  for (int64_t i = 0; i < n; ++i) total += p[i];
  for (int64_t k = 64;; k *= 8) {
    std::vector<int32_t> ids = top_candidates(p, n, k);
    double mass = 0.0;
    for (size_t i = 0; i < ids.size(); ++i) {
      mass += p[ids[i]];
      if (mass >= static_cast<double>(top_p) * total) {
        ids.resize(i + 1);
        return ids;
      }
    }
    if (k >= n) return ids;
  }
}

void keep_nucleus(const float* p, float top_p, std::vector<int32_t>& ids) {
  double total = 0.0;
  for (const int32_t id : ids) total += p[id];
  double mass = 0.0;
  for (size_t i = 0; i < ids.size(); ++i) {
    mass += p[ids[i]];
    if (mass >= static_cast<double>(top_p) * total) {
      ids.resize(i + 1);
      return;
    }
  }
}

// The kept set in ascending id order; empty means all.
std::vector<int32_t> kept_ids(const float* p, int64_t n, const RowParams& params) {
  std::vector<int32_t> ids;
  if (params.top_k > 0 && params.top_k < n) {
    ids = top_candidates(p, n, params.top_k);
    if (params.top_p < 1.0f) keep_nucleus(p, params.top_p, ids);
  } else if (params.top_p < 1.0f) {
    ids = nucleus(p, n, params.top_p);
  }
  if (params.min_p > 0.0f) {
    // exponentials() makes the largest p exactly 1.
    const auto too_small = [&](int32_t id) { return p[id] < params.min_p; };
    if (ids.empty()) {
      for (int64_t i = 0; i < n; ++i) {
        if (!too_small(static_cast<int32_t>(i))) ids.push_back(static_cast<int32_t>(i));
      }
    } else {
      ids.erase(std::remove_if(ids.begin() + 1, ids.end(), too_small), ids.end());
    }
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace

void CpuOps::sample(Stream& stream, const tm_sample_args& args, const tm_workspace& workspace) {
  const Matrix<float> logits = matrix_arg<float>(args.logits, "logits");
  const float* temperature = vector_arg<float>(args.temperature, "temperature");
  const int32_t* top_k = vector_arg<int32_t>(args.top_k, "top_k");
  const float* top_p = vector_arg<float>(args.top_p, "top_p");
  const float* min_p = vector_arg<float>(args.min_p, "min_p");
  const uint64_t* seed = vector_arg<uint64_t>(args.seed, "seed");
  const int64_t* position = vector_arg<int64_t>(args.position, "position");
  int32_t* out = vector_arg<int32_t>(args.out, "out");
  WorkspaceArena arena(workspace);
  float* probabilities = arena.take<float>(logits.cols * stream.pool().num_threads());
  const LogitsKernels& kernels = stream.kernels().logits;
  stream.pool().parallel_for(logits.rows, [&](int64_t row, int thread) {
    const float* x = logits.row(row);
    const int64_t best = kernels.argmax(x, logits.cols);
    if (temperature[row] <= 0.0f) {
      out[row] = static_cast<int32_t>(best);
      return;
    }
    float* p = probabilities + thread * logits.cols;
    kernels.exponentials(x, x[best], 1.0f / temperature[row], logits.cols, p);
    const RowParams params{temperature[row], top_k[row], top_p[row], min_p[row],
                           philox_uniform(seed[row], static_cast<uint64_t>(position[row]))};
    out[row] = draw(p, kept_ids(p, logits.cols, params), logits.cols, params.uniform);
  });
}

size_t CpuOps::sample_workspace(Context& context, const tm_sample_args& args) {
  WorkspaceArena arena;
  arena.take<float>(args.logits.shape[1] * context.pool().num_threads());
  return arena.used();
}

}  // namespace turbomind::cpu
