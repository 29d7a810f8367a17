// SPDX-License-Identifier: Apache-2.0
#include "turbomind/core/config.h"

#include <charconv>

#include "turbomind/core/error.h"

namespace turbomind {

void Config::set_pair(std::string_view pair) {
  const size_t equals = pair.find('=');
  check(equals != std::string_view::npos && equals > 0, ErrorCode::kInvalidArgument,
        "config: expected key=value, found '", pair, "'");
  set(std::string(pair.substr(0, equals)), std::string(pair.substr(equals + 1)));
}

std::string Config::get(const std::string& key, const std::string& fallback) const {
  const auto it = entries_.find(key);
  return it == entries_.end() ? fallback : it->second;
}

int64_t Config::get_int(const std::string& key, int64_t fallback) const {
  const auto it = entries_.find(key);
  if (it == entries_.end()) return fallback;
  const std::string& text = it->second;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check(error == std::errc() && end == text.data() + text.size(), ErrorCode::kInvalidArgument, "config ", key,
        ": expected an integer, found '", text, "'");
  return value;
}

bool Config::get_bool(const std::string& key, bool fallback) const {
  const auto it = entries_.find(key);
  if (it == entries_.end()) return fallback;
  if (it->second == "1" || it->second == "true") return true;
  if (it->second == "0" || it->second == "false") return false;
  fail(ErrorCode::kInvalidArgument, "config ", key, ": expected 0, 1, true or false, found '", it->second, "'");
}

std::vector<tm_config_entry> Config::abi_entries() const {
  std::vector<tm_config_entry> result;
  result.reserve(entries_.size());
  for (const auto& [key, value] : entries_) result.push_back({key.c_str(), value.c_str()});
  return result;
}

}  // namespace turbomind
