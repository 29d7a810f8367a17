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

template <typename Store>
void write(const View& view, char* bytes, int64_t count, Store&& store) {
  if (count != view.count()) fail(kRuntimeError, "an operator's result has another size than its output");
  const int64_t size = bits_of(view.dtype) / 8;
  for_each_run(view.dims, view.strides, [&](int64_t position, int64_t offset, int64_t length, int64_t stride) {
    for (int64_t i = 0; i < length; ++i) store(bytes + (offset + i * stride) * size, position + i);
  });
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
  write(to, bytes(index), static_cast<int64_t>(values.size()),
        [&](char* at, int64_t position) { store_float(at, to.dtype, values[position]); });
}

void Bound::put(int index, const std::vector<int64_t>& values) const {
  const View& to = view(index);
  const bool is_float = is_floating(to.dtype);
  write(to, bytes(index), static_cast<int64_t>(values.size()), [&](char* at, int64_t position) {
    if (is_float) {
      store_float(at, to.dtype, static_cast<float>(values[position]));
    } else {
      store_integer(at, to.dtype, values[position]);
    }
  });
}

}  // namespace fakecann
