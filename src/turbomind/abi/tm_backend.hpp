// SPDX-License-Identifier: Apache-2.0
//
// Header-only C++20 adapter for plug-in authors: turns a set of C++ classes into the C tables of tm_backend.h, and
// their exceptions into a status plus a thread-local message.
//
// A backend is a struct B with
//   static constexpr const char *kName, *kVersion;
//   static std::string probe();                      empty = usable, else the reason why not
//   static int32_t device_count();
//   types Context, Stream, Event, Weight, Plan, Ops; optionally Graph, Comm
// where
//   Context(int32_t index, const tm_config&, const tm_host_api*)
//     void props(tm_device_props*), void mem_info(uint64_t* free, uint64_t* total), void set_thread(),
//     void* alloc(tm_memory_kind, size_t) (nullptr = out of memory), void free(tm_memory_kind, void*),
//     void query_weight(const tm_weight_desc&, tm_weight_info*), size_t kv_pool_bytes(const tm_kv_spec&, int64_t),
//     size_t workspace_size(tm_op_id, const void* args)
//   Stream(Context&): copy_async(dst, src, bytes, tm_copy_kind), memset_async(dst, value, bytes), synchronize(), and if
//     there is a Graph: capture_begin(), std::unique_ptr<Graph> capture_end()
//   Event(Context&): record(Stream&), wait(Stream&), synchronize(), bool query()
//   Weight(Stream&, const tm_weight_desc&, void* dst)
//   Plan(Context&, const tm_plan_limits&): update(Stream&, const tm_step_meta&)
//   Graph: launch(Stream&, tm_plan* const*, int32_t)
//   Comm(Context&, const uint8_t* id, int32_t rank, int32_t size): all_reduce(Stream&, const tm_tensor& in,
//     const tm_tensor& out, tm_reduce_op) and so on, abort(), static unique_id(Context&, uint8_t*)
//   Ops: static void <op>(Stream&, const tm_<op>_args&, const tm_workspace&) for each op offered; a missing one is a
//     NULL slot. kv_export / kv_import likewise.
// Then, in one source file:  TM_EXPORT_BACKEND(B)
#pragma once

#include <algorithm>
#include <concepts>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "tm_backend.h"

namespace turbomind::abi {

// Thrown by backend code to choose the status; any other std::exception becomes TM_INTERNAL.
class Error : public std::runtime_error {
 public:
  Error(tm_status status, const std::string& message) : std::runtime_error(message), status_(status) {}
  tm_status status() const { return status_; }

 private:
  tm_status status_;
};

// Opaque handle of the ABI <-> the backend's class.
template <class T, class Handle>
T* as(Handle* handle) {
  return reinterpret_cast<T*>(handle);
}
template <class T, class Handle>
const T* as(const Handle* handle) {
  return reinterpret_cast<const T*>(handle);
}

namespace detail {

// The thread's message, cut to what fits: reporting an error must not take memory, of which there may be none.
class LastError {
 public:
  void operator=(const char* message) noexcept {
    const size_t length = std::min(std::strlen(message), sizeof text_ - 1);
    std::memcpy(text_, message, length);
    text_[length] = '\0';
  }
  const char* c_str() const { return text_; }

 private:
  char text_[2048] = "";
};

inline LastError& last_error() {
  thread_local LastError message;
  return message;
}

// Runs fn; the only place where a backend's exceptions end.
template <class Fn>
tm_status guard(Fn&& fn) noexcept {
  try {
    fn();
    return TM_OK;
  } catch (const Error& error) {
    last_error() = error.what();
    return error.status();
  } catch (const std::bad_alloc&) {
    last_error() = "out of host memory";
    return TM_OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    last_error() = error.what();
    return TM_INTERNAL;
  } catch (...) {
    last_error() = "unknown exception";
    return TM_INTERNAL;
  }
}

template <class B>
struct Tables {
  using Context = typename B::Context;
  using Stream = typename B::Stream;
  using Event = typename B::Event;
  using Weight = typename B::Weight;
  using Plan = typename B::Plan;
  using Ops = typename B::Ops;

  static inline const tm_host_api* host = nullptr;

  template <class T, class Handle, class... Args>
  static tm_status create(Handle** out, Args&&... args) {
    return guard([&] { *out = reinterpret_cast<Handle*>(new T(std::forward<Args>(args)...)); });
  }

