// SPDX-License-Identifier: Apache-2.0
//
// Capture, replay, task groups and their updates. The rules and codes are those of the runtime's public documents
// (hicann/runtime docs/zh/api_ref, chapters on aclmdlRI and on error codes).
#include <algorithm>

#include "abi/runtime.h"
#include "runtime/stream.h"

namespace fakecann {
namespace {

thread_local int thread_mode = ACL_MODEL_RI_CAPTURE_MODE_GLOBAL;

std::shared_ptr<Graph> find_graph(aclmdlRI handle) {
  const auto found = Streams::instance().graphs.find(static_cast<Graph*>(handle));
  if (found == Streams::instance().graphs.end()) fail(kInvalidHandle, "not a live graph");
  return found->second;
}

// Does some node of `tail` come after, or equal, each node of `nodes`?
bool comes_after(const Graph& graph, const std::set<int>& tail, const std::set<int>& nodes) {
  std::set<int> reached = tail;
  for (int node = static_cast<int>(graph.nodes.size()) - 1; node >= 0; --node) {
    if (reached.count(node) == 0) continue;
    reached.insert(graph.nodes[node].after.begin(), graph.nodes[node].after.end());
  }
  return std::includes(reached.begin(), reached.end(), nodes.begin(), nodes.end());
}

void leave_capture(Graph& graph) {
  for (Stream* stream : graph.streams) {
    stream->graph.reset();
    stream->tail.clear();
    stream->group = nullptr;
  }
  graph.is_active = false;
}

void check_joined(Graph& graph, const Stream& origin) {
  if (fault_is_due("unjoined")) fail(kStreamUnjoined, "injected: a stream took part in the capture and was not joined");
  for (const Stream* stream : graph.streams) {
    if (!comes_after(graph, origin.tail, stream->tail)) {
      fail(kStreamUnjoined, "stream " + std::to_string(stream->id) + " took part in the capture and was not joined");
    }
  }
}

// A legal order of the nodes: as recorded or, under the random schedule, any other.
std::vector<int> replay_order(const Graph& graph) {
  std::vector<int> order;
  std::vector<bool> is_placed(graph.nodes.size(), false);
  while (order.size() < graph.nodes.size()) {
    std::vector<int> ready;
    for (size_t node = 0; node < graph.nodes.size(); ++node) {
      const auto& after = graph.nodes[node].after;
      const bool can = std::all_of(after.begin(), after.end(), [&](int earlier) { return is_placed[earlier]; });
      if (!is_placed[node] && can) ready.push_back(static_cast<int>(node));
      if (!ready.empty() && config().schedule != Schedule::kRandom) break;
    }
    order.push_back(ready[draw(ready.size())]);
    is_placed[order.back()] = true;
  }
  return order;
}

// The closure is looked up when the task runs, so that an update that has run by then counts.
Task replay_task(const std::shared_ptr<Graph>& graph, int node) {
  auto made = std::make_shared<Task>();
  const auto task = [graph, node, made]() -> Task& {
    if (!made->run) *made = graph->nodes[node].make();
    return *made;
  };
  return {graph->nodes[node].name, [task](Stream& stream) { task().run(stream); },
          [task] { return !task().is_ready || task().is_ready(); },
          [task]() -> Stream* { return task().blocker ? task().blocker() : nullptr; }};
}

void replay(const std::shared_ptr<Graph>& graph, Stream& stream) {
  if (graph->is_active) fail(kStreamCaptured, "the graph is still being captured");
  if (stream.graph != nullptr) fail(kCaptureUnsupported, "a graph cannot be replayed into a capture");
  ++graph->running;
  if (config().schedule == Schedule::kRandom) {
    for (const int node : replay_order(*graph)) stream.tasks.push_back(replay_task(graph, node));
  } else {
    for (size_t node = 0; node < graph->nodes.size(); ++node) {
      stream.tasks.push_back(replay_task(graph, static_cast<int>(node)));
    }
  }
  stream.tasks.push_back({"end of graph", [graph](Stream&) { --graph->running; }, nullptr, nullptr});
}

void end_update(Stream& stream) {
  TaskGroup* group = stream.update;
  if (group == nullptr) fail(kTaskGroupStatus, "no task update has begun on this stream");
  const auto updates = std::move(stream.updates);
  stream.update = nullptr;
  stream.updates.clear();
  const auto graph = group->graph.lock();
  if (graph == nullptr) fail(kUpdateFailed, "the graph of the task group is gone");
  if (updates.size() != group->nodes.size()) {
    fail(kTaskGroupStatus, "the update has " + std::to_string(updates.size()) + " tasks, the group " +
                               std::to_string(group->nodes.size()));
  }
  for (size_t i = 0; i < updates.size(); ++i) {
    const std::string& captured = graph->nodes[group->nodes[i]].name;
    if (updates[i].first != captured)
      fail(kUpdateUnsupported, "the update puts " + updates[i].first + " for " + captured);
  }
  enqueue(stream, "task update", [graph, group, updates](Stream&) {
    for (size_t i = 0; i < updates.size(); ++i) graph->nodes[group->nodes[i]].make = updates[i].second;
  });
}

}  // namespace

// Global captures forbid every thread, thread-local ones their own; the capturing stream itself is always bound.
void refuse_while_capturing(Stream* stream, Forbidden what) {
  const int code = what == Forbidden::kPageable ? kCaptureBlocksAsync : kCaptureUnsupported;
  if (stream != nullptr && stream->graph != nullptr) {
    stream->graph->is_invalid = true;
    fail(code, "the stream is being captured");
  }
  if (thread_mode == ACL_MODEL_RI_CAPTURE_MODE_RELAXED) return;
  for (const auto& [raw, graph] : Streams::instance().graphs) {
    if (!graph->is_active || graph->mode == ACL_MODEL_RI_CAPTURE_MODE_RELAXED) continue;
    const bool is_own = graph->thread == std::this_thread::get_id();
    if (is_own || graph->mode == ACL_MODEL_RI_CAPTURE_MODE_GLOBAL) fail(code, "not allowed while a capture is active");
  }
}

void capture(Stream& stream, const std::string& name, TaskMaker make) {
  Graph& graph = *stream.graph;
  if (graph.is_invalid) fail(kCaptureInvalidated, "the capture is invalid since an earlier refusal");
  graph.nodes.push_back({name, std::move(make), stream.tail});
  const int node = static_cast<int>(graph.nodes.size()) - 1;
  stream.tail = {node};
  if (stream.group != nullptr) stream.group->nodes.push_back(node);
}

void join_capture(Stream& stream, const EventState& event) {
  const auto graph = event.graph.lock();
  if (stream.graph == nullptr) {
    if (graph == nullptr || !graph->is_active) return;
    if (stream.is_default) fail(kCaptureImplicit, "the default stream cannot take part in a capture");
    if (!stream.tasks.empty()) fail(kCaptureDependency, "a stream with tasks of its own cannot join a capture");
    stream.graph = graph;
    graph->streams.insert(&stream);
  } else if (graph != stream.graph) {
    stream.graph->is_invalid = true;
    fail(kCaptureDependency, "a captured stream waits for an event that the capture did not record");
  }
  stream.tail.insert(event.nodes.begin(), event.nodes.end());
}

size_t captured_stream_cost() {
  size_t cost = 0;
  for (const auto& [raw, graph] : Streams::instance().graphs) cost += graph->stream_cost;
  return cost;
}

}  // namespace fakecann

