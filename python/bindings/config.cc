// SPDX-License-Identifier: Apache-2.0
#include "config.h"

#include <pybind11/stl.h>

#include <array>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.h"
#include "turbomind/core/error.h"
#include "turbomind/engine/options.h"
#include "turbomind/engine/request.h"

namespace py = pybind11;

namespace turbomind::bindings {
namespace {

template <class T>
T field(const py::handle& source, const char* name) {
  return source.attr(name).cast<T>();
}

template <class T>
using Names = std::vector<std::pair<const char*, T>>;

template <class T>
T parse(const Names<T>& names, const std::string& word, const char* what) {
  for (const auto& [name, value] : names) {
    if (word == name) return value;
  }
  fail(ErrorCode::kUnsupported, what, ": unknown value '", word, "'");
}

AttentionConfig attention_config(const py::handle& source) {
  AttentionConfig attention;
  attention.num_heads = field<int32_t>(source, "num_heads");
  attention.num_kv_heads = field<int32_t>(source, "num_kv_heads");
  attention.head_dim = field<int32_t>(source, "head_dim");
  attention.scale = field<float>(source, "scale");
  attention.window = field<int32_t>(source, "window");
  attention.softcap = field<float>(source, "softcap");
  attention.qkv_bias = field<bool>(source, "qkv_bias");
  attention.o_bias = field<bool>(source, "o_bias");
  attention.qk_norm = field<bool>(source, "qk_norm");
  attention.rope = field<int32_t>(source, "rope");
  return attention;
}

FfnConfig ffn_config(const py::handle& source) {
  FfnConfig ffn;
  ffn.intermediate_size = field<int32_t>(source, "intermediate_size");
  ffn.activation = parse<tm_activation_kind>({{"silu", TM_ACTIVATION_SILU}, {"gelu_tanh", TM_ACTIVATION_GELU_TANH}},
                                             field<std::string>(source, "activation"), "ffn.activation");
  ffn.bias = field<bool>(source, "bias");
  return ffn;
}

LayerConfig layer_config(const py::handle& source) {
  LayerConfig layer;
  layer.attention = attention_config(source.attr("attention"));
  layer.ffn = ffn_config(source.attr("ffn"));
  layer.post_attention_norm = field<bool>(source, "post_attention_norm");
  layer.post_ffn_norm = field<bool>(source, "post_ffn_norm");
  return layer;
}

void bind_options(py::module_& module) {
  py::class_<EngineOptions>(module, "EngineOptions")
      .def(py::init<>())
      .def_readwrite("backend", &EngineOptions::backend)
      .def_readwrite("device_index", &EngineOptions::device_index)
      .def_readwrite("num_threads", &EngineOptions::num_threads)
      .def_readwrite("tp", &EngineOptions::tp)
      .def_readwrite("dtype", &EngineOptions::dtype)
      .def_readwrite("weight_dtype", &EngineOptions::weight_dtype)
      .def_readwrite("compute_dtype", &EngineOptions::compute_dtype)
      .def_readwrite("kv_cache_dtype", &EngineOptions::kv_cache_dtype)
      .def_readwrite("block_size", &EngineOptions::block_size)
      .def_readwrite("session_len", &EngineOptions::session_len)
      .def_readwrite("max_num_seqs", &EngineOptions::max_num_seqs)
      .def_readwrite("max_num_batched_tokens", &EngineOptions::max_num_batched_tokens)
      .def_readwrite("cache_memory_fraction", &EngineOptions::cache_memory_fraction)
      .def_readwrite("num_kv_blocks", &EngineOptions::num_kv_blocks)
      .def_readwrite("enable_prefix_caching", &EngineOptions::enable_prefix_caching)
      .def_readwrite("max_encoder_patches", &EngineOptions::max_encoder_patches)
      .def_readwrite("encoder_cache_bytes", &EngineOptions::encoder_cache_bytes)
      .def_readwrite("max_queue_size", &EngineOptions::max_queue_size)
      .def_readwrite("plugin_paths", &EngineOptions::plugin_paths)
      .def_readwrite("backend_config", &EngineOptions::backend_config);
}

template <OutputRows SamplingParams::* member>
void def_output_rows(py::class_<SamplingParams>& params, const char* name) {
  params.def_property(
      name, [](const SamplingParams& self) { return to_string(self.*member); },
      [name](SamplingParams& self, const std::string& word) { self.*member = parse_output_rows(name, word); });
}

// (begin, end, key) as tuples; a key is bytes.
std::vector<std::tuple<int64_t, int64_t, py::bytes>> get_cache_keys(const SamplingParams& self) {
  std::vector<std::tuple<int64_t, int64_t, py::bytes>> keys;
  for (const CacheKey& key : self.cache_keys) keys.emplace_back(key.begin, key.end, key.key);
  return keys;
}

void set_cache_keys(SamplingParams& self, const std::vector<std::tuple<int64_t, int64_t, py::bytes>>& keys) {
  self.cache_keys.clear();
  for (const auto& [begin, end, key] : keys) self.cache_keys.push_back({begin, end, key});
}

void bind_sampling_params(py::module_& module) {
  py::class_<SamplingParams> params(module, "SamplingParams");
  params.def(py::init<>())
      .def_readwrite("max_new_tokens", &SamplingParams::max_new_tokens)
      .def_readwrite("min_new_tokens", &SamplingParams::min_new_tokens)
      .def_readwrite("temperature", &SamplingParams::temperature)
      .def_readwrite("top_k", &SamplingParams::top_k)
      .def_readwrite("top_p", &SamplingParams::top_p)
      .def_readwrite("min_p", &SamplingParams::min_p)
      .def_readwrite("repetition_penalty", &SamplingParams::repetition_penalty)
      .def_readwrite("presence_penalty", &SamplingParams::presence_penalty)
      .def_readwrite("frequency_penalty", &SamplingParams::frequency_penalty)
      .def_readwrite("logit_bias", &SamplingParams::logit_bias)
      .def_readwrite("bad_token_ids", &SamplingParams::bad_token_ids)
      .def_readwrite("bad_token_sequences", &SamplingParams::bad_token_sequences)
      .def_readwrite("allowed_token_ids", &SamplingParams::allowed_token_ids)
      .def_readwrite("stop_token_ids", &SamplingParams::stop_token_ids)
      .def_readwrite("ignore_eos", &SamplingParams::ignore_eos)
      .def_readwrite("eos_token_ids", &SamplingParams::eos_token_ids)
      .def_readwrite("seed", &SamplingParams::seed)
      .def_readwrite("n", &SamplingParams::n)
      .def_readwrite("logprobs", &SamplingParams::logprobs)
      .def_readwrite("prompt_logprobs", &SamplingParams::prompt_logprobs)
      .def_readwrite("priority", &SamplingParams::priority)
      .def_readwrite("timeout", &SamplingParams::timeout)
      .def_readwrite("tenant", &SamplingParams::tenant)
      .def_readwrite("tenant_weight", &SamplingParams::tenant_weight)
      .def_readwrite("cache_salt", &SamplingParams::cache_salt)
      .def_property("cache_keys", &get_cache_keys, &set_cache_keys)
      .def_property(
          "guide", [](const SamplingParams& self) { return std::const_pointer_cast<TokenGuide>(self.guide); },
          [](SamplingParams& self, std::shared_ptr<TokenGuide> guide) { self.guide = std::move(guide); });
  def_output_rows<&SamplingParams::output_logits>(params, "output_logits");
  def_output_rows<&SamplingParams::output_last_hidden_state>(params, "output_last_hidden_state");
}

}  // namespace

RopeConfig rope_config(const py::handle& source) {
  RopeConfig rope;
  rope.dim = field<int32_t>(source, "dim");
  rope.style = parse<tm_rope_style>({{"neox", TM_ROPE_NEOX}, {"interleaved", TM_ROPE_INTERLEAVED}},
                                    field<std::string>(source, "style"), "rope.style");
  rope.inv_freq = field<std::vector<double>>(source, "inv_freq");
  rope.attention_factor = field<double>(source, "attention_factor");
  rope.mrope_section = field<std::array<int32_t, 3>>(source, "mrope_section");
  rope.mrope_interleaved = field<bool>(source, "mrope_interleaved");
  return rope;
}

tm_activation_kind activation_kind(const std::string& name, const char* what) {
  return parse<tm_activation_kind>({{"silu", TM_ACTIVATION_SILU},
                                    {"gelu_tanh", TM_ACTIVATION_GELU_TANH},
                                    {"gelu_erf", TM_ACTIVATION_GELU_ERF},
                                    {"quick_gelu", TM_ACTIVATION_QUICK_GELU},
                                    {"relu", TM_ACTIVATION_RELU}},
                                   name, what);
}

DecoderConfig decoder_config(const py::object& source) {
  DecoderConfig config;
  config.architecture = field<std::string>(source, "architecture");
  config.vocab_size = field<int32_t>(source, "vocab_size");
  config.hidden_size = field<int32_t>(source, "hidden_size");
  config.context_length = field<int32_t>(source, "context_length");
  config.norm_eps = field<float>(source, "norm_eps");
  config.embed_scale = field<float>(source, "embed_scale");
  config.tie_word_embeddings = field<bool>(source, "tie_word_embeddings");
  config.logit_softcap = field<float>(source, "logit_softcap");
  config.num_deepstack = field<int32_t>(source, "num_deepstack");
  config.bidirectional_media = field<bool>(source, "bidirectional_media");
  for (const py::handle rope : source.attr("ropes")) config.ropes.push_back(rope_config(rope));
  for (const py::handle layer : source.attr("layers")) config.layers.push_back(layer_config(layer));
  return config;
}

tm_weight_format weight_format(const std::string& name) {
  return parse<tm_weight_format>({{"f32", TM_WEIGHT_F32},
                                  {"f16", TM_WEIGHT_F16},
                                  {"bf16", TM_WEIGHT_BF16},
                                  {"gguf_q4_0", TM_WEIGHT_GGUF_Q4_0},
                                  {"gguf_q4_1", TM_WEIGHT_GGUF_Q4_1},
                                  {"gguf_q5_0", TM_WEIGHT_GGUF_Q5_0},
                                  {"gguf_q5_1", TM_WEIGHT_GGUF_Q5_1},
                                  {"gguf_q8_0", TM_WEIGHT_GGUF_Q8_0},
                                  {"gguf_q4_k", TM_WEIGHT_GGUF_Q4_K},
                                  {"gguf_q5_k", TM_WEIGHT_GGUF_Q5_K},
                                  {"gguf_q6_k", TM_WEIGHT_GGUF_Q6_K}},
                                 name, "weight format");
}

void bind_config(py::module_& module) {
  bind_options(module);
  bind_sampling_params(module);
}

}  // namespace turbomind::bindings
