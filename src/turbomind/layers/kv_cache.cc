// SPDX-License-Identifier: Apache-2.0
#include "turbomind/layers/kv_cache.h"

namespace turbomind {

KvCache::KvCache(const Device& device, const tm_kv_spec& spec) : device_(device), spec_(spec) { resize(1); }

void KvCache::resize(int64_t num_blocks) {
  release();
  buffer_ = Buffer(device_, bytes(num_blocks));
  num_blocks_ = num_blocks;
}

void KvCache::release() {
  num_blocks_ = 0;
  buffer_ = Buffer();
}

}  // namespace turbomind
