// SPDX-License-Identifier: Apache-2.0
#include "context.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <string>
#include <string_view>

#include "cuda_check.h"
#include "gemm.h"
#include "kernels/kv_layout.h"
#include "weight.h"

namespace turbomind::cuda {
namespace {

constexpr int32_t kBlockSizes[] = {16, 32, 64};
constexpr uint64_t kMemoryAlignment = 256;  // cudaMalloc's

template <size_t N>
void copy_text(char (&out)[N], std::string_view text) {
  const size_t length = std::min(text.size(), N - 1);
  std::memcpy(out, text.data(), length);
  out[length] = '\0';
}

constexpr uint64_t bit(tm_dtype dtype) { return uint64_t{1} << dtype; }

int parse_int(std::string_view key, std::string_view value, int low, int high) {
  int number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc{} || end != value.data() + value.size() || number < low || number > high) {
    throw abi::Error(TM_INVALID_ARGUMENT, "config key '" + std::string(key) + "': expected a whole number from " +
                                              std::to_string(low) + " to " + std::to_string(high) + ", found '" +
                                              std::string(value) + "'");
  }
  return number;
}

}  // namespace

Context::Context(int32_t device_index, const tm_config& config, const tm_host_api*) : device_(device_index) {
  int count = 0;
  check_cuda(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  if (device_index < 0 || device_index >= count) {
    throw abi::Error(TM_INVALID_ARGUMENT, "device_index: expected 0 to " + std::to_string(count - 1) + ", found " +
                                              std::to_string(device_index));
  }
  for (size_t i = 0; i < config.num_entries; ++i) {
    const std::string_view key = config.entries[i].key ? config.entries[i].key : "";
    const std::string_view value = config.entries[i].value ? config.entries[i].value : "";
    if (key == "deterministic") {
      deterministic_ = parse_int(key, value, 0, 1) != 0;
    } else if (key == "num_threads") {
      parse_int(key, value, 0, 1024);
    } else {
      throw abi::Error(TM_INVALID_ARGUMENT, "unknown config key '" + std::string(key) +
                                                "'; the cuda backend knows deterministic, num_threads");
    }
  }
  check_cuda(cudaGetDeviceProperties(&properties_, device_), "cudaGetDeviceProperties");
  if (architecture() < 80) {
    throw abi::Error(TM_UNSUPPORTED, std::string(properties_.name) +
                                         ": expected compute capability 8.0 or more, found " +
                                         std::to_string(properties_.major) + "." + std::to_string(properties_.minor));
  }
  set_thread();
  gemm_ = std::make_unique<Gemm>(deterministic_);
}

Context::~Context() {
  cudaSetDevice(device_);
  gemm_.reset();
  // A dead CUDA context would make the next one dead too; nothing of this one is in use any more.
  if (status_of(cudaDeviceSynchronize()) == TM_DEVICE_LOST) cudaDeviceReset();
}

void Context::props(tm_device_props* out) const {
  tm_device_props props{};
  props.struct_size = std::min(out->struct_size, sizeof props);
  copy_text(props.name, properties_.name);
  copy_text(props.arch, "sm_" + std::to_string(architecture()));
  props.total_memory_bytes = properties_.totalGlobalMem;
  props.memory_alignment = kMemoryAlignment;
  props.activation_dtypes = bit(TM_F32) | bit(TM_BF16) | bit(TM_F16);
  props.kv_dtypes = bit(TM_F32) | bit(TM_BF16) | bit(TM_F16) | bit(TM_I8);
  props.preferred_activation = TM_BF16;
  props.preferred_kv = TM_BF16;
  std::copy(std::begin(kBlockSizes), std::end(kBlockSizes), props.kv_block_sizes);
  props.preferred_kv_block_size = 64;
  props.host_accessible = 0;
  props.always_deterministic = 0;
  props.can_capture = 1;
  props.asynchronous = 1;
  props.num_compute_units = num_sms();
  props.attention_spans = 1;
  std::memcpy(out, &props, props.struct_size);
}

void Context::mem_info(uint64_t* free_bytes, uint64_t* total_bytes) const {
  size_t free = 0;
  size_t total = 0;
  set_thread();
  check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  *free_bytes = free;
  *total_bytes = total;
}

void* Context::alloc(tm_memory_kind kind, size_t bytes) {
  set_thread();
  void* data = nullptr;
  const size_t size = std::max<size_t>(bytes, 1);
  const cudaError_t error = kind == TM_MEMORY_PINNED_HOST ? cudaMallocHost(&data, size) : cudaMalloc(&data, size);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return nullptr;
  }
  check_cuda(error, "cudaMalloc");
  return data;
}

void Context::free(tm_memory_kind kind, void* data) {
  if (kind == TM_MEMORY_PINNED_HOST) {
    cudaFreeHost(data);
  } else {
    cudaFree(data);
  }
}

void Context::set_thread() const { check_cuda(cudaSetDevice(device_), "cudaSetDevice"); }

size_t Context::kv_pool_bytes(const tm_kv_spec& spec, int64_t num_blocks) const {
  return static_cast<size_t>(num_blocks * make_kv_layout(spec).block_bytes);
}

void Context::query_weight(const tm_weight_desc& desc, tm_weight_info* out) const {
  tm_weight_info info{};
  info.struct_size = std::min(out->struct_size, sizeof info);
  const std::string reason = unsupported_reason(desc);
  info.supported = reason.empty();
  if (info.supported) info.packed_bytes = packed_bytes(desc);
  copy_text(info.reason, reason);
  std::memcpy(out, &info, info.struct_size);
}

}  // namespace turbomind::cuda
