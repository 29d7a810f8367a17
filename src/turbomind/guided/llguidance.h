// SPDX-License-Identifier: Apache-2.0
//
// llguidance's C interface (https://github.com/guidance-ai/llguidance, parser/llguidance.h), found at run time in the
// shared library that its Python package brings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

extern "C" {

struct LlgTokenizer;
struct LlgMatcher;

// Field order and types as of llguidance 1.8; later versions only append, for which `reserved` keeps zeros.
struct LlgParserLimits {
  size_t max_items_in_row;
  uint64_t initial_lexer_fuel;
  uint64_t step_lexer_fuel;
  size_t step_max_items;
  size_t max_lexer_states;
  size_t max_grammar_size;
  bool precompute_large_lexemes;
  bool verbose_errors;
};

struct LlgConstraintInit {
  const LlgTokenizer* tokenizer;
  uint32_t log_buffer_level;
  uint32_t log_stderr_level;
  bool ff_tokens_ok;
  bool backtrack_ok;
  LlgParserLimits limits;
  unsigned char reserved[256];
};

struct LlgTokenizerInitV2 {
  size_t struct_size;
  uint32_t vocab_size;
  uint32_t tok_eos;
  const uint32_t* token_lens;
  const uint8_t* token_bytes;
  const char* tokenizer_json;
  bool tokenize_assumes_string;
  size_t (*tokenize_fn)(const void*, const uint8_t*, size_t, uint32_t*, size_t);
  bool use_approximate_greedy_tokenize_fn;
  const void* tokenize_user_data;
  const char* const* slices;
  const uint32_t* tok_eos_extra;
  uint32_t tok_eos_extra_count;
};
}

namespace turbomind {

// The functions that are used, by their names less "llg_".
struct LlguidanceApi {
  // Throws kUnsupported if the library cannot be loaded or lacks a function.
  static std::shared_ptr<const LlguidanceApi> load(const std::string& path);

  LlgTokenizer* (*new_tokenizer_v2)(const LlgTokenizerInitV2*, char* error, size_t error_len);
  void (*free_tokenizer)(LlgTokenizer*);
  void (*constraint_init_set_defaults)(LlgConstraintInit*, const LlgTokenizer*);
  LlgMatcher* (*new_matcher)(const LlgConstraintInit*, const char* kind, const char* grammar);
  LlgMatcher* (*clone_matcher)(const LlgMatcher*);
  void (*free_matcher)(LlgMatcher*);
  const char* (*matcher_get_error)(LlgMatcher*);
  int32_t (*matcher_compute_mask_into)(LlgMatcher*, uint32_t* mask, size_t bytes);
  size_t (*matcher_get_mask_byte_size)(const LlgMatcher*);
  int32_t (*matcher_consume_token)(LlgMatcher*, uint32_t token);
  int32_t (*matcher_rollback)(LlgMatcher*, size_t num_tokens);
  int32_t (*matcher_validate_tokens)(LlgMatcher*, const uint32_t* tokens, size_t count);
  bool (*matcher_is_accepting)(LlgMatcher*);
};

}  // namespace turbomind