using namespace fakecann;  // NOLINT: the exported names are global

aclError aclmdlRICaptureBegin(aclrtStream handle, int mode) {
  return guarded(__func__, [&] {
    Stream& stream = find_stream(handle);
    if (mode < 0 || mode > 2) fail(kInvalidParameter, "no such capture mode");
    if (stream.is_default) fail(kCaptureImplicit, "the default stream cannot be captured");
    if (stream.graph != nullptr) fail(kStreamCaptured, "the stream is being captured already");
    uint32_t available = 0;
    for (const Stream* live : Streams::instance().live) available += live->is_default ? 0 : 1;
    available += static_cast<uint32_t>(captured_stream_cost());
    const int64_t limit = fault_value("streams", config().profile.streams);
    if (static_cast<int64_t>(available) >= limit)
      fail(kNoStreams, "a capture needs a stream of its own and none is left");
    auto graph = std::make_shared<Graph>();
    graph->origin = &stream;
    graph->thread = std::this_thread::get_id();
    graph->mode = mode;
    graph->is_active = true;
    graph->stream_cost = 1;
    graph->streams.insert(&stream);
    stream.graph = graph;
    stream.tail.clear();
    Streams::instance().graphs[graph.get()] = graph;
  });
}

aclError aclmdlRICaptureGetInfo(aclrtStream handle, int* status, aclmdlRI* graph) {
  return guarded(__func__, [&] {
    const Stream& stream = find_stream(handle);
    const Graph* captured = stream.graph.get();
    *status = captured == nullptr    ? ACL_MODEL_RI_CAPTURE_STATUS_NONE
              : captured->is_invalid ? ACL_MODEL_RI_CAPTURE_STATUS_INVALIDATED
                                     : ACL_MODEL_RI_CAPTURE_STATUS_ACTIVE;
    if (graph != nullptr) *graph = stream.graph.get();
  });
}

