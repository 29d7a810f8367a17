// SPDX-License-Identifier: Apache-2.0
//
// Collectives between the ranks of one process, one thread per rank, over shared memory. Reductions add in rank order.
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
  // Blocks until all ranks of the id have joined. Throws abi::Error for an id unique_id() has not made, or a rank
  // taken.
  Comm(Context&, const uint8_t* id, int32_t rank, int32_t size);
  ~Comm();

  // Ends this rank's waits, and so those of the ranks that wait for it, with TM_DEVICE_ERROR.
  void abort();

  void all_reduce(Stream&, const tm_tensor& in, const tm_tensor& out, tm_reduce_op op);
  void all_gather(Stream&, const tm_tensor& in, const tm_tensor& out);
  void reduce_scatter(Stream&, const tm_tensor& in, const tm_tensor& out, tm_reduce_op op);
  void broadcast(Stream&, const tm_tensor& data, int32_t root);
  void all_to_all(Stream&, const tm_tensor& in, const tm_tensor& out);

 private:
  std::shared_ptr<CommGroup> group_;
  int32_t rank_;
};

}  // namespace turbomind::cpu
