// SPDX-License-Identifier: Apache-2.0
#include "vision/encoder/encoder_batch.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>

namespace turbomind {
namespace {

// What decides the shapes of a batch.
struct Shapes {
  int64_t rows = 0;
  int64_t merge_rows = 0;
  int64_t tokens = 0;
  int32_t table_taps = 0;   // 0: no table
  int32_t output_taps = 0;  // 0: the projected rows are the tokens
  bool reorders = false;    // rows are gathered before they are projected
};

using Allocate = std::function<Tensor(DType, std::initializer_list<int64_t>)>;

Shapes shapes_of(std::span<const EncoderItem* const> items, const EncoderConfig& config) {
  Shapes shapes;
  for (const EncoderItem* item : items) {
    shapes.rows += item->num_rows;
    shapes.merge_rows += item->num_projected(1);
    shapes.tokens += item->num_tokens;
    shapes.table_taps = std::max(shapes.table_taps, item->table.width);
    shapes.output_taps = std::max(shapes.output_taps, item->output.width);
    shapes.reorders |= !item->merge.empty();
  }
  if (config.newline) shapes.output_taps = std::max(shapes.output_taps, 1);
  return shapes;
}

// The batch with every tensor that it needs, at addresses given by allocate.
EncoderBatch lay_out(const Shapes& shapes, const EncoderConfig& config, const Allocate& allocate) {
  EncoderBatch batch;
  const int64_t merge_size = config.projector.merge_size;
  batch.num_rows = shapes.rows;
  batch.num_merge_rows = shapes.merge_rows;
  batch.num_projected = shapes.merge_rows / merge_size;
  batch.num_tokens = shapes.tokens;
  batch.pixels = allocate(TM_F32, {shapes.rows, config.patch_dim});
  if (config.rope) batch.positions = allocate(TM_I32, {3, shapes.rows});
  if (shapes.table_taps > 0) batch.table_rows = allocate(TM_I32, {shapes.rows * shapes.table_taps});
  if (shapes.table_taps > 1) {
    batch.table_order = allocate(TM_I32, {shapes.rows, shapes.table_taps});
    batch.table_weights = allocate(TM_F32, {shapes.rows, shapes.table_taps});
  }
  if (shapes.reorders) batch.merge = allocate(TM_I32, {shapes.merge_rows});
  if (config.projector.average) {
    batch.groups = allocate(TM_I32, {batch.num_projected, merge_size});
    batch.averages = allocate(TM_F32, {batch.num_projected, merge_size});
  }
  if (config.newline) batch.newline_ids = allocate(TM_I32, {1});
  if (shapes.output_taps > 0) batch.output_rows = allocate(TM_I32, {shapes.tokens * shapes.output_taps});
  if (shapes.output_taps > 1) {
    batch.output_order = allocate(TM_I32, {shapes.tokens, shapes.output_taps});
    batch.output_weights = allocate(TM_F32, {shapes.tokens, shapes.output_taps});
  }
  return batch;
}

// Host views of a batch's device tensors, by their places in the input buffer.
class Writer {
 public:
  Writer(const Shapes& shapes, const EncoderConfig& config, InputBuffer& buffer) : shapes_(shapes), config_(config) {
    batch_ = lay_out(shapes, config, [&](DType dtype, std::initializer_list<int64_t> shape) {
      const auto [host, tensor] = buffer.reserve<char>(dtype, shape);
      hosts_.push_back({tensor.data, host});
      return tensor;
    });
    fill_constants();
    batch_.cu_segments.assign(1, 0);
    if (config.has_windows()) batch_.cu_windows.assign(1, 0);
  }

  void add(const EncoderItem& item) {
    std::memcpy(host<float>(batch_.pixels) + row_ * config_.patch_dim, item.pixels, item.pixel_bytes);
    append_lengths(item.segments, batch_.cu_segments);
    append_lengths(item.windows, batch_.cu_windows);
    if (config_.rope) add_positions(item);
    if (shapes_.table_taps > 0) {
      add_weighted(
          item.table, shapes_.table_taps, row_, [](int32_t table_row) { return table_row; }, batch_.table_rows,
          batch_.table_weights);
    }
    if (shapes_.reorders) add_merge(item);
    if (shapes_.output_taps > 0) add_output(item);
    row_ += item.num_rows;
    merge_row_ += item.num_projected(1);
    token_ += item.num_tokens;
  }

  EncoderBatch take() { return std::move(batch_); }

 private:
  template <class T>
  T* host(const Tensor& tensor) const {
    const auto found =
        std::find_if(hosts_.begin(), hosts_.end(), [&](const auto& place) { return place.first == tensor.data; });
    return static_cast<T*>(found->second);
  }

