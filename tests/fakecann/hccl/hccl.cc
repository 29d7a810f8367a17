// SPDX-License-Identifier: Apache-2.0
//
// Collectives. Each is two tasks of its stream: one lays this rank's data into its slot, one takes the result when
// every rank has done so. What a rank posts n-th must be what every other posts n-th.
#include "abi/hccl.h"

#include <unistd.h>

#include <chrono>
#include <cstring>
#include <memory>
#include <set>
#include <thread>

#include "hccl/codes.h"
#include "hccl/group.h"
#include "hccl/reduce.h"
#include "runtime/memory.h"
#include "runtime/stream.h"

struct HcclRootInfo {
  char path[4108];
};

namespace fakecann {
namespace {

enum Kind { kAllReduce, kBroadcast, kAllGather, kReduceScatter, kAllToAll, kBarrier };

struct Comm {
  Comm(const std::string& path, uint32_t ranks, uint32_t rank) : group(path, ranks), rank(rank) {}
  Group group;
  uint32_t rank;
  uint64_t posted = 0;
  uint64_t captured = 0;
  int async_error = 0;
  Stream* stream = nullptr;  // the last one used

  RankState& own() { return group.rank(rank); }
};

struct Handle {
  std::shared_ptr<Comm> comm;
};

std::set<Handle*>& handles() {
  static auto* live = new std::set<Handle*>;
  return *live;
}

std::shared_ptr<Comm> find_comm(HcclComm handle) {
  auto* found = static_cast<Handle*>(handle);
  if (found == nullptr) fail(kHcclNullPointer, "null communicator");
  if (handles().count(found) == 0) fail(kHcclParameter, "not a live communicator");
  return found->comm;
}

// Another process waits for this rank: a real device would have gone on by itself.
void serve_others() {
  while (true) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    Entry entry("fakecann progress", false);
    for (Handle* handle : std::set<Handle*>(handles())) {
      Comm& comm = *handle->comm;
      uint64_t wanted = 0;
      for (uint32_t r = 0; r < comm.group.ranks(); ++r) wanted = std::max(wanted, comm.group.rank(r).wanted.load());
      const bool is_behind = wanted > comm.own().posted || wanted > comm.own().finished + kSlots;
      if (is_behind && comm.stream != nullptr && Streams::instance().live.count(comm.stream) != 0)
        advance(*comm.stream);
    }
  }
}

void start_serving() {
  static bool is_started = false;
  if (is_started) return;
  is_started = true;
  std::thread(serve_others).detach();
}

// Blocks, as the real call does, until every rank is there.
void join(Comm& comm, int device) {
  RankState& own = comm.own();
  uint32_t nobody = 0;
  if (!comm.group.state().ranks.compare_exchange_strong(nobody, comm.group.ranks()) && nobody != comm.group.ranks()) {
    fail(kHcclParameter, "the ranks disagree on how many they are");
  }
  for (uint32_t r = 0; r < comm.group.ranks(); ++r) {
    RankState& other = comm.group.rank(r);
    if (other.has_joined == 1 && other.process == getpid() && other.device == device) {
      fail(kHcclParameter, "two ranks on one device");
    }
  }
  own.process = getpid();
  own.device = device;
  uint32_t absent = 0;
  if (!own.has_joined.compare_exchange_strong(absent, 1)) fail(kHcclParameter, "the rank has joined already");
  const auto limit = std::chrono::steady_clock::now() + std::chrono::milliseconds(config().wait_ms);
  bool has_strangers = false;
  for (uint32_t r = 0; r < comm.group.ranks(); ++r) {
    while (comm.group.rank(r).has_joined == 0) {
      if (std::chrono::steady_clock::now() > limit) fail(kHcclTimeout, "rank " + std::to_string(r) + " did not join");
      wait_for_news(1);
    }
    has_strangers = has_strangers || comm.group.rank(r).process != getpid();
  }
  if (has_strangers) start_serving();
}

struct Transfer {
  Collective what;
  const void* send;
  void* receive;
  int64_t send_bytes;
  int64_t receive_bytes;
};

// State that the two tasks of one collective share.
struct Progress {
  uint64_t number = 0;
  bool is_stalled = false;
  bool is_counted = false;
  std::chrono::steady_clock::time_point since;

