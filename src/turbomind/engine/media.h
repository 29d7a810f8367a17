// SPDX-License-Identifier: Apache-2.0
//
// Pictures that come with a prompt.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "turbomind/models/decoder_config.h"
#include "vision/encoder/encoder_item.h"

namespace turbomind {

// Tokens [begin, end()) of a prompt are placeholders of an item's embeddings.
struct MediaSpan {
  int64_t begin = 0;
  std::shared_ptr<const EncoderItem> item;

  int64_t end() const { return begin + item->num_tokens; }
};

struct MediaInput {
  std::vector<MediaSpan> spans;  // in order, apart
  // [3, prompt tokens] in time, height and width, for models whose ropes have axes; empty: a token's number on each.
  std::vector<int32_t> positions;
};

// What an item may be at most.
struct EncoderBudget {
  int64_t rows = 0;        // patches encoded at once, so of one item
  int64_t cache_rows = 0;  // embeddings on the device at once
  // Tokens, where all of an item's are computed in one step, as they see each other; 0: steps may cut items.
  int64_t whole_tokens = 0;
  bool overlapped = false;  // the encoder works beside the decoder; else in line with it
  // Patches of a step in which sequences decode, where they would wait for them; one item at least is encoded.
  int64_t rows_beside_decodes = INT64_MAX;
};

// What positions on axes are ahead of the number of a token that follows the prompt.
int32_t position_delta(const MediaInput& media, int64_t prompt_len);

// Throws kInvalidArgument naming what is wrong; kPromptTooLong for positions beyond max_position. encoder: null for a
// model that takes no pictures.
void validate(const MediaInput& media, int64_t prompt_len, const DecoderConfig& model, const EncoderConfig* encoder,
              const EncoderBudget& budget, int64_t max_position);

}  // namespace turbomind
