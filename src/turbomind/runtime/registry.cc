// SPDX-License-Identifier: Apache-2.0
#include "turbomind/runtime/registry.h"

#include <algorithm>
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

std::vector<std::string> files_of(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) return {path};
  std::vector<std::string> files;
  for (const auto& file : std::filesystem::directory_iterator(path, error)) {
    const std::string name = file.path().filename().string();
    if (name.starts_with("libturbomind-") && name.ends_with(".so")) files.push_back(file.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

PluginRegistry& PluginRegistry::instance() {
  // Never destroyed: plug-ins stay loaded until the process is gone.
  static PluginRegistry* const registry = new PluginRegistry;
  return *registry;
}

const PluginRegistry::Entry& PluginRegistry::load_entry(const std::string& path) {
  Entry& entry = entries_[canonical(path)];
  if (!entry.plugin) {
    entry.path = path;
    try {
      entry.plugin = Plugin::load(path);
      entry.load_error.clear();
    } catch (const Error& error) {
      entry.load_error = error.what();
    }
  }
  return entry;
}

std::vector<const PluginRegistry::Entry*> PluginRegistry::load_all(const std::vector<std::string>& paths) {
  std::vector<const Entry*> found;
  for (const std::string& path : paths) {
    for (const std::string& file : files_of(path)) {
      const Entry* entry = &load_entry(file);
      if (std::find(found.begin(), found.end(), entry) == found.end()) found.push_back(entry);
    }
  }
  return found;
}

const Plugin& PluginRegistry::load(const std::string& path) {
  const std::lock_guard lock(mutex_);
  const Entry& entry = load_entry(path);
  check(entry.plugin != nullptr, ErrorCode::kUnsupported, entry.load_error);
  return *entry.plugin;
}

std::vector<PluginInfo> PluginRegistry::list(const std::vector<std::string>& paths) {
  const std::lock_guard lock(mutex_);
  std::vector<PluginInfo> result;
  for (const Entry* entry : load_all(paths)) {
    if (!entry->plugin) {
      result.push_back({.path = entry->path, .usable = false, .reason = entry->load_error});
      continue;
    }
    const ProbeResult probe = entry->plugin->probe();
    result.push_back({entry->path, entry->plugin->name(), entry->plugin->version(), probe.usable, probe.reason});
  }
  return result;
}

const Plugin& PluginRegistry::find(std::string_view name, const std::vector<std::string>& paths) {
  const std::lock_guard lock(mutex_);
  std::string known;
  std::string refused;
  for (const Entry* entry : load_all(paths)) {
    if (!entry->plugin) {
      refused += "; " + entry->load_error;
      continue;
    }
    known += (known.empty() ? "" : ", ") + entry->plugin->name();
    if (entry->plugin->name() != name) continue;
    const ProbeResult probe = entry->plugin->probe();
    check(probe.usable, ErrorCode::kUnsupported, "backend '", name, "': ", entry->path,
          ": not usable here: ", probe.reason);
    return *entry->plugin;
  }
  fail(ErrorCode::kUnsupported, "backend '", name, "': expected one of: ", known.empty() ? "(none found)" : known,
       refused);
}

}  // namespace turbomind