  bool has_expired() {
    const auto now = std::chrono::steady_clock::now();
    if (since.time_since_epoch().count() == 0) since = now;
    return now - since > std::chrono::milliseconds(config().wait_ms);
  }
};

bool can_post(Comm& comm, Progress& progress) {
  if (!progress.is_counted) {
    progress.is_counted = true;
    progress.is_stalled = fault_is_due("stall");
  }
  const uint64_t next = comm.posted + 1;
  if (!progress.is_stalled && (next <= kSlots || comm.group.everyone_finished(next - kSlots))) return true;
  if (!progress.is_stalled) comm.own().wanted = next;
  return progress.has_expired();
}

void expire(Comm& comm, const std::string& text) {
  comm.async_error = kHcclRemote;
  fail(kCollectiveTimeout, text);
}

void post(Comm& comm, const Transfer& transfer, Progress& progress, int device) {
  if (progress.is_stalled) expire(comm, "the collective stalled");
  if (progress.has_expired()) expire(comm, "a rank did not take the result of an earlier collective");
  progress.number = ++comm.posted;
  progress.since = {};
  comm.own().collectives[progress.number % kSlots] = transfer.what;
  if (transfer.send_bytes > 0) {
    const auto bytes = static_cast<size_t>(transfer.send_bytes);
    std::memcpy(comm.group.slot(comm.rank, progress.number), Memory::instance().alias(transfer.send, bytes, device),
                bytes);
  }
  comm.own().posted.store(progress.number, std::memory_order_release);
}

bool can_finish(Comm& comm, Progress& progress) {
  if (progress.number == 0 || comm.group.everyone_posted(progress.number)) return true;
  comm.own().wanted = progress.number;
  return progress.has_expired();
}

void take(Comm& comm, const Transfer& transfer, uint64_t number, char* out) {
  std::vector<const char*> parts;
  for (uint32_t r = 0; r < comm.group.ranks(); ++r) parts.push_back(comm.group.slot(r, number));
  const auto count = static_cast<int64_t>(transfer.what.count);
  const int64_t size = hccl_size(transfer.what.dtype), bytes = count * size;
  switch (transfer.what.kind) {
    case kAllReduce:
      return hccl_reduce(parts, 0, count, transfer.what.dtype, transfer.what.op, out);
    case kReduceScatter:
      return hccl_reduce(parts, comm.rank * count, count, transfer.what.dtype, transfer.what.op, out);
    case kBroadcast:
      std::memcpy(out, parts[transfer.what.root], static_cast<size_t>(bytes));
      return;
    case kAllGather:
      for (size_t r = 0; r < parts.size(); ++r) std::memcpy(out + r * bytes, parts[r], static_cast<size_t>(bytes));
      return;
    case kAllToAll:
      for (size_t r = 0; r < parts.size(); ++r) {
        std::memcpy(out + r * bytes, parts[r] + comm.rank * bytes, static_cast<size_t>(bytes));
      }
      return;
    default:
      return;
  }
}

void finish(Comm& comm, const Transfer& transfer, Progress& progress, int device) {
  if (progress.number == 0) return;  // the post has failed and said so
  if (!comm.group.everyone_posted(progress.number)) expire(comm, "a rank did not reach the collective");
  for (uint32_t r = 0; r < comm.group.ranks(); ++r) {
    if (comm.group.rank(r).collectives[progress.number % kSlots] != transfer.what) {
      comm.own().finished = progress.number;
      expire(comm,
             "rank " + std::to_string(r) + " is at another collective, or at one of another size, type or capture");
    }
  }
  if (transfer.receive_bytes > 0) {
    char* out = Memory::instance().alias(transfer.receive, static_cast<size_t>(transfer.receive_bytes), device);
    take(comm, transfer, progress.number, out);
  }
  comm.own().finished.store(progress.number, std::memory_order_release);
}

void enqueue_collective(HcclComm handle, aclrtStream stream_handle, Transfer transfer) {
  const std::shared_ptr<Comm> comm = find_comm(handle);
  Stream& stream = find_stream(stream_handle);
  if (comm->own().device != stream.context->device)
    fail(kHcclParameter, "the stream is of another device than the communicator");
  const int64_t size = hccl_size(transfer.what.dtype);
  if (size == 0) fail(kHcclNotSupported, "no such data type");
  for (const void* address : {transfer.send, static_cast<const void*>(transfer.receive)}) {
    if (reinterpret_cast<uintptr_t>(address) % static_cast<uintptr_t>(size) != 0)
      fail(kHcclParameter, "the address is not aligned to its type");
    if (address != nullptr && !Memory::instance().is_device(address))
      fail(kHcclParameter, "the buffer is not device memory");
  }
  if (config().profile.bit == k310P && transfer.what.dtype == HCCL_DATA_TYPE_BFP16)
    fail(kHcclNotSupported, "no bf16 on 310P");
  const bool is_reduced = transfer.what.kind == kAllReduce || transfer.what.kind == kReduceScatter;
  if (transfer.what.op < HCCL_REDUCE_SUM || transfer.what.op > HCCL_REDUCE_MIN)
    fail(kHcclNotSupported, "no such reduction");
  const bool is_short = transfer.what.dtype == HCCL_DATA_TYPE_INT16 || transfer.what.dtype == HCCL_DATA_TYPE_BFP16;
  if (is_reduced && transfer.what.op == HCCL_REDUCE_PROD && is_short)
    fail(kHcclNotSupported, "no product of int16 or bf16");
  if (static_cast<size_t>(std::max(transfer.send_bytes, transfer.receive_bytes)) > kSlotBytes) {
    fail(kHcclNotSupported, "larger than what the emulator carries at once");
  }
  if (stream.graph != nullptr) transfer.what.capture = ++comm->captured;
  comm->stream = &stream;
  auto latest = std::make_shared<std::shared_ptr<Progress>>();
  enqueue(stream, "HCCL post", TaskMaker([=] {
            *latest = std::make_shared<Progress>();
            const auto progress = *latest;
            return Task{"HCCL post", [=](Stream& on) { post(*comm, transfer, *progress, on.context->device); },
                        [=] { return can_post(*comm, *progress); }, nullptr};
          }));
  enqueue(stream, "HCCL finish", TaskMaker([=] {
            const auto progress = *latest;
            return Task{"HCCL finish", [=](Stream& on) { finish(*comm, transfer, *progress, on.context->device); },
                        [=] { return can_finish(*comm, *progress); }, nullptr};
          }));
  after_call();
}

Transfer transfer_of(Kind kind, const void* send, void* receive, uint64_t count, int dtype, int op, uint32_t root) {
  const auto bytes = static_cast<int64_t>(count) * hccl_size(dtype);
  return {{kind, dtype, op, root, count, 0}, send, receive, bytes, bytes};
}

}  // namespace
}  // namespace fakecann

