// SPDX-License-Identifier: Apache-2.0
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "support/test.h"
#include "turbomind/core/error.h"
#include "turbomind/runtime/device.h"
#include "turbomind/runtime/registry.h"

namespace turbomind {
namespace {

// A complete table that a test then breaks. No slot is ever called.
struct FakeTables {
  FakeTables() {
    fill(device);
    fill(weight);
    fill(kv);
    fill(plan);
    fill(op);
    api = {.struct_size = sizeof api,
           .abi_major = TM_ABI_MAJOR,
           .abi_minor = TM_ABI_MINOR,
           .name = "fake",
           .version = "1",
           .probe = [](char*, size_t) { return TM_OK; },
           .last_error = [] { return "fake words"; },
           .device = &device,
           .weight = &weight,
           .kv = &kv,
           .plan = &plan,
           .graph = nullptr,
           .comm = nullptr,
           .op = &op};
  }

  // Every slot after struct_size becomes some non-null function.
  template <class Table>
  static void fill(Table& table) {
    void (*slot)() = [] {};
    for (size_t at = sizeof(size_t); at + sizeof slot <= sizeof table; at += sizeof slot) {
      std::memcpy(reinterpret_cast<char*>(&table) + at, &slot, sizeof slot);
    }
    table.struct_size = sizeof table;
  }

