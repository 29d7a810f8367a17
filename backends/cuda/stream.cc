// SPDX-License-Identifier: Apache-2.0
#include "stream.h"

#include "cuda_check.h"
#include "plan.h"

namespace turbomind::cuda {

Stream::Stream(Context& context) : context_(context) {
  context.set_thread();
  check_cuda(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking), "cudaStreamCreate");
}

Stream::~Stream() { cudaStreamDestroy(handle_); }

void Stream::copy_async(void* dst, const void* src, size_t bytes, tm_copy_kind kind) {
  if (bytes == 0) return;
  constexpr cudaMemcpyKind kKinds[] = {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice};
  if (kind < TM_HOST_TO_DEVICE || kind > TM_DEVICE_TO_DEVICE) {
    throw abi::Error(TM_INVALID_ARGUMENT, "kind: expected a tm_copy_kind, found " + std::to_string(kind));
  }
  check_cuda(cudaMemcpyAsync(dst, src, bytes, kKinds[kind], handle_), "cudaMemcpyAsync");
}

void Stream::memset_async(void* dst, int value, size_t bytes) {
  if (bytes > 0) check_cuda(cudaMemsetAsync(dst, value, bytes, handle_), "cudaMemsetAsync");
}

void Stream::synchronize() {
  check_cuda(cudaStreamSynchronize(handle_), "cudaStreamSynchronize");
  abi::check_not_aborted(aborted_);
}

void Stream::capture_begin() {
  check_cuda(cudaStreamBeginCapture(handle_, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  capturing_ = true;
  captures_spans_ = false;
}

std::unique_ptr<Graph> Stream::capture_end() {
  cudaGraph_t graph = nullptr;
  capturing_ = false;
  check_cuda(cudaStreamEndCapture(handle_, &graph), "cudaStreamEndCapture");
  return std::make_unique<Graph>(graph, captures_spans_);
}

Graph::Graph(cudaGraph_t graph, bool takes_spans) : graph_(graph), takes_spans_(takes_spans) {
  const cudaError_t error = cudaGraphInstantiate(&executable_, graph_, 0);
  if (error == cudaSuccess) return;
  cudaGraphDestroy(graph_);
  check_cuda(error, "cudaGraphInstantiate");
}

Graph::~Graph() {
  cudaGraphExecDestroy(executable_);
  cudaGraphDestroy(graph_);
}

void Graph::launch(Stream& stream, tm_plan* const* plans, int32_t num_plans) {
  for (int32_t i = 0; i < num_plans; ++i) {
    if (takes_spans_ || !abi::as<Plan>(plans[i])->has_spans()) continue;
    throw abi::Error(TM_UNSUPPORTED, "graph: expected plans without spans, as when it was captured");
  }
  check_cuda(cudaGraphLaunch(executable_, stream.handle()), "cudaGraphLaunch");
}

Event::Event(Context& context) {
  context.set_thread();
  check_cuda(cudaEventCreateWithFlags(&handle_, cudaEventDisableTiming), "cudaEventCreate");
}

Event::~Event() { cudaEventDestroy(handle_); }

void Event::record(Stream& stream) {
  check_cuda(cudaEventRecord(handle_, stream.handle()), "cudaEventRecord");
  if (aborted_ != stream.aborted()) aborted_ = stream.aborted();
}

void Event::wait(Stream& stream) {
  check_cuda(cudaStreamWaitEvent(stream.handle(), handle_, 0), "cudaStreamWaitEvent");
}

void Event::synchronize() {
  check_cuda(cudaEventSynchronize(handle_), "cudaEventSynchronize");
  abi::check_not_aborted(aborted_);
}

bool Event::query() {
  const cudaError_t error = cudaEventQuery(handle_);
  if (error == cudaErrorNotReady) {
    cudaGetLastError();
    return false;
  }
  check_cuda(error, "cudaEventQuery");
  abi::check_not_aborted(aborted_);
  return true;
}

}  // namespace turbomind::cuda