using namespace fakecann;  // NOLINT: the exported names are global

const char* HcclGetErrorString(HcclResult code) {
  switch (code) {
    case 0:
      return "no error";
    case kHcclParameter:
      return "parameter error";
    case kHcclNullPointer:
      return "null pointer";
    case kHcclNotSupported:
      return "not supported";
    case kHcclSystemCall:
      return "system call failed";
    case kHcclTimeout:
      return "timeout";
    case kHcclRemote:
      return "remote error";
    default:
      return "unknown error";
  }
}

HcclResult HcclGetRootInfo(HcclRootInfo* root) {
  return guarded(__func__, [&] {
    if (root == nullptr) fail(kHcclNullPointer, "null root info");
    const std::string path = Group::create();
    std::memset(root->path, 0, sizeof(root->path));
    std::memcpy(root->path, path.c_str(), path.size());
  });
}

HcclResult HcclCommInitRootInfo(uint32_t ranks, const HcclRootInfo* root, uint32_t rank, HcclComm* comm) {
  return guarded(__func__, [&] {
    if (root == nullptr || comm == nullptr) fail(kHcclNullPointer, "null argument");
    if (ranks == 0 || ranks > kMaxRanks || rank >= ranks) fail(kHcclParameter, "no such rank");
    auto made = std::make_unique<Handle>(Handle{std::make_shared<Comm>(root->path, ranks, rank)});
    join(*made->comm, current_context().device);
    handles().insert(made.get());
    *comm = made.release();
  });
}

