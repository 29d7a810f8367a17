// SPDX-License-Identifier: Apache-2.0
//
// Wraps another plug-in table by table: work issued on a stream waits in a queue until somebody synchronises, and a
// capture keeps the queue as a graph. Arguments and host metadata are copied when issued; whatever else the caller
// changes too early shows as a wrong result. Device memory is declared out of the host's reach.
#include <dlfcn.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tm_backend.h"

namespace {

using Task = std::function<tm_status()>;

const tm_backend_api* inner = nullptr;

struct Stream {
  tm_stream* inner_stream = nullptr;
  std::deque<Task> waiting;
  std::vector<Task> captured;
  bool capturing = false;

  tm_status issue(Task task) {
    if (capturing) {
      captured.push_back(std::move(task));
    } else {
      waiting.push_back(std::move(task));
    }
    return TM_OK;
  }

  // The oldest task. A failure drops what was queued behind it.
  tm_status advance() {
    const Task task = std::move(waiting.front());
    waiting.pop_front();
    const tm_status status = task();
    if (status != TM_OK) waiting.clear();
    return status;
  }

  tm_status drain() {
    tm_status status = TM_OK;
    while (status == TM_OK && !waiting.empty()) status = advance();
    return status;
  }
};

struct Event {
  Stream* stream = nullptr;
  std::shared_ptr<bool> reached = std::make_shared<bool>(true);

