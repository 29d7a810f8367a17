// SPDX-License-Identifier: Apache-2.0
//
// Another plug-in's tables with two entries of its own: captures are counted, and a replay fails when told to.
#include <dlfcn.h>

#include <atomic>

#include "tm_backend.h"

namespace {

const tm_backend_api* inner = nullptr;
std::atomic<int64_t> replays_to_failure = 0;  // 0: none fails
std::atomic<int64_t> captures = 0;

tm_status capture_begin(tm_stream* stream) {
  ++captures;
  return inner->graph->capture_begin(stream);
}

tm_status launch(tm_graph* graph, tm_stream* stream, tm_plan* const* plans, int32_t num_plans) {
  if (replays_to_failure > 0 && --replays_to_failure == 0) return TM_DEVICE_ERROR;
  return inner->graph->launch(graph, stream, plans, num_plans);
}

const tm_backend_api* load_inner(const tm_host_api* host, uint32_t abi_major) {
  void* library = dlopen(TM_INNER_PLUGIN, RTLD_NOW | RTLD_LOCAL);
  if (!library) return nullptr;
  const auto entry = reinterpret_cast<tm_backend_get_api_fn>(dlsym(library, TM_BACKEND_ENTRY));
  const tm_backend_api* api = nullptr;
  return entry && entry(host, abi_major, &api) == TM_OK ? api : nullptr;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void tm_failing_arm(int64_t replays) { replays_to_failure = replays; }

extern "C" __attribute__((visibility("default"))) int64_t tm_failing_captures() { return captures; }

extern "C" __attribute__((visibility("default"))) tm_status tm_backend_get_api(const tm_host_api* host,
                                                                               uint32_t abi_major,
                                                                               const tm_backend_api** out) {
  inner = load_inner(host, abi_major);
  if (!inner || !inner->graph) return TM_UNSUPPORTED;
  static tm_graph_api graph;
  graph = *inner->graph;
  graph.capture_begin = capture_begin;
  graph.launch = launch;
  static tm_backend_api api;
  api = *inner;
  api.name = "failing";
  api.graph = &graph;
  *out = &api;
  return TM_OK;
}
