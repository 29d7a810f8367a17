// SPDX-License-Identifier: Apache-2.0
#include "vision/encoder/encoder_item.h"

#include <algorithm>
#include <numeric>
#include <span>

#include "turbomind/core/error.h"

namespace turbomind {
namespace {

constexpr size_t kDigestBytes = 32;
constexpr int32_t kMaxTaps = 64;

template <class Value>
void require(bool condition, const char* field, const char* expected, const Value& found) {
  check(condition, ErrorCode::kInvalidArgument, "media.", field, ": expected ", expected, ", found ", found);
}

void require_in_range(const char* field, std::span<const int32_t> values, int64_t end) {
  for (const int32_t value : values) {
    check(value >= 0 && value < end, ErrorCode::kInvalidArgument, "media.", field, ": expected values in [0, ", end,
          "), found ", value);
  }
}

void require_parts(const char* field, const std::vector<int32_t>& lengths, int64_t total) {
  for (const int32_t length : lengths) require(length > 0, field, "positive lengths", length);
  require(std::accumulate(lengths.begin(), lengths.end(), int64_t{0}) == total, field,
          "lengths that add up to the rows", "others");
}

void require_weighted(const char* field, const WeightedRows& rows, int64_t count, int64_t end) {
  require(rows.width > 0 && rows.width <= kMaxTaps, field, "1 to 64 rows each", rows.width);
  require(static_cast<int64_t>(rows.rows.size()) == count * rows.width, field, "an entry for each row",
          rows.rows.size());
  require(rows.weights.size() == rows.rows.size() || (rows.weights.empty() && rows.width == 1), field,
          "a weight for each row", rows.weights.size());
  require_in_range(field, rows.rows, end);
}

}  // namespace

int64_t max_item_tokens(int64_t num_projected) { return num_projected + num_projected / 2 + 64; }

void validate(const EncoderItem& item, const EncoderConfig& config) {
  require(item.digest.size() == kDigestBytes, "digest", "32 bytes", item.digest.size());
  require(item.num_rows > 0, "pixels", "at least one row", item.num_rows);
  const auto bytes = static_cast<size_t>(item.num_rows * config.patch_dim) * sizeof(float);
  require(item.pixels != nullptr && item.pixel_bytes == bytes, "pixels", "float32 [rows, patch_dim]", item.pixel_bytes);
  require_parts("segments", item.segments, item.num_rows);
  require(item.windows.empty() != config.has_windows(), "windows", "them exactly if the encoder has windows",
          item.windows.size());
  if (config.has_windows()) require_parts("windows", item.windows, item.num_rows);
  const int64_t positions = config.rope ? 2 * item.num_rows : 0;
  require(static_cast<int64_t>(item.positions.size()) == positions, "positions",
          "two per row exactly if the encoder has rotary positions", item.positions.size());
  // A grid has no more rows or columns than patches.
  require_in_range("positions", item.positions, item.num_rows);
  require((item.table.width > 0) == (config.table_rows > 0), "table", "one exactly if the encoder has one",
          item.table.width);
  if (config.table_rows > 0) require_weighted("table", item.table, item.num_rows, config.table_rows);
  require_in_range("merge", item.merge, item.num_rows);
  const int32_t merge_size = config.projector.merge_size;
  const int64_t merged = item.merge.empty() ? item.num_rows : static_cast<int64_t>(item.merge.size());
  require(merged % merge_size == 0 && merged <= item.num_rows, "merge", "at most all rows, in groups", merged);
  const int64_t projected = merged / merge_size;
  if (item.output.width > 0) require_weighted("output", item.output, item.num_tokens, projected + config.newline);
  const int64_t tokens = item.output.width > 0 ? item.output.count() : projected;
  require(item.num_tokens > 0 && item.num_tokens == tokens && tokens <= max_item_tokens(projected), "num_tokens",
          "what the rows make up", item.num_tokens);
}

}  // namespace turbomind
