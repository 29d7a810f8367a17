// SPDX-License-Identifier: Apache-2.0
#include "nnop/tensor.h"

#include <cstring>
#include <unordered_map>

#include "abi/nnop.h"
#include "nnop/number.h"

namespace fakecann {
namespace {

struct DtypeInfo {
  int dtype;
  const char* name;
  int bits;
};
constexpr DtypeInfo kDtypes[] = {
    {ACL_FLOAT, "f32", 32}, {ACL_FLOAT16, "f16", 16}, {ACL_INT8, "i8", 8},     {ACL_INT32, "i32", 32},
    {ACL_UINT8, "u8", 8},   {ACL_INT16, "i16", 16},   {ACL_UINT16, "u16", 16}, {ACL_UINT32, "u32", 32},
    {ACL_INT64, "i64", 64}, {ACL_UINT64, "u64", 64},  {ACL_DOUBLE, "f64", 64}, {ACL_BOOL, "bool", 8},
    {ACL_BF16, "bf16", 16}, {ACL_INT4, "i4", 4},
};

const DtypeInfo* info_of(int dtype) {
  for (const DtypeInfo& info : kDtypes) {
    if (info.dtype == dtype) return &info;
  }
  return nullptr;
}

std::unordered_map<const void*, uint64_t>& live() {
  static auto* handles = new std::unordered_map<const void*, uint64_t>;
  return *handles;
}

void check_tensor(const View& view) {
  if (info_of(view.dtype) == nullptr) fail(kBadParameter, "no such dtype: " + std::to_string(view.dtype));
  for (const int64_t dim : view.dims) {
    if (dim < 0) fail(kBadParameter, "a dimension is negative");
  }
  if (view.offset < 0) fail(kBadParameter, "the storage offset is negative");
  if (reinterpret_cast<uintptr_t>(view.data) % 32 != 0) {
    fail(kBadParameter, "a tensor's data address must be a multiple of 32 bytes");
  }
}

}  // namespace

int64_t count_of(const Dims& dims) {
  int64_t count = 1;
  for (const int64_t dim : dims) count *= dim;
  return count;
}

int64_t bits_of(int dtype) { return info_of(dtype)->bits; }

const char* name_of(int dtype) {
  const DtypeInfo* info = info_of(dtype);
  return info == nullptr ? "unknown" : info->name;
}

int dtype_named(const std::string& name) {
  for (const DtypeInfo& info : kDtypes) {
    if (name == info.name) return info.dtype;
  }
  fail(kRuntimeError, "contract names an unknown dtype: " + name);
}

bool is_floating(int dtype) {
  return dtype == ACL_FLOAT || dtype == ACL_FLOAT16 || dtype == ACL_BF16 || dtype == ACL_DOUBLE;
}

Dims dense_strides(const Dims& dims) {
  Dims strides(dims.size(), 1);
  for (int axis = static_cast<int>(dims.size()) - 2; axis >= 0; --axis)
    strides[axis] = strides[axis + 1] * dims[axis + 1];
  return strides;
}

int64_t View::dim(int axis) const {
  const int at = axis < 0 ? axis + rank() : axis;
  if (at < 0 || at >= rank()) fail(kBadParameter, text() + " has no axis " + std::to_string(axis));
  return dims[static_cast<size_t>(at)];
}

bool View::is_contiguous() const {
  const Dims dense = dense_strides(dims);
  for (int axis = 0; axis < rank(); ++axis) {
    if (dims[axis] > 1 && strides[axis] != dense[axis]) return false;
  }
  return true;
}

std::string View::text() const {
  std::string shape = name_of(dtype);
  shape += format == ACL_FORMAT_FRACTAL_NZ ? " NZ[" : "[";
  for (const int64_t dim : dims) shape += std::to_string(dim) + ",";
  if (shape.back() == ',') shape.pop_back();
  return shape + "]";
}

void note_live(const void* handle) {
  static uint64_t next = 0;
  live()[handle] = ++next;
}

void note_dead(const void* handle, const char* what) {
  if (live().erase(handle) == 0) fail(kBadParameter, std::string("not a live ") + what);
}

uint64_t serial_of(const void* handle) {
  const auto found = live().find(handle);
  return found == live().end() ? 0 : found->second;
}

namespace {

template <typename Handle>
aclnnStatus destroy(const char* function, const Handle* handle, const char* what) {
  return guarded(function, [&] {
    note_dead(handle, what);
    delete handle;
  });
}

template <typename Handle, typename Make>
Handle* create(const char* function, Make&& make) {
  Handle* handle = nullptr;
  guarded(function, [&] {
    handle = make();
    note_live(handle);
  });
  return handle;
}

aclScalar* make_scalar(const void* value, int dtype) {
  auto* scalar = new aclScalar{dtype, 0, 0};
  if (is_floating(dtype)) {
    scalar->value = load_double(value, dtype);
    scalar->integer = static_cast<int64_t>(scalar->value);
  } else {
    scalar->integer = load_integer(value, dtype);
    scalar->value = static_cast<double>(scalar->integer);
  }
  return scalar;
}

}  // namespace
}  // namespace fakecann

