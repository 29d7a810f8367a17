// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "support/test.h"
#include "turbomind/core/error.h"
#include "turbomind/text/spm_model.h"
#include "turbomind/text/string_table.h"

namespace turbomind {
namespace {

std::vector<uint8_t> encoded(const std::vector<std::string>& strings) {
  std::vector<uint8_t> data;
  for (const std::string& text : strings) {
    const uint64_t length = text.size();
    const auto* bytes = reinterpret_cast<const uint8_t*>(&length);
    data.insert(data.end(), bytes, bytes + sizeof(length));
    data.insert(data.end(), text.begin(), text.end());
  }
  return data;
}

std::shared_ptr<const StringTable> table_of(const std::vector<std::string>& strings) {
  return std::make_shared<StringTable>(encoded(strings), strings.size());
}

TEST(strings_are_found_by_id_and_by_content) {
  const std::vector<std::string> strings = {"a", "", "\u2581the", "\U0001F600", "a", "b"};
  const StringTable table(encoded(strings), strings.size());
  EXPECT_EQ(table.size(), strings.size());
  EXPECT_EQ(table.longest(), 6u);
  for (size_t id = 0; id < strings.size(); ++id) EXPECT_EQ(table[id], strings[id]);
  EXPECT_EQ(table.find("\u2581the"), 2);
  EXPECT_EQ(table.find(""), 1);
  EXPECT_EQ(table.find("a"), 4);  // the last of two
  EXPECT_EQ(table.find("c"), StringTable::kNone);
  EXPECT_EQ(table.find("\u2581the longest is shorter"), StringTable::kNone);
  EXPECT_EQ(StringTable({}, 0).find(""), StringTable::kNone);
}

TEST(strings_are_measured_no_further_than_the_data) {
  const std::vector<uint8_t> data = encoded({"one", "three"});
  EXPECT_EQ(measure_strings(data, 2).bytes, data.size());
  EXPECT_EQ(measure_strings(data, 1).bytes, 11u);
  for (size_t size = 0; size < data.size(); ++size) {
    const StringExtent found = measure_strings({data.data(), size}, 2);
    EXPECT_EQ(found.strings, size < 11 ? 0u : 1u);
    EXPECT_EQ(found.bytes, size < 11 ? 0u : 11u);
  }
  std::vector<uint8_t> endless = data;
  std::memset(endless.data() + 11, 0xFF, 8);
  EXPECT_EQ(measure_strings(endless, 2).strings, 1u);
  EXPECT_ERROR(StringTable(endless, 2), ErrorCode::kInvalidArgument, "strings: expected 2, found 1");
}

TEST(strings_must_be_utf8) {
  for (const char* good : {"\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
                           "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_EQ(StringTable(encoded({good}), 1)[0], std::string_view(good));
  }
  for (const char* bad : {"\x80", "\xC1\xBF", "\xC3", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xE2\x82", "\xF0\x8F\xBF\xBF",
                          "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "a\xC3(", "\xF0\x9F\x98("}) {
    EXPECT_ERROR(StringTable(encoded({"good", bad}), 2), ErrorCode::kInvalidArgument, "string 1: expected UTF-8");
  }
}

// The definition, word for word: of all neighbours whose union is a piece, the one of best score, leftmost among
// equals.
std::vector<std::string> merged_one_by_one(std::vector<std::string> symbols,
                                           const std::map<std::string, float>& scores) {
  for (;;) {
    size_t best = symbols.size();
    float best_score = -std::numeric_limits<float>::infinity();
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = scores.find(symbols[i] + symbols[i + 1]);
      if (found != scores.end() && found->second > best_score) {
        best = i;
        best_score = found->second;
      }
    }
    if (best == symbols.size()) return symbols;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(merging_equals_its_definition) {
  const std::vector<std::string> letters = {"a", "b", "\u00E9", "\u2581", "\u4E2D"};
  std::mt19937 random(7);
  const auto draw = [&](size_t below) { return random() % below; };
  size_t merges = 0;
  for (int round = 0; round < 200; ++round) {
    std::map<std::string, float> scores;
    for (const std::string& letter : letters) scores[letter] = -100.0F;
    for (int i = 0; i < 30; ++i) {
      std::string piece;
      for (size_t n = 2 + draw(4); n > 0; --n) piece += letters[draw(letters.size())];
      scores[piece] = -static_cast<float>(draw(12));  // equal ones too
    }
    std::vector<std::string> pieces;
    std::vector<float> column;
    for (const auto& [piece, score] : scores) {
      pieces.push_back(piece);
      column.push_back(score);
    }
    const auto table = table_of(pieces);
    const SpmModel model(table, column, {}, {});
    std::vector<std::string> symbols;
    std::string text;
    for (size_t n = draw(40); n > 0; --n) {
      symbols.push_back(letters[draw(letters.size())]);
      text += symbols.back();
    }
    const std::vector<std::string> expected = merged_one_by_one(symbols, scores);
    merges += symbols.size() - expected.size();
    const std::vector<int32_t> ids = model.encode(text);
    EXPECT_EQ(ids.size(), expected.size());
    for (size_t i = 0; i < std::min(ids.size(), expected.size()); ++i) {
      EXPECT_EQ((*table)[static_cast<size_t>(ids[i])], expected[i]);
    }
  }
  EXPECT(merges > 500);  // or hardly anything was compared
}

TEST(what_is_no_piece_falls_back) {
  const auto table = table_of({"<unk>", "a", "<end>", "aa"});
  const std::vector<float> scores = {0, 0, 0, 0};
  const std::vector<int32_t> apart = {0, 2};
  const std::string text = "a\u00E9aa<end>";
  const SpmModel lossy(table, scores, apart, {});
  EXPECT(lossy.encode(text) == std::vector<int32_t>({1, 3}));
  const SpmModel unknown(table, scores, apart, {.bytes = std::nullopt, .unknown = 0});
  EXPECT(unknown.encode(text) == std::vector<int32_t>({1, 0, 3, 0, 0, 0, 0, 0}));
  std::array<int32_t, 256> bytes;
  for (int byte = 0; byte < 256; ++byte) bytes[static_cast<size_t>(byte)] = 1000 + byte;
  const SpmModel spelt(table, scores, apart, {.bytes = bytes, .unknown = 0});
  EXPECT(spelt.encode("\u00E9<") == std::vector<int32_t>({1000 + 0xC3, 1000 + 0xA9, 1000 + '<'}));
}

TEST(malformed_vocabularies_are_refused) {
  const auto table = table_of({"a", "b"});
  EXPECT_ERROR(SpmModel(table, {0}, {}, {}), ErrorCode::kInvalidArgument, "scores: expected 2, found 1");
  EXPECT_ERROR(SpmModel(table, {0, NAN}, {}, {}), ErrorCode::kInvalidArgument, "scores[1]: expected a number");
  const std::vector<int32_t> outside = {2};
  EXPECT_ERROR(SpmModel(table, {0, 0}, outside, {}), ErrorCode::kInvalidArgument, "expected ids below 2, found 2");
  EXPECT_ERROR(SpmModel(table, {0, 0}, {}, {.bytes = std::nullopt, .unknown = 2}), ErrorCode::kInvalidArgument,
               "unknown: expected ids below 2, found 2");
}

}  // namespace
}  // namespace turbomind
