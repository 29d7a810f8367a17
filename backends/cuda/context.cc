// SPDX-License-Identifier: Apache-2.0
#include "context.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "cuda_check.h"
#include "gemm.h"
#include "kernels/kv_layout.h"
#include "ops.h"
#include "turbomind/abi/tm_backend_tools.hpp"
#include "weight.h"

namespace turbomind::cuda {
namespace {

constexpr int32_t kBlockSizes[] = {16, 32, 64};
constexpr uint64_t kMemoryAlignment = 256;  // cudaMalloc's

}  // namespace

Context::Context(int32_t device_index, const tm_config& config, const tm_host_api*) : device_(device_index) {
  int count = 0;
  check_cuda(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  abi::check_device_index(device_index, count);
  abi::for_each_setting(config, "cuda", "deterministic, num_threads", [&](auto key, auto value) {
    if (key == "deterministic") {
      deterministic_ = abi::parse_int_setting(key, value, 0, 1) != 0;
    } else if (key == "num_threads") {
      constexpr int kMaxThreads = 1024;
      abi::parse_int_setting(key, value, 0, kMaxThreads);
    } else {
      return false;
    }
    return true;
  });
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
  abi::copy_text(props.name, properties_.name);
  abi::copy_text(props.arch, "sm_" + std::to_string(architecture()));
  props.total_memory_bytes = properties_.totalGlobalMem;
  props.memory_alignment = kMemoryAlignment;
  props.activation_dtypes = abi::dtype_bit(TM_F32) | abi::dtype_bit(TM_BF16) | abi::dtype_bit(TM_F16);
  props.kv_dtypes = abi::dtype_bit(TM_F32) | abi::dtype_bit(TM_BF16) | abi::dtype_bit(TM_F16) | abi::dtype_bit(TM_I8);
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

size_t Context::workspace_size(tm_op_id op, const void* args) { return abi::workspace_size<CudaOps>(*this, op, args); }

size_t Context::kv_pool_bytes(const tm_kv_spec& spec, int64_t num_blocks) const {
  return static_cast<size_t>(num_blocks * make_kv_layout(spec).block_bytes);
}

void Context::query_weight(const tm_weight_desc& desc, tm_weight_info* out) const {
  abi::answer_weight_query(unsupported_reason(desc), [&] { return packed_bytes(desc); }, out);
}

}  // namespace turbomind::cuda
