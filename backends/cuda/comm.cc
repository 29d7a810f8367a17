// SPDX-License-Identifier: Apache-2.0
#include "comm.h"

#include <chrono>
#include <cstring>
#include <string>

#include "cuda_check.h"
#include "owned.h"

namespace turbomind::cuda {
namespace {

static_assert(sizeof(ncclUniqueId) <= TM_UNIQUE_ID_BYTES);

// NCCL builds its connections when an algorithm is first used, which allocates and waits for the other ranks. Messages
// of these sizes make it use the ones that a step's collectives will.
constexpr size_t kConnectBytes[] = {size_t{4} << 10, size_t{256} << 10, size_t{16} << 20};

// A thread that issues work never holds the lock for longer, unless its launch queue is full, which abort ends.
constexpr std::chrono::milliseconds kAbortPatience{200};

ncclDataType_t reduced_type(tm_dtype dtype) {
  switch (dtype) {
    case TM_F32:
      return ncclFloat32;
    case TM_F16:
      return ncclFloat16;
    case TM_BF16:
      return ncclBfloat16;
    case TM_I32:
      return ncclInt32;
    case TM_I64:
      return ncclInt64;
    default:
      throw abi::Error(TM_UNSUPPORTED,
                       "collectives: expected f32, f16, bf16, i32 or i64, found dtype " + std::to_string(dtype));
  }
}

ncclRedOp_t reduction(tm_reduce_op op) {
  if (op == TM_REDUCE_SUM) return ncclSum;
  if (op == TM_REDUCE_MAX) return ncclMax;
  throw abi::Error(TM_UNSUPPORTED, "tm_reduce_op " + std::to_string(op));
}

size_t count_of(const tm_tensor& tensor) { return static_cast<size_t>(abi::num_elements(tensor)); }
size_t bytes_of(const tm_tensor& tensor) { return static_cast<size_t>(abi::num_bytes(tensor)); }

void check_group(const Context& context, int32_t rank, int32_t size) {
  if (size < 1 || rank < 0 || rank >= size) {
    throw abi::Error(TM_INVALID_ARGUMENT,
                     "rank " + std::to_string(rank) + " of " + std::to_string(size) + ": expected 0 to size - 1");
  }
  int gpus = 0;
  check_cuda(cudaGetDeviceCount(&gpus), "cudaGetDeviceCount");
  if (size > gpus) {
    throw abi::Error(TM_UNSUPPORTED, std::to_string(size) + " ranks on " + std::to_string(gpus) +
                                         " GPUs: the cuda backend wants one GPU per rank");
  }
  if (context.deterministic() && size > 2) {
    throw abi::Error(TM_UNSUPPORTED, "deterministic=1 with more than two ranks: NCCL does not add in rank order");
  }
}

}  // namespace

void Comm::unique_id(Context&, uint8_t* out) {
  ncclUniqueId id;
  check_nccl(nccl().get_unique_id(&id), "ncclGetUniqueId");
  std::memset(out, 0, TM_UNIQUE_ID_BYTES);
  std::memcpy(out, &id, sizeof id);
}

Comm::Comm(Context& context, const uint8_t* id, int32_t rank, int32_t size) : rank_(rank), size_(size) {
  check_group(context, rank, size);
  context.set_thread();
  ncclUniqueId unique;
  std::memcpy(&unique, id, sizeof unique);
  check_nccl(nccl().comm_init_rank(&comm_, size, unique, rank), "ncclCommInitRank");
  try {
    connect(context);
  } catch (...) {
    nccl().comm_abort(comm_);
    throw;
  }
}

Comm::~Comm() {
  if (ending_.joinable()) ending_.join();
  if (comm_) nccl().comm_destroy(comm_);
}

void Comm::connect(Context& context) {
  Stream stream(context);
  const size_t most = kConnectBytes[std::size(kConnectBytes) - 1];
  const size_t ranks = static_cast<size_t>(size_);
  const DeviceMemory in = allocate_device(most);
  const DeviceMemory out = allocate_device(most);
  for (const size_t size : kConnectBytes) {
    const auto all = static_cast<int64_t>(size / sizeof(float) / ranks * ranks);
    const auto share = all / size_;
    const auto view = [](const DeviceMemory& memory, int64_t count) {
      return tm_tensor{memory.get(), TM_F32, 1, {count}, {1}};
    };
    all_reduce(stream, view(in, all), view(out, all), TM_REDUCE_SUM);
    all_gather(stream, view(in, share), view(out, all));
    reduce_scatter(stream, view(in, all), view(out, share), TM_REDUCE_SUM);
    broadcast(stream, view(in, all), 0);
    all_to_all(stream, view(in, all), view(out, all));
  }
  stream.synchronize();
}

void Comm::issue(Stream& stream, const char* call, const std::function<ncclResult_t()>& enqueue) {
  const std::lock_guard lock(mutex_);
  if (*aborted_) throw abi::Error(TM_DEVICE_ERROR, std::string(call) + ": the group of ranks was aborted");
  stream.watch(aborted_);
  check_nccl(enqueue(), call);
}

void Comm::all_reduce(Stream& stream, const tm_tensor& in, const tm_tensor& out, tm_reduce_op op) {
  const ncclDataType_t type = reduced_type(in.dtype);
  const ncclRedOp_t how = reduction(op);
  issue(stream, "ncclAllReduce",
        [&] { return nccl().all_reduce(in.data, out.data, count_of(in), type, how, comm_, stream.handle()); });
}

void Comm::all_gather(Stream& stream, const tm_tensor& in, const tm_tensor& out) {
  issue(stream, "ncclAllGather",
        [&] { return nccl().all_gather(in.data, out.data, bytes_of(in), ncclUint8, comm_, stream.handle()); });
}

void Comm::reduce_scatter(Stream& stream, const tm_tensor& in, const tm_tensor& out, tm_reduce_op op) {
  const ncclDataType_t type = reduced_type(in.dtype);
  const ncclRedOp_t how = reduction(op);
  issue(stream, "ncclReduceScatter",
        [&] { return nccl().reduce_scatter(in.data, out.data, count_of(out), type, how, comm_, stream.handle()); });
}

void Comm::broadcast(Stream& stream, const tm_tensor& data, int32_t root) {
  issue(stream, "ncclBroadcast", [&] {
    return nccl().broadcast(data.data, data.data, bytes_of(data), ncclUint8, root, comm_, stream.handle());
  });
}

void Comm::all_to_all(Stream& stream, const tm_tensor& in, const tm_tensor& out) {
  const size_t share = bytes_of(in) / static_cast<size_t>(size_);
  const auto* from = static_cast<const std::byte*>(in.data);
  auto* to = static_cast<std::byte*>(out.data);
  issue(stream, "ncclSend", [&] {
    ncclResult_t result = nccl().group_start();
    for (int32_t peer = 0; peer < size_; ++peer) {
      const size_t offset = share * static_cast<size_t>(peer);
      if (result == ncclSuccess) {
        result = nccl().send(from + offset, share, ncclUint8, peer, comm_, stream.handle());
      }
      if (result == ncclSuccess) result = nccl().recv(to + offset, share, ncclUint8, peer, comm_, stream.handle());
    }
    const ncclResult_t end = nccl().group_end();
    return result == ncclSuccess ? end : result;
  });
}

void Comm::abort() {
  if (aborted_->exchange(true)) return;
  // A thread that sits in a full launch queue holds the lock until its kernels end, which is what abort makes them do.
  const bool locked = mutex_.try_lock_for(kAbortPatience);
  if (comm_) ending_ = std::thread([comm = comm_] { nccl().comm_abort(comm); });
  comm_ = nullptr;
  if (locked) mutex_.unlock();
}

}  // namespace turbomind::cuda
