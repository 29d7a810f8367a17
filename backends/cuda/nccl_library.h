// SPDX-License-Identifier: Apache-2.0
//
// NCCL, loaded when the first communicator is made, so that one GPU needs no NCCL at all.
#pragma once

#include <nccl.h>

namespace turbomind::cuda {

struct NcclLibrary {
  decltype(&ncclGetErrorString) get_error_string;
  decltype(&ncclGetUniqueId) get_unique_id;
  decltype(&ncclCommInitRank) comm_init_rank;
  decltype(&ncclCommDestroy) comm_destroy;
  decltype(&ncclCommAbort) comm_abort;
  decltype(&ncclCommGetAsyncError) comm_get_async_error;
  decltype(&ncclAllReduce) all_reduce;
  decltype(&ncclAllGather) all_gather;
  decltype(&ncclReduceScatter) reduce_scatter;
  decltype(&ncclBroadcast) broadcast;
  decltype(&ncclSend) send;
  decltype(&ncclRecv) recv;
  decltype(&ncclGroupStart) group_start;
  decltype(&ncclGroupEnd) group_end;
};

// Throws abi::Error (TM_UNSUPPORTED), naming what was looked for, if libnccl.so.2 is not found or too old. The library
// stays loaded, as plug-ins do.
const NcclLibrary& nccl();

// Throws abi::Error (TM_DEVICE_ERROR) unless the call succeeded.
void check_nccl(ncclResult_t result, const char* call);

}  // namespace turbomind::cuda
