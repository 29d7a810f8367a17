// SPDX-License-Identifier: Apache-2.0
#include "comm.h"

#include <cstring>
#include <string>

#include "check.h"

namespace turbomind::ascend {
namespace {

static_assert(sizeof(HcclRootInfo) <= TM_UNIQUE_ID_BYTES);

int reduced_type(tm_dtype dtype) {
  switch (dtype) {
    case TM_F32:
      return kHcclFp32;
    case TM_F16:
      return kHcclFp16;
    case TM_BF16:
      return kHcclBfp16;
    case TM_I32:
      return kHcclInt32;
    case TM_I64:
      return kHcclInt64;
    default:
      throw abi::Error(TM_UNSUPPORTED,
                       "collectives: expected f32, f16, bf16, i32 or i64, found dtype " + std::to_string(dtype));
  }
}

int reduction(tm_reduce_op op) {
  if (op == TM_REDUCE_SUM) return kHcclSum;
  if (op == TM_REDUCE_MAX) return kHcclMax;
  throw abi::Error(TM_UNSUPPORTED, "tm_reduce_op " + std::to_string(op));
}

uint64_t count_of(const tm_tensor& tensor) { return static_cast<uint64_t>(abi::num_elements(tensor)); }
uint64_t bytes_of(const tm_tensor& tensor) { return static_cast<uint64_t>(abi::num_bytes(tensor)); }

void check_group(const Context& context, int32_t rank, int32_t size) {
  require(size >= 1 && rank >= 0 && rank < size, "rank",
          "0 to size - 1, found " + std::to_string(rank) + " of " + std::to_string(size));
  const int32_t devices = count_devices();
  require_supported(size <= devices, std::to_string(size) + " ranks on " + std::to_string(devices) +
                                         " devices: the ascend backend wants one device per rank");
  require_supported(!context.deterministic() || size <= 2,
                    "deterministic=1 with more than two ranks: HCCL promises no order of addition");
}

}  // namespace

void Comm::unique_id(Context& context, uint8_t* out) {
  context.set_thread();
  HcclRootInfo root;
  check(hccl().HcclGetRootInfo(&root), "HcclGetRootInfo");
  std::memset(out, 0, TM_UNIQUE_ID_BYTES);
  std::memcpy(out, &root, sizeof root);
}

Comm::Comm(Context& context, const uint8_t* id, int32_t rank, int32_t size) : context_(context), size_(size) {
  check_group(context, rank, size);
  context.set_thread();
  HcclRootInfo root;
  std::memcpy(&root, id, sizeof root);
  check(hccl().HcclCommInitRootInfo(static_cast<uint32_t>(size), &root, static_cast<uint32_t>(rank), &comm_),
        "HcclCommInitRootInfo");
}

Comm::~Comm() {
  context_.set_thread_if_possible();
  if (comm_) hccl().HcclCommDestroy(comm_);
}

void Comm::issue(Stream& stream, const char* call, const std::function<int()>& enqueue) {
  const std::lock_guard lock(mutex_);
  if (*aborted_) throw abi::Error(TM_DEVICE_ERROR, std::string(call) + ": the group of ranks was aborted");
  stream.watch(aborted_);
  stream_ = stream.shared_handle();
  check(enqueue(), call);
}

void Comm::all_reduce(Stream& stream, const tm_tensor& in, const tm_tensor& out, tm_reduce_op op) {
  const int type = reduced_type(in.dtype);
  const int how = reduction(op);
  issue(stream, "HcclAllReduce",
        [&] { return hccl().HcclAllReduce(in.data, out.data, count_of(in), type, how, comm_, stream.handle()); });
}

void Comm::all_gather(Stream& stream, const tm_tensor& in, const tm_tensor& out) {
  issue(stream, "HcclAllGather",
        [&] { return hccl().HcclAllGather(in.data, out.data, bytes_of(in), kHcclUint8, comm_, stream.handle()); });
}

void Comm::reduce_scatter(Stream& stream, const tm_tensor& in, const tm_tensor& out, tm_reduce_op op) {
  const int type = reduced_type(in.dtype);
  const int how = reduction(op);
  issue(stream, "HcclReduceScatter",
        [&] { return hccl().HcclReduceScatter(in.data, out.data, count_of(out), type, how, comm_, stream.handle()); });
}

void Comm::broadcast(Stream& stream, const tm_tensor& data, int32_t root) {
  issue(stream, "HcclBroadcast", [&] {
    return hccl().HcclBroadcast(data.data, bytes_of(data), kHcclUint8, static_cast<uint32_t>(root), comm_,
                                stream.handle());
  });
}

void Comm::all_to_all(Stream& stream, const tm_tensor& in, const tm_tensor& out) {
  const uint64_t share = bytes_of(in) / static_cast<uint64_t>(size_);
  issue(stream, "HcclAlltoAll", [&] {
    return hccl().HcclAlltoAll(in.data, share, kHcclUint8, out.data, share, kHcclUint8, comm_, stream.handle());
  });
}

void Comm::abort() {
  if (aborted_->exchange(true)) return;
  const std::lock_guard lock(mutex_);
  const auto stream = stream_.lock();
  const auto stream_abort = library().runtime.aclrtStreamAbort;
  if (!stream || !stream_abort) return;
  context_.set_thread_if_possible();
  stream_abort(*stream);
}

}  // namespace turbomind::ascend
