// SPDX-License-Identifier: Apache-2.0
//
// Dense arrays out of views and back.
#include "nnop/call.h"
#include "nnop/number.h"
#include "nnop/nz.h"

namespace fakecann {
namespace {

// Strides that read `view` as if it had the shape `dims`.
Dims broadcast_strides(const View& view, const Dims& dims) {
  Dims strides(dims.size(), 0);
  const int extra = static_cast<int>(dims.size()) - view.rank();
  if (extra < 0) fail(kRuntimeError, "cannot broadcast " + view.text());
  for (int axis = 0; axis < view.rank(); ++axis) {
    if (view.dims[axis] == dims[axis + extra]) {
      strides[axis + extra] = view.strides[axis];
    } else if (view.dims[axis] != 1) {
      fail(kRuntimeError, "cannot broadcast " + view.text());
    }
  }
  return strides;
}

// visit(position in dense order, offset in elements, length, stride) for each run along the last axis.
template <typename Visit>
void for_each_run(const Dims& dims, const Dims& strides, Visit&& visit) {
  if (count_of(dims) == 0) return;
  const int last = static_cast<int>(dims.size()) - 1;
  if (last < 0) return visit(0, 0, 1, 1);
  Dims at(dims.size(), 0);
  int64_t offset = 0, position = 0;
  while (true) {
    visit(position, offset, dims[last], strides[last]);
    position += dims[last];
    int axis = last - 1;
    for (; axis >= 0; --axis) {
      offset += strides[axis];
      if (++at[axis] < dims[axis]) break;
      offset -= strides[axis] * dims[axis];
      at[axis] = 0;
    }
    if (axis < 0) return;
  }
}

template <typename T, typename Convert, typename Out>
void read_runs(const char* bytes, const Dims& dims, const Dims& strides, std::vector<Out>& out, Convert&& convert) {
  for_each_run(dims, strides, [&](int64_t position, int64_t offset, int64_t length, int64_t stride) {
    const T* from = reinterpret_cast<const T*>(bytes) + offset;
    Out* to = out.data() + position;
    for (int64_t i = 0; i < length; ++i) to[i] = convert(from[i * stride]);
  });
}

void read_floats(const View& view, const char* bytes, const Dims& dims, const Dims& strides, std::vector<float>& out) {
  if (view.dtype == ACL_FLOAT) {
    read_runs<float>(bytes, dims, strides, out, [](float value) { return value; });
  } else if (view.dtype == ACL_BF16) {
    read_runs<uint16_t>(bytes, dims, strides, out, [](uint16_t bits) { return from_bf16(bits); });
  } else if (view.dtype == ACL_FLOAT16) {
    read_runs<uint16_t>(bytes, dims, strides, out, [](uint16_t bits) { return from_f16(bits); });
  } else {
    const int64_t size = bits_of(view.dtype) / 8;
    for_each_run(dims, strides, [&](int64_t position, int64_t offset, int64_t length, int64_t stride) {
      for (int64_t i = 0; i < length; ++i) {
        out[position + i] = static_cast<float>(load_double(bytes + (offset + i * stride) * size, view.dtype));
      }
    });
  }
}

template <typename T, typename Convert, typename In>
void write_runs(const View& view, char* bytes, const std::vector<In>& values, Convert&& convert) {
  if (static_cast<int64_t>(values.size()) != view.count()) {
    fail(kRuntimeError, "an operator's result has another size than its output");
  }
  for_each_run(view.dims, view.strides, [&](int64_t position, int64_t offset, int64_t length, int64_t stride) {
    T* to = reinterpret_cast<T*>(bytes) + offset;
    const In* from = values.data() + position;
    for (int64_t i = 0; i < length; ++i) to[i * stride] = convert(from[i]);
  });
}

// What store(address, value) writes into one element of `bytes` bytes.
template <typename T, typename In, typename Store>
void write_stored(const View& view, char* bytes, const std::vector<In>& values, Store&& store) {
  write_runs<T>(view, bytes, values, [&](In value) {
    uint64_t widest = 0;
    store(&widest, value);
    T stored;
    std::memcpy(&stored, &widest, sizeof stored);
    return stored;
  });
}

template <typename In, typename Store>
void write(const View& view, char* bytes, const std::vector<In>& values, Store&& store) {
  switch (bits_of(view.dtype)) {
    case 8:
      return write_stored<uint8_t>(view, bytes, values, store);
    case 16:
      return write_stored<uint16_t>(view, bytes, values, store);
    case 32:
      return write_stored<uint32_t>(view, bytes, values, store);
    default:
      return write_stored<uint64_t>(view, bytes, values, store);
  }
}

template <typename T>
int64_t widen(T value) {
  return value;
}

}  // namespace

std::vector<float> Bound::floats(int index) const { return floats(index, view(index).dims); }

std::vector<float> Bound::floats(int index, const Dims& dims) const {
  const View& from = view(index);
  if (from.format == ACL_FORMAT_FRACTAL_NZ) return read_nz(from, bytes(index));
  std::vector<float> out(static_cast<size_t>(count_of(dims)));
  read_floats(from, bytes(index), dims, broadcast_strides(from, dims), out);
  return out;
}

std::vector<int64_t> Bound::integers(int index) const { return integers(index, view(index).dims); }

std::vector<int64_t> Bound::integers(int index, const Dims& dims) const {
  const View& from = view(index);
  std::vector<int64_t> out(static_cast<size_t>(count_of(dims)));
  const Dims strides = broadcast_strides(from, dims);
  if (from.dtype == ACL_INT64) {
    read_runs<int64_t>(bytes(index), dims, strides, out, [](int64_t value) { return value; });
    return out;
  }
  if (from.dtype == ACL_INT32) read_runs<int32_t>(bytes(index), dims, strides, out, widen<int32_t>);
  if (from.dtype == ACL_BOOL)
    read_runs<uint8_t>(bytes(index), dims, strides, out, [](uint8_t bit) { return bit != 0; });
  if (from.dtype == ACL_INT32 || from.dtype == ACL_BOOL) return out;
  const int64_t size = bits_of(from.dtype) / 8;
  const bool is_float = is_floating(from.dtype);
  for_each_run(dims, strides, [&](int64_t position, int64_t offset, int64_t length, int64_t stride) {
    for (int64_t i = 0; i < length; ++i) {
      const char* at = bytes(index) + (offset + i * stride) * size;
      out[position + i] = is_float ? saturate(load_double(at, from.dtype), ACL_INT64) : load_integer(at, from.dtype);
    }
  });
  return out;
}

void Bound::put(int index, const std::vector<float>& values) const {
  const View& to = view(index);
  if (to.format == ACL_FORMAT_FRACTAL_NZ) return write_nz(to, bytes(index), values);
  const auto same = [](float value) { return value; };
  if (to.dtype == ACL_FLOAT) return write_runs<float>(to, bytes(index), values, same);
  if (to.dtype == ACL_BF16) return write_runs<uint16_t>(to, bytes(index), values, to_bf16);
  write(to, bytes(index), values, [&](void* at, float value) { store_float(at, to.dtype, value); });
}

void Bound::put(int index, const std::vector<int64_t>& values) const {
  const View& to = view(index);
  if (to.dtype == ACL_BOOL) {
    return write_runs<uint8_t>(to, bytes(index), values,
                               [](int64_t value) { return static_cast<uint8_t>(value != 0); });
  }
  if (is_floating(to.dtype)) {
    return write(to, bytes(index), values,
                 [&](void* at, int64_t value) { store_float(at, to.dtype, static_cast<float>(value)); });
  }
  write(to, bytes(index), values, [&](void* at, int64_t value) { store_integer(at, to.dtype, value); });
}

}  // namespace fakecann
