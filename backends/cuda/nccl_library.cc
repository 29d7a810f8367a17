// SPDX-License-Identifier: Apache-2.0
#include "nccl_library.h"

#include <dlfcn.h>

#include <string>

#include "turbomind/abi/tm_backend.hpp"

namespace turbomind::cuda {
namespace {

constexpr const char* kLibrary = "libnccl.so.2";

template <class Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (!function) throw abi::Error(TM_UNSUPPORTED, std::string(kLibrary) + " has no " + name);
}

NcclLibrary load() {
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    throw abi::Error(TM_UNSUPPORTED,
                     std::string("several GPUs need NCCL (pip install nvidia-nccl-cu13): ") + dlerror());
  }
  NcclLibrary nccl{};
  find(library, "ncclGetErrorString", nccl.get_error_string);
  find(library, "ncclGetUniqueId", nccl.get_unique_id);
  find(library, "ncclCommInitRank", nccl.comm_init_rank);
  find(library, "ncclCommDestroy", nccl.comm_destroy);
  find(library, "ncclCommAbort", nccl.comm_abort);
  find(library, "ncclCommGetAsyncError", nccl.comm_get_async_error);
  find(library, "ncclAllReduce", nccl.all_reduce);
  find(library, "ncclAllGather", nccl.all_gather);
  find(library, "ncclReduceScatter", nccl.reduce_scatter);
  find(library, "ncclBroadcast", nccl.broadcast);
  find(library, "ncclSend", nccl.send);
  find(library, "ncclRecv", nccl.recv);
  find(library, "ncclGroupStart", nccl.group_start);
  find(library, "ncclGroupEnd", nccl.group_end);
  return nccl;
}

}  // namespace

const NcclLibrary& nccl() {
  static const NcclLibrary library = load();
  return library;
}

void check_nccl(ncclResult_t result, const char* call) {
  if (result == ncclSuccess) return;
  throw abi::Error(TM_DEVICE_ERROR, std::string(call) + ": " + nccl().get_error_string(result));
}

}  // namespace turbomind::cuda
