// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/media.h"

#include <algorithm>

#include "turbomind/core/error.h"

namespace turbomind {
namespace {

void validate_span(const MediaSpan& span, int64_t begin, int64_t end, const EncoderConfig& encoder,
                   const EncoderBudget& budget) {
  check(span.item != nullptr, ErrorCode::kInvalidArgument, "media: expected an item, found none");
  validate(*span.item, encoder);
  check(span.begin >= begin && span.end() <= end, ErrorCode::kInvalidArgument,
        "media: expected spans in order and inside the prompt's ", end, " tokens, found [", span.begin, ", ",
        span.end(), ")");
  check(span.item->num_rows <= budget.rows, ErrorCode::kInvalidArgument,
        "media: expected at most max_encoder_patches = ", budget.rows, " patches, found ", span.item->num_rows);
  check(span.item->num_tokens <= budget.cache_rows, ErrorCode::kInvalidArgument, "media: expected at most the ",
        budget.cache_rows, " tokens that encoder_cache_bytes hold, found ", span.item->num_tokens);
  check(budget.whole_tokens == 0 || span.item->num_tokens <= budget.whole_tokens, ErrorCode::kInvalidArgument,
        "media: expected at most the ", budget.whole_tokens,
        " tokens that max_num_batched_tokens leave beside max_num_seqs, as this model reads a picture in one step, "
        "found ",
        span.item->num_tokens);
}

}  // namespace

int32_t position_delta(const MediaInput& media, int64_t prompt_len) {
  if (media.positions.empty()) return 0;
  const int32_t last = *std::max_element(media.positions.begin(), media.positions.end());
  return last + 1 - static_cast<int32_t>(prompt_len);
}

void validate(const MediaInput& media, int64_t prompt_len, const DecoderConfig& model, const EncoderConfig* encoder,
              const EncoderBudget& budget, int64_t max_position) {
  check(media.spans.empty() || encoder, ErrorCode::kInvalidArgument,
        "media: expected none, as the model takes no pictures, found ", media.spans.size());
  int64_t begin = 0;
  for (const MediaSpan& span : media.spans) {
    validate_span(span, begin, prompt_len, *encoder, budget);
    begin = span.end();
  }
  const auto count = static_cast<int64_t>(media.positions.size());
  check(count == 0 || (model.has_axes() && count == 3 * prompt_len), ErrorCode::kInvalidArgument,
        "media.positions: expected three per token for models with positions on axes, else none, found ", count);
  for (const int32_t position : media.positions) {
    check(position >= 0, ErrorCode::kInvalidArgument, "media.positions: expected values >= 0, found ", position);
    check(position < max_position, ErrorCode::kPromptTooLong,
          "media.positions: expected values below session_len = ", max_position, ", found ", position);
  }
}

}  // namespace turbomind
