// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "turbomind/runtime/plugin.h"

namespace turbomind {

struct PluginInfo {
  std::string path;
  std::string name;  // empty if the file could not be loaded
  std::string version;
  bool usable;
  std::string reason;  // why it is not usable
};

// The plug-ins of this process. Thread-safe. A file is loaded once and never unloaded, so references stay valid.
class PluginRegistry {
 public:
  static PluginRegistry& instance();

  // Loads a file, or returns it if it is loaded. Throws as Plugin::load.
  const Plugin& load(const std::string& path);
  // Loads every libturbomind-*.so of a directory in name order. A file that fails is kept for list() with its reason;
  // a directory that does not exist holds no plug-ins.
  void scan(const std::string& directory);
  // What load() and scan() have met, in name order of the paths, each probed.
  std::vector<PluginInfo> list() const;
  // The usable plug-in of that name. Throws kUnsupported: unknown name (with the known ones) or not usable (why).
  const Plugin& find(std::string_view name) const;

 private:
  struct Entry {
    std::unique_ptr<const Plugin> plugin;
    std::string load_error;
  };

  PluginRegistry() = default;
  Entry& load_entry(const std::string& path);

  mutable std::mutex mutex_;  // guards entries_
  std::map<std::string, Entry> entries_;
};

}  // namespace turbomind