  tm_device_api device;
  tm_weight_api weight;
  tm_kv_api kv;
  tm_plan_api plan;
  tm_op_api op;
  tm_backend_api api;
};

void load(const FakeTables& tables) { Plugin::from_table(tables.api, "fake.so"); }

TEST(complete_table_is_accepted) {
  const FakeTables tables;
  const auto plugin = Plugin::from_table(tables.api, "fake.so");
  EXPECT_EQ(plugin->name(), "fake");
  EXPECT(plugin->probe().usable);
  EXPECT(plugin->graph() == nullptr);
}

TEST(other_major_is_refused) {
  FakeTables tables;
  tables.api.abi_major = TM_ABI_MAJOR + 1;
  EXPECT_ERROR(load(tables), ErrorCode::kUnsupported, "ABI major version: expected 1, found 2");
}

TEST(all_missing_slots_are_listed) {
  FakeTables tables;
  tables.device.mem_info = nullptr;
  tables.op.attention = nullptr;
  tables.op.sample = nullptr;
  EXPECT_ERROR(load(tables), ErrorCode::kUnsupported, "device.mem_info, op.attention, op.sample");
}

TEST(short_and_absurd_tables_are_refused) {
  FakeTables tables;
  tables.device.struct_size = 16;
  EXPECT_ERROR(load(tables), ErrorCode::kUnsupported, "struct_size of the device table");
  FakeTables absurd;
  absurd.op.struct_size = size_t{1} << 40;
  EXPECT_ERROR(load(absurd), ErrorCode::kUnsupported, "struct_size of the op table");
  FakeTables absent;
  absent.api.plan = nullptr;
  EXPECT_ERROR(load(absent), ErrorCode::kUnsupported, "the plan table is missing");
}

TEST(optional_slots_may_be_null) {
  FakeTables tables;
  tables.op.add_rms_norm = nullptr;
  tables.kv.export_blocks = nullptr;
  const auto plugin = Plugin::from_table(tables.api, "fake.so");
  EXPECT(plugin->op().add_rms_norm == nullptr);
}

TEST(a_later_minor_with_longer_tables_is_accepted) {
  struct LongerOps {
    tm_op_api known;
    void* appended[4];
  };
  FakeTables tables;
  LongerOps longer{tables.op, {}};
  longer.known.struct_size = sizeof longer;
  tables.api.abi_minor = TM_ABI_MINOR + 1;
  tables.api.op = &longer.known;
  const auto plugin = Plugin::from_table(tables.api, "fake.so");
  EXPECT(plugin->op().attention != nullptr);
}

TEST(half_a_graph_table_is_refused) {
  FakeTables tables;
  tm_graph_api graph;
  FakeTables::fill(graph);
  graph.launch = nullptr;
  tables.api.graph = &graph;
  EXPECT_ERROR(load(tables), ErrorCode::kUnsupported, "graph.launch");
}

TEST(status_becomes_error_with_the_plugins_words) {
  const FakeTables tables;
  const auto plugin = Plugin::from_table(tables.api, "fake.so");
  plugin->check_status(TM_OK, "alloc");
  EXPECT_ERROR(plugin->check_status(TM_OUT_OF_MEMORY, "alloc"), ErrorCode::kOutOfMemory,
               "fake backend: alloc: fake words");
  EXPECT_ERROR(plugin->check_status(TM_DEVICE_LOST, "x"), ErrorCode::kDeviceLost, "x");
  EXPECT_ERROR(plugin->check_status(TM_NOT_READY, "x"), ErrorCode::kInternal, "x");
}

TEST(files_that_are_no_plugins_are_refused) {
  EXPECT_ERROR(Plugin::load("/nonexistent/libturbomind-x.so"), ErrorCode::kUnsupported, "cannot be loaded");
  EXPECT_ERROR(Plugin::load("libm.so.6"), ErrorCode::kUnsupported, "does not export tm_backend_get_api");
}

TEST(registry_scans_a_directory_and_explains_refusals) {
  namespace fs = std::filesystem;
  const fs::path directory = fs::temp_directory_path() / "turbomind_test_registry";
  fs::create_directories(directory);
  std::ofstream(directory / "libturbomind-broken.so") << "not a library";
  std::ofstream(directory / "unrelated.so") << "ignored";
  PluginRegistry& registry = PluginRegistry::instance();
  const std::vector<std::string> paths{directory.string(), "/nonexistent/directory", TM_PLUGIN_NULL};
  const Plugin& null_plugin = registry.load(TM_PLUGIN_NULL);
  EXPECT_EQ(&registry.load(TM_PLUGIN_NULL), &null_plugin);
  EXPECT_EQ(&registry.find("null", paths), &null_plugin);
  EXPECT_ERROR(registry.find("null", {directory.string()}), ErrorCode::kUnsupported, "expected one of: (none found)");
  EXPECT_ERROR(registry.find("vax", paths), ErrorCode::kUnsupported, "expected one of: null");
  EXPECT_ERROR(registry.find("vax", paths), ErrorCode::kUnsupported, "libturbomind-broken.so: cannot be loaded");
  size_t broken = 0;
  for (const PluginInfo& info : registry.list(paths)) {
    EXPECT(info.path.find("unrelated") == std::string::npos);
    if (info.path.find("broken") == std::string::npos) continue;
    ++broken;
    EXPECT(!info.usable && !info.reason.empty());
  }
  EXPECT_EQ(broken, 1u);
  fs::remove_all(directory);
}

TEST(of_plugins_of_one_name_the_first_along_the_paths_wins) {
  namespace fs = std::filesystem;
  // Named against the order of the paths: neither the alphabet nor what was loaded first may decide.
  const fs::path root = fs::temp_directory_path() / "turbomind_test_order";
  const fs::path own = root / "z" / "libturbomind-own.so";
  const fs::path other = root / "a" / "libturbomind-other.so";
  for (const fs::path& copy : {own, other}) {
    fs::create_directories(copy.parent_path());
    fs::copy_file(TM_PLUGIN_NULL, copy, fs::copy_options::overwrite_existing);
  }
  PluginRegistry& registry = PluginRegistry::instance();
  const std::string folder = other.parent_path().string();
  EXPECT_EQ(&registry.find("null", {folder, own.string()}), &registry.load(other.string()));
  EXPECT_EQ(&registry.find("null", {own.string(), folder}), &registry.load(own.string()));
  const std::vector<PluginInfo> all = registry.list({own.string(), folder, own.string()});
  EXPECT_EQ(all.size(), 2u);
  EXPECT_EQ(all.at(0).path, own.string());
  EXPECT_EQ(all.at(1).path, other.string());
  fs::remove_all(root);
}

}  // namespace
}  // namespace turbomind
