// SPDX-License-Identifier: Apache-2.0
#include "weight.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "check.h"
#include "half.h"
#include "library.h"
#include "turbomind/abi/tm_backend_tools.hpp"

namespace turbomind::ascend {
namespace {

constexpr int64_t kFractal = 16;
constexpr int64_t kStagingBytes = int64_t{16} << 20;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

float read(const std::byte* from, tm_dtype dtype) {
  if (dtype == TM_F32) {
    float value = 0;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, from, sizeof bits);
  return dtype == TM_F16 ? f16_to_float(bits) : bf16_to_float(bits);
}

void write(std::byte* to, tm_dtype dtype, float value) {
  if (dtype == TM_F32) {
    std::memcpy(to, &value, sizeof value);
    return;
  }
  const uint16_t bits = dtype == TM_F16 ? float_to_f16(value) : float_to_bf16(value);
  std::memcpy(to, &bits, sizeof bits);
}

// The rows of a weight one after the other, whatever parts they come in.
class Source {
 public:
  explicit Source(const tm_weight_desc& desc) : dtype_(abi::dense_dtype(desc.format)), to_(desc.activation_dtype) {
    for (int32_t i = 0; i < desc.num_parts; ++i) {
      const tm_weight_part& part = desc.parts[i];
      for (int64_t row = 0; row < part.rows; ++row) {
        rows_.push_back(static_cast<const std::byte*>(part.data) + row * part.row_stride_bytes);
      }
    }
  }

  int64_t rows() const { return static_cast<int64_t>(rows_.size()); }

  // Elements [begin, begin + count) of a row in the activations' dtype.
  void convert(int64_t row, int64_t begin, int64_t count, std::byte* to) const {
    const std::byte* from = rows_[static_cast<size_t>(row)] + begin * abi::dtype_bytes(dtype_);
    if (dtype_ == to_) {
      std::memcpy(to, from, static_cast<size_t>(count * abi::dtype_bytes(to_)));
      return;
    }
    for (int64_t i = 0; i < count; ++i)
      write(to + i * abi::dtype_bytes(to_), to_, read(from + i * abi::dtype_bytes(dtype_), dtype_));
  }

 private:
  tm_dtype dtype_;
  tm_dtype to_;
  std::vector<const std::byte*> rows_;
};

// Two pinned buffers, filled in turn while the other is being copied.
class Uploader {
 public:
  Uploader(Stream& stream, void* dst, size_t chunk) : stream_(stream), to_(static_cast<std::byte*>(dst)) {
    for (Slot& slot : slots_) slot.data = Memory(TM_MEMORY_PINNED_HOST, chunk);
  }

  std::byte* next() {
    Slot& slot = slots_[turn_];
    if (slot.used) slot.read.synchronize();
    return static_cast<std::byte*>(slot.data.data());
  }

  void send(size_t bytes) {
    Slot& slot = slots_[turn_];
    stream_.copy_async(to_, slot.data.data(), bytes, TM_HOST_TO_DEVICE);
    slot.read.record(stream_.handle());
    slot.used = true;
    turn_ = 1 - turn_;
    to_ += bytes;
  }

 private:
  struct Slot {
    Memory data;
    EventHandle read;
    bool used = false;
  };
  Stream& stream_;
  std::byte* to_;
  Slot slots_[2];
  size_t turn_ = 0;
};

void pack_rows(Stream& stream, const Source& source, const WeightLayout& layout, void* dst) {
  const int64_t row_bytes = layout.cols * element_bytes(layout.type);
  const int64_t at_once = std::clamp<int64_t>(kStagingBytes / row_bytes, 1, std::max<int64_t>(source.rows(), 1));
  Uploader uploader(stream, dst, static_cast<size_t>(at_once * row_bytes));
  for (int64_t row = 0; row < source.rows(); row += at_once) {
    const int64_t count = std::min(at_once, source.rows() - row);
    std::byte* to = uploader.next();
    for (int64_t i = 0; i < count; ++i) source.convert(row + i, 0, layout.cols, to + i * row_bytes);
    uploader.send(static_cast<size_t>(count * row_bytes));
  }
  stream.synchronize();  // the buffers go
}

void pack_fractals(Stream& stream, const Source& source, const WeightLayout& layout, void* dst) {
  const int64_t bytes = element_bytes(layout.type);
  const int64_t bands = ceil_div(layout.cols, kFractal);  // of 16 columns each
  const int64_t band_bytes = ceil_div(layout.rows, kFractal) * kFractal * kFractal * bytes;
  const int64_t at_once = std::clamp<int64_t>(kStagingBytes / band_bytes, 1, bands);
  Uploader uploader(stream, dst, static_cast<size_t>(at_once * band_bytes));
  for (int64_t band = 0; band < bands; band += at_once) {
    const int64_t count = std::min(at_once, bands - band);
    std::byte* to = uploader.next();
    std::memset(to, 0, static_cast<size_t>(count * band_bytes));
    for (int64_t row = 0; row < layout.rows; ++row) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t column = (band + i) * kFractal;
        source.convert(row, column, std::min(kFractal, layout.cols - column),
                       to + i * band_bytes + row * kFractal * bytes);
      }
    }
    uploader.send(static_cast<size_t>(count * band_bytes));
  }
  stream.synchronize();  // the buffers go
}

}  // namespace

std::string unsupported_reason(const tm_weight_desc& desc) {
  if (!abi::is_dense(desc.format)) return "the ascend backend takes float32, float16 and bfloat16 weights";
  return abi::reason_against_operands(desc, "ascend");
}

WeightLayout make_weight_layout(const Context& context, const tm_weight_desc& desc) {
  WeightLayout layout{acl_type(desc.activation_dtype), desc.rows, desc.cols, desc.num_experts, false, 0};
  // MatmulWeightNz takes no vectors, and rows are looked up one by one in an embedding.
  layout.nz = context.nz_weights() && library().op.MatmulWeightNz.available() && desc.num_experts == 0 &&
              !desc.is_embedding && desc.activation_dtype != TM_F32 && desc.rows > 1 && desc.cols > 1;
  int64_t elements = desc.rows * desc.cols * std::max(desc.num_experts, 1);
  if (layout.nz) {
    elements = ceil_div(desc.rows, kFractal) * ceil_div(desc.cols, kFractal) * kFractal * kFractal;
  }
  layout.bytes = static_cast<size_t>(elements * element_bytes(layout.type));
  return layout;
}

Weight::Weight(Stream& stream, const tm_weight_desc& desc, void* dst)
    : data_(dst), layout_(make_weight_layout(stream.context(), desc)) {
  const std::string reason = unsupported_reason(desc);
  if (!reason.empty()) throw abi::Error(TM_UNSUPPORTED, reason);
  stream.context().set_thread();
  const Source source(desc);
  layout_.nz ? pack_fractals(stream, source, layout_, dst) : pack_rows(stream, source, layout_, dst);
}

View Weight::matrix() const { return make_view(data_, layout_.type, {layout_.rows, layout_.cols}); }

View Weight::transposed() const {
  if (layout_.experts > 0) {
    return make_view(data_, layout_.type, {layout_.experts, layout_.rows, layout_.cols}).permuted({0, 2, 1});
  }
  View view = matrix().permuted({1, 0});
  view.nz = layout_.nz;
  return view;
}

}  // namespace turbomind::ascend
