// SPDX-License-Identifier: Apache-2.0
#include "turbomind/engine/devices.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <thread>

#include "turbomind/runtime/registry.h"

namespace turbomind {
namespace {

// Prompt logprobs are computed in slices of at least so many rows.
constexpr int64_t kMinLogitsRows = 32;

// 3.2 million pixels in patches of 14 x 14.
constexpr int64_t kDefaultEncoderPatches = 16384;
// A tile of 448 x 448 pixels in such patches.
constexpr int64_t kPatchesBesideDecodes = 1024;
constexpr int64_t kDefaultCachedPictures = 4;  // of the largest size
constexpr int64_t kDefaultEncoderCacheBytes = int64_t{256} << 20;

// Accelerators come before the host's processor; the plug-in without maths is never chosen.
const Plugin& choose_backend(const std::string& name, const std::vector<std::string>& paths) {
  PluginRegistry& registry = PluginRegistry::instance();
  if (name != "auto") return registry.find(name, paths);
  std::set<std::string> seen{"", "cpu", "null"};
  for (const PluginInfo& info : registry.list(paths)) {
    if (!seen.insert(info.name).second || !info.usable) continue;
    const Plugin& plugin = registry.load(info.path);
    if (plugin.device_count() > 0) return plugin;
  }
  return registry.find("cpu", paths);
}

// A file that is named must be a plug-in; what lies in a folder may be anything.
void check_plugin_files(const std::vector<std::string>& paths) {
  for (const std::string& path : paths) {
    if (!std::filesystem::is_directory(path)) PluginRegistry::instance().load(path);
  }
}

std::vector<int32_t> device_indices(const EngineOptions& options, const Plugin& plugin) {
  const int32_t count = plugin.device_count();
  std::vector<int32_t> indices;
  for (int32_t rank = 0; rank < options.tp; ++rank) {
    // A processor is one device that ranks share.
    const int32_t index = count == 1 ? options.device_index : options.device_index + rank;
    check(index < count, ErrorCode::kInvalidArgument, "device_index, tp: expected devices below ", count, " of the ",
          plugin.name(), " backend, found ", index, " for rank ", rank);
    indices.push_back(index);
  }
  return indices;
}

Config device_config(const EngineOptions& options, bool shared) {
  Config config;
  for (const auto& [key, value] : options.backend_config) config.set(key, value);
  int32_t threads = options.num_threads;
  if (threads == 0 && shared) threads = static_cast<int32_t>(std::max(1U, std::thread::hardware_concurrency()));
  if (shared) threads = std::max(1, threads / options.tp);
  if (threads > 0) config.set("num_threads", std::to_string(threads));
  return config;
}

DType resolve_dtype(const char* option, const std::string& value, DType automatic, uint64_t allowed,
                    const Device& device) {
  const DType dtype = value == "auto" ? automatic : parse_dtype(value);
  check(dtype_in(dtype, allowed), ErrorCode::kUnsupported, option, ": the ", device.plugin().name(),
        " backend does not offer ", dtype_name(dtype), " on ", device.props().name);
  return dtype;
}

int32_t resolve_block_size(int32_t value, const tm_device_props& props) {
  if (value == 0) return props.preferred_kv_block_size;
  std::string allowed;
  for (const int32_t size : props.kv_block_sizes) {
    if (size == 0) break;
    if (size == value) return value;
    allowed += (allowed.empty() ? "" : ", ") + std::to_string(size);
  }
  fail(ErrorCode::kInvalidArgument, "block_size: expected one of ", allowed, ", found ", value);
}

void resolve_encoder(const EngineOptions& options, const DecoderConfig& model, const EncoderConfig& encoder,
                     const tm_device_props& props, ResolvedOptions& resolved) {
  const int64_t merge_size = encoder.projector.merge_size;
  int64_t rows = options.max_encoder_patches;
  if (rows == 0) {
    rows = kDefaultEncoderPatches;
    // A picture has to fit a sequence. Only encoders with a newline leave projected rows out.
    if (!encoder.newline) rows = std::min(rows, resolved.session_len * merge_size);
  }
  rows = std::max(rows, merge_size);
  resolved.encoder = {.activation_dtype = resolved.decoder.activation_dtype,
                      .compute = resolved.decoder.compute,
                      .int8_weights = resolved.decoder.int8_weights,
                      .max_rows = rows};
  const auto row_bytes = static_cast<int64_t>(dtype_size(resolved.decoder.activation_dtype)) * encoder.width();
  const int64_t largest = max_item_tokens(rows / merge_size);
  const int64_t automatic = std::min(kDefaultCachedPictures * largest, kDefaultEncoderCacheBytes / row_bytes);
  const int64_t cache_rows = options.encoder_cache_bytes ? options.encoder_cache_bytes / row_bytes : automatic;
  check(cache_rows > 0, ErrorCode::kInvalidArgument, "encoder_cache_bytes: expected room for an embedding of ",
        row_bytes, " bytes, found ", options.encoder_cache_bytes);
  resolved.encoder_budget = {.rows = rows, .cache_rows = cache_rows, .overlapped = props.asynchronous != 0};
  // In line, what is encoded in a step adds to the time between the tokens of those that decode.
  if (!props.asynchronous) resolved.encoder_budget.rows_beside_decodes = kPatchesBesideDecodes;
  if (!model.bidirectional_media) return;
  // What decoding sequences leave of a step at least, so that pictures always come in.
  const int64_t left = options.max_num_batched_tokens - options.max_num_seqs + 1;
  check(left > 0, ErrorCode::kInvalidArgument,
        "max_num_batched_tokens: expected at least max_num_seqs for a model that reads a picture in one step, found ",
        options.max_num_batched_tokens);
  resolved.encoder_budget.whole_tokens = left;
}

}  // namespace

std::unique_ptr<RankGroup> open_ranks(const EngineOptions& options) {
  check_plugin_files(options.plugin_paths);
  const Plugin& plugin = choose_backend(options.backend, options.plugin_paths);
  const std::vector<int32_t> indices = device_indices(options, plugin);
  const bool shared = options.tp > 1 && indices.front() == indices.back();
  return std::make_unique<RankGroup>(plugin, indices, device_config(options, shared));
}

ResolvedOptions resolve_options(const EngineOptions& options, const DecoderConfig& model, const EncoderConfig* encoder,
                                const Device& device) {
  const tm_device_props& props = device.props();
  // Exact products would be lost in narrower activations or a narrower cache.
  const bool exact = options.compute_dtype == "float32";
  const int64_t session_len = options.session_len ? options.session_len : model.context_length;
  check(session_len <= model.context_length, ErrorCode::kInvalidArgument,
        "session_len: expected at most the model's context length of ", model.context_length, ", found ", session_len);
  ResolvedOptions resolved{
      .decoder = {}, .encoder = {}, .encoder_budget = {}, .session_len = session_len, .ranks = options.tp};
  resolved.decoder.activation_dtype = resolve_dtype("dtype", options.dtype, exact ? TM_F32 : props.preferred_activation,
                                                    props.activation_dtypes, device);
  resolved.decoder.kv_dtype = resolve_dtype("kv_cache_dtype", options.kv_cache_dtype,
                                            exact ? TM_F32 : props.preferred_kv, props.kv_dtypes, device);
  resolved.decoder.compute = exact ? TM_COMPUTE_FLOAT32 : TM_COMPUTE_DEFAULT;
  resolved.decoder.int8_weights = options.weight_dtype == "int8";
  resolved.decoder.kv_block_size = resolve_block_size(options.block_size, props);
  resolved.decoder.max_tokens = options.max_num_batched_tokens;
  resolved.decoder.max_seqs = options.max_num_seqs;
  resolved.decoder.max_logits_rows = std::max<int64_t>(options.max_num_seqs, kMinLogitsRows);
  resolved.decoder.max_context = session_len;
  if (encoder) resolve_encoder(options, model, *encoder, props, resolved);
  return resolved;
}

TextEncoderOptions resolve_options(const EngineOptions& options, const TextEncoderConfig& model, const Device& device) {
  const tm_device_props& props = device.props();
  const bool exact = options.compute_dtype == "float32";
  check(options.session_len <= model.max_positions, ErrorCode::kInvalidArgument,
        "session_len: expected at most the model's ", model.max_positions, " positions, found ", options.session_len);
  TextEncoderOptions resolved;
  resolved.activation_dtype = resolve_dtype("dtype", options.dtype, exact ? TM_F32 : props.preferred_activation,
                                            props.activation_dtypes, device);
  resolved.compute = exact ? TM_COMPUTE_FLOAT32 : TM_COMPUTE_DEFAULT;
  resolved.int8_weights = options.weight_dtype == "int8";
  resolved.max_text_len = options.session_len ? options.session_len : model.max_positions;
  resolved.max_tokens = std::max<int64_t>(options.max_num_batched_tokens, resolved.max_text_len);
  return resolved;
}

}  // namespace turbomind
