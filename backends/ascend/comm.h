// SPDX-License-Identifier: Apache-2.0
//
// Collectives between the devices of one process, one thread and one device per rank, by HCCL.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "library.h"
#include "stream.h"

namespace turbomind::ascend {

class Comm {
 public:
  // Fills out with an id no other group has.
  static void unique_id(Context& context, uint8_t* out);

  // Blocks until all ranks of the id have joined. Throws abi::Error: TM_UNSUPPORTED without HCCL, for more ranks than
  // devices, and on deterministic contexts for more than two ranks (HCCL promises no order of addition);
  // TM_DEVICE_ERROR if HCCL fails.
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

  // Callable from any thread. Ends what this rank's stream waits for; the stream and events that waited for it report
  // TM_DEVICE_ERROR.
  void abort();

 private:
  // Runs one HCCL call on the communicator, unless it was aborted.
  void issue(Stream& stream, const char* call, const std::function<int()>& enqueue);

  Context& context_;
  std::mutex mutex_;  // guards stream_ against abort()
  HcclComm comm_ = nullptr;
  std::weak_ptr<const aclrtStream> stream_;  // the last one that a collective was issued on
  int32_t size_;
  std::shared_ptr<AbortFlag> aborted_ = std::make_shared<AbortFlag>(false);
};

}  // namespace turbomind::ascend
