// SPDX-License-Identifier: Apache-2.0
#include "turbomind/guided/vocabulary.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <iterator>
#include <numeric>
#include <utility>

#include "turbomind/core/error.h"
#include "turbomind/guided/json_text.h"

namespace turbomind {
namespace {

constexpr size_t kFew = 256;          // allowed tokens that are ranked one by one
constexpr size_t kNumCandidates = 6;  // per state; the first is nearly always the right one
constexpr size_t kNumFillers = 64;

// In the order in which they are worth trying: what ends something first. A number or a word may always go on, so what
// may follow one is tried before it.
constexpr std::string_view kClosers = "\"}]),:;>.!?/|=@#$%&*~'_^`\\0123456789-+ \n\t";
constexpr auto kFirstDigitScore = static_cast<uint8_t>(kClosers.find('0'));
constexpr auto kEmptyContainerScore = static_cast<uint8_t>(kClosers.size());
constexpr uint8_t kWordScore = kEmptyContainerScore + 21;  // less its length
constexpr uint8_t kOpenerScore = kWordScore + 1;
constexpr uint8_t kSpaceScore = kOpenerScore + 1;
constexpr uint8_t kNever = 255;

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Such a token matches no text.
bool is_control(std::string_view token) { return token.front() == '\xFF'; }

uint8_t closing_score(const std::string& token) {
  if (token.empty() || is_control(token)) return kNever;
  const size_t closer = token.size() == 1 ? kClosers.find(token.front()) : std::string_view::npos;
  if (closer != std::string_view::npos) return static_cast<uint8_t>(closer);
  if (is_json_space(token.front())) return kSpaceScore;
  if (token == "{}" || token == "[]") return kEmptyContainerScore;
  if (token.find_first_of("{[(<") != std::string::npos) return kOpenerScore;
  return static_cast<uint8_t>(kWordScore - std::min<size_t>(token.size(), 20));
}

// Words that fill a string of a minimum length in few tokens.
std::vector<int32_t> find_fillers(const std::vector<std::string>& tokens) {
  constexpr size_t kLongest = 12;  // longer ones are rarely words
  std::vector<int32_t> fillers;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::string& token = tokens[i];
    const bool word = !token.empty() && token.size() <= kLongest && std::all_of(token.begin(), token.end(), is_letter);
    if (word) fillers.push_back(static_cast<int32_t>(i));
  }
  std::stable_sort(fillers.begin(), fillers.end(), [&](int32_t a, int32_t b) {
    return tokens[static_cast<size_t>(a)].size() > tokens[static_cast<size_t>(b)].size();
  });
  // One of each length is there if longer ones would not fit.
  std::vector<int32_t> chosen;
  size_t of_length = 0;
  for (size_t i = 0; i < fillers.size(); ++i) {
    const size_t length = tokens[static_cast<size_t>(fillers[i])].size();
    const bool same = i > 0 && tokens[static_cast<size_t>(fillers[i - 1])].size() == length;
    of_length = same ? of_length + 1 : 0;
    if (of_length < kNumFillers / kLongest) chosen.push_back(fillers[i]);
  }
  return chosen;
}

bool is_set(std::span<const uint32_t> mask, int32_t token) {
  return (mask[static_cast<size_t>(token) / 32] >> (token % 32) & 1) != 0;
}

size_t count_bits(std::span<const uint32_t> mask) {
  return std::accumulate(mask.begin(), mask.end(), size_t{0},
                         [](size_t sum, uint32_t word) { return sum + static_cast<size_t>(std::popcount(word)); });
}

// The first `most` tokens of a mask.
std::vector<int32_t> list_tokens(std::span<const uint32_t> mask, size_t most) {
  std::vector<int32_t> tokens;
  for (size_t i = 0; i < mask.size() && tokens.size() < most; ++i) {
    for (uint32_t word = mask[i]; word != 0 && tokens.size() < most; word &= word - 1) {
      tokens.push_back(static_cast<int32_t>(i * 32) + std::countr_zero(word));
    }
  }
  return tokens;
}

}  // namespace

