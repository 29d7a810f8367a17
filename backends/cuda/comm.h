// SPDX-License-Identifier: Apache-2.0
//
// Collectives between the GPUs of one process, one thread and one GPU per rank, by NCCL.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "nccl_library.h"
#include "stream.h"

namespace turbomind::cuda {

class Comm {
 public:
  // Fills out with an id no other group has.
  static void unique_id(Context& context, uint8_t* out);

  // Blocks until all ranks of the id have joined. Throws abi::Error: TM_UNSUPPORTED without NCCL, for more ranks than
  // GPUs, and on deterministic contexts for more than two ranks (NCCL does not add in rank order); TM_DEVICE_ERROR if
  // NCCL fails.
  Comm(Context& context, const uint8_t* id, int32_t rank, int32_t size);
  ~Comm();
  Comm(const Comm&) = delete;
  Comm& operator=(const Comm&) = delete;

  // Contiguous tensors. Throw abi::Error (TM_DEVICE_ERROR) once the group was aborted.
  void all_reduce(Stream& stream, const tm_tensor& in, const tm_tensor& out, tm_reduce_op op);
  void all_gather(Stream& stream, const tm_tensor& in, const tm_tensor& out);
  void reduce_scatter(Stream& stream, const tm_tensor& in, const tm_tensor& out, tm_reduce_op op);
  void broadcast(Stream& stream, const tm_tensor& data, int32_t root);
  void all_to_all(Stream& stream, const tm_tensor& in, const tm_tensor& out);

  // Callable from any thread, and does not wait for any. Ends the kernels that wait for other ranks; the streams and
  // events that waited for them report TM_DEVICE_ERROR.
  void abort();

 private:
  void connect(Context& context);
  // Runs one NCCL call (or group) on the communicator, unless it was aborted.
  void issue(Stream& stream, const char* call, const std::function<ncclResult_t()>& enqueue);

  std::timed_mutex mutex_;  // guards comm_ against abort()
  ncclComm_t comm_ = nullptr;
  // Runs ncclCommAbort, which returns only once every graph that recorded the communicator is gone.
  std::thread ending_;
  int32_t rank_;
  int32_t size_;
  std::shared_ptr<AbortFlag> aborted_ = std::make_shared<AbortFlag>(false);
};

}  // namespace turbomind::cuda