  static tm_device_api device_table() {
    tm_device_api t{};
    t.struct_size = sizeof t;
    t.count = [](int32_t* out) { return guard([&] { *out = B::device_count(); }); };
    t.context_create = [](int32_t index, const tm_config* config, tm_context** out) {
      static const tm_config kEmpty{nullptr, 0};
      return create<Context>(out, index, config ? *config : kEmpty, host);
    };
    t.context_destroy = [](tm_context* c) { delete as<Context>(c); };
    t.props = [](tm_context* c, tm_device_props* out) { return guard([&] { as<Context>(c)->props(out); }); };
    t.mem_info = [](tm_context* c, uint64_t* free_bytes, uint64_t* total_bytes) {
      return guard([&] { as<Context>(c)->mem_info(free_bytes, total_bytes); });
    };
    t.alloc = [](tm_context* c, tm_memory_kind kind, size_t bytes, void** out) {
      return guard([&] {
        *out = as<Context>(c)->alloc(kind, bytes);
        if (!*out) throw Error(TM_OUT_OF_MEMORY, "cannot allocate " + std::to_string(bytes) + " bytes");
      });
    };
    t.free = [](tm_context* c, tm_memory_kind kind, void* data) { as<Context>(c)->free(kind, data); };
    t.copy_async = [](tm_stream* s, void* dst, const void* src, size_t bytes, tm_copy_kind kind) {
      return guard([&] { as<Stream>(s)->copy_async(dst, src, bytes, kind); });
    };
    t.memset_async = [](tm_stream* s, void* dst, int value, size_t bytes) {
      return guard([&] { as<Stream>(s)->memset_async(dst, value, bytes); });
    };
    t.stream_create = [](tm_context* c, tm_stream** out) { return create<Stream>(out, *as<Context>(c)); };
    t.stream_destroy = [](tm_stream* s) { delete as<Stream>(s); };
    t.stream_synchronize = [](tm_stream* s) { return guard([&] { as<Stream>(s)->synchronize(); }); };
    t.event_create = [](tm_context* c, tm_event** out) { return create<Event>(out, *as<Context>(c)); };
    t.event_destroy = [](tm_event* e) { delete as<Event>(e); };
    t.event_record = [](tm_event* e, tm_stream* s) { return guard([&] { as<Event>(e)->record(*as<Stream>(s)); }); };
    t.event_wait = [](tm_event* e, tm_stream* s) { return guard([&] { as<Event>(e)->wait(*as<Stream>(s)); }); };
    t.event_synchronize = [](tm_event* e) { return guard([&] { as<Event>(e)->synchronize(); }); };
    t.event_query = [](tm_event* e) {
      bool reached = false;
      const tm_status status = guard([&] { reached = as<Event>(e)->query(); });
      return status != TM_OK || reached ? status : TM_NOT_READY;
    };
    t.set_thread = [](tm_context* c) { return guard([&] { as<Context>(c)->set_thread(); }); };
    return t;
  }

  static tm_weight_api weight_table() {
    tm_weight_api t{};
    t.struct_size = sizeof t;
    t.query = [](tm_context* c, const tm_weight_desc* desc, tm_weight_info* out) {
      return guard([&] { as<Context>(c)->query_weight(*desc, out); });
    };
    t.pack = [](tm_stream* s, const tm_weight_desc* desc, void* dst, tm_weight** out) {
      return create<Weight>(out, *as<Stream>(s), *desc, dst);
    };
    t.free = [](tm_weight* w) { delete as<Weight>(w); };
    return t;
  }

  static tm_kv_api kv_table() {
    tm_kv_api t{};
    t.struct_size = sizeof t;
    t.pool_bytes = [](tm_context* c, const tm_kv_spec* spec, int64_t num_blocks, size_t* out) {
      return guard([&] { *out = as<Context>(c)->kv_pool_bytes(*spec, num_blocks); });
    };
    if constexpr (requires { &Ops::kv_export; }) {
      t.export_blocks = [](tm_stream* s, const tm_kv_pool* pool, const int32_t* ids, int64_t n, void* dst) {
        return guard([&] { Ops::kv_export(*as<Stream>(s), *pool, ids, n, dst); });
      };
      t.import_blocks = [](tm_stream* s, const tm_kv_pool* pool, const int32_t* ids, int64_t n, const void* src) {
        return guard([&] { Ops::kv_import(*as<Stream>(s), *pool, ids, n, src); });
      };
    }
    return t;
  }

  static tm_plan_api plan_table() {
    tm_plan_api t{};
    t.struct_size = sizeof t;
    t.create = [](tm_context* c, const tm_plan_limits* limits, tm_plan** out) {
      return create<Plan>(out, *as<Context>(c), *limits);
    };
    t.update = [](tm_plan* p, tm_stream* s, const tm_step_meta* meta) {
      return guard([&] { as<Plan>(p)->update(*as<Stream>(s), *meta); });
    };
    t.free = [](tm_plan* p) { delete as<Plan>(p); };
    return t;
  }

  static tm_graph_api graph_table()
    requires requires { typename B::Graph; }
  {
    using Graph = typename B::Graph;
    tm_graph_api t{};
    t.struct_size = sizeof t;
    t.capture_begin = [](tm_stream* s) { return guard([&] { as<Stream>(s)->capture_begin(); }); };
    t.capture_end = [](tm_stream* s, tm_graph** out) {
      return guard([&] { *out = reinterpret_cast<tm_graph*>(as<Stream>(s)->capture_end().release()); });
    };
    t.launch = [](tm_graph* g, tm_stream* s, tm_plan* const* plans, int32_t n) {
      return guard([&] { as<Graph>(g)->launch(*as<Stream>(s), plans, n); });
    };
    t.free = [](tm_graph* g) { delete as<Graph>(g); };
    return t;
  }

