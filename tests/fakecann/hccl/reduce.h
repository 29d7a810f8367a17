// SPDX-License-Identifier: Apache-2.0
#ifndef FAKECANN_HCCL_REDUCE_H_
#define FAKECANN_HCCL_REDUCE_H_

#include <cstdint>
#include <vector>

namespace fakecann {

// Bytes of one element; 0 for a type there is none of.
int64_t hccl_size(int dtype);
// out[i] = the parts' elements, in the order of the ranks, in float32 (or 64-bit integers), rounded once.
void hccl_reduce(const std::vector<const char*>& parts, int64_t first, int64_t count, int dtype, int op, char* out);

}  // namespace fakecann

#endif  // FAKECANN_HCCL_REDUCE_H_
