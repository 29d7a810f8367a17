// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include "turbomind/runtime/device.h"

namespace turbomind {

using CommId = std::array<uint8_t, TM_UNIQUE_ID_BYTES>;

// One rank of a group. All ranks issue the same collectives in the same order, each on its own thread and stream.
class Comm {
 public:
  // Throws kUnsupported where the backend has no collectives.
  static CommId unique_id(const Device& device);
  // Blocks until all ranks have joined.
  Comm(const Device& device, const CommId& id, int32_t rank, int32_t size);

  int32_t rank() const { return rank_; }
  int32_t size() const { return size_; }
  tm_comm* handle() const { return handle_.get(); }

  void all_reduce(Stream& stream, const Tensor& in, const Tensor& out, tm_reduce_op op = TM_REDUCE_SUM);
  void all_gather(Stream& stream, const Tensor& in, const Tensor& out);  // out [size, ...in]
  void reduce_scatter(Stream& stream, const Tensor& in, const Tensor& out, tm_reduce_op op = TM_REDUCE_SUM);
  void broadcast(Stream& stream, const Tensor& data, int32_t root);
  void all_to_all(Stream& stream, const Tensor& in, const Tensor& out);
  // Ends the waits of all ranks with kDevice. Callable from any thread.
  void abort();

 private:
  const tm_comm_api& api() const { return *handle_.plugin().comm(); }
  void check_status(tm_status status, const char* call) const { handle_.plugin().check_status(status, call); }

  Handle<tm_comm> handle_;
  int32_t rank_;
  int32_t size_;
};

}  // namespace turbomind
