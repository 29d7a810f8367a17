// SPDX-License-Identifier: Apache-2.0
#include "hccl/reduce.h"

#include <algorithm>

#include "abi/hccl.h"
#include "nnop/number.h"

namespace fakecann {
namespace {

struct TypeInfo {
  int hccl;
  int acl;
  int64_t size;
};
constexpr TypeInfo kTypes[] = {
    {HCCL_DATA_TYPE_INT8, ACL_INT8, 1},     {HCCL_DATA_TYPE_INT16, ACL_INT16, 2},
    {HCCL_DATA_TYPE_INT32, ACL_INT32, 4},   {HCCL_DATA_TYPE_FP16, ACL_FLOAT16, 2},
    {HCCL_DATA_TYPE_FP32, ACL_FLOAT, 4},    {HCCL_DATA_TYPE_INT64, ACL_INT64, 8},
    {HCCL_DATA_TYPE_UINT64, ACL_UINT64, 8}, {HCCL_DATA_TYPE_UINT8, ACL_UINT8, 1},
    {HCCL_DATA_TYPE_UINT16, ACL_UINT16, 2}, {HCCL_DATA_TYPE_UINT32, ACL_UINT32, 4},
    {HCCL_DATA_TYPE_FP64, ACL_DOUBLE, 8},   {HCCL_DATA_TYPE_BFP16, ACL_BF16, 2},
};

const TypeInfo* info_of(int dtype) {
  for (const TypeInfo& info : kTypes) {
    if (info.hccl == dtype) return &info;
  }
  return nullptr;
}

template <typename T>
T combine(T a, T b, int op) {
  if (op == HCCL_REDUCE_SUM) return a + b;
  if (op == HCCL_REDUCE_PROD) return a * b;
  return op == HCCL_REDUCE_MAX ? std::max(a, b) : std::min(a, b);
}

}  // namespace

int64_t hccl_size(int dtype) {
  const TypeInfo* info = info_of(dtype);
  return info == nullptr ? 0 : info->size;
}

void hccl_reduce(const std::vector<const char*>& parts, int64_t first, int64_t count, int dtype, int op, char* out) {
  const TypeInfo& type = *info_of(dtype);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = (first + i) * type.size;
    if (is_floating(type.acl)) {
      auto total = static_cast<float>(load_double(parts[0] + at, type.acl));
      for (size_t r = 1; r < parts.size(); ++r)
        total = combine(total, static_cast<float>(load_double(parts[r] + at, type.acl)), op);
      store_float(out + i * type.size, type.acl, total);
    } else {
      int64_t total = load_integer(parts[0] + at, type.acl);
      for (size_t r = 1; r < parts.size(); ++r) total = combine(total, load_integer(parts[r] + at, type.acl), op);
      store_integer(out + i * type.size, type.acl, total);
    }
  }
}

}  // namespace fakecann