HcclResult HcclGetRankSize(HcclComm comm, uint32_t* ranks) {
  return guarded(__func__, [&] { *ranks = find_comm(comm)->group.ranks(); });
}

HcclResult HcclGetRankId(HcclComm comm, uint32_t* rank) {
  return guarded(__func__, [&] { *rank = find_comm(comm)->rank; });
}

HcclResult HcclAllReduce(void* send, void* receive, uint64_t count, HcclDataType dtype, HcclReduceOp op, HcclComm comm,
                         aclrtStream stream) {
  return guarded(
      __func__, [&] { enqueue_collective(comm, stream, transfer_of(kAllReduce, send, receive, count, dtype, op, 0)); });
}

HcclResult HcclBroadcast(void* buffer, uint64_t count, HcclDataType dtype, uint32_t root, HcclComm comm,
                         aclrtStream stream) {
  return guarded(__func__, [&] {
    if (root >= find_comm(comm)->group.ranks()) fail(kHcclParameter, "no such root");
    enqueue_collective(comm, stream, transfer_of(kBroadcast, buffer, buffer, count, dtype, 0, root));
  });
}

HcclResult HcclAllGather(void* send, void* receive, uint64_t send_count, HcclDataType dtype, HcclComm comm,
                         aclrtStream stream) {
  return guarded(__func__, [&] {
    Transfer transfer = transfer_of(kAllGather, send, receive, send_count, dtype, 0, 0);
    transfer.receive_bytes *= find_comm(comm)->group.ranks();
    enqueue_collective(comm, stream, transfer);
  });
}

HcclResult HcclReduceScatter(void* send, void* receive, uint64_t receive_count, HcclDataType dtype, HcclReduceOp op,
                             HcclComm comm, aclrtStream stream) {
  return guarded(__func__, [&] {
    Transfer transfer = transfer_of(kReduceScatter, send, receive, receive_count, dtype, op, 0);
    transfer.send_bytes *= find_comm(comm)->group.ranks();
    enqueue_collective(comm, stream, transfer);
  });
}

HcclResult HcclAlltoAll(const void* send, uint64_t send_count, HcclDataType send_type, const void* receive,
                        uint64_t receive_count, HcclDataType receive_type, HcclComm comm, aclrtStream stream) {
  return guarded(__func__, [&] {
    if (send_count != receive_count || send_type != receive_type)
      fail(kHcclParameter, "both sides count and type alike");
    Transfer transfer = transfer_of(kAllToAll, send, const_cast<void*>(receive), send_count, send_type, 0, 0);
    transfer.send_bytes *= find_comm(comm)->group.ranks();
    transfer.receive_bytes = transfer.send_bytes;
    enqueue_collective(comm, stream, transfer);
  });
}

HcclResult HcclBarrier(HcclComm comm, aclrtStream stream) {
  return guarded(__func__, [&] {
    enqueue_collective(comm, stream, transfer_of(kBarrier, nullptr, nullptr, 0, HCCL_DATA_TYPE_INT8, 0, 0));
  });
}

HcclResult HcclGetCommAsyncError(HcclComm comm, HcclResult* error) {
  return guarded(__func__, [&] { *error = find_comm(comm)->async_error; });
}

HcclResult HcclCommDestroy(HcclComm comm) {
  return guarded(__func__, [&] {
    find_comm(comm);
    handles().erase(static_cast<Handle*>(comm));
    delete static_cast<Handle*>(comm);
  });
}
