// SPDX-License-Identifier: Apache-2.0
//
// Optional help for plug-ins: settings, properties, and dispatch of workspace_size().
#pragma once

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string>
#include <string_view>

#include "tm_backend.hpp"

namespace turbomind::abi {

// Fills a fixed character array; cuts what does not fit.
template <size_t N>
void copy_text(char (&out)[N], std::string_view text) {
  const size_t length = std::min(text.size(), N - 1);
  std::memcpy(out, text.data(), length);
  out[length] = '\0';
}

constexpr uint64_t dtype_bit(tm_dtype dtype) { return uint64_t{1} << dtype; }

// Throws TM_INVALID_ARGUMENT, naming the key.
[[noreturn]] inline void reject_setting(std::string_view key, std::string_view value, std::string_view expected) {
  throw Error(TM_INVALID_ARGUMENT, "config key '" + std::string(key) + "': expected " + std::string(expected) +
                                       ", found '" + std::string(value) + "'");
}

inline int parse_int_setting(std::string_view key, std::string_view value, int low, int high) {
  int number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc{} || end != value.data() + value.size() || number < low || number > high) {
    reject_setting(key, value, "a whole number from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return number;
}

// fn(key, value) for each entry; false from it means that the backend does not know the key. `known` lists the keys.
template <class Fn>
void for_each_setting(const tm_config& config, const char* backend, const char* known, Fn fn) {
  for (size_t i = 0; i < config.num_entries; ++i) {
    const std::string_view key = config.entries[i].key ? config.entries[i].key : "";
    const std::string_view value = config.entries[i].value ? config.entries[i].value : "";
    if (fn(key, value)) continue;
    throw Error(TM_INVALID_ARGUMENT,
                "unknown config key '" + std::string(key) + "'; the " + backend + " backend knows " + known);
  }
}

}  // namespace turbomind::abi
