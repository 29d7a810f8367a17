// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/common.cuh"
#include "kernels/logits.h"

namespace turbomind::cuda {
namespace {

constexpr int kThreads = 512;

// Pointers are nullptr for what is not given.
struct ProcessArgs {
  float* logits;
  int64_t logits_stride;
  int64_t vocab;
  const float* repetition;
  const float* presence;
  const float* frequency;
  const int32_t* history_offsets;
  const int32_t* history_ids;
  const int32_t* history_counts;
  const int32_t* pending;
  int64_t pending_stride;
  int64_t num_pending;
  const int32_t* bias_offsets;
  const int32_t* bias_ids;
  const float* bias_values;
  const uint32_t* bitmask;
  int64_t bitmask_stride;
};

// One row, by one block.
class RowProcessor {
 public:
  __device__ RowProcessor(const ProcessArgs& args, int64_t row)
      : args_(args), row_(row), logits_(args.logits + row * args.logits_stride) {
    if (args.history_offsets) {
      history_begin_ = args.history_offsets[row];
      history_end_ = args.history_offsets[row + 1];
    }
  }

  __device__ void run() {
    if (args_.repetition || args_.presence || args_.frequency) {
      penalize_history();
      penalize_pending();
    }
    __syncthreads();
    add_bias();
    __syncthreads();
    if (args_.bitmask) forbid();
  }

 private:
  // Occurrences of id among the first `count` pending tokens.
  __device__ int waiting(int32_t id, int64_t count) const {
    int found = 0;
    for (int64_t i = 0; i < count; ++i) found += args_.pending[row_ * args_.pending_stride + i] == id;
    return found;
  }

  // generated: how often the token was generated so far.
  __device__ void penalize(int32_t id, int generated) {
    if (id < 0 || id >= args_.vocab) return;
    float logit = logits_[id];
    if (args_.repetition) {
      const float r = args_.repetition[row_];
      logit = logit > 0.0f ? logit / r : logit * r;
    }
    if (generated > 0) {
      if (args_.presence) logit -= args_.presence[row_];
      if (args_.frequency) logit -= args_.frequency[row_] * static_cast<float>(generated);
    }
    logits_[id] = logit;
  }

  __device__ void penalize_history() {
    for (int64_t i = history_begin_ + threadIdx.x; i < history_end_; i += kThreads) {
      const int32_t id = args_.history_ids[i];
      penalize(id, args_.history_counts[i] + waiting(id, args_.num_pending));
    }
  }

  // Pending tokens that the history does not list, each once.
  __device__ void penalize_pending() {
    for (int64_t p = 0; p < args_.num_pending; ++p) {
      const int32_t id = args_.pending[row_ * args_.pending_stride + p];
      bool listed = id < 0 || waiting(id, p) > 0;
      for (int64_t i = history_begin_ + threadIdx.x; i < history_end_; i += kThreads) {
        listed = listed || args_.history_ids[i] == id;
      }
      if (__syncthreads_or(listed)) continue;
      if (threadIdx.x == 0) penalize(id, waiting(id, args_.num_pending));
    }
  }

  __device__ void add_bias() {
    if (!args_.bias_offsets) return;
    for (int64_t i = args_.bias_offsets[row_] + threadIdx.x; i < args_.bias_offsets[row_ + 1]; i += kThreads) {
      const int32_t id = args_.bias_ids[i];
      // A token may be listed by several rules, one of which forbids it.
      if (id >= 0 && id < args_.vocab) atomicAdd(logits_ + id, args_.bias_values[i]);
    }
  }

  __device__ void forbid() {
    const uint32_t* mask = args_.bitmask + row_ * args_.bitmask_stride;
    for (int64_t i = threadIdx.x; i < args_.vocab; i += kThreads) {
      if (!(mask[i / 32] >> (i % 32) & 1u)) logits_[i] = -INFINITY;
    }
  }

  const ProcessArgs& args_;
  int64_t row_;
  float* logits_;
  int64_t history_begin_ = 0;
  int64_t history_end_ = 0;
};

__global__ void __launch_bounds__(kThreads) process_rows(const ProcessArgs args) {
  RowProcessor(args, blockIdx.x).run();
}

template <class T>
const T* data_of(const tm_tensor& tensor) {
  return static_cast<const T*>(tensor.data);
}

}  // namespace

void launch_logits_process(cudaStream_t stream, const tm_logits_process_args& op) {
  ProcessArgs args{};
  args.logits = static_cast<float*>(op.logits.data);
  args.logits_stride = op.logits.stride[0];
  args.vocab = op.logits.shape[1];
  args.repetition = data_of<float>(op.repetition_penalty);
  args.presence = data_of<float>(op.presence_penalty);
  args.frequency = data_of<float>(op.frequency_penalty);
  args.history_offsets = data_of<int32_t>(op.history_offsets);
  args.history_ids = data_of<int32_t>(op.history_ids);
  args.history_counts = data_of<int32_t>(op.history_counts);
  args.pending = data_of<int32_t>(op.pending);
  args.pending_stride = op.pending.stride[0];
  args.num_pending = args.pending ? op.pending.shape[1] : 0;
  args.bias_offsets = data_of<int32_t>(op.bias_offsets);
  args.bias_ids = data_of<int32_t>(op.bias_ids);
  args.bias_values = data_of<float>(op.bias_values);
  args.bitmask = data_of<uint32_t>(op.bitmask);
  args.bitmask_stride = op.bitmask.stride[0];
  if (op.logits.shape[0] == 0) return;
  process_rows<<<static_cast<unsigned>(op.logits.shape[0]), kThreads, 0, stream>>>(args);
  check_launch("logits_process");
}

}  // namespace turbomind::cuda
