// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "turbomind/runtime/device.h"

namespace turbomind {

// The paged keys and values of one layer (Kwon et al. 2023, arXiv:2309.06180). It starts with one block, so that a
// step can be measured before the real size is known.
class KvPool {
 public:
  // Throws kUnsupported for a spec the backend does not offer.
  KvPool(const Device& device, Stream& stream, const tm_kv_spec& spec);

  size_t bytes(int64_t num_blocks) const { return device_.kv_pool_bytes(spec_, num_blocks); }
  // Frees the old pool first; the contents are zero then.
  void resize(int64_t num_blocks);
  void release();
  tm_kv_pool view() const { return {buffer_.data(), num_blocks_, spec_}; }

 private:
  const Device& device_;
  Stream& stream_;
  tm_kv_spec spec_;
  Buffer buffer_;
  int64_t num_blocks_ = 0;
};

}  // namespace turbomind
