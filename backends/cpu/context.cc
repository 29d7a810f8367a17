// SPDX-License-Identifier: Apache-2.0
#include "context.h"

#include <algorithm>
#include <cstring>

#include "cpu_info.h"
#include "kv_layout.h"
#include "memory.h"
#include "ops.h"
#include "turbomind/abi/tm_backend_tools.hpp"
#include "weights/format.h"

namespace turbomind::cpu {

Context::Context(int32_t device_index, const tm_config& config, const tm_host_api*)
    : config_(parse_config(config)),
      kernels_(make_kernel_table(config_.isa)),
      pool_(config_.num_threads, config_.cpus, config_.spin) {
  abi::check_device_index(device_index, 1);
}

void Context::props(tm_device_props* out) const {
  tm_device_props props{};
  props.struct_size = std::min(out->struct_size, sizeof props);
  abi::copy_text(props.name, processor_name());
  abi::copy_text(props.arch, isa_name(kernels_.isa));
  props.total_memory_bytes = memory_info().total_bytes;
  props.memory_alignment = kMemoryAlignment;
  props.activation_dtypes = abi::dtype_bit(TM_F32);
  props.kv_dtypes = abi::dtype_bit(TM_F32) | abi::dtype_bit(TM_BF16) | abi::dtype_bit(TM_F16) | abi::dtype_bit(TM_I8);
  props.preferred_activation = TM_F32;
  props.preferred_kv = TM_F16;
  constexpr int32_t kBlockSizes[] = {16, 32, 64};
  std::copy(std::begin(kBlockSizes), std::end(kBlockSizes), props.kv_block_sizes);
  props.preferred_kv_block_size = 32;
  props.host_accessible = 1;
  props.always_deterministic = 1;
  props.can_capture = 0;
  props.asynchronous = 0;
  props.num_compute_units = pool_.num_threads();
  props.attention_spans = 1;
  std::memcpy(out, &props, props.struct_size);
}

void Context::mem_info(uint64_t* free_bytes, uint64_t* total_bytes) const {
  const MemoryInfo info = memory_info();
  *free_bytes = info.free_bytes;
  *total_bytes = info.total_bytes;
}

void* Context::alloc(tm_memory_kind, size_t bytes) { return allocate_memory(bytes); }

void Context::free(tm_memory_kind, void* data) { free_memory(data); }

size_t Context::workspace_size(tm_op_id op, const void* args) { return abi::workspace_size<CpuOps>(*this, op, args); }

size_t Context::kv_pool_bytes(const tm_kv_spec& spec, int64_t num_blocks) const {
  return cpu::kv_pool_bytes(spec, num_blocks);
}

void Context::query_weight(const tm_weight_desc& desc, tm_weight_info* out) const {
  abi::answer_weight_query(unsupported_reason(desc), [&] { return packed_bytes(desc); }, out);
}

}  // namespace turbomind::cpu
