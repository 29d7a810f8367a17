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

// The plug-ins of this process. Thread-safe. A file is loaded once and never unloaded, so references stay valid. Paths
// are plug-in files, or folders whose libturbomind-*.so are looked at in name order; a folder that does not exist holds
// none. Who asks gives its own paths, so that what another one looked for is never found here.
class PluginRegistry {
 public:
  static PluginRegistry& instance();

  // Loads a file, or returns it if it is loaded. Throws as Plugin::load.
  const Plugin& load(const std::string& path);
  // What lies along the paths, each probed; a file that cannot be loaded has its reason.
  std::vector<PluginInfo> list(const std::vector<std::string>& paths);
  // The first plug-in of that name along the paths. Throws kUnsupported: unknown name (with the known ones), or not
  // usable (why): none of its name behind it takes its place, since who puts a plug-in first wants that one.
  const Plugin& find(std::string_view name, const std::vector<std::string>& paths);

 private:
  struct Entry {
    std::string path;
    std::unique_ptr<const Plugin> plugin;
    std::string load_error;
  };

  PluginRegistry() = default;
  const Entry& load_entry(const std::string& path);
  std::vector<const Entry*> load_all(const std::vector<std::string>& paths);

  std::mutex mutex_;                      // guards entries_
  std::map<std::string, Entry> entries_;  // by canonical path
};

}  // namespace turbomind