  static tm_comm_api comm_table()
    requires requires { typename B::Comm; }
  {
    using Comm = typename B::Comm;
    tm_comm_api t{};
    t.struct_size = sizeof t;
    t.unique_id = [](tm_context* c, uint8_t* out) { return guard([&] { Comm::unique_id(*as<Context>(c), out); }); };
    t.init_rank = [](tm_context* c, const uint8_t* id, int32_t rank, int32_t size, tm_comm** out) {
      return create<Comm>(out, *as<Context>(c), id, rank, size);
    };
    t.free = [](tm_comm* c) { delete as<Comm>(c); };
    t.abort = [](tm_comm* c) { as<Comm>(c)->abort(); };
    t.all_reduce = [](tm_comm* c, tm_stream* s, const tm_tensor* in, const tm_tensor* out, tm_reduce_op op) {
      return guard([&] { as<Comm>(c)->all_reduce(*as<Stream>(s), *in, *out, op); });
    };
    t.all_gather = [](tm_comm* c, tm_stream* s, const tm_tensor* in, const tm_tensor* out) {
      return guard([&] { as<Comm>(c)->all_gather(*as<Stream>(s), *in, *out); });
    };
    t.reduce_scatter = [](tm_comm* c, tm_stream* s, const tm_tensor* in, const tm_tensor* out, tm_reduce_op op) {
      return guard([&] { as<Comm>(c)->reduce_scatter(*as<Stream>(s), *in, *out, op); });
    };
    t.broadcast = [](tm_comm* c, tm_stream* s, const tm_tensor* data, int32_t root) {
      return guard([&] { as<Comm>(c)->broadcast(*as<Stream>(s), *data, root); });
    };
    t.all_to_all = [](tm_comm* c, tm_stream* s, const tm_tensor* in, const tm_tensor* out) {
      return guard([&] { as<Comm>(c)->all_to_all(*as<Stream>(s), *in, *out); });
    };
    return t;
  }

  static tm_op_api op_table() {
    tm_op_api t{};
    t.struct_size = sizeof t;
    t.workspace_size = [](tm_context* c, tm_op_id op, const void* args, size_t* out) {
      return guard([&] { *out = as<Context>(c)->workspace_size(op, args); });
    };
#define TM_FILL_SLOT(name)                                                                     \
  if constexpr (requires { &Ops::name; }) {                                                    \
    t.name = [](tm_stream* s, const tm_##name##_args* args, const tm_workspace* workspace) {   \
      static constexpr tm_workspace kNone{nullptr, 0};                                         \
      return guard([&] { Ops::name(*as<Stream>(s), *args, workspace ? *workspace : kNone); }); \
    };                                                                                         \
  }
    TM_ALL_OPS(TM_FILL_SLOT)
#undef TM_FILL_SLOT
    return t;
  }

  static tm_status probe(char* reason, size_t reason_bytes) {
    std::string text;
    tm_status status = guard([&] { text = B::probe(); });
    if (status != TM_OK) text = last_error().c_str();
    if (status == TM_OK && !text.empty()) status = TM_UNSUPPORTED;
    if (reason && reason_bytes) {
      std::strncpy(reason, text.c_str(), reason_bytes - 1);
      reason[reason_bytes - 1] = '\0';
    }
    return status;
  }

  static const tm_backend_api* api() {
    static const tm_device_api device = device_table();
    static const tm_weight_api weight = weight_table();
    static const tm_kv_api kv = kv_table();
    static const tm_plan_api plan = plan_table();
    static const tm_op_api op = op_table();
    static const tm_backend_api table = [] {
      tm_backend_api t{};
      t.struct_size = sizeof t;
      t.abi_major = TM_ABI_MAJOR;
      t.abi_minor = TM_ABI_MINOR;
      t.name = B::kName;
      t.version = B::kVersion;
      t.probe = probe;
      t.last_error = [] { return last_error().c_str(); };
      t.device = &device;
      t.weight = &weight;
      t.kv = &kv;
      t.plan = &plan;
      t.op = &op;
      if constexpr (requires { typename B::Graph; }) {
        static const tm_graph_api graph = graph_table();
        t.graph = &graph;
      }
      if constexpr (requires { typename B::Comm; }) {
        static const tm_comm_api comm = comm_table();
        t.comm = &comm;
      }
      return t;
    }();
    return &table;
  }
};

}  // namespace detail

template <class B>
tm_status backend_get_api(const tm_host_api* host, uint32_t abi_major, const tm_backend_api** out) {
  if (!out) return TM_INVALID_ARGUMENT;
  if (abi_major != TM_ABI_MAJOR) return TM_UNSUPPORTED;
  return detail::guard([&] {
    detail::Tables<B>::host = host;
    *out = detail::Tables<B>::api();
  });
}

}  // namespace turbomind::abi

#define TM_EXPORT_BACKEND(B)                                                      \
  extern "C" __attribute__((visibility("default"))) tm_status tm_backend_get_api( \
      const tm_host_api* host, uint32_t abi_major, const tm_backend_api** out) {  \
    return turbomind::abi::backend_get_api<B>(host, abi_major, out);              \
  }