  void fill_constants() {
    for (const Tensor& order : {batch_.table_order, batch_.groups, batch_.output_order}) {
      if (is_given(order)) std::iota(host<int32_t>(order), host<int32_t>(order) + num_elements(order), 0);
    }
    if (is_given(batch_.averages)) {
      const auto share = static_cast<float>(1.0 / config_.projector.merge_size);
      std::fill_n(host<float>(batch_.averages), num_elements(batch_.averages), share);
    }
    if (is_given(batch_.newline_ids)) *host<int32_t>(batch_.newline_ids) = 0;
    if (is_given(batch_.positions)) std::fill_n(host<int32_t>(batch_.positions), shapes_.rows, 0);
  }

  static void append_lengths(const std::vector<int32_t>& lengths, std::vector<int32_t>& ends) {
    for (const int32_t length : lengths) ends.push_back(ends.back() + length);
  }

  void add_positions(const EncoderItem& item) {
    for (int64_t axis = 0; axis < 2; ++axis) {
      const auto* begin = item.positions.data() + axis * item.num_rows;
      std::copy_n(begin, item.num_rows, host<int32_t>(batch_.positions) + (axis + 1) * shapes_.rows + row_);
    }
  }

  void add_merge(const EncoderItem& item) {
    int32_t* out = host<int32_t>(batch_.merge) + merge_row_;
    for (int64_t i = 0; i < item.num_projected(1); ++i) {
      const int64_t row = item.merge.empty() ? i : item.merge[static_cast<size_t>(i)];
      out[i] = static_cast<int32_t>(row_ + row);
    }
  }

  void add_output(const EncoderItem& item) {
    const int64_t first = merge_row_ / config_.projector.merge_size;
    const int64_t projected = item.num_projected(config_.projector.merge_size);
    // The newline lies behind the rows of the whole batch.
    const auto place = [&, newline = batch_.num_projected](int32_t row) {
      return static_cast<int32_t>(row == projected ? newline : first + row);
    };
    if (item.output.width > 0) {
      add_weighted(item.output, shapes_.output_taps, token_, place, batch_.output_rows, batch_.output_weights);
      return;
    }
    WeightedRows identity{
        .width = 1, .rows = std::vector<int32_t>(static_cast<size_t>(item.num_tokens)), .weights = {}};
    std::iota(identity.rows.begin(), identity.rows.end(), 0);
    add_weighted(identity, shapes_.output_taps, token_, place, batch_.output_rows, batch_.output_weights);
  }

  // Rows of fewer taps than the batch has are padded by their first one with weight 0.
  template <class Place>
  void add_weighted(const WeightedRows& source, int32_t taps, int64_t first, const Place& place, const Tensor& rows,
                    const Tensor& weights) {
    int32_t* row_out = host<int32_t>(rows) + first * taps;
    float* weight_out = is_given(weights) ? host<float>(weights) + first * taps : nullptr;
    for (int64_t i = 0; i < source.count(); ++i) {
      for (int32_t tap = 0; tap < taps; ++tap) {
        const auto from = static_cast<size_t>(i * source.width + (tap < source.width ? tap : 0));
        row_out[i * taps + tap] = place(source.rows[from]);
        if (!weight_out) continue;
        const float weight = source.weights.empty() ? 1.0F : source.weights[from];
        weight_out[i * taps + tap] = tap < source.width ? weight : 0.0F;
      }
    }
  }

  const Shapes shapes_;
  const EncoderConfig& config_;
  std::vector<std::pair<void*, void*>> hosts_;  // device address, host address
  EncoderBatch batch_;
  int64_t row_ = 0;
  int64_t merge_row_ = 0;
  int64_t token_ = 0;
};

size_t bytes_of(const Shapes& shapes, const EncoderConfig& config) {
  Arena measuring;
  lay_out(shapes, config, [&](DType dtype, std::initializer_list<int64_t> shape) {
    return measuring.allocate("vision_input", dtype, shape);
  });
  return measuring.peak();
}

}  // namespace

EncoderBatch build_batch(std::span<const EncoderItem* const> items, const EncoderConfig& config, InputBuffer& buffer) {
  const Shapes shapes = shapes_of(items, config);
  buffer.begin(bytes_of(shapes, config));
  Writer writer(shapes, config, buffer);
  for (const EncoderItem* item : items) writer.add(*item);
  buffer.send();
  return writer.take();
}

EncoderBatch largest_batch(const EncoderConfig& config, const EncoderLimits& limits, Arena& inputs) {
  const int64_t projected = limits.max_rows / config.projector.merge_size;
  const Shapes shapes{.rows = limits.max_rows,
                      .merge_rows = projected * config.projector.merge_size,
                      .tokens = config.newline ? max_item_tokens(projected) : projected,
                      .table_taps = config.table_rows > 0 ? limits.max_table_taps : 0,
                      .output_taps = config.newline ? limits.max_output_taps : 0,
                      .reorders = true};
  return lay_out(shapes, config, [&](DType dtype, std::initializer_list<int64_t> shape) {
    return inputs.allocate("vision_input", dtype, shape);
  });
}

}  // namespace turbomind
