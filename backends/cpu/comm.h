// SPDX-License-Identifier: Apache-2.0
//
// Collectives between the ranks of one process, one thread per rank: the ranks read and write each other's memory. A
// reduction cuts the data into one slice per rank, which that rank adds in rank order and stores to all outputs, so
// every rank holds the same bits and no scratch memory is needed.
#pragma once

#include <cstdint>
#include <memory>

#include "stream.h"

namespace turbomind::cpu {

class CommGroup;

class Comm {
 public:
  // Fills out with an id no other group of this process has.
  static void unique_id(Context&, uint8_t* out);

  // Blocks until all ranks of the id have joined. Throws abi::Error for an id that unique_id() has not made, a rank
  // that is taken, or when the others do not come within two minutes.
  Comm(Context&, const uint8_t* id, int32_t rank, int32_t size);

  // Contiguous tensors. Throw abi::Error (TM_DEVICE_ERROR) on every rank that waits once one rank has aborted, and
  // (TM_INVALID_ARGUMENT) on all ranks if they disagree about the call.
  void all_reduce(Stream&, const tm_tensor& in, const tm_tensor& out, tm_reduce_op op);
  void all_gather(Stream&, const tm_tensor& in, const tm_tensor& out);
  void reduce_scatter(Stream&, const tm_tensor& in, const tm_tensor& out, tm_reduce_op op);
  void broadcast(Stream&, const tm_tensor& data, int32_t root);
  void all_to_all(Stream&, const tm_tensor& in, const tm_tensor& out);

  // Callable from any thread.
  void abort();

 private:
  std::shared_ptr<CommGroup> group_;
  int32_t rank_;
};

}  // namespace turbomind::cpu
