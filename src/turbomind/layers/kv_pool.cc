// SPDX-License-Identifier: Apache-2.0
#include "turbomind/layers/kv_pool.h"

namespace turbomind {

KvPool::KvPool(const Device& device, Stream& stream, const tm_kv_spec& spec)
    : device_(device), stream_(stream), spec_(spec) {
  resize(1);
}

void KvPool::resize(int64_t num_blocks) {
  release();
  buffer_ = Buffer(device_, bytes(num_blocks));
  stream_.memset(buffer_.data(), 0, buffer_.bytes());
  num_blocks_ = num_blocks;
}

void KvPool::release() {
  num_blocks_ = 0;
  buffer_ = Buffer();
}

}  // namespace turbomind
