// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tm_backend.h"

namespace turbomind {

// Settings by name, as text: what a plug-in is configured with.
class Config {
 public:
  Config() = default;
  Config(std::initializer_list<std::pair<const std::string, std::string>> entries) : entries_(entries) {}

  void set(const std::string& key, const std::string& value) { entries_[key] = value; }
  // "key=value". Throws kInvalidArgument without a '='.
  void set_pair(std::string_view pair);
  bool contains(const std::string& key) const { return entries_.count(key) != 0; }
  // The fallback where the key is missing; throws kInvalidArgument where the value does not parse.
  std::string get(const std::string& key, const std::string& fallback) const;
  int64_t get_int(const std::string& key, int64_t fallback) const;
  bool get_bool(const std::string& key, bool fallback) const;

  const std::map<std::string, std::string>& entries() const { return entries_; }
  // Views into this object for the C contract; valid until it changes.
  std::vector<tm_config_entry> abi_entries() const;

 private:
  std::map<std::string, std::string> entries_;
};

}  // namespace turbomind
