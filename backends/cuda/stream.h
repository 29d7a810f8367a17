// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "context.h"
#include "turbomind/abi/tm_backend_tools.hpp"

namespace turbomind::cuda {

class Graph;

using abi::AbortFlag;

class Stream {
 public:
  explicit Stream(Context& context);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  Context& context() const { return context_; }
  cudaStream_t handle() const { return handle_; }
  bool capturing() const { return capturing_; }
  // What is being captured looks for spans of positions that see each other.
  void note_spans() { captures_spans_ = capturing_; }

  void copy_async(void* dst, const void* src, size_t bytes, tm_copy_kind kind);
  void memset_async(void* dst, int value, size_t bytes);
  void synchronize();
  void capture_begin();
  std::unique_ptr<Graph> capture_end();

  // From now on, waits for this stream's work throw abi::Error (TM_DEVICE_ERROR) once the flag is set. One group of
  // ranks per stream: the last one counts.
  void watch(const std::shared_ptr<const AbortFlag>& aborted) {
    if (aborted_ != aborted) aborted_ = aborted;
  }
  const std::shared_ptr<const AbortFlag>& aborted() const { return aborted_; }

 private:
  Context& context_;
  cudaStream_t handle_ = nullptr;
  bool capturing_ = false;
  bool captures_spans_ = false;
  std::shared_ptr<const AbortFlag> aborted_;
};

// A captured step. What changes between replays lies in the plans' device memory.
class Graph {
 public:
  Graph(cudaGraph_t graph, bool takes_spans);  // takes the graph
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // Throws abi::Error (TM_UNSUPPORTED) if a plan has spans and what was captured does not look for them.
  void launch(Stream& stream, tm_plan* const* plans, int32_t num_plans);

 private:
  cudaGraph_t graph_;
  cudaGraphExec_t executable_ = nullptr;
  bool takes_spans_;
};

class Event {
 public:
  explicit Event(Context& context);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(Stream& stream);
  void wait(Stream& stream);
  void synchronize();
  bool query();

 private:
  cudaEvent_t handle_ = nullptr;
  std::shared_ptr<const AbortFlag> aborted_;  // of the stream that recorded it
};

}  // namespace turbomind::cuda