using namespace fakecann;  // NOLINT: the exported names are global

aclnnStatus aclnnInit(const char*) { return kOk; }

aclnnStatus aclnnFinalize() { return kOk; }

aclTensor* aclCreateTensor(const int64_t* view_dims, uint64_t view_rank, aclDataType dtype, const int64_t* strides,
                           int64_t offset, aclFormat format, const int64_t* storage_dims, uint64_t storage_rank,
                           void* data) {
  return create<aclTensor>(__func__, [&] {
    View view;
    view.dims.assign(view_dims, view_dims + view_rank);
    view.strides = strides == nullptr ? dense_strides(view.dims) : Dims(strides, strides + view_rank);
    view.offset = offset;
    view.dtype = dtype;
    view.format = format;
    view.storage = storage_dims == nullptr ? view.dims : Dims(storage_dims, storage_dims + storage_rank);
    view.data = data;
    check_tensor(view);
    return new aclTensor{view};
  });
}

aclnnStatus aclDestroyTensor(const aclTensor* tensor) { return destroy(__func__, tensor, "tensor"); }

aclScalar* aclCreateScalar(void* value, aclDataType dtype) {
  return create<aclScalar>(__func__, [&] { return make_scalar(value, dtype); });
}

aclnnStatus aclDestroyScalar(const aclScalar* scalar) { return destroy(__func__, scalar, "scalar"); }

aclIntArray* aclCreateIntArray(const int64_t* values, uint64_t size) {
  return create<aclIntArray>(__func__, [&] { return new aclIntArray{{values, values + size}}; });
}

aclnnStatus aclDestroyIntArray(const aclIntArray* array) { return destroy(__func__, array, "array"); }

aclFloatArray* aclCreateFloatArray(const float* values, uint64_t size) {
  return create<aclFloatArray>(__func__, [&] { return new aclFloatArray{{values, values + size}}; });
}

aclnnStatus aclDestroyFloatArray(const aclFloatArray* array) { return destroy(__func__, array, "array"); }

aclBoolArray* aclCreateBoolArray(const bool* values, uint64_t size) {
  return create<aclBoolArray>(__func__, [&] { return new aclBoolArray{std::vector<bool>(values, values + size)}; });
}

aclnnStatus aclDestroyBoolArray(const aclBoolArray* array) { return destroy(__func__, array, "array"); }

aclTensorList* aclCreateTensorList(const aclTensor* const* tensors, uint64_t size) {
  return create<aclTensorList>(__func__, [&] { return new aclTensorList{{tensors, tensors + size}}; });
}

// Destroying a list destroys its members.
aclnnStatus aclDestroyTensorList(const aclTensorList* list) {
  return guarded(__func__, [&] {
    note_dead(list, "tensor list");
    for (const aclTensor* tensor : list->tensors) {
      if (tensor == nullptr) continue;
      note_dead(tensor, "tensor");
      delete tensor;
    }
    delete list;
  });
}

aclScalarList* aclCreateScalarList(const aclScalar* const* scalars, uint64_t size) {
  return create<aclScalarList>(__func__, [&] { return new aclScalarList{{scalars, scalars + size}}; });
}

aclnnStatus aclDestroyScalarList(const aclScalarList* list) {
  return guarded(__func__, [&] {
    note_dead(list, "scalar list");
    for (const aclScalar* scalar : list->scalars) {
      note_dead(scalar, "scalar");
      delete scalar;
    }
    delete list;
  });
}

aclnnStatus aclGetViewShape(const aclTensor* tensor, int64_t** view_dims, uint64_t* view_rank) {
  return guarded(__func__, [&] {
    if (tensor == nullptr || view_dims == nullptr || view_rank == nullptr) fail(kNullParameter, "null argument");
    const Dims& dims = tensor->view.dims;
    *view_dims = new int64_t[dims.size() + 1];
    std::memcpy(*view_dims, dims.data(), dims.size() * sizeof(int64_t));
    *view_rank = dims.size();
  });
}

aclnnStatus aclGetFormat(const aclTensor* tensor, aclFormat* format) {
  return guarded(__func__, [&] {
    if (tensor == nullptr || format == nullptr) fail(kNullParameter, "null argument");
    *format = tensor->view.format;
  });
}