GuideVocabulary::GuideVocabulary(std::shared_ptr<const LlguidanceApi> api, std::vector<std::string> tokens,
                                 std::vector<int32_t> eos_token_ids)
    : api_(std::move(api)), tokens_(std::move(tokens)), eos_token_ids_(std::move(eos_token_ids)) {
  check(!eos_token_ids_.empty(), ErrorCode::kUnsupported, "guide: expected a token that ends an answer, found none");
  byte_tokens_.fill(-1);
  for (size_t i = tokens_.size(); i-- > 0;) {
    if (tokens_[i].size() == 1) byte_tokens_[static_cast<unsigned char>(tokens_[i].front())] = static_cast<int32_t>(i);
  }
  std::vector<uint32_t> lengths;
  std::string bytes;
  for (const std::string& token : tokens_) {
    lengths.push_back(static_cast<uint32_t>(token.size()));
    bytes += token;
    scores_.push_back(closing_score(token));
  }
  const std::vector<uint32_t> eos(eos_token_ids_.begin(), eos_token_ids_.end());
  LlgTokenizerInitV2 init{};
  init.struct_size = sizeof(init);
  init.vocab_size = static_cast<uint32_t>(tokens_.size());
  init.tok_eos = eos.front();
  init.token_lens = lengths.data();
  init.token_bytes = reinterpret_cast<const uint8_t*>(bytes.data());
  // Only forced text would be tokenised, which is left to the model here.
  init.use_approximate_greedy_tokenize_fn = true;
  init.tok_eos_extra = eos.data() + 1;
  init.tok_eos_extra_count = static_cast<uint32_t>(eos.size() - 1);
  std::array<char, 512> error{};
  tokenizer_.reset(api_->new_tokenizer_v2(&init, error.data(), error.size()),
                   [owner = api_](LlgTokenizer* tokenizer) { owner->free_tokenizer(tokenizer); });
  check(tokenizer_ != nullptr, ErrorCode::kUnsupported, "guide: the vocabulary was refused: ", error.data());
  std::vector<std::pair<uint8_t, int32_t>> closers;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (scores_[i] < kClosers.size()) closers.emplace_back(scores_[i], static_cast<int32_t>(i));
  }
  std::sort(closers.begin(), closers.end());
  for (const auto& [score, token] : closers) {
    closers_.push_back(token);
  }
  fillers_ = find_fillers(tokens_);
}

std::vector<int32_t> GuideVocabulary::spell(const std::string& text) const {
  std::vector<int32_t> tokens;
  for (const char byte : text) tokens.push_back(byte_token(byte));
  if (std::find(tokens.begin(), tokens.end(), -1) != tokens.end()) return {};
  return tokens;
}

std::string_view GuideVocabulary::text(int32_t token) const {
  const std::string& bytes = tokens_[static_cast<size_t>(token)];
  return bytes.empty() || is_control(bytes) ? std::string_view() : bytes;
}

std::optional<std::vector<int32_t>> GuideVocabulary::rest_after(std::string_view text,
                                                                std::span<const int32_t> path) const {
  std::vector<int32_t> rest;
  while (!text.empty()) {
    if (path.empty()) return std::nullopt;
    const std::string_view next = this->text(path.front());
    const size_t common = std::min(text.size(), next.size());
    if (next.empty() || text.substr(0, common) != next.substr(0, common)) return std::nullopt;
    path = path.subspan(1);
    text.remove_prefix(common);
    rest = spell(std::string(next.substr(common)));
    if (rest.size() + common < next.size()) return std::nullopt;  // some byte has no token
  }
  rest.insert(rest.end(), path.begin(), path.end());
  return rest;
}

bool GuideVocabulary::is_open(std::span<const uint32_t> mask) const {
  const int32_t quote = byte_token('"');
  if (quote < 0 || is_set(mask, quote) || is_set(mask, eos_token_ids_.front())) return false;
  return is_wide(mask);
}

