// SPDX-License-Identifier: Apache-2.0
//
// The ops of the backend contract as C++ methods. tm_backend_ops.h documents what each computes and the shape of every
// argument; this front checks the arguments, provides the scratch memory, calls the backend and turns a failure into
// Error. An optional op the backend lacks runs as its default composition of required ops, with the same meaning.
#pragma once

#include <array>
#include <cstdint>

#include "turbomind/runtime/arena.h"
#include "turbomind/runtime/comm.h"
#include "turbomind/runtime/device.h"

namespace turbomind {

// Name of an op as in the contract, e.g. "rms_norm".
const char* op_name(tm_op_id op);

// Issues ops on one stream; used by the thread that owns the stream. Callers fill args by designated initialisers and
// leave struct_size out. Errors: kInvalidArgument "<op>: <argument>: expected ..., found ...", else the backend's.
class Ops {
 public:
  // kMeasure: ops are checked and their scratch is added up, but nothing runs and no data is touched.
  enum class Mode { kRun, kMeasure };

  Ops(const Device& device, Stream& stream, Workspace& workspace, Mode mode = Mode::kRun)
      : device_(device), stream_(stream), workspace_(workspace), mode_(mode) {}

  const Device& device() const { return device_; }
  Stream& stream() const { return stream_; }
  // The most scratch any op has asked for, compositions included.
  size_t peak_workspace_bytes() const { return peak_workspace_bytes_; }
  // True if the backend runs the op itself; false: as a composition.
  bool offered(tm_op_id op) const;

#define TM_DECLARE_OP(name) void name(tm_##name##_args args);
  TM_ALL_OPS(TM_DECLARE_OP)
#undef TM_DECLARE_OP

 private:
  template <class Args>
  using Slot = tm_status (*)(tm_stream*, const Args*, const tm_workspace*);

  template <class Args>
  size_t workspace_bytes(tm_op_id op, Args& args) const;
  // Calls the slot with scratch behind the first reserved bytes of the workspace.
  template <class Args>
  void run(tm_op_id op, Slot<Args> slot, Args& args, size_t reserved = 0);
  tm_workspace require_workspace(size_t bytes);

  void compose(tm_add_rms_norm_args& args);
  void compose(tm_qk_norm_rope_kv_write_args& args);
  void compose(tm_linear_gated_activation_args& args);
  void compose(tm_all_reduce_add_rms_norm_args& args);

  const Device& device_;
  Stream& stream_;
  Workspace& workspace_;
  Mode mode_;
  size_t peak_workspace_bytes_ = 0;
};

template <class Args>
size_t Ops::workspace_bytes(tm_op_id op, Args& args) const {
  args.struct_size = sizeof(Args);
  size_t bytes = 0;
  const Plugin& plugin = device_.plugin();
  plugin.check_status(plugin.op().workspace_size(device_.handle(), op, &args, &bytes), op_name(op));
  return bytes;
}

template <class Args>
void Ops::run(tm_op_id op, Slot<Args> slot, Args& args, size_t reserved) {
  const tm_workspace all = require_workspace(reserved + workspace_bytes(op, args));
  if (mode_ == Mode::kMeasure) return;
  const tm_workspace scratch{static_cast<char*>(all.data) + reserved, all.bytes - reserved};
  device_.plugin().check_status(slot(stream_.handle(), &args, &scratch), op_name(op));
}

}  // namespace turbomind
