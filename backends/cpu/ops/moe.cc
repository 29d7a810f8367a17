// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "ops.h"
#include "ops/row_ranges.h"
#include "ops/tensor_args.h"
#include "ops/workspace.h"

namespace turbomind::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int64_t kScoreCost = 8;  // element operations per expert

// Of one thread: [experts] each.
struct RouteScratch {
  float* scores;
  float* keys;  // what the choice goes by; -infinity for NaN
  bool* taken;
};

RouteScratch take_scratch(WorkspaceArena& arena, int64_t experts) {
  return {arena.take<float>(experts), arena.take<float>(experts), arena.take<bool>(experts)};
}

size_t thread_bytes(int64_t experts) {
  WorkspaceArena arena;
  take_scratch(arena, experts);
  return arena.used();
}

void softmax(const LogitsKernels& kernels, const float* logits, int64_t experts, float* scores) {
  float max = -kInfinity;
  for (int64_t e = 0; e < experts; ++e) max = logits[e] > max ? logits[e] : max;
  kernels.exponentials(logits, max, 1.0f, experts, scores);
  float total = 0.0f;
  for (int64_t e = 0; e < experts; ++e) total += scores[e];
  for (int64_t e = 0; e < experts; ++e) scores[e] /= total;
}

void sigmoid(const LogitsKernels& kernels, const float* logits, int64_t experts, float* scores) {
  kernels.exponentials(logits, 0.0f, -1.0f, experts, scores);
  for (int64_t e = 0; e < experts; ++e) scores[e] = 1.0f / (1.0f + scores[e]);
}

// The best expert that is not taken yet, ties to the lower one.
int64_t take_best(const RouteScratch& scratch, int64_t experts) {
  int64_t best = -1;
  for (int64_t e = 0; e < experts; ++e) {
    if (!scratch.taken[e] && (best < 0 || scratch.keys[e] > scratch.keys[best])) best = e;
  }
  scratch.taken[best] = true;
  return best;
}

void route_row(const LogitsKernels& kernels, const tm_moe_route_args& args, const float* logits, int64_t experts,
               const float* bias, const RouteScratch& scratch, int32_t* ids, float* weights) {
  (args.score == TM_ROUTE_SOFTMAX ? softmax : sigmoid)(kernels, logits, experts, scratch.scores);
  for (int64_t e = 0; e < experts; ++e) {
    const float key = bias ? scratch.scores[e] + bias[e] : scratch.scores[e];
    scratch.keys[e] = std::isnan(key) ? -kInfinity : key;
    scratch.taken[e] = false;
  }
  float total = 0.0f;
  for (int32_t j = 0; j < args.top_k; ++j) {
    const int64_t expert = take_best(scratch, experts);
    ids[j] = static_cast<int32_t>(expert);
    weights[j] = scratch.scores[expert];
    total += weights[j];
  }
  const float factor = args.renormalize ? args.scaling / total : args.scaling;
  for (int32_t j = 0; j < args.top_k; ++j) weights[j] *= factor;
}

}  // namespace

size_t CpuOps::moe_route_workspace(Context& context, const tm_moe_route_args& args) {
  return context.pool().num_threads() * thread_bytes(args.logits.shape[1]);
}

void CpuOps::moe_route(Stream& stream, const tm_moe_route_args& args, const tm_workspace& workspace) {
  const Matrix<float> logits = matrix_arg<float>(args.logits, "logits");
  const float* bias = vector_arg<float>(args.bias, "bias");
  const Matrix<int32_t> ids = matrix_arg<int32_t>(args.expert_ids, "expert_ids");
  const Matrix<float> weights = matrix_arg<float>(args.weights, "weights");
  require(args.top_k > 0 && args.top_k <= logits.cols, "top_k",
          "1 to " + std::to_string(logits.cols) + ", found " + std::to_string(args.top_k));
  require(args.score == TM_ROUTE_SOFTMAX || args.score == TM_ROUTE_SIGMOID, "score", "a tm_route_score");
  const size_t bytes = thread_bytes(logits.cols);
  WorkspaceArena arena(workspace);
  std::byte* memory = arena.take<std::byte>(stream.pool().num_threads() * bytes);
  const int64_t cost = (kScoreCost + args.top_k) * logits.cols;
  for_row_ranges(stream.pool(), logits.rows, cost, [&](int64_t begin, int64_t end, int thread) {
    WorkspaceArena own(tm_workspace{memory + thread * bytes, bytes});
    const RouteScratch scratch = take_scratch(own, logits.cols);
    for (int64_t row = begin; row < end; ++row) {
      route_row(stream.kernels().logits, args, logits.row(row), logits.cols, bias, scratch, ids.row(row),
                weights.row(row));
    }
  });
}

size_t CpuOps::moe_permute_workspace(Context&, const tm_moe_permute_args& args) {
  WorkspaceArena arena;
  arena.take<int32_t>(args.num_experts);
  return arena.used();
}

// A counting sort: rows per expert, then each pair's row in order of the tokens.
void CpuOps::moe_permute(Stream& stream, const tm_moe_permute_args& args, const tm_workspace& workspace) {
  const Matrix<float> x = matrix_arg<float>(args.x, "x");
  const Matrix<int32_t> ids = matrix_arg<int32_t>(args.expert_ids, "expert_ids");
  const Matrix<float> out = matrix_arg<float>(args.out, "out");
  const Matrix<int32_t> position = matrix_arg<int32_t>(args.position, "position");
  int32_t* offsets = vector_arg<int32_t>(args.expert_offsets, "expert_offsets");
  std::fill_n(offsets, args.num_experts + 1, 0);
  for (int64_t t = 0; t < ids.rows; ++t) {
    for (int64_t j = 0; j < ids.cols; ++j) {
      const int32_t expert = ids.row(t)[j];
      require(expert >= 0 && expert < args.num_experts, "expert_ids",
              "values in [0, " + std::to_string(args.num_experts) + "), found " + std::to_string(expert));
      ++offsets[expert + 1];
    }
  }
  for (int32_t e = 0; e < args.num_experts; ++e) offsets[e + 1] += offsets[e];

  WorkspaceArena arena(workspace);
  int32_t* next = arena.take<int32_t>(args.num_experts);
  std::copy_n(offsets, args.num_experts, next);
  for (int64_t t = 0; t < ids.rows; ++t) {
    for (int64_t j = 0; j < ids.cols; ++j) position.row(t)[j] = next[ids.row(t)[j]]++;
  }
  for_row_ranges(stream.pool(), ids.rows, ids.cols * x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t j = 0; j < ids.cols; ++j) {
        std::memcpy(out.row(position.row(t)[j]), x.row(t), static_cast<size_t>(x.cols) * sizeof(float));
      }
    }
  });
}

void CpuOps::moe_combine(Stream& stream, const tm_moe_combine_args& args, const tm_workspace&) {
  const Matrix<float> x = matrix_arg<float>(args.x, "x");
  const Matrix<int32_t> position = matrix_arg<int32_t>(args.position, "position");
  const Matrix<float> weights = matrix_arg<float>(args.weights, "weights");
  const Matrix<float> out = matrix_arg<float>(args.out, "out");
  const auto add_scaled = stream.kernels().elementwise.add_scaled;
  for_row_ranges(stream.pool(), out.rows, position.cols * out.cols, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      std::fill_n(out.row(t), out.cols, 0.0f);
      for (int64_t j = 0; j < position.cols; ++j) {
        add_scaled(x.row(position.row(t)[j]), weights.row(t)[j], out.cols, out.row(t));
      }
    }
  });
}

}  // namespace turbomind::cpu