bool GuideVocabulary::is_wide(std::span<const uint32_t> mask) const { return count_bits(mask) > kFew; }

std::vector<int32_t> GuideVocabulary::closing_candidates(std::span<const uint32_t> mask) const {
  if (!is_wide(mask)) return rank_few(list_tokens(mask, kFew));
  std::vector<int32_t> candidates;
  // A string below its minimum length is filled in long words.
  const auto filler =
      std::find_if(fillers_.begin(), fillers_.end(), [&](int32_t token) { return is_set(mask, token); });
  if (filler != fillers_.end() && is_open(mask)) candidates.push_back(*filler);
  for (const int32_t token : closers_) {
    if (is_set(mask, token)) candidates.push_back(token);
  }
  if (filler != fillers_.end()) candidates.push_back(*filler);
  return candidates.empty() ? rank_few(list_tokens(mask, kFew)) : choose(candidates);
}

std::vector<int32_t> GuideVocabulary::beginnings(int32_t token, std::span<const uint32_t> mask) const {
  std::vector<int32_t> found;
  if (is_wide(mask)) return found;
  const std::string& text = tokens_[static_cast<size_t>(token)];
  for (const int32_t other : list_tokens(mask, kFew)) {
    const std::string& begin = tokens_[static_cast<size_t>(other)];
    if (!begin.empty() && begin.size() < text.size() && text.starts_with(begin)) found.push_back(other);
  }
  return found;
}

std::vector<int32_t> GuideVocabulary::rank_few(const std::vector<int32_t>& tokens) const {
  std::vector<int32_t> ranked;
  for (const int32_t token : tokens) {
    if (scores_[static_cast<size_t>(token)] != kNever) ranked.push_back(token);
  }
  // Control tokens are allowed where the grammar names them only.
  if (ranked.empty()) {
    std::copy_if(tokens.begin(), tokens.end(), std::back_inserter(ranked),
                 [&](int32_t token) { return !tokens_[static_cast<size_t>(token)].empty(); });
  }
  if (ranked.empty()) return ranked;
  const auto length = [&](int32_t token) { return tokens_[static_cast<size_t>(token)].size(); };
  const int32_t longest =
      *std::max_element(ranked.begin(), ranked.end(), [&](int32_t a, int32_t b) { return length(a) < length(b); });
  if (is_forced(longest, ranked)) return {longest};
  const auto score = [&](int32_t token) { return scores_[static_cast<size_t>(token)]; };
  std::stable_sort(ranked.begin(), ranked.end(), [&](int32_t a, int32_t b) { return score(a) < score(b); });
  return choose(ranked);
}

std::vector<int32_t> GuideVocabulary::choose(const std::vector<int32_t>& ranked) const {
  // One for each first byte, and one digit: where one leads nowhere, others like it will not either.
  const auto kind = [&](int32_t token) {
    const char first = tokens_[static_cast<size_t>(token)].front();
    return static_cast<unsigned char>(first >= '0' && first <= '9' ? '0' : first);
  };
  std::vector<int32_t> chosen;
  // Many closers may be allowed where anything goes; the last places are for other kinds.
  std::vector<int32_t> rest;
  std::array<bool, 256> seen{};
  for (const int32_t token : ranked) {
    if (std::exchange(seen[kind(token)], true)) continue;
    const bool closer = scores_[static_cast<size_t>(token)] < kFirstDigitScore;
    (chosen.size() < kNumCandidates / 2 || !closer ? chosen : rest).push_back(token);
  }
  chosen.insert(chosen.end(), rest.begin(), rest.end());
  if (chosen.size() > kNumCandidates) chosen.erase(chosen.begin() + kNumCandidates, chosen.end());
  return chosen;
}

bool GuideVocabulary::is_forced(int32_t longest, const std::vector<int32_t>& tokens) const {
  const std::string& text = tokens_[static_cast<size_t>(longest)];
  return std::all_of(tokens.begin(), tokens.end(),
                     [&](int32_t token) { return text.starts_with(tokens_[static_cast<size_t>(token)]); });
}

}  // namespace turbomind
