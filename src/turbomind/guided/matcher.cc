// SPDX-License-Identifier: Apache-2.0
#include "turbomind/guided/matcher.h"

#include <utility>

#include "turbomind/core/error.h"
#include "turbomind/guided/large_stack.h"

namespace turbomind {
namespace {

// About 1.5 KB each; a text that needs more is refused rather than let to fill the memory.
constexpr size_t kMaxLexerStates = 50'000;

// As many as the library allows for a whole step: large unions of objects need some thousands.
constexpr size_t kMaxItemsInRow = 50'000;

}  // namespace

GrammarMatcher::GrammarMatcher(std::shared_ptr<const GuideVocabulary> vocabulary, const std::string& kind,
                               const std::string& grammar)
    : vocabulary_(std::move(vocabulary)), matcher_(nullptr, Free{vocabulary_}) {
  LlgConstraintInit init{};
  api().constraint_init_set_defaults(&init, vocabulary_->tokenizer());
  init.log_buffer_level = 0;
  init.log_stderr_level = 0;
  init.limits.max_lexer_states = kMaxLexerStates;
  init.limits.max_items_in_row = kMaxItemsInRow;
  init.limits.verbose_errors = false;
  // The library compiles rules and references by recursion, as deep as the grammar chains them: thousands of them would
  // overflow the stack of an ordinary thread and so end the process.
  run_on_large_stack([&] { matcher_.reset(api().new_matcher(&init, kind.c_str(), grammar.c_str())); });
  const char* error = api().matcher_get_error(matcher_.get());
  check(error == nullptr, ErrorCode::kInvalidArgument, error == nullptr ? "" : error);
  check(api().matcher_get_mask_byte_size(matcher_.get()) == vocabulary_->mask_words() * sizeof(uint32_t),
        ErrorCode::kInternal, "guide: expected masks of ", vocabulary_->mask_words(), " words");
}

GrammarMatcher::GrammarMatcher(const GrammarMatcher& other)
    : vocabulary_(other.vocabulary_), matcher_(api().clone_matcher(other.matcher_.get()), Free{vocabulary_}) {}

void GrammarMatcher::warm_up(std::span<const int32_t> tokens, std::chrono::microseconds most) {
  const auto end = std::chrono::steady_clock::now() + most;
  GrammarMatcher warm(*this);
  std::vector<uint32_t> mask(vocabulary_->mask_words());
  size_t num_consumed = 0;
  try {
    warm.fill_mask(mask);
    while (num_consumed + 1 < tokens.size() && std::chrono::steady_clock::now() < end) {
      warm.consume(tokens[num_consumed++]);
      warm.fill_mask(mask);
    }
    warm.roll_back(num_consumed);
    // In place of the last mask, which the library keeps through a rollback (see find_closing_path).
    warm.fill_mask(mask);
  } catch (const Error&) {
    return;  // the way led beyond a limit, which need not be where texts go
  }
  matcher_ = std::move(warm.matcher_);
}

void GrammarMatcher::fill_mask(std::span<uint32_t> mask) {
  check_done(api().matcher_compute_mask_into(matcher_.get(), mask.data(), mask.size_bytes()));
}

void GrammarMatcher::consume(int32_t token) {
  check_done(api().matcher_consume_token(matcher_.get(), static_cast<uint32_t>(token)));
}

void GrammarMatcher::roll_back(size_t count) {
  if (count > 0) check_done(api().matcher_rollback(matcher_.get(), count));
}

bool GrammarMatcher::can_consume(std::span<const int32_t> tokens) {
  return tokens.empty() || count_valid(tokens.first(tokens.size() - 1), tokens.back()) == tokens.size();
}

bool GrammarMatcher::can_end_with(std::span<const int32_t> tokens) {
  return count_valid(tokens, vocabulary_->eos_token_ids().front()) > tokens.size();
}

bool GrammarMatcher::can_close_after(std::span<const int32_t> tokens) {
  const int32_t quote = vocabulary_->byte_token('"');
  if (quote >= 0 && count_valid(tokens, quote) > tokens.size()) return true;
  return can_end_with(tokens);
}

size_t GrammarMatcher::count_valid(std::span<const int32_t> tokens, int32_t last) {
  tokens_.assign(tokens.begin(), tokens.end());
  tokens_.push_back(static_cast<uint32_t>(last));
  const int32_t valid = api().matcher_validate_tokens(matcher_.get(), tokens_.data(), tokens_.size());
  check_done(valid < 0 ? -1 : 0);
  return static_cast<size_t>(valid);
}

bool GrammarMatcher::is_accepting() { return api().matcher_is_accepting(matcher_.get()); }

void GrammarMatcher::check_done(int32_t status) {
  if (status == 0) return;
  const char* error = api().matcher_get_error(matcher_.get());
  // The grammar's author asked for too much: an error of the request, not of the engine.
  fail(ErrorCode::kInvalidArgument,
       "response_format: the grammar is too complex: ", error == nullptr ? "it failed" : error);
}

}  // namespace turbomind
