// SPDX-License-Identifier: Apache-2.0
//
// A decoder-only transformer as naive loops over doubles, from the formulas of the papers; shares no code with ops or
// any backend. No KV cache: every position is computed from the whole sequence.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "turbomind/models/decoder_config.h"

namespace turbomind::test {

using Row = std::vector<double>;
using Rows = std::vector<Row>;
// By canonical name; matrices [out, in] row-major.
using ReferenceWeights = std::map<std::string, Row>;

class ReferenceDecoder {
 public:
  ReferenceDecoder(const DecoderConfig& config, const ReferenceWeights& weights) : config_(config), weights_(weights) {}

  // Hidden states after the final norm, [tokens, hidden]. embeddings: rows that replace those of token positions.
  Rows hidden(const std::vector<int32_t>& tokens, const std::map<int64_t, Row>& embeddings = {}) const;
  // [rows, vocab].
  Rows logits(const Rows& hidden) const;

 private:
  const Row& weight(const std::string& name) const { return weights_.at(name); }
  Row linear(const std::string& name, const Row& x) const;
  Row norm(const std::string& name, const Row& x) const;
  Rows attention(const std::string& prefix, const AttentionConfig& config, const Rows& x) const;
  void prepare_head(const std::string& norm_name, const AttentionConfig& config, int64_t position, double* head) const;
  Row ffn(const std::string& prefix, const FfnConfig& config, const Row& x) const;

  const DecoderConfig& config_;
  const ReferenceWeights& weights_;
};

}  // namespace turbomind::test
