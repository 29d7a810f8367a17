// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace turbomind {

// Settings of one engine. A zero means what the comment says, never "off" by accident.
struct EngineOptions {
  std::string backend = "auto";          // plug-in name; "auto": an accelerator that is usable here, else "cpu"
  int32_t device_index = 0;              // of rank 0; rank r takes device_index + r
  int32_t num_threads = 0;               // host threads of the backend, shared by all ranks; 0 = backend's choice
  int32_t tp = 1;                        // tensor-parallel ranks
  std::string dtype = "auto";            // of activations; "auto" = backend's preference
  std::string weight_dtype = "auto";     // "auto": as in the checkpoint | "int8": floats become int8 at load
  std::string compute_dtype = "auto";    // "auto" | "float32"
  std::string kv_cache_dtype = "auto";   // "auto" | "float32" | "bfloat16" | "float16" | "int8"
  int32_t block_size = 0;                // tokens per KV block; 0 = backend's preference
  int64_t session_len = 0;               // most tokens of a sequence, prompt included; 0 = model's context length
  int32_t max_num_seqs = 64;             // sequences of one step
  int32_t max_num_batched_tokens = 512;  // tokens of one step
  // Share of the memory left after weights and activations that the KV cache may take. 0 = 0.9; in host memory 0.1, and
  // never more than max_num_seqs full sequences need.
  double cache_memory_fraction = 0.0;
  int64_t num_kv_blocks = 0;  // overrides the sizing by memory
  bool enable_prefix_caching = true;
  int32_t max_encoder_patches = 0;                    // of pictures in one step, so of one picture or tile; 0 = auto
  int64_t encoder_cache_bytes = 0;                    // device memory for embeddings of pictures; 0 = auto
  int32_t max_queue_size = 1024;                      // requests waiting to be scheduled for the first time
  std::vector<std::string> plugin_paths;              // plug-in files, or folders of them; of one name the first
  std::map<std::string, std::string> backend_config;  // passed to the plug-in as it is
};

// Throws kInvalidArgument naming the option, what was expected and what was found.
void validate(const EngineOptions& options);

}  // namespace turbomind