  tm_status wait_for() const {
    tm_status status = TM_OK;
    while (status == TM_OK && !*reached && !stream->waiting.empty()) status = stream->advance();
    return status;
  }
};

struct Graph {
  std::vector<Task> tasks;
};

Stream& stream_of(tm_stream* stream) { return *reinterpret_cast<Stream*>(stream); }
Event& event_of(tm_event* event) { return *reinterpret_cast<Event*>(event); }

template <class Args>
using Slot = tm_status (*)(tm_stream*, const Args*, const tm_workspace*);

template <class Args>
tm_status issue_op(tm_stream* stream, Slot<Args> slot, const Args* args, const tm_workspace* workspace) {
  Stream& s = stream_of(stream);
  return s.issue([to = s.inner_stream, slot, args = *args, scratch = *workspace] { return slot(to, &args, &scratch); });
}

tm_status issue_block_copies(tm_stream* stream, const tm_kv_copy_blocks_args* args, const tm_workspace* workspace) {
  Stream& s = stream_of(stream);
  if (s.capturing) return TM_INVALID_ARGUMENT;
  const std::vector<int32_t> pairs(args->pairs, args->pairs + 2 * args->num_pairs);
  return s.issue([to = s.inner_stream, args = *args, pairs, scratch = *workspace]() mutable {
    args.pairs = pairs.data();
    return inner->op->kv_copy_blocks(to, &args, &scratch);
  });
}

template <class T>
std::vector<T> copy_of(const T* values, int64_t count) {
  return values ? std::vector<T>(values, values + count) : std::vector<T>();
}

tm_status update_plan(tm_plan* plan, tm_stream* stream, const tm_step_meta* meta) {
  Stream& s = stream_of(stream);
  if (s.capturing) return TM_INVALID_ARGUMENT;
  return s.issue([to = s.inner_stream, plan, meta = *meta, cu = copy_of(meta->cu_seqlens_q, meta->num_seqs + 1),
                  lens = copy_of(meta->context_lens, meta->num_seqs),
                  table = copy_of(meta->block_table, meta->num_seqs * meta->block_table_stride),
                  spans = copy_of(meta->spans, 3 * meta->num_spans)]() mutable {
    meta.cu_seqlens_q = cu.data();
    if (meta.context_lens) meta.context_lens = lens.data();
    if (meta.block_table) meta.block_table = table.data();
    meta.spans = spans.data();
    return inner->plan->update(plan, to, &meta);
  });
}

tm_device_api device_table() {
  tm_device_api t = *inner->device;
  t.struct_size = sizeof t;
  t.props = [](tm_context* context, tm_device_props* out) {
    const tm_status status = inner->device->props(context, out);
    out->asynchronous = 1;
    out->can_capture = 1;
    out->host_accessible = 0;
    return status;
  };
  t.stream_create = [](tm_context* context, tm_stream** out) {
    auto stream = std::make_unique<Stream>();
    const tm_status status = inner->device->stream_create(context, &stream->inner_stream);
    if (status == TM_OK) *out = reinterpret_cast<tm_stream*>(stream.release());
    return status;
  };
  t.stream_destroy = [](tm_stream* stream) {
    inner->device->stream_destroy(stream_of(stream).inner_stream);
    delete &stream_of(stream);
  };
  t.stream_synchronize = [](tm_stream* stream) {
    Stream& s = stream_of(stream);
    if (s.capturing) return TM_INVALID_ARGUMENT;
    const tm_status status = s.drain();
    return status == TM_OK ? inner->device->stream_synchronize(s.inner_stream) : status;
  };
  t.copy_async = [](tm_stream* stream, void* dst, const void* src, size_t bytes, tm_copy_kind kind) {
    Stream& s = stream_of(stream);
    return s.issue([=, to = s.inner_stream] { return inner->device->copy_async(to, dst, src, bytes, kind); });
  };
  t.memset_async = [](tm_stream* stream, void* dst, int value, size_t bytes) {
    Stream& s = stream_of(stream);
    return s.issue([=, to = s.inner_stream] { return inner->device->memset_async(to, dst, value, bytes); });
  };
  t.event_create = [](tm_context*, tm_event** out) {
    *out = reinterpret_cast<tm_event*>(new Event);
    return TM_OK;
  };
  t.event_destroy = [](tm_event* event) { delete &event_of(event); };
  t.event_record = [](tm_event* event, tm_stream* stream) {
    Event& e = event_of(event);
    e.stream = &stream_of(stream);
    e.reached = std::make_shared<bool>(false);
    return e.stream->issue([reached = e.reached] {
      *reached = true;
      return TM_OK;
    });
  };
  t.event_wait = [](tm_event* event, tm_stream* stream) {
    return stream_of(stream).issue([recorded = event_of(event)] { return recorded.wait_for(); });
  };
  t.event_synchronize = [](tm_event* event) { return event_of(event).wait_for(); };
  t.event_query = [](tm_event* event) {
    Event& e = event_of(event);
    const tm_status status = *e.reached || e.stream->waiting.empty() ? TM_OK : e.stream->advance();
    return status != TM_OK ? status : *e.reached ? TM_OK : TM_NOT_READY;
  };
  return t;
}

tm_weight_api weight_table() {
  tm_weight_api t = *inner->weight;
  t.pack = [](tm_stream* stream, const tm_weight_desc* desc, void* dst, tm_weight** out) {
    const tm_status status = stream_of(stream).drain();
    return status == TM_OK ? inner->weight->pack(stream_of(stream).inner_stream, desc, dst, out) : status;
  };
  return t;
}

tm_kv_api kv_table() {
  tm_kv_api t = *inner->kv;
  t.export_blocks = nullptr;
  t.import_blocks = nullptr;
  return t;
}

tm_graph_api graph_table() {
  tm_graph_api t{};
  t.struct_size = sizeof t;
  t.capture_begin = [](tm_stream* stream) {
    Stream& s = stream_of(stream);
    if (s.capturing) return TM_INVALID_ARGUMENT;
    s.capturing = true;
    s.captured.clear();
    return TM_OK;
  };
  t.capture_end = [](tm_stream* stream, tm_graph** out) {
    Stream& s = stream_of(stream);
    if (!s.capturing) return TM_INVALID_ARGUMENT;
    s.capturing = false;
    *out = reinterpret_cast<tm_graph*>(new Graph{std::move(s.captured)});
    return TM_OK;
  };
  t.launch = [](tm_graph* graph, tm_stream* stream, tm_plan* const*, int32_t) {
    for (const Task& task : reinterpret_cast<Graph*>(graph)->tasks) stream_of(stream).issue(task);
    return TM_OK;
  };
  t.free = [](tm_graph* graph) { delete reinterpret_cast<Graph*>(graph); };
  return t;
}

tm_comm_api comm_table() {
  tm_comm_api t = *inner->comm;
  t.all_reduce = [](tm_comm* comm, tm_stream* stream, const tm_tensor* in, const tm_tensor* out, tm_reduce_op op) {
    Stream& s = stream_of(stream);
    return s.issue(
        [=, to = s.inner_stream, in = *in, out = *out] { return inner->comm->all_reduce(comm, to, &in, &out, op); });
  };
  t.all_gather = [](tm_comm* comm, tm_stream* stream, const tm_tensor* in, const tm_tensor* out) {
    Stream& s = stream_of(stream);
    return s.issue(
        [=, to = s.inner_stream, in = *in, out = *out] { return inner->comm->all_gather(comm, to, &in, &out); });
  };
  t.reduce_scatter = [](tm_comm* comm, tm_stream* stream, const tm_tensor* in, const tm_tensor* out, tm_reduce_op op) {
    Stream& s = stream_of(stream);
    return s.issue([=, to = s.inner_stream, in = *in, out = *out] {
      return inner->comm->reduce_scatter(comm, to, &in, &out, op);
    });
  };
  t.broadcast = [](tm_comm* comm, tm_stream* stream, const tm_tensor* data, int32_t root) {
    Stream& s = stream_of(stream);
    return s.issue([=, to = s.inner_stream, data = *data] { return inner->comm->broadcast(comm, to, &data, root); });
  };
  t.all_to_all = [](tm_comm* comm, tm_stream* stream, const tm_tensor* in, const tm_tensor* out) {
    Stream& s = stream_of(stream);
    return s.issue(
        [=, to = s.inner_stream, in = *in, out = *out] { return inner->comm->all_to_all(comm, to, &in, &out); });
  };
  return t;
}

tm_op_api op_table() {
  tm_op_api t = *inner->op;
#define TM_DEFER(name)                                                                            \
  if (inner->op->name) {                                                                          \
    t.name = [](tm_stream* stream, const tm_##name##_args* args, const tm_workspace* workspace) { \
      return issue_op(stream, inner->op->name, args, workspace);                                  \
    };                                                                                            \
  }
  TM_ALL_OPS(TM_DEFER)
#undef TM_DEFER
  t.kv_copy_blocks = issue_block_copies;
  return t;
}

tm_status load_inner(const tm_host_api* host, uint32_t abi_major) {
  if (inner) return TM_OK;
  void* library = dlopen(TM_INNER_PLUGIN, RTLD_NOW | RTLD_LOCAL);
  if (!library) return TM_UNSUPPORTED;
  const auto entry = reinterpret_cast<tm_backend_get_api_fn>(dlsym(library, TM_BACKEND_ENTRY));
  return entry ? entry(host, abi_major, &inner) : TM_UNSUPPORTED;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) tm_status tm_backend_get_api(const tm_host_api* host,
                                                                               uint32_t abi_major,
                                                                               const tm_backend_api** out) {
  const tm_status status = load_inner(host, abi_major);
  if (status != TM_OK) return status;
  static const tm_device_api device = device_table();
  static const tm_weight_api weight = weight_table();
  static const tm_kv_api kv = kv_table();
  static const tm_graph_api graph = graph_table();
  static const tm_comm_api comm = comm_table();
  static const tm_op_api op = op_table();
  static const tm_plan_api plan = [] {
    tm_plan_api t = *inner->plan;
    t.update = update_plan;
    return t;
  }();
  static const tm_backend_api api = [] {
    tm_backend_api t = *inner;
    t.name = "deferred";
    t.device = &device;
    t.weight = &weight;
    t.kv = &kv;
    t.plan = &plan;
    t.graph = &graph;
    t.comm = &comm;
    t.op = &op;
    return t;
  }();
  *out = &api;
  return TM_OK;
}
