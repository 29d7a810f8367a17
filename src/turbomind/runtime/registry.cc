// SPDX-License-Identifier: Apache-2.0
#include "turbomind/runtime/registry.h"

#include <filesystem>

#include "turbomind/core/error.h"

namespace turbomind {
namespace {

// One key per file, so that a plug-in reached by two names is loaded once.
std::string canonical(const std::string& path) {
  std::error_code error;
  const std::filesystem::path resolved = std::filesystem::weakly_canonical(path, error);
  return error ? path : resolved.string();
}

PluginInfo describe(const std::string& path, const Plugin* plugin, const std::string& load_error) {
  if (!plugin) return {.path = path, .usable = false, .reason = load_error};
  const ProbeResult probe = plugin->probe();
  return {path, plugin->name(), plugin->version(), probe.usable, probe.reason};
}

}  // namespace

PluginRegistry& PluginRegistry::instance() {
  // Never destroyed: plug-ins stay loaded until the process is gone.
  static PluginRegistry* const registry = new PluginRegistry;
  return *registry;
}

PluginRegistry::Entry& PluginRegistry::load_entry(const std::string& path) {
  Entry& entry = entries_[canonical(path)];
  if (!entry.plugin) {
    try {
      entry.plugin = Plugin::load(path);
      entry.load_error.clear();
    } catch (const Error& error) {
      entry.load_error = error.what();
    }
  }
  return entry;
}

const Plugin& PluginRegistry::load(const std::string& path) {
  const std::lock_guard lock(mutex_);
  const Entry& entry = load_entry(path);
  check(entry.plugin != nullptr, ErrorCode::kUnsupported, entry.load_error);
  return *entry.plugin;
}

void PluginRegistry::scan(const std::string& directory) {
  std::vector<std::string> paths;
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(directory, error)) {
    const std::string name = file.path().filename().string();
    if (name.starts_with("libturbomind-") && name.ends_with(".so")) paths.push_back(file.path().string());
  }
  const std::lock_guard lock(mutex_);
  for (const std::string& path : paths) load_entry(path);
}

std::vector<PluginInfo> PluginRegistry::list() const {
  const std::lock_guard lock(mutex_);
  std::vector<PluginInfo> result;
  for (const auto& [path, entry] : entries_) result.push_back(describe(path, entry.plugin.get(), entry.load_error));
  return result;
}

const Plugin& PluginRegistry::find(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  std::string known;
  std::string refused;
  for (const auto& [path, entry] : entries_) {
    if (!entry.plugin) {
      refused += "; " + entry.load_error;
      continue;
    }
    known += (known.empty() ? "" : ", ") + entry.plugin->name();
    if (entry.plugin->name() != name) continue;
    const ProbeResult probe = entry.plugin->probe();
    if (probe.usable) return *entry.plugin;
    refused += "; " + path + ": not usable here: " + probe.reason;
  }
  fail(ErrorCode::kUnsupported, "backend '", name, "': expected one of: ", known.empty() ? "(none found)" : known,
       refused);
}

}  // namespace turbomind