aclError aclmdlRICaptureEnd(aclrtStream handle, aclmdlRI* result) {
  return guarded(__func__, [&] {
    Stream& stream = find_stream(handle);
    const auto graph = stream.graph;
    if (graph == nullptr) fail(kStreamNotCaptured, "the stream is not being captured");
    if (graph->origin != &stream) fail(kCaptureUnmatched, "the capture began on another stream");
    if (graph->mode != ACL_MODEL_RI_CAPTURE_MODE_RELAXED && graph->thread != std::this_thread::get_id()) {
      fail(kCaptureWrongThread, "the capture began on another thread");
    }
    try {
      if (stream.group != nullptr) fail(kTaskGroupStatus, "a task group is still open");
      if (graph->is_invalid) fail(kCaptureInvalidated, "the capture is invalid since an earlier refusal");
      check_joined(*graph, stream);
    } catch (const Failure&) {
      leave_capture(*graph);
      Streams::instance().graphs.erase(graph.get());
      throw;
    }
    graph->stream_cost = graph->streams.size();
    leave_capture(*graph);
    *result = graph.get();
  });
}

aclError aclmdlRICaptureThreadExchangeMode(int* mode) {
  return guarded(__func__, [&] {
    if (mode == nullptr || *mode < 0 || *mode > 2) fail(kInvalidParameter, "no such capture mode");
    std::swap(*mode, thread_mode);
  });
}

aclError aclmdlRICaptureTaskGrpBegin(aclrtStream handle) {
  return guarded(__func__, [&] {
    Stream& stream = find_stream(handle);
    if (stream.graph == nullptr) fail(kStreamNotCaptured, "a task group needs a captured stream");
    if (stream.group != nullptr) fail(kTaskGroupStatus, "a task group is open already");
    stream.graph->groups.push_back(std::make_unique<TaskGroup>());
    stream.group = stream.graph->groups.back().get();
    stream.group->graph = stream.graph;
  });
}

aclError aclmdlRICaptureTaskGrpEnd(aclrtStream handle, aclrtTaskGrp* group) {
  return guarded(__func__, [&] {
    Stream& stream = find_stream(handle);
    if (stream.group == nullptr) fail(kTaskGroupStatus, "no task group is open");
    *group = stream.group;
    stream.group = nullptr;
  });
}

aclError aclmdlRICaptureTaskUpdateBegin(aclrtStream handle, aclrtTaskGrp handle_of_group) {
  return guarded(__func__, [&] {
    Stream& stream = find_stream(handle);
    if (stream.graph != nullptr) fail(kStreamCaptured, "a captured stream cannot update");
    if (stream.update != nullptr) fail(kTaskGroupStatus, "an update is open already");
    for (const auto& [raw, graph] : Streams::instance().graphs) {
      for (const auto& group : graph->groups) {
        if (group.get() == handle_of_group) stream.update = group.get();
      }
    }
    if (stream.update == nullptr) fail(kInvalidHandle, "not a task group of a live graph");
  });
}

aclError aclmdlRICaptureTaskUpdateEnd(aclrtStream handle) {
  return guarded(__func__, [&] {
    end_update(find_stream(handle));
    after_call();
  });
}

aclError aclmdlRIExecuteAsync(aclmdlRI handle, aclrtStream stream) {
  return guarded(__func__, [&] {
    replay(find_graph(handle), find_stream(stream));
    after_call();
  });
}

aclError aclmdlRIExecute(aclmdlRI handle, int32_t timeout_ms) {
  return guarded(__func__, [&] {
    Stream& stream = find_stream(nullptr);
    refuse_while_capturing(&stream, Forbidden::kSync);
    replay(find_graph(handle), stream);
    synchronize(stream, timeout_ms, kStreamSyncTimeout);
  });
}

aclError aclmdlRIDestroy(aclmdlRI handle) {
  return guarded(__func__, [&] {
    const auto graph = find_graph(handle);
    if (graph->is_active) fail(kStreamCaptured, "the graph is still being captured");
    if (graph->running > 0) fail(kGraphRunning, "the graph is still running");
    Streams::instance().graphs.erase(graph.get());
  });
}
