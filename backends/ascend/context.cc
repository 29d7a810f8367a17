// SPDX-License-Identifier: Apache-2.0
#include "context.h"

#include <algorithm>
#include <string>

#include "check.h"
#include "constants.h"
#include "kv_layout.h"
#include "library.h"
#include "turbomind/abi/tm_backend_tools.hpp"
#include "weight.h"

namespace turbomind::ascend {
namespace {

constexpr int kRepeatedInitialization = 100002;  // another library of this process, torch_npu say, did it

int call_acl_init() {
  const int code = library().runtime.aclInit(nullptr);
  return code == kRepeatedInitialization ? 0 : code;
}

Profile read_profile() {
  const Runtime& acl = library().runtime;
  const char* soc = acl.aclrtGetSocName();
  char version[128] = "";  // the size the call's public documentation gives
  char package[] = "runtime";
  if (!acl.aclsysGetVersionStr || acl.aclsysGetVersionStr(package, version) != 0) version[0] = '\0';
  return make_profile(soc ? soc : "", version);
}

}  // namespace

void initialize_acl() {
  if (!library().reason.empty()) throw abi::Error(TM_UNSUPPORTED, library().reason);
  static const int code = call_acl_init();
  check(code, "aclInit");
}

int32_t count_devices() {
  if (!library().reason.empty()) return 0;
  initialize_acl();
  uint32_t count = 0;
  check(library().runtime.aclrtGetDeviceCount(&count), "aclrtGetDeviceCount");
  return static_cast<int32_t>(count);
}

Context::Context(int32_t device_index, const tm_config& config, const tm_host_api*) : device_(device_index) {
  initialize_acl();
  abi::check_device_index(device_index, count_devices());
  apply(config);
  set_thread();
  profile_ = read_profile();
  constants_ = std::make_unique<Constants>(*this);
}

Context::~Context() { set_thread_if_possible(); }

void Context::apply(const tm_config& config) {
  abi::for_each_setting(config, "ascend", "deterministic, num_threads, nz, stall_seconds", [&](auto key, auto value) {
    if (key == "deterministic") {
      deterministic_ = abi::parse_int_setting(key, value, 0, 1) != 0;
    } else if (key == "num_threads") {
      constexpr int kMaxThreads = 1024;
      abi::parse_int_setting(key, value, 0, kMaxThreads);
    } else if (key == "nz") {
      nz_weights_ = abi::parse_int_setting(key, value, 0, 1) != 0;
    } else if (key == "stall_seconds") {
      constexpr int kDay = 86400;
      stall_seconds_ = abi::parse_int_setting(key, value, 0, kDay);
    } else {
      return false;
    }
    return true;
  });
}

void Context::props(tm_device_props* out) const {
  const Runtime& acl = library().runtime;
  tm_device_props props{};
  props.struct_size = std::min(out->struct_size, sizeof props);
  abi::copy_text(props.name, profile_.soc + " (" + profile_.family + ")");
  abi::copy_text(props.arch, profile_.version.empty() ? "CANN" : "CANN " + profile_.version);
  uint64_t free_bytes = 0;
  mem_info(&free_bytes, &props.total_memory_bytes);
  props.memory_alignment = kMemoryAlignment;
  props.activation_dtypes = abi::dtype_bit(TM_F32) | abi::dtype_bit(TM_F16) | abi::dtype_bit(TM_BF16);
  props.kv_dtypes = props.activation_dtypes | abi::dtype_bit(TM_I8);
  props.preferred_activation = TM_BF16;
  props.preferred_kv = TM_BF16;
  props.kv_block_sizes[0] = kBlockSize;
  props.preferred_kv_block_size = kBlockSize;
  props.host_accessible = 0;
  props.always_deterministic = 0;
  props.can_capture = has_graphs(acl) ? 1 : 0;
  props.asynchronous = 1;
  props.attention_spans = 1;
  int64_t cores = 0;
  const bool known = acl.aclrtGetDeviceInfo &&
                     acl.aclrtGetDeviceInfo(static_cast<uint32_t>(device_), kAclAttributeCubeCores, &cores) == 0;
  props.num_compute_units = known && cores > 0 ? static_cast<int32_t>(cores) : 1;
  std::memcpy(out, &props, props.struct_size);
}

void Context::mem_info(uint64_t* free_bytes, uint64_t* total_bytes) const {
  size_t free = 0;
  size_t total = 0;
  set_thread();
  check(library().runtime.aclrtGetMemInfo(kAclHbmMemory, &free, &total), "aclrtGetMemInfo");
  *free_bytes = free;
  *total_bytes = total;
}

void* Context::alloc(tm_memory_kind kind, size_t bytes) {
  set_thread();
  Memory memory(kind, bytes);
  void* data = memory.data();
  const std::lock_guard lock(allocations_mutex_);
  allocations_.emplace(data, std::move(memory));
  return data;
}

bool Context::is_pinned(const void* data) {
  const std::lock_guard lock(allocations_mutex_);
  const auto* at = static_cast<const std::byte*>(data);
  return std::any_of(allocations_.begin(), allocations_.end(), [&](const auto& entry) {
    const auto* begin = static_cast<const std::byte*>(entry.first);
    return entry.second.kind() == TM_MEMORY_PINNED_HOST && at >= begin && at < begin + entry.second.bytes();
  });
}

void Context::free(tm_memory_kind, void* data) {
  if (!data) return;
  set_thread_if_possible();
  const std::lock_guard lock(allocations_mutex_);
  allocations_.erase(data);
}

void Context::set_thread_if_possible() const noexcept { library().runtime.aclrtSetDevice(device_); }

void Context::set_thread() const { check(library().runtime.aclrtSetDevice(device_), "aclrtSetDevice"); }

size_t Context::kv_pool_bytes(const tm_kv_spec& spec, int64_t num_blocks) const {
  return make_kv_layout(profile_, spec).bytes(num_blocks);
}

void Context::query_weight(const tm_weight_desc& desc, tm_weight_info* out) const {
  abi::answer_weight_query(unsupported_reason(desc), [&] { return make_weight_layout(*this, desc).bytes; }, out);
}

}  // namespace turbomind::ascend
