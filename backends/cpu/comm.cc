// SPDX-License-Identifier: Apache-2.0
#include "comm.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "comm_group.h"
#include "dtype.h"
#include "turbomind/abi/tm_backend_tools.hpp"

namespace turbomind::cpu {
namespace {

constexpr int64_t kReduceBlock = 256;  // elements summed in float32 before they are rounded

// Checks that the tensor is contiguous and of `bytes` bytes.
std::byte* data_of(const tm_tensor& tensor, int64_t bytes, const char* argument) {
  int64_t expected = 1;
  for (int32_t i = tensor.ndim - 1; i >= 0; --i) {
    if (tensor.shape[i] > 1 && tensor.stride[i] != expected) {
      throw abi::Error(TM_INVALID_ARGUMENT, std::string(argument) + ": expected a contiguous tensor");
    }
    expected *= tensor.shape[i];
  }
  if (abi::num_bytes(tensor) != bytes) {
    throw abi::Error(TM_INVALID_ARGUMENT, std::string(argument) + ": expected " + std::to_string(bytes) +
                                              " bytes, found " + std::to_string(abi::num_bytes(tensor)));
  }
  return static_cast<std::byte*>(tensor.data);
}

CommCall make_call(const char* name, const tm_tensor& in, int64_t out_bytes, const tm_tensor& out, int32_t detail) {
  const int64_t bytes = abi::num_bytes(in);
  return {name, bytes, in.dtype, detail, data_of(in, bytes, "in"), data_of(out, out_bytes, "out")};
}

bool overlap(const std::byte* a, int64_t a_bytes, const std::byte* b, int64_t b_bytes) {
  return a < b + b_bytes && b < a + a_bytes;
}

void copy_bytes(std::byte* to, const std::byte* from, int64_t bytes) {
  if (bytes > 0 && to != from) std::memmove(to, from, static_cast<size_t>(bytes));
}

float widen(float value) { return value; }
float widen(F16 value) { return to_float(value); }
float widen(Bf16 value) { return to_float(value); }
void narrow(float value, float& out) { out = value; }
void narrow(float value, F16& out) { out = to_f16(value); }
void narrow(float value, Bf16& out) { out = to_bf16(value); }

// values[i] = op(values[i], data[i])
template <class T>
void accumulate(const T* data, int64_t count, tm_reduce_op op, float* values) {
  if (op == TM_REDUCE_MAX) {
    for (int64_t i = 0; i < count; ++i) values[i] = std::max(values[i], widen(data[i]));
  } else {
    for (int64_t i = 0; i < count; ++i) values[i] += widen(data[i]);
  }
}

// Elements [begin, end) of all inputs, in rank order, rounded once. store(first element, count, values) takes them
// away.
template <class T, class Store>
void reduce_range(const CommGroup& group, int64_t begin, int64_t end, tm_reduce_op op, Store&& store) {
  float values[kReduceBlock];
  T rounded[kReduceBlock];
  for (int64_t first = begin; first < end; first += kReduceBlock) {
    const int64_t count = std::min(kReduceBlock, end - first);
    const T* own = reinterpret_cast<const T*>(group.call(0).in) + first;
    for (int64_t i = 0; i < count; ++i) values[i] = widen(own[i]);
    for (int32_t rank = 1; rank < group.size(); ++rank) {
      accumulate(reinterpret_cast<const T*>(group.call(rank).in) + first, count, op, values);
    }
    for (int64_t i = 0; i < count; ++i) narrow(values[i], rounded[i]);
    store(first, count, rounded);
  }
}

void require_reducible(tm_dtype dtype, tm_reduce_op op) {
  if (dtype != TM_F32 && dtype != TM_F16 && dtype != TM_BF16) {
    throw abi::Error(TM_UNSUPPORTED, "in: cannot reduce dtype " + std::to_string(dtype));
  }
  if (op != TM_REDUCE_SUM && op != TM_REDUCE_MAX) {
    throw abi::Error(TM_UNSUPPORTED, "op: unknown reduction " + std::to_string(op));
  }
}

// Calls fn(T{}) with the element type of a reducible dtype.
template <class Fn>
void with_type(tm_dtype dtype, Fn&& fn) {
  if (dtype == TM_F16) return fn(F16{});
  if (dtype == TM_BF16) return fn(Bf16{});
  fn(float{});
}

}  // namespace

void Comm::unique_id(Context&, uint8_t* out) {
  const uint64_t id = CommGroup::make_id();
  std::memset(out, 0, TM_UNIQUE_ID_BYTES);
  std::memcpy(out, &id, sizeof id);
}

Comm::Comm(Context&, const uint8_t* id, int32_t rank, int32_t size) : rank_(rank) {
  if (size <= 0) throw abi::Error(TM_INVALID_ARGUMENT, "size: expected at least 1, found " + std::to_string(size));
  uint64_t number = 0;
  std::memcpy(&number, id, sizeof number);
  group_ = CommGroup::find(number, size);
  group_->join(rank, size);
}

void Comm::abort() { group_->abort(); }

void Comm::all_reduce(Stream&, const tm_tensor& in, const tm_tensor& out, tm_reduce_op op) {
  require_reducible(in.dtype, op);
  const CommCall call = make_call("all_reduce", in, abi::num_bytes(in), out, op);
  group_->enter(rank_, call);
  if (group_->calls_agree()) {
    with_type(in.dtype, [&](auto zero) {
      using T = decltype(zero);
      // Only this rank reads and writes this slice of any tensor, so in may be out.
      const int64_t count = call.bytes / static_cast<int64_t>(sizeof(T));
      const int64_t begin = count * rank_ / group_->size();
      const int64_t end = count * (rank_ + 1) / group_->size();
      reduce_range<T>(*group_, begin, end, op, [&](int64_t first, int64_t length, const T* values) {
        for (int32_t rank = 0; rank < group_->size(); ++rank) {
          std::copy_n(values, length, reinterpret_cast<T*>(group_->call(rank).out) + first);
        }
      });
    });
  }
  group_->leave();
}

void Comm::all_gather(Stream&, const tm_tensor& in, const tm_tensor& out) {
  CommCall call = make_call("all_gather", in, abi::num_bytes(in) * group_->size(), out, 0);
  if (overlap(call.in, call.bytes, call.out, call.bytes * group_->size())) {
    // The input must not lie where another rank's is going to be stored.
    std::byte* place = call.out + rank_ * call.bytes;
    copy_bytes(place, call.in, call.bytes);
    call.in = place;
  }
  group_->enter(rank_, call);
  for (int32_t rank = 0; rank < group_->size() && group_->calls_agree(); ++rank) {
    copy_bytes(call.out + rank * call.bytes, group_->call(rank).in, call.bytes);
  }
  group_->leave();
}

void Comm::reduce_scatter(Stream&, const tm_tensor& in, const tm_tensor& out, tm_reduce_op op) {
  require_reducible(in.dtype, op);
  const int64_t share = abi::num_bytes(out);
  const CommCall call = make_call("reduce_scatter", in, share, out, op);
  data_of(in, share * group_->size(), "in");
  // Others still read what lies under out, unless that is their rank's share of in already.
  const bool in_place = overlap(call.in, call.bytes, call.out, share);
  std::byte* place = in_place ? call.in + rank_ * share : call.out;
  group_->enter(rank_, call);
  if (group_->calls_agree()) {
    with_type(in.dtype, [&](auto zero) {
      using T = decltype(zero);
      const int64_t count = share / static_cast<int64_t>(sizeof(T));
      reduce_range<T>(*group_, rank_ * count, (rank_ + 1) * count, op,
                      [&](int64_t first, int64_t length, const T* values) {
                        std::copy_n(values, length, reinterpret_cast<T*>(place) + first - rank_ * count);
                      });
    });
  }
  group_->leave();
  copy_bytes(call.out, place, share);
}

void Comm::broadcast(Stream&, const tm_tensor& data, int32_t root) {
  if (root < 0 || root >= group_->size()) {
    throw abi::Error(TM_INVALID_ARGUMENT,
                     "root: expected a rank of " + std::to_string(group_->size()) + ", found " + std::to_string(root));
  }
  const CommCall call = make_call("broadcast", data, abi::num_bytes(data), data, root);
  group_->enter(rank_, call);
  if (rank_ != root && group_->calls_agree()) copy_bytes(call.out, group_->call(root).in, call.bytes);
  group_->leave();
}

void Comm::all_to_all(Stream&, const tm_tensor& in, const tm_tensor& out) {
  const CommCall call = make_call("all_to_all", in, abi::num_bytes(in), out, 0);
  const int64_t share = call.bytes / group_->size();
  if (share * group_->size() != call.bytes || overlap(call.in, call.bytes, call.out, call.bytes)) {
    throw abi::Error(TM_INVALID_ARGUMENT, "in: expected a share for every rank, apart from out");
  }
  group_->enter(rank_, call);
  for (int32_t rank = 0; rank < group_->size() && group_->calls_agree(); ++rank) {
    copy_bytes(call.out + rank * share, group_->call(rank).in + rank_ * share, share);
  }
  group_->leave();
}

}  // namespace turbomind::cpu
