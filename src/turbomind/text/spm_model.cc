// SPDX-License-Identifier: Apache-2.0
#include "turbomind/text/spm_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <queue>
#include <utility>

#include "turbomind/core/error.h"

namespace turbomind {
namespace {

constexpr int32_t kEnd = -1;
constexpr size_t kMaxTextBytes = std::numeric_limits<int32_t>::max();

// A part of the text that is one token so far; 0 bytes once it has been merged into the one before.
struct Symbol {
  uint32_t begin;
  uint32_t bytes;
  int32_t previous;
  int32_t next;
};

// Of a symbol with the one after it.
struct Merge {
  float score;
  int32_t left;
  uint32_t bytes;  // of the two together: tells whether one of them has changed since
};

struct LaterMerge {
  bool operator()(const Merge& a, const Merge& b) const {
    if (a.score != b.score) return a.score < b.score;
    return std::pair(a.left, a.bytes) > std::pair(b.left, b.bytes);
  }
};

bool begins_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

std::vector<Symbol> characters(std::string_view text) {
  std::vector<Symbol> symbols;
  symbols.reserve(static_cast<size_t>(std::ranges::count_if(text, begins_character)));
  for (uint32_t begin = 0; begin < text.size();) {
    uint32_t end = begin + 1;
    while (end < text.size() && !begins_character(text[end])) ++end;
    const auto place = static_cast<int32_t>(symbols.size());
    symbols.push_back({begin, end - begin, place - 1, place + 1});
    begin = end;
  }
  if (!symbols.empty()) symbols.back().next = kEnd;
  return symbols;
}

}  // namespace

SpmModel::SpmModel(std::shared_ptr<const StringTable> pieces, std::vector<float> scores, std::span<const int32_t> apart,
                   const Fallback& fallback)
    : pieces_(std::move(pieces)), scores_(std::move(scores)), apart_(pieces_->size()), fallback_(fallback) {
  check(scores_.size() == pieces_->size(), ErrorCode::kInvalidArgument, "scores: expected ", pieces_->size(),
        ", found ", scores_.size());
  for (size_t id = 0; id < scores_.size(); ++id) {
    check(!std::isnan(scores_[id]), ErrorCode::kInvalidArgument, "scores[", id, "]: expected a number, found nan");
  }
  const auto check_id = [&](const char* name, int32_t id) {
    check(id >= 0 && static_cast<size_t>(id) < pieces_->size(), ErrorCode::kInvalidArgument, name,
          ": expected ids below ", pieces_->size(), ", found ", id);
  };
  if (fallback_.unknown) check_id("unknown", *fallback_.unknown);
  for (const int32_t id : apart) {
    check_id("apart", id);
    // Where two ids have one string, neither may come of text.
    apart_[static_cast<size_t>(pieces_->find((*pieces_)[static_cast<size_t>(id)]))] = true;
  }
}

std::vector<int32_t> SpmModel::encode(std::string_view text) const {
  check(text.size() <= kMaxTextBytes, ErrorCode::kInvalidArgument, "text: expected at most ", kMaxTextBytes,
        " bytes, found ", text.size());
  std::vector<Symbol> symbols = characters(text);
  const auto symbol = [&](int32_t place) -> Symbol& { return symbols[static_cast<size_t>(place)]; };
  std::priority_queue<Merge, std::vector<Merge>, LaterMerge> merges;
  const auto propose = [&](int32_t left) {
    const Symbol& first = symbol(left);
    if (first.next == kEnd) return;
    const uint32_t bytes = first.bytes + symbol(first.next).bytes;
    const int32_t id = find(text.substr(first.begin, bytes));
    if (id != StringTable::kNone) merges.push({scores_[static_cast<size_t>(id)], left, bytes});
  };
  for (size_t place = 0; place < symbols.size(); ++place) propose(static_cast<int32_t>(place));
  while (!merges.empty()) {
    const Merge merge = merges.top();
    merges.pop();
    Symbol& left = symbol(merge.left);
    if (left.bytes == 0 || left.next == kEnd || left.bytes + symbol(left.next).bytes != merge.bytes) continue;
    Symbol& right = symbol(left.next);
    left.bytes = merge.bytes;
    left.next = right.next;
    right.bytes = 0;
    if (left.next != kEnd) symbol(left.next).previous = merge.left;
    propose(merge.left);
    if (left.previous != kEnd) propose(left.previous);
  }
  std::vector<int32_t> ids;
  for (const Symbol& part : symbols) {
    if (part.bytes == 0) continue;
    const std::string_view piece = text.substr(part.begin, part.bytes);
    if (const int32_t id = find(piece); id != StringTable::kNone) {
      ids.push_back(id);
    } else if (fallback_.bytes) {
      for (const char byte : piece) ids.push_back((*fallback_.bytes)[static_cast<unsigned char>(byte)]);
    } else if (fallback_.unknown) {
      ids.push_back(*fallback_.unknown);
    }
  }
  return ids;
}

int32_t SpmModel::find(std::string_view text) const {
  const int32_t id = pieces_->find(text);
  return id == StringTable::kNone || apart_[static_cast<size_t>(id)] ? StringTable::kNone : id;
}

}  // namespace turbomind
